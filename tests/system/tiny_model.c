/* Makes a very small llama model with random weights, for runs of many tokens.
 *
 * usage: tiny_model OUTPUT [LAYERS]
 *
 * It has no vocabulary, only 256 numbers for tokens, and says nothing that means anything. A head
 * has 64 values, a size for which llama.cpp rotates quantized rows. Weights are F32 for the reason
 * given in widen.c; the seed is fixed. Scores are spread enough for a wrong row of K to be noticed:
 * their standard deviation is about 2. */
#include "ggml.h"
#include "gguf.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    N_VOCAB = 256,
    N_HEAD = 2,
    N_HEAD_KV = 1,
    N_HEAD_DIM = 64,
    N_EMBD = N_HEAD * N_HEAD_DIM,
    N_FF = 128,
    N_CONTEXT = 1 << 20,
    SEED = 20240229
};

struct maker {
    struct gguf_context *to;
    struct ggml_context *made;
    uint64_t random;
};

/* In [-1, 1). */
static float next_random(struct maker *m) {
    m->random = m->random * 6364136223846793005u + 1442695040888963407u;
    return (float)(m->random >> 40) / (1 << 23) - 1;
}

static struct ggml_tensor *add(struct maker *m, const char *name, int64_t n0, int64_t n1) {
    struct ggml_tensor *tensor = ggml_new_tensor_2d(m->made, GGML_TYPE_F32, n0, n1);
    ggml_set_name(tensor, name);
    gguf_add_tensor(m->to, tensor);
    return tensor;
}

/* A product with such a matrix makes values of n0 inputs larger by `gain`. */
static void add_random(struct maker *m, const char *name, int64_t n0, int64_t n1, float gain) {
    float *data = add(m, name, n0, n1)->data;
    for (int64_t i = 0; i < n0 * n1; i++) {
        data[i] = next_random(m) * gain * sqrtf(3.0f / (float)n0);
    }
}

static void add_ones(struct maker *m, const char *name, int64_t n) {
    float *data = add(m, name, n, 1)->data;
    for (int64_t i = 0; i < n; i++) {
        data[i] = 1;
    }
}

static const char *in_layer(int layer, const char *name) {
    static char text[GGML_MAX_NAME];
    snprintf(text, sizeof(text), "blk.%d.%s.weight", layer, name);
    return text;
}

static void add_layer(struct maker *m, int layer) {
    const int64_t n_kv = N_HEAD_KV * N_HEAD_DIM;
    const float spread = 1.4f; /* of q and of k: their products have its square */
    add_ones(m, in_layer(layer, "attn_norm"), N_EMBD);
    add_random(m, in_layer(layer, "attn_q"), N_EMBD, N_EMBD, spread);
    add_random(m, in_layer(layer, "attn_k"), N_EMBD, n_kv, spread);
    add_random(m, in_layer(layer, "attn_v"), N_EMBD, n_kv, 1);
    add_random(m, in_layer(layer, "attn_output"), N_EMBD, N_EMBD, 1);
    add_ones(m, in_layer(layer, "ffn_norm"), N_EMBD);
    add_random(m, in_layer(layer, "ffn_gate"), N_EMBD, N_FF, 1);
    add_random(m, in_layer(layer, "ffn_up"), N_EMBD, N_FF, 1);
    add_random(m, in_layer(layer, "ffn_down"), N_FF, N_EMBD, 1);
}

static void set_keys(struct maker *m, int n_layer) {
    const struct {
        const char *name;
        uint32_t value;
    } numbers[] = {
        {"llama.vocab_size", N_VOCAB},
        {"llama.context_length", N_CONTEXT},
        {"llama.embedding_length", N_EMBD},
        {"llama.block_count", (uint32_t)n_layer},
        {"llama.feed_forward_length", N_FF},
        {"llama.attention.head_count", N_HEAD},
        {"llama.attention.head_count_kv", N_HEAD_KV},
        {"llama.rope.dimension_count", N_HEAD_DIM},
    };
    gguf_set_val_str(m->to, "general.architecture", "llama");
    gguf_set_val_str(m->to, "tokenizer.ggml.model", "no_vocab");
    gguf_set_val_f32(m->to, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        gguf_set_val_u32(m->to, numbers[i].name, numbers[i].value);
    }
}

int main(int argc, char **argv) {
    const int n_layer = argc > 2 ? atoi(argv[2]) : 2;
    if (argc < 2 || n_layer < 1) {
        fprintf(stderr, "usage: tiny_model OUTPUT [LAYERS]\n");
        return 2;
    }
    const size_t bytes = ((size_t)n_layer + 1) << 20;
    struct maker m = {.to = gguf_init_empty(),
                      .made = ggml_init((struct ggml_init_params){.mem_size = bytes}),
                      .random = SEED};
    set_keys(&m, n_layer);
    add_random(&m, "token_embd.weight", N_EMBD, N_VOCAB, 1);
    add_ones(&m, "output_norm.weight", N_EMBD);
    add_random(&m, "output.weight", N_EMBD, N_VOCAB, 1);
    for (int i = 0; i < n_layer; i++) {
        add_layer(&m, i);
    }
    const bool done = gguf_write_to_file(m.to, argv[1], false);
    if (!done) {
        fprintf(stderr, "tiny_model: cannot write %s\n", argv[1]);
    }
    gguf_free(m.to);
    ggml_free(m.made);
    return done ? 0 : 1;
}
