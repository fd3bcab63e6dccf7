/* Makes a small model with sliding windows, or with latent attention, out of a llama one.
 *
 * usage: window_model MODEL OUTPUT ARCHITECTURE
 *   granite_swa   a learned sink per head; three layers of four have a window
 *   gemma2        softcap; every second layer has a window
 *   deepseek2     MLA: one latent head, V is a view of K; no window
 *
 * These need the fewest tensors that a llama model lacks. The tokenizer, the embedding and the
 * first layers are copied; norms that llama has no name for are ones; what has no counterpart at
 * all is random with a fixed seed. What such a model says means nothing. It shows whether two ways
 * to compute its attention agree. Weights are F32, for the reason given in widen.c. */
#include "ggml.h"
#include "gguf.h"

#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_LAYER = 4, N_FF = 192, WINDOW = 64, N_LATENT = 128, N_NOPE = 64, SEED = 20240229 };

struct maker {
    const char *architecture;
    struct gguf_context *from, *to;
    struct ggml_context *source, *made;
    uint64_t random;
};

static void fail(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "window_model: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    exit(1);
}

/* ---- keys ----------------------------------------------------------------------------------- */

static const char *key(const struct maker *m, const char *name) {
    static char text[128];
    snprintf(text, sizeof(text), "%s.%s", m->architecture, name);
    return text;
}

static void set_u32(struct maker *m, const char *name, uint32_t value) {
    gguf_set_val_u32(m->to, key(m, name), value);
}

static void set_f32(struct maker *m, const char *name, float value) {
    gguf_set_val_f32(m->to, key(m, name), value);
}

static uint32_t get_u32(const struct maker *m, const char *name) {
    char text[128];
    snprintf(text, sizeof(text), "llama.%s", name);
    const int64_t id = gguf_find_key(m->from, text);
    if (id < 0) {
        fail("the model has no %s", text);
    }
    return gguf_get_val_u32(m->from, id);
}

/* "llama.X" becomes "ARCHITECTURE.X". */
static void rename_keys(struct maker *m) {
    gguf_set_kv(m->to, m->from);
    for (int64_t i = 0; i < gguf_get_n_kv(m->from); i++) {
        const char *name = gguf_get_key(m->from, i);
        if (strncmp(name, "llama.", 6) != 0) {
            continue;
        }
        gguf_remove_key(m->to, name);
        if (gguf_get_kv_type(m->from, i) == GGUF_TYPE_UINT32) {
            set_u32(m, name + 6, gguf_get_val_u32(m->from, i));
        } else if (gguf_get_kv_type(m->from, i) == GGUF_TYPE_FLOAT32) {
            set_f32(m, name + 6, gguf_get_val_f32(m->from, i));
        }
    }
    gguf_set_val_str(m->to, "general.architecture", m->architecture);
    set_u32(m, "block_count", N_LAYER);
    set_u32(m, "feed_forward_length", N_FF);
}

/* ---- tensors -------------------------------------------------------------------------------- */

static float *add(struct maker *m, const char *name, int64_t n0, int64_t n1, int64_t n2) {
    struct ggml_tensor *tensor = ggml_new_tensor_3d(m->made, GGML_TYPE_F32, n0, n1, n2);
    ggml_set_name(tensor, name);
    gguf_add_tensor(m->to, tensor);
    return tensor->data;
}

static const struct ggml_tensor *find(const struct maker *m, const char *name) {
    const struct ggml_tensor *tensor = ggml_get_tensor(m->source, name);
    if (tensor == NULL) {
        fail("the model has no %s", name);
    }
    return tensor;
}

/* n values from the start of the tensor. n is a whole number of rows. */
static void widen(const struct ggml_tensor *tensor, float *to, int64_t n) {
    if (tensor->type == GGML_TYPE_F32) {
        memcpy(to, tensor->data, (size_t)n * sizeof(float));
    } else {
        ggml_get_type_traits(tensor->type)->to_float(tensor->data, to, n);
    }
}

