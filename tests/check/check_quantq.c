#include <float.h>
#include <math.h>
#include <string.h>

#include "check/check.h"
#include "check/tol.h"

enum quantq_kind {
    QUANTQ_NORMAL,
    QUANTQ_ZERO,
    QUANTQ_TIES, /* the step is 1 and values lie half-way */
    QUANTQ_TINY, /* 127 / amax is infinite */
    QUANTQ_LARGE,
    QUANTQ_NAN,
    QUANTQ_INFINITE,
    QUANTQ_KIND_COUNT
};

static void fill_block(struct check *check, enum quantq_kind kind, float *x) {
    for (int j = 0; j < VARVE_BLOCK; j++) {
        const float u = check_unit(check);
        switch (kind) {
        case QUANTQ_ZERO: x[j] = u < 0 ? -(float)0 : 0; break;
        case QUANTQ_TIES: x[j] = (float)check_range(check, -253, 253) / 2; break;
        case QUANTQ_TINY: x[j] = u * INPUT_TINY; break;
        case QUANTQ_LARGE: x[j] = u * FLT_MAX; break;
        default: x[j] = u; break;
        }
    }
    const int j = check_range(check, 0, VARVE_BLOCK - 1);
    if (kind == QUANTQ_TIES) x[j] = check_range(check, 0, 1) ? 127 : -127;
    if (kind == QUANTQ_NAN) x[j] = NAN;
    if (kind == QUANTQ_INFINITE) x[j] = check_range(check, 0, 1) ? INFINITY : -INFINITY;
}

/* The contract, written once more: amax by comparison, divisions in F32, nearest even. */
static void expect_block(const float *x, float *d, int *i) {
    float amax = 0;
    bool finite = true;
    for (int j = 0; j < VARVE_BLOCK; j++) {
        finite &= isfinite(x[j]) != 0;
        amax = fmaxf(amax, fabsf(x[j]));
    }
    const float inverse = 127 / amax;
    const bool usable = finite && isfinite(inverse);
    *d = !finite ? NAN : usable ? amax / 127 : 0;
    for (int j = 0; j < VARVE_BLOCK; j++) i[j] = usable ? (int)nearbyintf(x[j] * inverse) : 0;
}

static void compare(struct check *check, const struct varve_quantq_args *args) {
    for (int b = 0; b < args->head_dim / VARVE_BLOCK; b++) {
        float d;
        int i[VARVE_BLOCK], sum = 0;
        expect_block(args->x + b * VARVE_BLOCK, &d, i);
        for (int j = 0; j < VARVE_BLOCK; j++) {
            const int at = b * VARVE_BLOCK + j;
            sum += i[j];
            check_near(check, "i", b, j, args->i[at], i[j], 0);
            check_near(check, "fi", b, j, args->fi[at], i[j], 0);
        }
        check_near(check, "sum", b, 0, args->sum[b], sum, 0);
        if (isnan(d) && isnan(args->d[b])) continue;
        check_near(check, "d", b, 0, args->d[b], d, 0);
    }
}

static void allocate(struct varve_quantq_args *args) {
    const size_t n = (size_t)args->head_dim;
    args->i = check_aligned(BUFFER_I, n);
    args->fi = check_aligned(BUFFER_FI, n * sizeof *args->fi);
    args->d = check_aligned(BUFFER_D, n / VARVE_BLOCK * sizeof *args->d);
    args->sum = check_aligned(BUFFER_SUM, n / VARVE_BLOCK * sizeof *args->sum);
}

static void run_case(struct check *check, const struct check_line *line) {
    struct varve_quantq_args args = {.head_dim = VARVE_BLOCK * check_range(check, 1, 18)};
    const size_t n = (size_t)args.head_dim;
    enum { MISALIGNED = 4 }; /* floats at odd multiples of 4 bytes */
    const enum check_place place = (enum check_place)check_range(check, 0, PLACE_START);
    float *x = check_place(check, BUFFER_X, n * sizeof *x + MISALIGNED, place);
    if (place == PLACE_END) x += 1;
    enum quantq_kind kind = QUANTQ_NORMAL;
    for (size_t from = 0; from < n; from += VARVE_BLOCK) {
        kind = check_range(check, 0, QUANTQ_KIND_COUNT - 1);
        fill_block(check, kind, x + from);
    }
    check_case(check, "D %d, last block of kind %d", args.head_dim, (int)kind);
    args.x = x;
    allocate(&args);
    ((varve_quantq_fn *)line->run)(&args);
    compare(check, &args);
    check_around(check, BUFFER_I, "i");
    check_around(check, BUFFER_FI, "fi");
    check_around(check, BUFFER_D, "d");
    check_around(check, BUFFER_SUM, "sum");
}

static void call(check_fn *run, const void *args) { ((varve_quantq_fn *)run)(args); }

static void bench(struct check *check, const struct check_line *line) {
    struct varve_quantq_args args = {.head_dim = 128};
    float *const x = check_aligned(BUFFER_X, (size_t)args.head_dim * sizeof *x);
    for (int i = 0; i < args.head_dim; i++) x[i] = check_unit(check);
    args.x = x;
    allocate(&args);
    check_bench(check, line, (check_fn *)check->scalar->quantq.run, call, &args,
                (double)args.head_dim * sizeof *x, 0);
}

void varve_check_quantq(struct check *check, const struct check_line *line) {
    for (int i = 0; i < 500 * check->n_case; i++) run_case(check, line);
    if (check->bench) bench(check, line);
}
