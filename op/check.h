/* What a call is given, checked before anything is added to a context. */
#ifndef VARVE_OP_CHECK_H
#define VARVE_OP_CHECK_H

#include "call.h"

struct op_args {
    const char *function; /* whose messages they are */
    const struct ggml_tensor *src[SRC_COUNT];
    const struct ggml_tensor *sinks, *previous, *output;
    struct op_scalars with; /* head_dim_v is found out */
};

/* Each of these is false after one line to the log. */

/* A whole call of attention; sets with.head_dim_v. */
bool op_check_attend(struct op_args *args);

/* A state with o, any shape; sets with.head_dim_v and the source. */
bool op_check_state(struct op_args *args, const char *name, const struct ggml_tensor *state);

/* F32 [n_head] or NULL. */
bool op_check_sinks(const struct op_args *args, int64_t n_head);

/* F32 of exactly this shape, rows contiguous, other strides free. */
bool op_check_f32(const char *function, const char *name, const struct ggml_tensor *t,
                  const int64_t *ne);

/* Two tensors that must not share memory, as far as that is known now. */
bool op_check_apart(const char *function, const char *name_a, const struct ggml_tensor *a,
                    const char *name_b, const struct ggml_tensor *b);

#endif
