/* The same attention by stock ggml: one ggml_flash_attn_ext over the rows of both parts, one after
 * the other (their order does not matter). */
#include "flash_graph.h"
#include "flash_run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Whether stock can read the rows as they are stored. */
static bool same_type(const struct flash_data *data, struct ggml_tensor *const *t) {
    if (data->c->stock_in_f32) return false;
    return data->n_rows[0] == 0 || data->n_rows[1] == 0 || t[0]->type == t[1]->type;
}

/* The type that all rows have, or F32. */
static enum ggml_type common_type(const struct flash_data *data, struct ggml_tensor *const *t) {
    if (!same_type(data, t)) return GGML_TYPE_F32;
    return t[data->n_rows[0] > 0 ? 0 : 1]->type;
}

static void copy_row(const void *from, enum ggml_type from_type, void *to, enum ggml_type to_type,
                     int64_t n) {
    if (from_type == to_type) {
        memcpy(to, from, ggml_row_size(to_type, n));
    } else {
        ggml_get_type_traits(from_type)->to_float(from, to, n);
    }
}

/* [d, rows of both parts, n_head_kv, n_batch] */
static void join(const struct flash_data *data, struct ggml_tensor *const *parts,
                 struct ggml_tensor *all) {
    int64_t first = 0;
    for (int p = 0; p < FLASH_PARTS; first += data->n_rows[p], p++) {
        for (int64_t i3 = 0; i3 < all->ne[3] && data->n_rows[p] > 0; i3++) {
            for (int64_t i2 = 0; i2 < all->ne[2]; i2++) {
                for (int64_t i1 = 0; i1 < data->n_rows[p]; i1++) {
                    copy_row(flash_row(parts[p], i1, i2, i3), parts[p]->type,
                             flash_row(all, first + i1, i2, i3), all->type, all->ne[0]);
                }
            }
        }
    }
}

static float *compute(const struct flash_data *data, int n_thread, enum ggml_type k_type,
                      enum ggml_type v_type) {
    const struct flash_case *const c = data->c;
    const int64_t n = data->n_rows[0] + data->n_rows[1];
    const size_t rows = (size_t)(n * c->n_head_kv * c->n_batch);
    const size_t bytes = rows * (ggml_row_size(k_type, c->dk) + ggml_row_size(v_type, c->dv)) +
                         4 * (size_t)c->dv * (size_t)(c->n_head * c->n_query * c->n_batch);
    struct flash_graph graph;
    flash_graph_begin(&graph, FLASH_ALLOC_CONTEXT, bytes + 4096);
    struct ggml_tensor *const k =
        ggml_new_tensor_4d(graph.ctx, k_type, c->dk, n, c->n_head_kv, c->n_batch);
    struct ggml_tensor *const v =
        ggml_new_tensor_4d(graph.ctx, v_type, c->dv, n, c->n_head_kv, c->n_batch);
    struct ggml_tensor *const y =
        ggml_flash_attn_ext(graph.ctx, data->q, k, v, data->whole_mask, 1 / sqrtf((float)c->dk),
                            data->whole_mask != NULL ? c->max_bias : 0, c->softcap);
    ggml_flash_attn_ext_add_sinks(y, data->sinks);
    flash_graph_place(&graph, y);
    join(data, data->k, k);
    join(data, data->v, v);
    float *const output = malloc(ggml_nbytes(y));
    if (output == NULL || !flash_graph_run(&graph, n_thread)) abort();
    memcpy(output, y->data, ggml_nbytes(y));
    flash_graph_free(&graph);
    return output;
}

float *flash_run_stock(const struct flash_data *data, int n_thread, const char **kind) {
    *kind = "none (no rows)";
    if (data->n_rows[0] + data->n_rows[1] == 0) return NULL;
    const enum ggml_type k_type = common_type(data, data->k);
    const enum ggml_type v_type = common_type(data, data->v);
    const bool k_as_stored = same_type(data, data->k), v_as_stored = same_type(data, data->v);
    *kind = k_as_stored && v_as_stored ? "as stored"
            : v_as_stored              ? "K in f32"
            : k_as_stored              ? "V in f32"
                                       : "in f32";
    return compute(data, n_thread, k_type, v_type);
}
