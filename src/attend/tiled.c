#include "attend/tiled.h"

/* s = q . k by products of bfloat16. */
static void score_pairs(const struct task *task, const struct varve_block *block,
                        const struct varve_queries *queries, const uint8_t *const *rows,
                        struct varve_ahead ahead, float *s) {
    const struct varve_kernels *kernels = &task->plan->context->kernels;
    const enum varve_format format = block->segment->k_format;
    const struct varve_pairk_args pack = {.format = varve_format_traits(format),
                                          .head_dim = queries->head_dim,
                                          .n_row = block->n,
                                          .rows = rows,
                                          .x = (uint32_t *)(void *)task->k_tile,
                                          .ahead = ahead};
    if (!task->unpacked) kernels->pairk[format].run(&pack);
    const struct varve_pairscore_args args = {queries, pack.x, block->n, s};
    kernels->pairscore.run(&args);
}

/* s = q . k by products of bytes. */
static void score_packed(const struct task *task, const struct varve_block *block,
                         const struct varve_queries *queries, const uint8_t *const *rows,
                         struct varve_ahead ahead, float *s) {
    const struct varve_kernels *kernels = &task->plan->context->kernels;
    const struct varve_format_traits *traits = varve_format_traits(block->segment->k_format);
    const struct varve_packk_args pack = {.format = traits,
                                          .head_dim = queries->head_dim,
                                          .n_row = block->n,
                                          .rows = rows,
                                          .x = (uint32_t *)(void *)task->k_tile,
                                          .dk = task->k_d,
                                          .mk = task->k_m};
    if (!task->unpacked) kernels->packk[traits->format].run(&pack);
    const struct varve_packscore_args args = {
        queries, pack.x, pack.dk, traits->has_min ? pack.mk : NULL, block->n, s, ahead};
    kernels->packscore.run(&args);
}

/* s = q . k from decoded rows. */
static void score_unpacked(const struct task *task, const struct varve_block *block,
                           const struct varve_queries *queries, const uint8_t *const *rows,
                           struct varve_ahead ahead, float *s) {
    const struct varve_kernels *kernels = &task->plan->context->kernels;
    const struct varve_format_traits *traits = varve_format_traits(block->segment->k_format);
    const bool q8 = varve_k_is_q8(task->plan, traits->format);
    const struct varve_unpackk_args unpack = {traits,       queries->head_dim, block->n,  rows,
                                              task->k_tile, task->k_d,         task->k_m, ahead};
    if (!task->unpacked) kernels->unpackk[traits->format].run(&unpack);
    /* exact products of a quantized row: its decoded values */
    if (traits->quantized && !q8 && !task->unpacked) {
        for (int32_t d = 0; d < queries->head_dim; d++) {
            float *const t = task->k_tile + d * VARVE_TILE_ROWS;
            const float *const scale = task->k_d + d / VARVE_BLOCK * VARVE_TILE_ROWS;
            const float *const min = task->k_m + d / VARVE_BLOCK * VARVE_TILE_ROWS;
            for (int32_t r = 0; r < block->n; r++) {
                t[r] = t[r] * scale[r] + (traits->has_min ? min[r] : 0);
            }
        }
    }
    const struct varve_tilescore_args args = {
        queries, task->k_tile, task->k_d, traits->has_min ? task->k_m : NULL, block->n, s};
    kernels->tilescore[q8].run(&args);
}

void varve_tiled_score(const struct task *task, const struct varve_block *block,
                       const struct varve_queries *queries, const uint8_t *const *rows,
                       struct varve_ahead ahead, float *s) {
    const enum varve_format format = block->segment->k_format;
    if (task->plan->k_paired >> format & 1) {
        score_pairs(task, block, queries, rows, ahead, s);
    } else if (task->plan->k_packed >> format & 1) {
        score_packed(task, block, queries, rows, ahead, s);
    } else {
        score_unpacked(task, block, queries, rows, ahead, s);
    }
}

