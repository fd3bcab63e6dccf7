/* A header of a model that there is no file of: dimensions alone. Sliding windows are those of
 * granite_swa, the architecture of llama.cpp that adds least to a llama. */
#include "plan.h"

#include "gguf.h"

#include <stdio.h>
#include <stdlib.h>

static void set_number(struct gguf_context *to, const char *architecture, const char *name,
                       int64_t value) {
    char key[128];
    snprintf(key, sizeof(key), "%s.%s", architecture, name);
    gguf_set_val_u32(to, key, (uint32_t)value);
}

static bool set_windows(struct gguf_context *to, const char *architecture,
                        const struct plan_dimensions *d) {
    uint32_t *const windowed = malloc((size_t)d->n_layer * sizeof(*windowed));
    if (windowed == NULL) {
        return false;
    }
    for (int64_t i = 0; i < d->n_layer; i++) {
        windowed[i] = i % 4 != 3;
    }
    char key[128];
    snprintf(key, sizeof(key), "%s.attention.sliding_window_pattern", architecture);
    gguf_set_arr_data(to, key, GGUF_TYPE_UINT32, windowed, (size_t)d->n_layer);
    free(windowed);
    set_number(to, architecture, "attention.sliding_window", d->window);
    snprintf(key, sizeof(key), "%s.logit_scale", architecture);
    gguf_set_val_f32(to, key, 1);
    return true;
}

struct gguf_context *dimensions_header(const struct plan_dimensions *d) {
    const char *architecture = d->window > 0 ? "granite_swa" : "llama";
    const struct {
        const char *name;
        int64_t value;
    } numbers[] = {
        {"vocab_size", d->n_vocab},
        {"context_length", d->n_ctx_train},
        {"embedding_length", d->n_embd},
        {"block_count", d->n_layer},
        {"feed_forward_length", d->n_ff},
        {"attention.head_count", d->n_head},
        {"attention.head_count_kv", d->n_head_kv},
        {"attention.key_length", d->n_head_dim},
        {"attention.value_length", d->n_head_dim},
        {"rope.dimension_count", d->n_head_dim},
    };
    struct gguf_context *to = gguf_init_empty();
    if (to == NULL) {
        return NULL;
    }
    gguf_set_val_str(to, "general.architecture", architecture);
    gguf_set_val_str(to, "general.name", "a model of these dimensions");
    gguf_set_val_str(to, "tokenizer.ggml.model", "no_vocab");
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        set_number(to, architecture, numbers[i].name, numbers[i].value);
    }
    char key[128];
    snprintf(key, sizeof(key), "%s.attention.layer_norm_rms_epsilon", architecture);
    gguf_set_val_f32(to, key, 1e-5f);
    if (d->window > 0 && !set_windows(to, architecture, d)) {
        gguf_free(to);
        return NULL;
    }
    return to;
}
