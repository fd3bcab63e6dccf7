#include "check.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

/* Head sizes and counts of heads, as in the library. Other counts are refused by it from 2^48. */
enum { COUNT_MAX = 1 << 20 };
static const int64_t rows_max = INT64_C(1) << 48;

static const char *const names[SRC_COUNT] = {"q",       "k",          "v",     "mask",    "k_quant",
                                             "v_quant", "mask_quant", "state", "previous"};

/* ---- one tensor ----------------------------------------------------------------------------- */

static const char *type_name(enum ggml_type type) {
    return (unsigned)type < GGML_TYPE_COUNT ? ggml_type_name(type) : "unknown";
}

static bool check_ne(const char *f, const char *name, const struct ggml_tensor *t, int dim,
                     int64_t least, int64_t most) {
    if (t->ne[dim] >= least && t->ne[dim] <= most) {
        return true;
    }
    char expected[64];
    if (least == most) {
        snprintf(expected, sizeof(expected), "%" PRId64, least);
    } else if (most == INT64_MAX) {
        snprintf(expected, sizeof(expected), "%" PRId64 " or more", least);
    } else {
        snprintf(expected, sizeof(expected), "%" PRId64 " to %" PRId64, least, most);
    }
    return op_refuse(f, "%s: ne[%d] is %" PRId64 ", expected %s", name, dim, t->ne[dim], expected);
}

static bool check_type(const char *f, const char *name, const struct ggml_tensor *t,
                       enum ggml_type type) {
    return t->type == type ||
           op_refuse(f, "%s: type is %s, expected %s", name, type_name(t->type), type_name(type));
}

/* Bytes from the first value to behind the last one, of a tensor of a type that we know and with
 * counts that are not negative. */
static bool extent(const struct ggml_tensor *t, size_t *bytes) {
    *bytes = ggml_row_size(t->type, t->ne[0]);
    for (int d = 0; d < GGML_MAX_DIMS; d++) {
        if (t->ne[d] == 0) {
            *bytes = 0;
            return true;
        }
    }
    for (int d = 1; d < GGML_MAX_DIMS; d++) {
        size_t step;
        if (__builtin_mul_overflow((size_t)(t->ne[d] - 1), t->nb[d], &step) ||
            __builtin_add_overflow(*bytes, step, bytes)) {
            return false;
        }
    }
    return *bytes <= PTRDIFF_MAX;
}

/* Rows contiguous, strides that fit the type, all of it inside of what it is a view of. */
static bool check_layout(const char *f, const char *name, const struct ggml_tensor *t) {
    const size_t align = t->type == GGML_TYPE_F32 ? sizeof(float) : sizeof(ggml_fp16_t);
    if (t->nb[0] != ggml_type_size(t->type)) {
        return op_refuse(f, "%s: nb[0] is %zu, expected %zu: values of a row must be contiguous",
                         name, t->nb[0], ggml_type_size(t->type));
    }
    for (int d = 1; d < GGML_MAX_DIMS; d++) {
        if (t->nb[d] % align != 0 || t->nb[d] > PTRDIFF_MAX) {
            return op_refuse(f, "%s: nb[%d] is %zu, expected a multiple of %zu below 2^63", name, d,
                             t->nb[d], align);
        }
    }
    size_t bytes = 0;
    if (!extent(t, &bytes)) {
        return op_refuse(f, "%s: its strides span more than 2^63 bytes, expected less", name);
    }
    const struct ggml_tensor *base = t->view_src;
    if (base != NULL && bytes > 0 &&
        (t->view_offs > ggml_nbytes(base) || bytes > ggml_nbytes(base) - t->view_offs)) {
        return op_refuse(f, "%s: a view of %zu bytes from %zu, expected to end within %zu", name,
                         bytes, t->view_offs, ggml_nbytes(base));
    }
    if ((uintptr_t)t->data % align != 0) {
        return op_refuse(f, "%s: its memory is at %p, expected a multiple of %zu", name, t->data,
                         align);
    }
    return true;
}

