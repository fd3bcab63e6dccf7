/* A call with valid arguments, in which tests put one thing wrong. */
#ifndef VARVE_TEST_BAD_INPUT_H
#define VARVE_TEST_BAD_INPUT_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ggml-backend.h"
#include "ggml.h"
#include "varve/op.h"

enum { DK = 64, DV = 96, N_QUERY = 5, N_HEAD = 8, N_HEAD_KV = 2, N_BATCH = 3, N_KV = 7, N_KV2 = 9 };

/* ---- log ------------------------------------------------------------------------------------ */

struct log {
    int n_line;
    char text[2048];
};

static inline void keep_line(enum ggml_log_level level, const char *text, void *user) {
    struct log *const log = user;
    (void)level;
    for (const char *p = text; *p != '\0'; p++) log->n_line += *p == '\n';
    strncat(log->text, text, sizeof log->text - strlen(log->text) - 1);
}

static inline void log_start(struct log *log) {
    *log = (struct log){0};
    ggml_log_set(keep_line, log);
}

static inline void log_stop(void) { ggml_log_set(NULL, NULL); }

/* One line that has all of these words, parted by '|'. */
static inline bool log_says(const struct log *log, const char *words) {
    char copy[256];
    snprintf(copy, sizeof copy, "%s", words);
    bool all = log->n_line == 1;
    for (char *word = strtok(copy, "|"); word != NULL; word = strtok(NULL, "|")) {
        all = all && strstr(log->text, word) != NULL;
    }
    return all;
}

/* ---- arguments ------------------------------------------------------------------------------ */

/* Copies of tensors: a test may write into them, the context knows nothing of it. */
struct arguments {
    struct ggml_context *ctx;
    struct ggml_tensor t_q, t_k, t_v, t_mask, t_kq, t_vq, t_maskq, t_state, t_output, t_sinks;
    struct ggml_tensor t_previous;
    struct ggml_tensor *q, *k, *v, *mask, *kq, *vq, *maskq, *state;
    float scale, max_bias, softcap;
    struct varve_ggml_state_params params;
    bool no_params;
};

static inline struct ggml_tensor new_of(struct ggml_context *ctx, enum ggml_type type, int64_t ne0,
                                        int64_t ne1, int64_t ne2, int64_t ne3) {
    return *ggml_new_tensor_4d(ctx, type, ne0, ne1, ne2, ne3);
}

/* Inputs lie in `inputs`, which has memory; the call is built in ctx. A last call that is not the
 * first, with everything there is: state with o, output, sinks. */
static inline struct ggml_context *arguments_init(struct arguments *a, bool no_alloc) {
    struct ggml_context *const inputs =
        ggml_init((struct ggml_init_params){.mem_size = 4 << 20, .no_alloc = false});
    const enum ggml_type f16 = GGML_TYPE_F16, f32 = GGML_TYPE_F32;
    memset(a, 0, sizeof *a);
    a->ctx = ggml_init((struct ggml_init_params){.mem_size = 16 << 20, .no_alloc = no_alloc});
    assert_non_null(inputs);
    assert_non_null(a->ctx);
    a->t_q = new_of(inputs, f32, DK, N_QUERY, N_HEAD, N_BATCH);
    a->t_k = new_of(inputs, f16, DK, N_KV, N_HEAD_KV, N_BATCH);
    a->t_v = new_of(inputs, f16, DV, N_KV, N_HEAD_KV, N_BATCH);
    a->t_mask = new_of(inputs, f16, N_KV, N_QUERY, N_HEAD, N_BATCH);
    a->t_kq = new_of(inputs, GGML_TYPE_Q8_0, DK, N_KV2, N_HEAD_KV, N_BATCH);
    a->t_vq = new_of(inputs, GGML_TYPE_Q4_0, DV, N_KV2, N_HEAD_KV, N_BATCH);
    a->t_maskq = new_of(inputs, f16, N_KV2, N_QUERY, 1, 1);
    a->t_state = new_of(inputs, f32, 2 + DV, N_HEAD, N_QUERY, N_BATCH);
    a->t_output = new_of(inputs, f32, DV, N_HEAD, N_QUERY, N_BATCH);
    a->t_previous = new_of(inputs, f32, DV, N_HEAD, N_QUERY, N_BATCH);
    a->t_sinks = new_of(inputs, f32, N_HEAD, 1, 1, 1);
    a->q = &a->t_q;
    a->k = &a->t_k;
    a->v = &a->t_v;
    a->mask = &a->t_mask;
    a->kq = &a->t_kq;
    a->vq = &a->t_vq;
    a->maskq = &a->t_maskq;
    a->state = &a->t_state;
    a->scale = 0.125f;
    a->params = (struct varve_ggml_state_params){.struct_bytes = sizeof a->params,
                                                 .final = true,
                                                 .previous = &a->t_previous,
                                                 .output = &a->t_output,
                                                 .sinks = &a->t_sinks};
    return inputs;
}

static inline struct ggml_tensor *call_with(struct arguments *a) {
    return varve_ggml_flash_attn_ext_with_state(a->ctx, a->q, a->k, a->v, a->mask, a->kq, a->vq,
                                                a->maskq, a->state, a->scale, a->max_bias,
                                                a->softcap, a->no_params ? NULL : &a->params);
}

#endif
