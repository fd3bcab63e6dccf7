/* Attention over an F16 cache in two segments, from C. Prints how far the result lies from that of
 * one segment and fails if it is not rounding. Build: cc attend.c -lvarve -lm */
#include <varve/varve.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { HEAD_DIM = 64, N_HEAD = 8, N_HEAD_KV = 2, N_ROW = 300, N_FIRST = 100, N_QUERY = 3 };
enum { KV_VALUES = N_ROW * N_HEAD_KV * HEAD_DIM, Q_VALUES = N_QUERY * N_HEAD * HEAD_DIM };

static float query[Q_VALUES], whole[Q_VALUES], cut[Q_VALUES];
static uint16_t k[KV_VALUES], v[KV_VALUES]; /* [row][KV head][HEAD_DIM], F16 */

static void log_line(void *user, enum varve_log_level level, const char *line) {
    (void)user;
    (void)level;
    fprintf(stderr, "varve: %s\n", line);
}

/* Numbers in -1 .. 1, the same at every run. */
static void fill(float *x, int n, unsigned seed) {
    for (int i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
    }
}

/* n_row rows of K and V from `first` on. All strides are in bytes; pos is for the causal order. */
static struct varve_segment rows(int64_t first, int64_t n_row) {
    const int64_t head = HEAD_DIM * sizeof(uint16_t), row = N_HEAD_KV * head;
    return (struct varve_segment){
        .k_format = VARVE_FORMAT_F16,
        .v_format = VARVE_FORMAT_F16,
        .k = (const char *)k + first * row,
        .v = (const char *)v + first * row,
        .n_rows = n_row,
        .k_row_stride = row,
        .k_head_stride = head,
        .v_row_stride = row,
        .v_head_stride = head,
        .pos = first,
    };
}

/* Plans and runs one attention over the segments; the result goes to `result`. */
static enum varve_status attend(const struct varve_context *context,
                                const struct varve_segment *segments, int64_t n_segment,
                                float *result) {
    const struct varve_attention attention = {
        .head_dim_k = HEAD_DIM,
        .head_dim_v = HEAD_DIM,
        .n_head = N_HEAD,
        .n_head_kv = N_HEAD_KV,
        .n_query = N_QUERY,
        .n_batch = 1,
        .scale = 1.0f / sqrtf(HEAD_DIM),
        .causal = true, /* query i stands at query_pos + i: the last one sees all rows */
        .query_pos = N_ROW - N_QUERY,
    };
    const int64_t head = HEAD_DIM * sizeof(float);
    const struct varve_io io = {
        .query = {.data = query, .query_stride = N_HEAD * head, .head_stride = head},
        .segments = segments,
        .n_segment = n_segment,
        .output = {.data = result, .query_stride = N_HEAD * head, .head_stride = head},
    };
    struct varve_plan *plan;
    enum varve_status status =
        varve_plan_create(context, &attention, segments, n_segment, 1, &plan);
    if (status != VARVE_OK) return status;
    void *scratch = aligned_alloc(64, (varve_plan_scratch_bytes(plan) + 63) / 64 * 64);
    status = varve_run(plan, &io, scratch, 1); /* a NULL scratch is refused */
    free(scratch);
    varve_plan_destroy(plan);
    return status;
}

int main(void) {
    const struct varve_context_params params = {.struct_bytes = sizeof params, .log = log_line};
    struct varve_context *context;
    static float values[KV_VALUES];
    if (varve_context_create(&params, &context) != VARVE_OK) return 1;
    fill(query, Q_VALUES, 1);
    fill(values, KV_VALUES, 2);
    if (varve_format_encode(VARVE_FORMAT_F16, values, KV_VALUES, k) != VARVE_OK) return 1;
    fill(values, KV_VALUES, 3);
    if (varve_format_encode(VARVE_FORMAT_F16, values, KV_VALUES, v) != VARVE_OK) return 1;
    const struct varve_segment one = rows(0, N_ROW);
    const struct varve_segment two[] = {rows(0, N_FIRST), rows(N_FIRST, N_ROW - N_FIRST)};
    if (attend(context, &one, 1, whole) != VARVE_OK) return 1;
    if (attend(context, two, 2, cut) != VARVE_OK) return 1;
    float worst = 0;
    for (int i = 0; i < Q_VALUES; i++) worst = fmaxf(worst, fabsf(cut[i] - whole[i]));
    printf("isa %s, greatest difference %g\n", varve_context_isa(context), (double)worst);
    varve_context_destroy(context);
    return worst < 1e-5f ? 0 : 1;
}
