/* All tolerances of the checker, and the sizes of its inputs: the only file here with floating
 * literals. Nothing is tuned: each bound follows from the number of roundings, with u = 2^-24 the
 * unit roundoff of F32, to first order in u (docs/NUMERICS.md 7). `sum_abs` is always
 * the sum of the absolute values of the exact terms, so that cancellation is accounted for.
 */
#ifndef CHECK_TOL_H
#define CHECK_TOL_H

#include <math.h>
#include <stdint.h>

#define TOL_U 0x1p-24
#define TOL_TINY 0x1p-126 /* smallest normal F32: below it, errors are absolute */

/* Dot product of n terms in any order, with or without FMA: n - 1 additions, one rounding of each
 * product, and one for a final store or horizontal sum: (n + 1) u sum|terms|. Each term may also
 * underflow. (NUMERICS "dot") */
static inline double tol_dot(int64_t n, double sum_abs) {
    return (double)(n + 1) * TOL_U * sum_abs + (double)n * TOL_TINY;
}

/* Sum of n products of bfloat16, in any order, with products in pairs or one by one: products are
 * exact, and each addition may round either way, 2 u. Denormals count as zero wherever they come
 * up: a factor (times the other side's largest value), a product, a sum. (NUMERICS "fast") */
static inline double tol_pairs(int64_t n, double sum_abs, double largest) {
    return (double)(n + 1) * 2 * TOL_U * sum_abs + (double)n * TOL_TINY * (2 + largest);
}

/* Q8 score: per block an exact integer, at most 4 roundings (dk * I, mk * sum, their sum, times d;
 * or d * dk first), n_block additions, and log2(16) = 4 more where the integer sum is kept in up to
 * 16 lanes until the end; then sum_abs has sum|i qk| in place of |I|. (NUMERICS "q8 score") */
static inline double tol_score_q8(int64_t n_block, double sum_abs) {
    return (double)(n_block + 8) * TOL_U * sum_abs + (double)n_block * TOL_TINY;
}

/* Fold: n_row products and alpha * o, n_row additions. A kernel may form (p d) q + p m instead of
 * p v: 2 more roundings, and v itself has 2 (d q, + m); sum_abs = |alpha o| + sum |p| (|d q| +
 * |m|). (NUMERICS "fold") */
static inline double tol_fold(int64_t n_row, double sum_abs) {
    return (double)(n_row + 6) * TOL_U * sum_abs + (double)(n_row + 1) * TOL_TINY;
}

/* What rounding the weights of a block adds to a column of foldq: the fractions of p and of d and
 * their product are each off by half a step at most, and by roundings in F32 of together 5 u of at
 * most 32767 steps, which is far below another half. (NUMERICS "weights in 16 bits") */
static inline double tol_foldq(double step, double sum_abs_q) { return 2 * step * sum_abs_q; }

/* Decoded value with a minimum: two roundings, or one with FMA. (NUMERICS "decode") */
static inline double tol_decode(double abs_dq, double abs_m) {
    return TOL_U * (2 * abs_dq + abs_m) + TOL_TINY;
}

/* Logit from a score: one rounding of s * scale; with softcap one of the quotient (whose effect,
 * z (1 - tanh^2 z) u, is below u / 2), tanh to 2 ulp = 4 u, and one of the product: below 8 u cap;
 * with a bias one of the product and one of the sum. (NUMERICS "logit") */
static inline double tol_logit(double abs_scaled, double softcap, double abs_bias) {
    const double scaled = softcap != 0 ? 8 * TOL_U * fabs(softcap) : TOL_U * abs_scaled;
    return scaled + TOL_U * (abs_scaled + 2 * abs_bias);
}

/* exp of a difference of two logits with errors e each: the bracket of its argument is widened by
 * both and by the rounding of the difference; exp itself has 2 ulp = 4 u. (NUMERICS "weights") */
static inline double tol_exp_low(double x, double e) {
    return exp(x - e - TOL_U * fabs(x)) * (1 - 4 * TOL_U) - TOL_TINY;
}
static inline double tol_exp_high(double x, double e) {
    return exp(x + e + TOL_U * fabs(x)) * (1 + 4 * TOL_U) + TOL_TINY;
}

/* Sum of n weights that are each within their bracket: n additions. (NUMERICS "weights") */
static inline double tol_sum(int64_t n, double sum) {
    return (double)(n + 2) * TOL_U * sum + (double)n * TOL_TINY;
}

/* Arguments beyond this give weights below the smallest normal number: exp may return 0. */
#define TOL_EXP_UNDERFLOW (-87.0)