/* o = alpha o + p v by products of bfloat16. */
static void fold_pairs(const struct task *task, const struct varve_block *block, const float *s,
                       float *o, const float *alpha, const uint8_t *const *rows,
                       struct varve_ahead ahead) {
    const struct varve_plan *plan = task->plan;
    const struct varve_kernels *kernels = &plan->context->kernels;
    const enum varve_format format = block->segment->v_format;
    const struct varve_pairv_args pack = {.format = varve_format_traits(format),
                                          .head_dim = plan->attention.head_dim_v,
                                          .ld = plan->ld_v,
                                          .n_row = block->n,
                                          .rows = rows,
                                          .x = (uint32_t *)(void *)task->v_tile,
                                          .ahead = ahead};
    if (!task->unpacked) kernels->pairv[format].run(&pack);
    const struct varve_pairfold_args args = {
        task->n, pack.head_dim, pack.ld, block->n, block->sparse, pack.x, s, alpha, o};
    kernels->pairfold.run(&args);
}

/* o = alpha o + p v by products of 16 bits. */
static void fold_packed(const struct task *task, const struct varve_block *block, const float *s,
                        float *o, const float *alpha, const uint8_t *const *rows,
                        struct varve_ahead ahead) {
    const struct varve_plan *plan = task->plan;
    const struct varve_kernels *kernels = &plan->context->kernels;
    const struct varve_format_traits *traits = varve_format_traits(block->segment->v_format);
    const struct varve_packv_args pack = {.format = traits,
                                          .head_dim = plan->attention.head_dim_v,
                                          .n_row = block->n,
                                          .rows = rows,
                                          .x = (int16_t(*)[2])(void *)task->v_tile,
                                          .dv = task->v_d,
                                          .mv = task->v_m,
                                          .ahead = ahead};
    if (!task->unpacked) kernels->packv[traits->format].run(&pack);
    const struct varve_packfold_args args = {task->n,
                                             pack.head_dim,
                                             plan->ld_v,
                                             block->n,
                                             block->sparse,
                                             (const int16_t(*)[2])pack.x,
                                             pack.dv,
                                             traits->has_min ? pack.mv : NULL,
                                             s,
                                             alpha,
                                             o};
    kernels->packfold.run(&args);
}

/* o = alpha o + p v from decoded rows. */
static void fold_unpacked(const struct task *task, const struct varve_block *block, const float *s,
                          float *o, const float *alpha, const uint8_t *const *rows,
                          struct varve_ahead ahead) {
    const struct varve_plan *plan = task->plan;
    const struct varve_kernels *kernels = &plan->context->kernels;
    const enum varve_format format = block->segment->v_format;
    const struct varve_unpackv_args unpack = {varve_format_traits(format),
                                              plan->attention.head_dim_v,
                                              plan->ld_v,
                                              block->n,
                                              rows,
                                              task->v_tile,
                                              ahead};
    if (!task->unpacked) kernels->unpackv[format].run(&unpack);
    const struct varve_tilefold_args args = {
        task->n, unpack.head_dim, plan->ld_v, block->n, block->sparse, task->v_tile, s, alpha, o};
    kernels->tilefold.run(&args);
}

void varve_tiled_fold(const struct task *task, const struct varve_block *block, const float *s,
                      float *o, const float *alpha, const uint8_t *const *rows,
                      struct varve_ahead ahead) {
    const struct varve_plan *plan = task->plan;
    const enum varve_format format = block->segment->v_format;
    /* the class of a segment is that of its K */
    if (plan->v_packed >> format & 1 && varve_k_is_q8(plan, block->segment->k_format)) {
        fold_packed(task, block, s, o, alpha, rows, ahead);
    } else if (plan->v_paired >> format & 1) {
        fold_pairs(task, block, s, o, alpha, rows, ahead);
    } else {
        fold_unpacked(task, block, s, o, alpha, rows, ahead);
    }
}
