/* fingerprint: against the scalar kernel, and that it sees every byte and no other. */
#include "check/check.h"

enum { MOST_BYTES = 2600 };

static uint64_t run(const struct check_line *line, const uint8_t *row, size_t bytes) {
    const struct varve_fingerprint_args args = {row, bytes};
    return ((varve_fingerprint_fn *)line->run)(&args);
}

static void run_case(struct check *check, const struct check_line *line) {
    const size_t bytes = (size_t)check_range(check, 1, MOST_BYTES);
    const enum check_place place = (enum check_place)check_range(check, 0, PLACE_COUNT - 1);
    uint8_t *const row = check_place(check, BUFFER_ROW, bytes, place);
    for (size_t i = 0; i < bytes; i++) row[i] = (uint8_t)(check_random(check) >> 24);
    check_case(check, "%d bytes, place %d", (int)bytes, (int)place);
    const struct varve_fingerprint_args args = {row, bytes};
    const uint64_t want = check->scalar->fingerprint.run(&args);
    if (run(line, row, bytes) != want) check_fail(check, "another fingerprint than scalar's");
    row[check_range(check, 0, (int)bytes - 1)] ^= (uint8_t)(1 << check_range(check, 0, 7));
    if (run(line, row, bytes) == want) check_fail(check, "a changed bit is not seen");
    check_around(check, BUFFER_ROW, "row");
}

static void call(check_fn *fn, const void *args) { (void)((varve_fingerprint_fn *)fn)(args); }

static void bench(struct check *check, const struct check_line *line) {
    enum { BYTES = 1088 }; /* a row of 1024 values in q8_0 */
    uint8_t *const row = check_aligned(BUFFER_ROW, BYTES);
    const struct varve_fingerprint_args args = {row, BYTES};
    check_bench(check, line, (check_fn *)check->scalar->fingerprint.run, call, &args, BYTES, 0);
}

void varve_check_fingerprint(struct check *check, const struct check_line *line) {
    for (int i = 0; i < 300 * check->n_case; i++) run_case(check, line);
    if (check->bench) bench(check, line);
}