static void copy_rows(struct maker *m, const char *name, int64_t n_row) {
    const struct ggml_tensor *tensor = find(m, name);
    widen(tensor, add(m, name, tensor->ne[0], n_row, 1), tensor->ne[0] * n_row);
}

static void copy(struct maker *m, const char *name) { copy_rows(m, name, find(m, name)->ne[1]); }

static const char *in_layer(int layer, const char *name) {
    static char text[GGML_MAX_NAME];
    snprintf(text, sizeof(text), "blk.%d.%s.weight", layer, name);
    return text;
}

/* The first N_FF neurons only: a smaller model, of which attention is a larger part. */
static void copy_feed_forward(struct maker *m, int layer) {
    const uint32_t n_embd = get_u32(m, "embedding_length");
    const struct ggml_tensor *down = find(m, in_layer(layer, "ffn_down"));
    copy_rows(m, in_layer(layer, "ffn_gate"), N_FF);
    copy_rows(m, in_layer(layer, "ffn_up"), N_FF);
    float *whole = malloc((size_t)ggml_nelements(down) * sizeof(*whole));
    widen(down, whole, ggml_nelements(down));
    float *part = add(m, in_layer(layer, "ffn_down"), N_FF, n_embd, 1);
    for (uint32_t i = 0; i < n_embd; i++) {
        memcpy(part + (size_t)i * N_FF, whole + (size_t)i * down->ne[0], N_FF * sizeof(float));
    }
    free(whole);
}

static void add_ones(struct maker *m, const char *name, int64_t n) {
    float *data = add(m, name, n, 1, 1);
    for (int64_t i = 0; i < n; i++) {
        data[i] = 1;
    }
}

/* In [-1, 1). */
static float next_random(struct maker *m) {
    m->random = m->random * 6364136223846793005u + 1442695040888963407u;
    return (float)(m->random >> 40) / (1 << 23) - 1;
}

/* A product with such a matrix keeps the size of its input. */
static void add_random(struct maker *m, const char *name, int64_t n0, int64_t n1, int64_t n2) {
    float *data = add(m, name, n0, n1, n2);
    for (int64_t i = 0; i < n0 * n1 * n2; i++) {
        data[i] = next_random(m) * sqrtf(3.0f / (float)n0);
    }
}

/* ---- architectures -------------------------------------------------------------------------- */

static void copy_tensors(struct maker *m, int layer, const char *const *names) {
    for (; *names != NULL; names++) {
        copy(m, in_layer(layer, *names));
    }
    copy_feed_forward(m, layer);
}

static void copy_layer(struct maker *m, int layer) {
    copy_tensors(m, layer,
                 (const char *const[]){"attn_norm", "attn_q", "attn_k", "attn_v", "attn_output",
                                       "ffn_norm", NULL});
}

static void make_granite_swa(struct maker *m) {
    uint32_t windowed[N_LAYER];
    for (int i = 0; i < N_LAYER; i++) {
        windowed[i] = i % 4 != 3;
    }
    gguf_set_arr_data(m->to, key(m, "attention.sliding_window_pattern"), GGUF_TYPE_UINT32, windowed,
                      N_LAYER);
    set_u32(m, "attention.sliding_window", WINDOW);
    set_f32(m, "logit_scale", 1);
    const int64_t n_head = get_u32(m, "attention.head_count");
    for (int i = 0; i < N_LAYER; i++) {
        copy_layer(m, i);
        float *sinks = add(m, in_layer(i, "attn_sinks"), n_head, 1, 1);
        for (int64_t head = 0; head < n_head; head++) {
            sinks[head] = 3 * next_random(m);
        }
    }
}

static void make_gemma2(struct maker *m) {
    const uint32_t n_embd = get_u32(m, "embedding_length");
    const uint32_t n_head_dim = n_embd / get_u32(m, "attention.head_count");
    set_u32(m, "attention.sliding_window", WINDOW);
    set_u32(m, "attention.key_length", n_head_dim);
    set_u32(m, "attention.value_length", n_head_dim);
    set_f32(m, "attn_logit_softcapping", 8); /* gemma2 has 50; 8 bends the scores that occur */
    set_f32(m, "final_logit_softcapping", 30);
    for (int i = 0; i < N_LAYER; i++) {
        copy_layer(m, i);
        add_ones(m, in_layer(i, "post_attention_norm"), n_embd);
        add_ones(m, in_layer(i, "post_ffw_norm"), n_embd);
    }
}

