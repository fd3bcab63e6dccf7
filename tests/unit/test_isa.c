/* ISA levels as bundles, and that a table holds kernels of its bundle alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/dispatch.h"

/* A level contains itself, scalar, and what its parts contain; of two levels at most one contains
 * the other, and it stands further down in the list. */
static void test_bundles(void **state) {
    (void)state;
    for (int i = 0; i < VARVE_ISA_COUNT; i++) {
        const enum varve_isa isa = (enum varve_isa)i;
        assert_true(varve_isa_contains(isa, isa));
        assert_true(varve_isa_contains(isa, VARVE_ISA_SCALAR));
        assert_true(strlen(varve_isa_needs(isa)) > 0);
        for (int j = 0; j < VARVE_ISA_COUNT; j++) {
            const enum varve_isa level = (enum varve_isa)j;
            if (!varve_isa_contains(isa, level)) continue;
            assert_true(j <= i);
            assert_true(!varve_isa_available(isa) || varve_isa_available(level));
            for (int k = 0; k < VARVE_ISA_COUNT; k++) {
                if (varve_isa_contains(level, (enum varve_isa)k))
                    assert_true(varve_isa_contains(isa, (enum varve_isa)k));
            }
        }
    }
    assert_null(varve_isa_needs(VARVE_ISA_COUNT));
    assert_false(varve_isa_available(VARVE_ISA_COUNT));
}

/* AVX-VNNI is no part of AVX-512: a CPU may have AVX-512 VNNI alone. */
static void test_side_branch(void **state) {
    (void)state;
#ifdef VARVE_X86
    assert_true(varve_isa_contains(VARVE_ISA_AVXVNNI, VARVE_ISA_AVX2));
    assert_false(varve_isa_contains(VARVE_ISA_AVX512, VARVE_ISA_AVXVNNI));
    assert_false(varve_isa_contains(VARVE_ISA_VNNI, VARVE_ISA_AVXVNNI));
    assert_false(varve_isa_contains(VARVE_ISA_VBMI, VARVE_ISA_AVXVNNI));
    assert_true(varve_isa_contains(VARVE_ISA_VBMI, VARVE_ISA_AVX2));
    struct varve_kernels kernels;
    varve_kernels_select(VARVE_ISA_AVXVNNI, &kernels);
    assert_int_equal(kernels.packscore.isa, VARVE_ISA_AVXVNNI);
    assert_int_equal(kernels.tilefold.isa, VARVE_ISA_AVX2);
#else
    skip();
#endif
}

/* The level that a context gets by itself; and AMX, which is not the one. */
static void test_best(void **state) {
    (void)state;
    const enum varve_isa best = varve_isa_best();
    assert_true(varve_isa_available(best));
    assert_false(varve_isa_by_name_only(best));
    for (int i = (int)best + 1; i < VARVE_ISA_COUNT; i++) {
        assert_true(!varve_isa_available((enum varve_isa)i) ||
                    varve_isa_by_name_only((enum varve_isa)i));
    }
#ifdef VARVE_X86
    assert_true(varve_isa_by_name_only(VARVE_ISA_AMX));
    assert_true(varve_isa_contains(VARVE_ISA_AMX, VARVE_ISA_BF16));
#endif
}

/* Each slot of each table, whatever this CPU has. */
static void test_tables(void **state) {
    (void)state;
    for (int i = 0; i < VARVE_ISA_COUNT; i++) {
        struct varve_kernels kernels;
        varve_kernels_select((enum varve_isa)i, &kernels);
        assert_int_equal(kernels.isa, i);
#define VARVE_KERNEL(op, slot, level, symbol) \
    assert_non_null(kernels.slot.name);       \
    assert_true(varve_isa_contains((enum varve_isa)i, kernels.slot.isa));
#include "kernel/kernels.inc"
#undef VARVE_KERNEL
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bundles),
        cmocka_unit_test(test_side_branch),
        cmocka_unit_test(test_best),
        cmocka_unit_test(test_tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