bool op_check_f32(const char *function, const char *name, const struct ggml_tensor *t,
                  const int64_t *ne) {
    bool good = check_type(function, name, t, GGML_TYPE_F32);
    for (int d = 0; d < GGML_MAX_DIMS && good; d++) {
        good = check_ne(function, name, t, d, ne[d], ne[d]);
    }
    return good && check_layout(function, name, t);
}

bool op_check_apart(const char *function, const char *name_a, const struct ggml_tensor *a,
                    const char *name_b, const struct ggml_tensor *b) {
    size_t a_bytes = 0, b_bytes = 0;
    if (a == NULL || b == NULL || !extent(a, &a_bytes) || !extent(b, &b_bytes) || a_bytes == 0 ||
        b_bytes == 0) {
        return true;
    }
    const struct ggml_tensor *a_base = a->view_src != NULL ? a->view_src : a;
    const struct ggml_tensor *b_base = b->view_src != NULL ? b->view_src : b;
    uintptr_t a_at = (uintptr_t)a->data, b_at = (uintptr_t)b->data;
    if (a_base == b_base) {
        a_at = a->view_offs;
        b_at = b->view_offs;
    } else if (a_at == 0 || b_at == 0) {
        return true; /* allocated later, and then apart */
    }
    if (a_at < b_at ? a_bytes <= b_at - a_at : b_bytes <= a_at - b_at) {
        return true;
    }
    return op_refuse(function, "%s: shares memory with %s, expected memory of its own", name_a,
                     name_b);
}

/* ---- parts ---------------------------------------------------------------------------------- */

static bool check_q(const struct op_args *args) {
    const char *f = args->function;
    const struct ggml_tensor *q = args->src[SRC_Q];
    if (q == NULL) {
        return op_refuse(f, "q: NULL, expected a tensor");
    }
    return check_type(f, "q", q, GGML_TYPE_F32) && check_ne(f, "q", q, 0, 1, COUNT_MAX) &&
           check_ne(f, "q", q, 1, 1, rows_max) && check_ne(f, "q", q, 2, 1, COUNT_MAX) &&
           check_ne(f, "q", q, 3, 1, rows_max) && check_layout(f, "q", q);
}

/* K or V: a format that we know, whole blocks, one entry or one for each sequence. */
static bool check_rows(const struct op_args *args, enum op_source source) {
    const char *f = args->function, *name = names[source];
    const struct ggml_tensor *t = args->src[source], *q = args->src[SRC_Q];
    enum varve_format format;
    if (!op_format(t->type, &format)) {
        return op_refuse(f,
                         "%s: type is %s, expected f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1 or "
                         "iq4_nl",
                         name, type_name(t->type));
    }
    if (!check_ne(f, name, t, 0, 1, COUNT_MAX) || !check_ne(f, name, t, 1, 0, rows_max) ||
        !check_ne(f, name, t, 2, 1, q->ne[2])) {
        return false;
    }
    if (t->ne[0] % varve_format_block_values(format) != 0) {
        return op_refuse(f, "%s: ne[0] is %" PRId64 ", expected a multiple of %d for %s", name,
                         t->ne[0], (int)varve_format_block_values(format), type_name(t->type));
    }
    if (t->ne[3] != 1 && t->ne[3] != q->ne[3]) {
        return op_refuse(f, "%s: ne[3] is %" PRId64 ", expected 1 or %" PRId64 " as q", name,
                         t->ne[3], q->ne[3]);
    }
    if (q->ne[2] % t->ne[2] != 0) {
        return op_refuse(f, "%s: ne[2] is %" PRId64 ", expected a divisor of q's %" PRId64, name,
                         t->ne[2], q->ne[2]);
    }
    return check_layout(f, name, t);
}