static void make_deepseek2(struct maker *m) {
    const uint32_t n_embd = get_u32(m, "embedding_length");
    const uint32_t n_head = get_u32(m, "attention.head_count");
    const uint32_t n_rope = get_u32(m, "rope.dimension_count");
    const uint32_t n_value = n_embd / n_head;
    set_u32(m, "attention.head_count_kv", 1);
    set_u32(m, "attention.key_length", N_LATENT + n_rope);
    set_u32(m, "attention.value_length", N_LATENT);
    set_u32(m, "attention.key_length_mla", N_NOPE + n_rope);
    set_u32(m, "attention.value_length_mla", n_value);
    set_u32(m, "attention.q_lora_rank", 0);
    set_u32(m, "attention.kv_lora_rank", N_LATENT);
    set_u32(m, "leading_dense_block_count", N_LAYER);
    set_u32(m, "expert_feed_forward_length", 0);
    set_u32(m, "expert_shared_count", 0);
    for (int i = 0; i < N_LAYER; i++) {
        copy_tensors(m, i, (const char *const[]){"attn_output", "ffn_norm", NULL});
        add_ones(m, in_layer(i, "attn_norm"), n_embd); /* llama's would flatten the scores */
        add_random(m, in_layer(i, "attn_q"), n_embd, n_head * (N_NOPE + n_rope), 1);
        add_random(m, in_layer(i, "attn_kv_a_mqa"), n_embd, N_LATENT + n_rope, 1);
        add_ones(m, in_layer(i, "attn_kv_a_norm"), N_LATENT);
        add_random(m, in_layer(i, "attn_k_b"), N_NOPE, N_LATENT, n_head);
        add_random(m, in_layer(i, "attn_v_b"), N_LATENT, n_value, n_head);
    }
}

static void make(struct maker *m) {
    static const struct {
        const char *architecture;
        void (*make)(struct maker *m);
    } known[] = {
        {"granite_swa", make_granite_swa},
        {"gemma2", make_gemma2},
        {"deepseek2", make_deepseek2},
    };
    rename_keys(m);
    copy(m, "token_embd.weight");
    copy(m, "output_norm.weight");
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcmp(m->architecture, known[i].architecture) == 0) {
            known[i].make(m);
            return;
        }
    }
    fail("no architecture %s", m->architecture);
}

/* All of the model as F32, and what is invented: more than enough. Untouched pages cost nothing. */
static size_t memory_for(struct ggml_context *tensors) {
    size_t bytes = (size_t)128 << 20;
    for (struct ggml_tensor *t = ggml_get_first_tensor(tensors); t != NULL;
         t = ggml_get_next_tensor(tensors, t)) {
        bytes += ggml_tensor_overhead() + (size_t)ggml_nelements(t) * sizeof(float) + 256;
    }
    return bytes;
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fail("usage: window_model MODEL OUTPUT ARCHITECTURE");
    }
    struct maker m = {.architecture = argv[3], .random = SEED};
    m.from = gguf_init_from_file(argv[1],
                                 (struct gguf_init_params){.no_alloc = false, .ctx = &m.source});
    if (m.from == NULL) {
        fail("cannot read %s", argv[1]);
    }
    m.to = gguf_init_empty();
    m.made = ggml_init((struct ggml_init_params){.mem_size = memory_for(m.source)});
    make(&m);
    if (!gguf_write_to_file(m.to, argv[2], false)) {
        fail("cannot write %s", argv[2]);
    }
    printf("architecture %s\nlayers %d\nwindow %d\nseed %d\n", m.architecture, N_LAYER, WINDOW,
           SEED);
    gguf_free(m.to);
    gguf_free(m.from);
    ggml_free(m.made);
    ggml_free(m.source);
    return 0;
}
