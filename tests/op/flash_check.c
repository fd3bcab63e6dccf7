#include "flash_check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check/oracle.h"
#include "check/problem.h"
#include "check/tol.h"

static double *doubles(int64_t n) {
    double *const x = calloc((size_t)n + 1, sizeof *x);
    if (x == NULL) abort();
    return x;
}

static void allocate(struct flash_truth *truth, int64_t n_record, int64_t head_dim_v) {
    const int64_t n_output = n_record * head_dim_v;
    *truth = (struct flash_truth){.n_output = n_output,
                                  .n_record = n_record,
                                  .head_dim_v = head_dim_v,
                                  .output = doubles(n_output),
                                  .bound = doubles(n_output),
                                  .lse = doubles(n_record),
                                  .lse_bound = doubles(n_record),
                                  .rounding = doubles(n_record)};
}

static void find_largest(struct flash_truth *truth) {
    truth->largest = 0;
    for (int64_t i = 0; i < truth->n_output; i++) {
        truth->largest = fmax(truth->largest, fabs(truth->output[i]));
    }
}

void flash_truth_of(const struct flash_data *data, const int64_t n_rows[FLASH_PARTS],
                    struct flash_truth *truth) {
    const struct flash_case *const c = data->c;
    struct flash_problem p;
    flash_problem_of(data, n_rows, &p);
    allocate(truth, (int64_t)c->n_batch * c->n_query * c->n_head, c->dv);
    oracle_attention_bounds(&p.attention, &p.io, truth->output, truth->lse, truth->bound,
                            truth->lse_bound, truth->rounding);
    find_largest(truth);
}

static void copy_record(const struct flash_truth *from, int64_t i, struct flash_truth *to) {
    const int64_t at = i * from->head_dim_v;
    const size_t bytes = (size_t)from->head_dim_v * sizeof(double);
    memcpy(to->output + at, from->output + at, bytes);
    memcpy(to->bound + at, from->bound + at, bytes);
    to->lse[i] = from->lse[i];
    to->lse_bound[i] = from->lse_bound[i];
    to->rounding[i] = from->rounding[i];
}

/* docs/DESIGN.md 6. The new term and the new division cost what w in tol_weight has room for: the
 * exponent's rounding, exp, one product and one sum. */
void flash_truth_with_sinks(const struct flash_truth *truth, const float *sinks, int32_t n_head,
                            struct flash_truth *result) {
    allocate(result, truth->n_record, truth->head_dim_v);
    for (int64_t i = 0; i < truth->n_record; i++) {
        const double sink = sinks[i % n_head], lse = truth->lse[i];
        const double max = fmax(sink, lse);
        if (sink == -INFINITY) { /* adds nothing */
            copy_record(truth, i, result);
            continue;
        }
        result->lse[i] = max + log(exp(sink - max) + exp(lse - max));
        result->lse_bound[i] = tol_lse(0, truth->lse_bound[i], fabs(result->lse[i]));
        const double share = exp(lse - result->lse[i]);
        result->rounding[i] = share * truth->rounding[i];
        for (int64_t d = 0; d < truth->head_dim_v; d++) {
            const int64_t at = i * truth->head_dim_v + d;
            result->output[at] = share * truth->output[at];
            result->bound[at] = share * truth->bound[at];
        }
    }
    find_largest(result);
}

/* docs/NUMERICS.md 5, "normalised states". No value of V is larger than four: they are drawn so. */
void flash_truth_allow_normalised(struct flash_truth *truth, int32_t n_call) {
    for (int64_t i = 0; i < truth->n_record; i++) {
        const double lse = isfinite(truth->lse[i]) ? fabs(truth->lse[i]) : 0;
        truth->rounding[i] += tol_normalised(n_call, lse, 4);
        truth->lse_bound[i] += tol_normalised(n_call, lse, 1);
    }
}

void flash_truth_free(struct flash_truth *truth) {
    free(truth->output);
    free(truth->bound);
    free(truth->lse);
    free(truth->lse_bound);
    free(truth->rounding);
    *truth = (struct flash_truth){0};
}

struct flash_difference flash_compare(const struct flash_truth *truth, const float *output) {
    struct flash_difference d = {.all_zero = truth->largest > 0};
    double sum = 0, norm = 0;
    for (int64_t i = 0; i < truth->n_output; i++) {
        const double difference = fabs((double)output[i] - truth->output[i]);
        d.absolute = isfinite(difference) ? fmax(d.absolute, difference) : INFINITY;
        d.all_zero = d.all_zero && output[i] == 0;
        sum += difference * difference;
        norm += truth->output[i] * truth->output[i];
    }
    d.relative = d.absolute > 0 ? d.absolute / truth->largest : 0;
    d.squared = norm > 0 ? sum / norm : sum;
    d.ratio = problem_ratio(output, truth->output, truth->bound, truth->rounding, truth->head_dim_v,
                            truth->n_output);
    return d;
}

double flash_compare_lse(const struct flash_truth *truth, const float *lse) {
    static const double none[1] = {0};
    return problem_ratio(lse, truth->lse, truth->lse_bound, none, truth->n_record + 1,
                         truth->n_record);
}

double flash_distance(const float *a, const float *b, int64_t n) {
    double largest = 0;
    for (int64_t i = 0; i < n; i++) {
        const double difference = fabs((double)a[i] - (double)b[i]);
        largest = isfinite(difference) ? fmax(largest, difference) : INFINITY;
    }
    return largest;
}