static bool check_mask(const struct op_args *args, enum op_source source, int64_t n_row) {
    const char *f = args->function, *name = names[source];
    const struct ggml_tensor *mask = args->src[source], *q = args->src[SRC_Q];
    if (mask == NULL) {
        return true;
    }
    if (!check_type(f, name, mask, GGML_TYPE_F16) ||
        !check_ne(f, name, mask, 0, n_row, INT64_MAX) ||
        !check_ne(f, name, mask, 1, q->ne[1], INT64_MAX)) {
        return false;
    }
    for (int d = 2; d < GGML_MAX_DIMS; d++) {
        const int64_t most = q->ne[d];
        if (mask->ne[d] != 1 && mask->ne[d] != most) {
            return op_refuse(f, "%s: ne[%d] is %" PRId64 ", expected 1 or %" PRId64 " as q", name,
                             d, mask->ne[d], most);
        }
    }
    return check_layout(f, name, mask);
}

static bool check_part(const struct op_args *args, int part) {
    const char *f = args->function;
    const int k_at = SRC_K + part * PART_STRIDE, v_at = SRC_V + part * PART_STRIDE;
    const struct ggml_tensor *k = args->src[k_at], *v = args->src[v_at];
    if (k == NULL && v == NULL) {
        return true;
    }
    if (k == NULL || v == NULL) {
        return op_refuse(f, "%s: NULL, expected a tensor, as %s is one",
                         names[k == NULL ? k_at : v_at], names[k == NULL ? v_at : k_at]);
    }
    return check_rows(args, (enum op_source)k_at) && check_rows(args, (enum op_source)v_at) &&
           check_ne(f, names[k_at], k, 0, args->src[SRC_Q]->ne[0], args->src[SRC_Q]->ne[0]) &&
           check_ne(f, names[v_at], v, 1, k->ne[1], k->ne[1]) &&
           check_ne(f, names[v_at], v, 2, k->ne[2], k->ne[2]) &&
           check_mask(args, (enum op_source)(SRC_MASK + part * PART_STRIDE), k->ne[1]);
}

static bool check_parts(const struct op_args *args) {
    const char *f = args->function;
    const struct ggml_tensor *k = args->src[SRC_K], *k_quant = args->src[SRC_K_QUANT];
    const struct ggml_tensor *v = args->src[SRC_V], *v_quant = args->src[SRC_V_QUANT];
    if (!check_part(args, 0) || !check_part(args, 1)) {
        return false;
    }
    return k == NULL || k_quant == NULL ||
           (check_ne(f, "k_quant", k_quant, 2, k->ne[2], k->ne[2]) &&
            check_ne(f, "v_quant", v_quant, 0, v->ne[0], v->ne[0]));
}

static bool check_numbers(const struct op_args *args) {
    const float value[] = {args->with.scale, args->with.max_bias, args->with.softcap};
    const char *const name[] = {"scale", "max_bias", "logit_softcap"};
    for (int i = 0; i < 3; i++) {
        if (!isfinite(value[i])) {
            return op_refuse(args->function, "%s: is %g, expected a finite value", name[i],
                             (double)value[i]);
        }
    }
    return true;
}

/* ---- state and result ----------------------------------------------------------------------- */

/* Without V anywhere, the size of what V would give: that of the state, of the result, or of K. */
static int64_t head_dim_v(const struct op_args *args) {
    const struct ggml_tensor *state = args->src[SRC_STATE];
    if (args->src[SRC_V] != NULL || args->src[SRC_V_QUANT] != NULL) {
        return args->src[args->src[SRC_V] != NULL ? SRC_V : SRC_V_QUANT]->ne[0];
    }
    if (state != NULL && op_state_has_o(state)) {
        return state->ne[0] - 2;
    }
    if (args->output != NULL || (args->previous != NULL && state != NULL)) {
        return (args->output != NULL ? args->output : args->previous)->ne[0];
    }
    return args->src[SRC_Q]->ne[0];
}

bool op_check_sinks(const struct op_args *args, int64_t n_head) {
    const int64_t ne[] = {n_head, 1, 1, 1};
    return args->sinks == NULL || op_check_f32(args->function, "sinks", args->sinks, ne);
}

