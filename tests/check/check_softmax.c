#include <math.h>
#include <string.h>

#include "check/check.h"
#include "check/tol.h"

enum { QUERIES_MAX = 9 };

/* One query of a call: its inputs, and what it must give in double. */
struct softmax_case {
    int32_t n_row;
    float scale, softcap, slope, old_max, old_sum;
    float s[VARVE_TILE_ROWS];
    float bias[VARVE_TILE_ROWS];
    bool has_bias, has_nan;
    double x[VARVE_TILE_ROWS]; /* logits */
    double error;              /* of a logit */
    double max;
};

enum softmax_kind {
    SOFTMAX_NORMAL,
    SOFTMAX_HUGE,    /* only the largest logit has weight */
    SOFTMAX_LARGE,   /* hundreds: many weights underflow */
    SOFTMAX_INTEGER, /* no rounding before exp */
    SOFTMAX_EQUAL,
    SOFTMAX_HIDDEN, /* all rows */
    SOFTMAX_NAN,    /* in a visible row */
    SOFTMAX_KIND_COUNT
};

static float pick_score(struct check *check, enum softmax_kind kind) {
    const float u = check_unit(check);
    switch (kind) {
    case SOFTMAX_HUGE: return u * INPUT_LOGIT;
    case SOFTMAX_LARGE: return u * INPUT_HUGE;
    case SOFTMAX_INTEGER: return (float)check_range(check, -100, 20);
    case SOFTMAX_EQUAL: return 3;
    default: return 20 * u;
    }
}

static void fill_rows(struct softmax_case *c, struct check *check, enum softmax_kind kind) {
    const int share = check_range(check, 1, 8); /* one row of so many is hidden */
    for (int r = 0; r < c->n_row; r++) {
        const bool hidden = kind == SOFTMAX_HIDDEN || check_range(check, 0, share) == 0;
        c->s[r] = pick_score(check, kind);
        c->bias[r] = kind == SOFTMAX_NORMAL ? 8 * check_unit(check) : 0;
        if (c->has_bias && hidden) {
            c->bias[r] = -INFINITY;
            c->s[r] = check_range(check, 0, 1) ? NAN : INFINITY;
        }
    }
    if (kind == SOFTMAX_NAN) {
        const int r = check_range(check, 0, c->n_row - 1);
        const bool alone = c->has_bias && check_range(check, 0, 1) == 0; /* nothing else visible */
        for (int i = 0; alone && i < c->n_row; i++) c->bias[i] = -INFINITY;
        c->s[r] = NAN;
        c->bias[r] = 0;
        c->has_nan = true;
    }
}

/* What the queries of a call have in common. */
static struct softmax_case pick_call(struct check *check, enum softmax_kind kind, int32_t n_row) {
    struct softmax_case c = {.n_row = n_row};
    c.has_bias = kind == SOFTMAX_HIDDEN || check_range(check, 0, 2) != 0;
    c.scale = kind == SOFTMAX_INTEGER ? 1 : INPUT_SCALE;
    c.softcap = kind != SOFTMAX_INTEGER && check_range(check, 0, 2) == 0 ? INPUT_SOFTCAP : 0;
    return c;
}

/* The kind of another query of the call. */
static enum softmax_kind pick_kind(struct check *check, const struct softmax_case *call,
                                   enum softmax_kind first) {
    if (first == SOFTMAX_INTEGER) return first;
    const enum softmax_kind kind = check_range(check, 0, SOFTMAX_KIND_COUNT - 1);
    const bool fits = kind != SOFTMAX_INTEGER && (kind != SOFTMAX_HIDDEN || call->has_bias);
    return fits ? kind : SOFTMAX_NORMAL;
}

static void fill_case(struct softmax_case *c, struct check *check, enum softmax_kind kind) {
    c->slope = check_range(check, 0, 1) ? 1 : INPUT_SLOPE;
    switch (check_range(check, 0, 3)) {
    case 0: c->old_max = -INFINITY; break;
    case 1: c->old_max = (float)check_range(check, 20, 300); break;
    default: c->old_max = (float)check_range(check, -300, 20); break;
    }
    c->old_sum = c->old_max == -INFINITY ? 0 : 1 + fabsf(check_unit(check)) * 50;
    fill_rows(c, check, kind);
    c->max = c->old_max;
    for (int r = 0; r < c->n_row; r++) {
        const double bias = c->has_bias ? (double)c->slope * c->bias[r] : 0;
        const double scaled = (double)c->s[r] * c->scale;
        c->x[r] = c->softcap != 0 ? c->softcap * tanh(scaled / c->softcap) : scaled;
        c->x[r] = bias == -INFINITY ? -INFINITY : c->x[r] + bias;
        if (c->x[r] == -INFINITY || isnan(c->x[r])) continue;
        const double error = tol_logit(fabs(scaled), c->softcap, fabs(bias));
        if (kind != SOFTMAX_INTEGER && error > c->error) c->error = error;
        if (c->x[r] > c->max) c->max = c->x[r];
    }
}

