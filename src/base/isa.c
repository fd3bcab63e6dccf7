#include "base/isa.h"

#include <stddef.h>

#ifdef VARVE_X86
#include <cpuid.h>
#endif
#ifdef VARVE_ARM
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

const char *varve_isa_text(enum varve_isa isa) {
    static const char *const names[] = {
#define VARVE_ISA(suffix, base, name, text) [VARVE_ISA_##suffix] = #name,
#include "base/isa.inc"
#undef VARVE_ISA
    };
    return (unsigned)isa < VARVE_ISA_COUNT ? names[isa] : NULL;
}

const char *varve_isa_needs(enum varve_isa isa) {
    static const char *const texts[] = {
#define VARVE_ISA(suffix, base, name, text) [VARVE_ISA_##suffix] = text,
#include "base/isa.inc"
#undef VARVE_ISA
    };
    return (unsigned)isa < VARVE_ISA_COUNT ? texts[isa] : NULL;
}

static enum varve_isa base_of(enum varve_isa isa) {
    static const enum varve_isa bases[] = {
#define VARVE_ISA(suffix, base, name, text) [VARVE_ISA_##suffix] = VARVE_ISA_##base,
#include "base/isa.inc"
#undef VARVE_ISA
    };
    return bases[isa];
}

bool varve_isa_contains(enum varve_isa isa, enum varve_isa level) {
    while (isa != level && isa != VARVE_ISA_SCALAR) isa = base_of(isa);
    return isa == level;
}

#ifdef VARVE_X86
/* AVX-VNNI is younger than the names that clang 14 can ask for. What the operating system must do
 * for it, AVX2 needs too. */
static bool has_avxvnni(void) {
#ifdef VARVE_AVXVNNI_AS_EVEX
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
#else
    unsigned most, a, b, c, d;
    if (!__get_cpuid_count(7, 0, &most, &b, &c, &d) || most < 1) return false;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4) != 0;
#endif
}
#endif

/* What the level adds to its base.
 * x86: the compiler's run-time check reads CPUID and XGETBV, so it also covers what the operating
 * system or a hypervisor masks. ARM: only the kernel may read the registers; it tells. */
static bool has_own(enum varve_isa isa) {
    switch (isa) {
    case VARVE_ISA_SCALAR: return true;
#ifdef VARVE_X86
    case VARVE_ISA_AVX2:
        /* F16C came before AVX2 in every line of CPUs; clang 14 cannot ask for it by name. */
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case VARVE_ISA_AVXVNNI: return has_avxvnni();
    case VARVE_ISA_AVX512:
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    case VARVE_ISA_VNNI: return __builtin_cpu_supports("avx512vnni");
    case VARVE_ISA_VBMI: return __builtin_cpu_supports("avx512vbmi");
    case VARVE_ISA_BF16: return __builtin_cpu_supports("avx512bf16");
#endif
#ifdef VARVE_ARM
    case VARVE_ISA_NEON: return (getauxval(AT_HWCAP) & HWCAP_ASIMD) != 0;
    case VARVE_ISA_DOTPROD: return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
    case VARVE_ISA_I8MM: return (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0;
#endif
    default: return false;
    }
}

bool varve_isa_available(enum varve_isa isa) {
    if ((unsigned)isa >= VARVE_ISA_COUNT) return false;
    for (; isa != VARVE_ISA_SCALAR; isa = base_of(isa)) {
        if (!has_own(isa)) return false;
    }
    return true;
}

enum varve_isa varve_isa_best(void) {
    enum varve_isa best = VARVE_ISA_SCALAR;
    for (int i = 0; i < VARVE_ISA_COUNT; i++) {
        if (varve_isa_available((enum varve_isa)i)) best = (enum varve_isa)i;
    }
    return best;
}