static bool check_contiguous(const char *f, const char *name, const struct ggml_tensor *t) {
    return ggml_is_contiguous(t) ||
           op_refuse(f, "%s: its strides leave gaps, expected a contiguous tensor", name);
}

/* A state of the call: with o, or m and s alone, which is completed by a result. */
static bool check_call_state(const struct op_args *args) {
    const char *f = args->function;
    const struct ggml_tensor *state = args->src[SRC_STATE], *q = args->src[SRC_Q];
    const int first_final = FLAG_FIRST | FLAG_FINAL;
    const int64_t dv = args->with.head_dim_v;
    if (state == NULL) {
        return (args->with.flags & first_final) == first_final ||
               op_refuse(f, "state: NULL, expected a tensor unless a call is first and final");
    }
    const bool has_o = state->ne[0] != 2;
    const int64_t ne[] = {has_o ? 2 + dv : 2, q->ne[2], q->ne[1], q->ne[3]};
    const int64_t result[] = {dv, q->ne[2], q->ne[1], q->ne[3]};
    if (!op_check_f32(f, "state", state, ne) || !check_contiguous(f, "state", state)) {
        return false;
    }
    if (has_o || (args->with.flags & FLAG_FIRST) != 0) {
        return true;
    }
    if (args->previous == NULL && args->output == NULL) {
        return op_refuse(f, "previous: NULL, expected the result of the call before: a state of "
                            "m and s alone leaves o there");
    }
    return args->previous == NULL || op_check_f32(f, "previous", args->previous, result);
}

/* The state is written while inputs may still be wanted by others; nothing may lie in it. */
static bool check_apart(const struct op_args *args) {
    const char *f = args->function;
    const struct ggml_tensor *state = args->src[SRC_STATE];
    bool good = true;
    for (int i = 0; i < SRC_STATE && good; i++) {
        good = op_check_apart(f, "state", state, names[i], args->src[i]);
    }
    good = good && op_check_apart(f, "state", state, "sinks", args->sinks) &&
           op_check_apart(f, "state", state, "output", args->output) &&
           op_check_apart(f, "output", args->output, "sinks", args->sinks);
    /* with o in the state, the node before may well be one that has filled the state */
    if (good && state != NULL && !op_state_has_o(state)) {
        good = op_check_apart(f, "state", state, "previous", args->previous);
    }
    return good;
}

bool op_check_attend(struct op_args *args) {
    if (!check_q(args) || !check_parts(args) || !check_numbers(args)) {
        return false;
    }
    const struct ggml_tensor *q = args->src[SRC_Q];
    const int64_t dv = head_dim_v(args);
    if (dv < 1 || dv > COUNT_MAX) {
        return op_refuse(args->function, "head size of V: is %" PRId64 ", expected 1 to %d", dv,
                         COUNT_MAX);
    }
    args->with.head_dim_v = (int32_t)dv;
    const int64_t result[] = {dv, q->ne[2], q->ne[1], q->ne[3]};
    return check_call_state(args) &&
           (args->output == NULL || op_check_f32(args->function, "output", args->output, result)) &&
           op_check_sinks(args, q->ne[2]) && check_apart(args);
}

bool op_check_state(struct op_args *args, const char *name, const struct ggml_tensor *state) {
    const char *f = args->function;
    if (state == NULL) {
        return op_refuse(f, "%s: NULL, expected a state", name);
    }
    if (!check_type(f, name, state, GGML_TYPE_F32) ||
        !check_ne(f, name, state, 0, 2 + 1, 2 + COUNT_MAX) ||
        !check_ne(f, name, state, 1, 1, COUNT_MAX) || !check_ne(f, name, state, 2, 1, rows_max) ||
        !check_ne(f, name, state, 3, 1, rows_max) || !check_layout(f, name, state) ||
        !check_contiguous(f, name, state)) {
        return false;
    }
    args->src[SRC_STATE] = state;
    args->with.head_dim_v = (int32_t)(state->ne[0] - 2);
    return true;
}
