#define _GNU_SOURCE /* syscall */

#include "base/isa.h"

#include <stddef.h>
#include <stdint.h>

#ifdef VARVE_X86
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#ifdef VARVE_ARM
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#if defined(VARVE_AMX_EMULATED)
static bool has_amx(void) { return true; }
static bool enable_amx(void) { return true; }
#elif defined(VARVE_X86)
enum { GET_XCOMP_SUPP = 0x1021, REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };

/* CPUID, leaf 7: AMX-BF16, AMX-TILE and AMX-INT8 are bits 22, 24 and 25 of EDX. XCR0, which may be
 * read if OSXSAVE (leaf 1, bit 27 of ECX) is set: bits 17 and 18, XTILECFG and XTILEDATA. And the
 * kernel must know how to give permission. */
static bool has_amx(void) {
    const uint32_t wanted = 1u << 22 | 1u << 24 | 1u << 25;
    uint32_t a, b, c, d, xcr0, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) return false;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & wanted) != wanted) return false;
    __asm__("xgetbv" : "=a"(xcr0), "=d"(high) : "c"(0));
    uint64_t supported = 0;
    return (xcr0 >> 17 & 3) == 3 && syscall(SYS_arch_prctl, GET_XCOMP_SUPP, &supported) == 0 &&
           (supported >> XFEATURE_XTILEDATA & 1) != 0;
}

/* For all threads of the process. */
static bool enable_amx(void) {
    return syscall(SYS_arch_prctl, REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}
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
    case VARVE_ISA_AMX: return has_amx();
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

bool varve_isa_enable(enum varve_isa isa) {
#ifdef VARVE_X86
    if (isa == VARVE_ISA_AMX) return varve_isa_available(isa) && enable_amx();
#endif
    return varve_isa_available(isa);
}

bool varve_isa_by_name_only(enum varve_isa isa) {
#ifdef VARVE_X86
    return isa == VARVE_ISA_AMX;
#else
    (void)isa;
    return false;
#endif
}

enum varve_isa varve_isa_best(void) {
    enum varve_isa best = VARVE_ISA_SCALAR;
    for (int i = 0; i < VARVE_ISA_COUNT; i++) {
        const enum varve_isa isa = (enum varve_isa)i;
        if (varve_isa_available(isa) && !varve_isa_by_name_only(isa)) best = isa;
    }
    return best;
}