static void compare_weights(const struct softmax_case *c, struct check *check, const float *p,
                            float sum, float alpha) {
    double low = 0, high = 0;
    for (int r = 0; r < c->n_row; r++) {
        const double x = c->x[r] - c->max;
        const double least = tol_exp_low(x, 2 * c->error);
        const double most = tol_exp_high(fmin(x, 0), 2 * c->error);
        if (c->x[r] == -INFINITY) {
            if (p[r] != 0) check_fail(check, "p[%d] is %g where the row is hidden", r, p[r]);
            continue;
        }
        if (!(p[r] >= least && p[r] <= most)) {
            check_fail(check, "p[%d] is %.9g, expected %.9g .. %.9g", r, p[r], least, most);
        }
        if (x == 0 && c->error == 0 && p[r] != 1) check_fail(check, "exp(0) is %.9g", p[r]);
        low += least;
        high += most;
    }
    const double x = c->old_max - c->max;
    const double least = c->old_max == -INFINITY ? 0 : tol_exp_low(x, c->error);
    const double most = c->old_max == -INFINITY ? 0 : tol_exp_high(fmin(x, 0), c->error);
    if (!(alpha >= least && alpha <= most)) {
        check_fail(check, "alpha is %.9g, expected %.9g .. %.9g", alpha, least, most);
    }
    low += least * c->old_sum;
    high += most * c->old_sum;
    const double slack = tol_sum(c->n_row, high);
    if (!(sum >= low - slack && sum <= high + slack)) {
        check_fail(check, "sum is %.9g, expected %.9g .. %.9g", sum, low - slack, high + slack);
    }
}

static void compare(const struct softmax_case *c, struct check *check, const float *p, float max,
                    float sum, float alpha) {
    for (int r = c->n_row; r < (c->n_row + 15) / 16 * 16; r++) {
        if (p[r] != 0) check_fail(check, "padding p[%d] is %g, not 0", r, p[r]);
    }
    if (c->has_nan) {
        if (!isnan(max)) check_fail(check, "a NaN score left m %g", max);
        if (!isnan(sum)) check_fail(check, "a NaN score left the sum %g", sum);
        return;
    }
    if (c->max == -INFINITY) {
        bool empty = max == -INFINITY && alpha == 0 && sum == 0;
        for (int r = 0; r < c->n_row; r++) empty &= p[r] == 0;
        if (!empty) check_fail(check, "m %g, alpha %g, sum %g for no visible row", max, alpha, sum);
        return;
    }
    check_near(check, "m", 0, 0, max, c->max, c->error);
    compare_weights(c, check, p, sum, alpha);
}

static void run_case(struct check *check, const struct check_line *line, int32_t n_row) {
    struct softmax_case c[QUERIES_MAX];
    const enum softmax_kind kind = check_range(check, 0, SOFTMAX_KIND_COUNT - 1);
    const struct softmax_case call = pick_call(check, kind, n_row);
    const int n = check_range(check, 1, QUERIES_MAX);
    const size_t padded = (size_t)(n_row + 15) / 16 * 16;
    float *const s = check_aligned(BUFFER_S, (size_t)n * VARVE_TILE_ROWS * sizeof *s);
    float *const lines = check_aligned(BUFFER_BIAS, (size_t)n * padded * sizeof *lines);
    float max[QUERIES_MAX], sum[QUERIES_MAX], alpha[QUERIES_MAX], slope[QUERIES_MAX];
    const float *bias[QUERIES_MAX];
    for (int a = 0; a < n; a++) {
        c[a] = call;
        fill_case(&c[a], check, a == 0 ? kind : pick_kind(check, &call, kind));
        memcpy(s + a * VARVE_TILE_ROWS, c[a].s, (size_t)n_row * sizeof *s);
        memcpy(lines + (size_t)a * padded, c[a].bias, (size_t)n_row * sizeof *lines);
        bias[a] = lines + (size_t)a * padded;
        slope[a] = c[a].slope;
        max[a] = c[a].old_max;
        sum[a] = c[a].old_sum;
        alpha[a] = NAN;
    }
    const struct varve_softmax_args args = {.n = n,
                                            .n_row = n_row,
                                            .scale = call.scale,
                                            .softcap = call.softcap,
                                            .slope = slope,
                                            .bias = call.has_bias ? bias : NULL,
                                            .s = s,
                                            .m = max,
                                            .sum = sum,
                                            .alpha = alpha};
    ((varve_softmax_fn *)line->run)(&args);
    for (int a = 0; a < n; a++) {
        check_case(check, "query %d of %d, n_row %d, first kind %d, softcap %g, bias %d, old m %g",
                   a, n, n_row, (int)kind, (double)call.softcap, call.has_bias,
                   (double)c[a].old_max);
        compare(&c[a], check, s + a * VARVE_TILE_ROWS, max[a], sum[a], alpha[a]);
    }
    check_around(check, BUFFER_S, "s");
}

static void call(check_fn *run, const void *args) { ((varve_softmax_fn *)run)(args); }

/* No mask. */
static void bench(struct check *check, const struct check_line *line) {
    enum { QUERIES = 16 };
    const size_t bytes = (size_t)QUERIES * VARVE_TILE_ROWS * sizeof(float);
    float *const s = check_aligned(BUFFER_S, bytes);
    float max[QUERIES] = {0}, sum[QUERIES] = {0}, alpha[QUERIES];
    for (int i = 0; i < QUERIES * VARVE_TILE_ROWS; i++) s[i] = check_unit(check);
    const struct varve_softmax_args args = {.n = QUERIES,
                                            .n_row = VARVE_TILE_ROWS,
                                            .scale = 1,
                                            .s = s,
                                            .m = max,
                                            .sum = sum,
                                            .alpha = alpha};
    check_bench(check, line, (check_fn *)check->scalar->softmax.run, call, &args, bytes, 0);
}

void varve_check_softmax(struct check *check, const struct check_line *line) {
    check_blocks(check, line, 10 * check->n_case, run_case, bench);
}
