#include "base/isa.h"

#include <stddef.h>

#ifdef VARVE_ARM
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

const char *varve_isa_text(enum varve_isa isa) {
    static const char *const names[] = {
#define VARVE_ISA(suffix, name, text) [VARVE_ISA_##suffix] = #name,
#include "base/isa.inc"
#undef VARVE_ISA
    };
    return (unsigned)isa < VARVE_ISA_COUNT ? names[isa] : NULL;
}

/* x86: the compiler's run-time check reads CPUID and XGETBV, so it also covers what the operating
 * system or a hypervisor masks. ARM: only the kernel may read the registers; it tells. */
bool varve_isa_available(enum varve_isa isa) {
    switch (isa) {
    case VARVE_ISA_SCALAR: return true;
#ifdef VARVE_X86
    case VARVE_ISA_AVX2:
        /* F16C came before AVX2 in every line of CPUs; clang 14 cannot ask for it by name. */
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case VARVE_ISA_AVX512:
        return varve_isa_available(VARVE_ISA_AVX2) && __builtin_cpu_supports("avx512f") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl");
    case VARVE_ISA_VNNI:
        return varve_isa_available(VARVE_ISA_AVX512) && __builtin_cpu_supports("avx512vnni");
    case VARVE_ISA_VBMI:
        return varve_isa_available(VARVE_ISA_VNNI) && __builtin_cpu_supports("avx512vbmi");
    case VARVE_ISA_BF16:
        return varve_isa_available(VARVE_ISA_VBMI) && __builtin_cpu_supports("avx512bf16");
#endif
#ifdef VARVE_ARM
    case VARVE_ISA_NEON: return (getauxval(AT_HWCAP) & HWCAP_ASIMD) != 0;
    case VARVE_ISA_DOTPROD:
        return varve_isa_available(VARVE_ISA_NEON) && (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
    case VARVE_ISA_I8MM:
        return varve_isa_available(VARVE_ISA_DOTPROD) && (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0;
#endif
    default: return false;
    }
}

enum varve_isa varve_isa_best(void) {
    enum varve_isa best = VARVE_ISA_SCALAR;
    for (int i = 0; i < VARVE_ISA_COUNT; i++) {
        if (varve_isa_available((enum varve_isa)i)) best = (enum varve_isa)i;
    }
    return best;
}
