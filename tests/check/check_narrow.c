#include <math.h>

#include "base/fp16.h"
#include "check/check.h"

/* Values of every kind that F16 knows: normal, subnormal, half-way between two, too large, NaN. */
static float draw(struct check *check) {
    switch (check_range(check, 0, 7)) {
    case 0: return check_unit(check) * 0x1p-14f;
    case 1: return check_unit(check) * 0x1p-24f;
    case 2: return check_unit(check) * 0x1p17f;
    case 3: return (float)check_range(check, -4095, 4095) / 2 * 0x1p-10f; /* ties among them */
    case 4: return varve_bits_to_f32(check_random(check));                /* anything */
    case 5: return check_range(check, 0, 1) ? INFINITY : -INFINITY;
    case 6: return check_range(check, 0, 1) ? NAN : -(float)0;
    default: return check_unit(check);
    }
}

/* The nearest F16 by definition: both neighbours are tried, in double. */
static bool is_nearest(float x, uint16_t h) {
    if (isnan(x)) return (h & 0x7FFFu) > 0x7C00u;
    if ((h >> 15) != (signbit(x) ? 1u : 0u)) return false;
    const uint16_t magnitude = h & 0x7FFFu;
    const double a = fabs((double)x),
                 at = magnitude == 0x7C00u ? 65536.0 : varve_f16_to_f32(magnitude);
    const double up = magnitude >= 0x7BFFu ? 65536.0 : varve_f16_to_f32((uint16_t)(magnitude + 1));
    const double down = magnitude == 0 ? -1.0 : varve_f16_to_f32((uint16_t)(magnitude - 1));
    const bool even = (magnitude & 1u) == 0;
    if (magnitude > 0x7C00u) return false;
    const bool below_up = magnitude == 0x7C00u || (even ? a - at <= up - a : a - at < up - a);
    return below_up && (even ? at - a <= a - down : at - a < a - down);
}

static void run_case(struct check *check, const struct check_line *line) {
    const int64_t n = check_range(check, 1, 131);
    const enum check_place place = (enum check_place)check_range(check, 0, PLACE_START);
    float *const x = check_place(check, BUFFER_X, (size_t)n * sizeof *x, PLACE_END);
    uint16_t *const h = check_place(check, BUFFER_S, (size_t)n * sizeof *h, place);
    for (int64_t i = 0; i < n; i++) x[i] = draw(check);
    check_case(check, "n %lld, place %d", (long long)n, (int)place);
    const struct varve_narrow_args args = {n, x, h};
    ((varve_narrow_fn *)line->run)(&args);
    for (int64_t i = 0; i < n; i++) {
        if (!is_nearest(x[i], h[i]))
            check_fail(check, "h[%d] of %a is %#x", (int)i, (double)x[i], h[i]);
    }
    check_around(check, BUFFER_S, "h");
}

static void call(check_fn *run, const void *args) { ((varve_narrow_fn *)run)(args); }

static void bench(struct check *check, const struct check_line *line) {
    enum { N = 1024 };
    float *const x = check_aligned(BUFFER_X, N * sizeof *x);
    for (int i = 0; i < N; i++) x[i] = check_unit(check);
    const struct varve_narrow_args args = {N, x, check_aligned(BUFFER_S, N * sizeof(uint16_t))};
    check_bench(check, line, (check_fn *)check->scalar->narrow.run, call, &args, N * sizeof *x, 0);
}

void varve_check_narrow(struct check *check, const struct check_line *line) {
    for (int i = 0; i < 500 * check->n_case; i++) run_case(check, line);
    if (check->bench) bench(check, line);
}
