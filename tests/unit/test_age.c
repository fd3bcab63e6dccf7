/* The ageing rule on bits, against a count row by row (docs/DESIGN.md 9, rules 3 and 6). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cache/age.h"

/* Rows of a word that have fewer than `limit` seen rows before them, newest first. */
static uint64_t by_counting(uint64_t seen, int64_t n_newer, int64_t limit) {
    uint64_t rows = 0;
    for (int bit = 63; bit >= 0; bit--) {
        if ((seen >> bit & 1) == 0) continue;
        if (n_newer++ < limit) rows |= UINT64_C(1) << bit;
    }
    return rows;
}

static void compare(uint64_t seen, int64_t n_newer, int64_t window) {
    const struct varve_age age = varve_age_step(seen, n_newer, window);
    assert_int_equal(age.window, by_counting(seen, n_newer, window));
    assert_int_equal(age.kept, by_counting(seen, n_newer, window + VARVE_AGE_SLACK));
}

/* All words of 12 rows at both ends and across the middle, all windows and counts around them. */
static void every_small_word(void **state) {
    (void)state;
    static const int shifts[] = {0, 26, 52};
    for (uint64_t word = 0; word < 1u << 12; word++) {
        for (int s = 0; s < 3; s++) {
            for (int64_t window = 1; window <= 14; window++) {
                for (int64_t newer = 0; newer <= window + 1; newer++) {
                    compare(word << shifts[s], newer, window);
                }
            }
        }
    }
}

/* Whole words at every window and count that can split them, and far beyond. */
static void every_split_of_dense_words(void **state) {
    (void)state;
    static const uint64_t words[] = {
        UINT64_MAX, 0x5555555555555555, 0xAAAAAAAAAAAAAAAA, 0xF00F00FF0FF0F00F,
        1,          UINT64_C(1) << 63};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        for (int64_t window = 1; window <= 130; window++) {
            for (int64_t newer = 0; newer <= window + VARVE_AGE_SLACK + 70; newer++) {
                compare(words[i], newer, window);
            }
        }
        compare(words[i], 0, INT32_MAX);
        compare(words[i], INT64_C(1) << 40, INT32_MAX);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_small_word),
        cmocka_unit_test(every_split_of_dense_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
