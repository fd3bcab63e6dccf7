/* Copies a model with all weights as F32.
 *
 * usage: widen MODEL OUTPUT
 *
 * With quantized weights every matrix product first rounds its input to 8 bits. A difference of
 * one part in a million then flips a rounding here and there, and what comes out of the model
 * differs by a noise that says little about its size: the divergence between two correct ways to
 * compute attention is some 5e-3. With F32 weights the model is smooth, and errors of attention can
 * be compared. */
#include "ggml.h"
#include "gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct ggml_tensor *widened(struct ggml_context *context, const struct ggml_tensor *tensor) {
    struct ggml_tensor *wide = ggml_new_tensor(context, GGML_TYPE_F32, GGML_MAX_DIMS, tensor->ne);
    ggml_set_name(wide, tensor->name);
    if (tensor->type == GGML_TYPE_F32) {
        memcpy(wide->data, tensor->data, ggml_nbytes(wide));
    } else {
        const struct ggml_type_traits *traits = ggml_get_type_traits(tensor->type);
        traits->to_float(tensor->data, wide->data, ggml_nelements(tensor));
    }
    return wide;
}

static size_t memory_for(struct ggml_context *tensors) {
    size_t bytes = 0;
    for (struct ggml_tensor *t = ggml_get_first_tensor(tensors); t != NULL;
         t = ggml_get_next_tensor(tensors, t)) {
        bytes += ggml_tensor_overhead() + (size_t)ggml_nelements(t) * sizeof(float) + 256;
    }
    return bytes;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: widen MODEL OUTPUT\n");
        return 2;
    }
    struct ggml_context *tensors = NULL;
    struct gguf_context *from =
        gguf_init_from_file(argv[1], (struct gguf_init_params){.no_alloc = false, .ctx = &tensors});
    if (from == NULL) {
        fprintf(stderr, "widen: cannot read %s\n", argv[1]);
        return 1;
    }
    struct ggml_context *wide =
        ggml_init((struct ggml_init_params){.mem_size = memory_for(tensors)});
    struct gguf_context *to = gguf_init_empty();
    gguf_set_kv(to, from);
    for (int64_t i = 0; i < gguf_get_n_tensors(from); i++) {
        const char *name = gguf_get_tensor_name(from, i);
        gguf_add_tensor(to, widened(wide, ggml_get_tensor(tensors, name)));
    }
    const bool done = gguf_write_to_file(to, argv[2], false);
    if (!done) {
        fprintf(stderr, "widen: cannot write %s\n", argv[2]);
    }
    gguf_free(to);
    gguf_free(from);
    ggml_free(wide);
    ggml_free(tensors);
    return done ? 0 : 1;
}