/* Whole attention. e = error of a logit; each weight's relative error is below
 * w = 2 e + u |x - M| + 4 u, the normalised weight's below 2 w; output: + (n_row + 6) u for the
 * fold,
 * + 3 roundings per merge of two states, of which there are fewer than n_row. `range` is the
 * largest |x - M| that still matters (87). (NUMERICS "attention") */
static inline double tol_weight(double logit_error) {
    return 2 * logit_error + TOL_U * (4 - TOL_EXP_UNDERFLOW);
}
static inline double tol_output(int64_t n_row, double logit_error, double abs_output) {
    return abs_output * (2 * tol_weight(logit_error) + (double)(4 * n_row + 8) * TOL_U) + TOL_TINY;
}
/* What rounding the weights adds to an output where V is quantized and the class q8. A weight of a
 * block of at most 64 rows is off by half a step, 1 / 65534 of the largest |p d| of the block (a
 * little more for the roundings before). Summed over the blocks that is at most 64, or
 * n_row over the sum of the weights when the largest is 1, times the largest |d| times the largest
 * |q|. (NUMERICS "weights in 16 bits") */
static inline double tol_rounded_weights(int64_t n_row, double weight, double largest_dq) {
    return fmin((double)n_row / weight, 64) * 0x1.01p-16 * largest_dq;
}
/* What class fast adds. A factor in bfloat16 is off by 2^-8, a product of two by 2^-7 + 2^-16. An
 * error e of logits changes normalised weights by exp(2 e) - 1 at most, which need not be small:
 * as a logit_error of the functions above it counts as a quarter of that. (NUMERICS "fast") */
static inline double tol_fast_logit(int64_t n, double scale, double score_abs, double largest) {
    const double score = 0x1.01p-7 * score_abs + tol_pairs(n, score_abs, largest);
    return expm1(2 * fabs(scale) * score) / 4;
}
static inline double tol_fast_output(int64_t n_row, double logit_error, double abs_output) {
    return abs_output * (0x1.01p-7 + (double)(4 * n_row + 8) * TOL_U) * (1 + 4 * logit_error);
}
static inline double tol_lse(int64_t n_row, double logit_error, double abs_lse) {
    return tol_weight(logit_error) + (double)(4 * n_row + 8) * TOL_U + 4 * TOL_U * abs_lse;
}

/* A state of the op for ggml that is stored divided (m = LSE, s = 1) after each of n_call calls:
 * per call the LSE is off by u |LSE| + 5 u (log, sum), which scales the rows so far against those
 * to come, and the division by u. abs_output: sum of w |v|. (NUMERICS "normalised states") */
static inline double tol_normalised(int64_t n_call, double abs_lse, double abs_output) {
    return (double)n_call * (abs_lse + 6) * TOL_U * abs_output;
}

/* Encoding: an integer grid of step d misses a value inside its range by d / 2, and by one step
 * where the top of the range is cut off (q4_0, q5_0: +8 becomes +7); d itself, and m, are rounded
 * to F16 (2^-11 relative, 2^-25 absolute below its normal range), which the integer multiplies.
 * (NUMERICS "formats") */
static inline double tol_encode_grid(double step, double max_q, double abs_m) {
    return step * (1 + max_q * 0x1p-10) + abs_m * 0x1p-10 + (max_q + 1) * 0x1p-24;
}
/* iq4_nl: the widest gap between two levels is 24 (89 to 113) and 15 lie beyond the top, so a value
 * misses its level by at most 14 steps; the least-squares step moves levels by less than 15 %. */
static inline double tol_encode_iq4_nl(double amax) { return amax * 0.35 + 0x1p-17; }
static inline double tol_encode_f16(double x) { return fabs(x) * 0x1p-11 + 0x1p-25; }
static inline double tol_encode_bf16(double x) { return fabs(x) * 0x1p-8 + 0x1p-134; }

/* Sizes of inputs. */
#define INPUT_HUGE 1e4f    /* near what F16 can hold */
#define INPUT_SMALL 1e-6f  /* F16 steps become subnormal */
#define INPUT_TINY 1e-39f  /* subnormal in F32 */
#define INPUT_SCALE 0.125f /* 1 / sqrt(64) */
#define INPUT_LOGIT 1e30f  /* only the largest of such logits has any weight */
#define INPUT_SOFTCAP 30.0f
#define INPUT_UNIT 0x1p-31f /* int32 -> [-1, 1) */
#define INPUT_SLOPE 0.25f

#endif
