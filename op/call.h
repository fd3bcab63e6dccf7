/* A call of the op as its two nodes see it.
 *
 * Node "parts" (its tensor is scratch) has the inputs as sources: it attends to the rows and copies
 * the carried records. Node "join" has "parts" as a source: it merges, and writes state and output.
 * ggml's barrier lies between the two. Everything that join writes it has read from parts, so
 * nothing is overwritten that another thread still reads. docs/state.md has the drawing. */
#ifndef VARVE_OP_CALL_H
#define VARVE_OP_CALL_H

#include "varve/op.h"
#include "varve/varve.h"

#include <stdatomic.h>

enum { OP_LINE = 64 }; /* a cache line */

/* Sources of parts. Those of the quantized part follow those of the F16 part in the same order. */
enum op_source {
    SRC_Q,
    SRC_K,
    SRC_V,
    SRC_MASK,
    SRC_K_QUANT,
    SRC_V_QUANT,
    SRC_MASK_QUANT,
    SRC_STATE,
    SRC_OUTPUT, /* what holds o for a state without o; else only a node to wait for */
    SRC_COUNT,
};
enum { PART_STRIDE = SRC_K_QUANT - SRC_K, PART_COUNT = 2 };

/* Sources of join. JOIN_BASE is what its tensor is a view of, or parts once more. */
enum { JOIN_BASE, JOIN_PARTS, JOIN_STATE, JOIN_SINKS, JOIN_FROM, JOIN_FROM_AFTER, JOIN_COUNT };

enum op_kind { OP_ATTEND, OP_MERGE, OP_FINISH };
enum op_flag { FLAG_FIRST = 1, FLAG_FINAL = 2, FLAG_DIVIDE = 4, FLAG_LSE = 8 };

/* What is no tensor. It lies at the end of op_params of both nodes, behind what ggml keeps there.
 */
struct op_scalars {
    float scale, max_bias, softcap;
    int32_t head_dim_v;
    int32_t n_thread; /* that share the call */
    uint16_t kind, flags;
    uint32_t number; /* counts calls, for the trace */
};

/* Which record: batch entry, query, head. */
struct op_index {
    int64_t b, i;
    int32_t h;
};

/* A problem for the library, and where things lie in scratch (bytes from its aligned base). */
struct op_call {
    const struct ggml_tensor *src[SRC_COUNT];
    struct op_scalars with;
    struct varve_attention attention;
    struct varve_mask masks[PART_COUNT];
    struct varve_segment segments[PART_COUNT];
    struct varve_io io;
    int64_t n_record;
    size_t record_bytes; /* of 2 + DV floats, rounded up to lines */
    size_t slot_at, work_at, carry_at, varve_at;
};

/* First line of scratch: written by thread 0 of parts. */
struct op_header {
    atomic_int n_left; /* threads that have left join */
    int32_t n_thread;  /* that worked on parts */
};

/* Where a value that is not finite came from. */
enum op_origin {
    ORIGIN_NONE,
    ORIGIN_Q,
    ORIGIN_K,
    ORIGIN_V,
    ORIGIN_MASK,
    ORIGIN_STATE,
    ORIGIN_COMPUTED
};
struct op_finding {
    int32_t origin, part;
    int64_t b, row, head; /* row: a query, or a KV row */
};

/* Smallest and largest values of m and s. */
struct op_range {
    float m_low, m_high, s_low, s_high;
};

/* What a thread leaves for join and for the trace; in lines of its own. */
struct op_slot {
    int32_t status; /* enum varve_status of its work on parts */
    struct op_range before, after;
    struct op_finding input, result; /* the first one each */
};
enum { OP_SLOT_BYTES = 3 * OP_LINE };
_Static_assert(sizeof(struct op_slot) <= OP_SLOT_BYTES, "a slot must fit");

/* Records that a thread works with in join; each in lines of its own. */
enum op_work { WORK_SUM, WORK_PART, WORK_ROW, WORK_COUNT };

/* The library's context, made at the first call; NULL with a line to the log when it cannot be. */
const struct varve_context *op_context(const char *function);

/* The format of a type; false: none. */
bool op_format(enum ggml_type type, enum varve_format *format);

/* Translates sources and scalars. False when offsets into scratch do not fit into size_t. Pointers
 * lead into *call: it must stay where it is. */
bool op_call_read(struct op_call *call, const struct ggml_tensor *const *src,
                  const struct op_scalars *with);
/* The same from the node parts, at run time. */
void op_call_of(struct op_call *call, const struct ggml_tensor *parts);

/* A plan for the call: the same for all threads. *plan is NULL for calls without attention. */
enum varve_status op_plan(const struct op_call *call, struct varve_plan **plan);

/* Bytes of scratch with the slack for aligning it; false: does not fit. */
bool op_scratch_bytes(const struct op_call *call, const struct varve_plan *plan, size_t *bytes);

void op_scalars_store(struct ggml_tensor *node, const struct op_scalars *with);
struct op_scalars op_scalars_load(const struct ggml_tensor *node);

/* The two nodes' functions. */
void op_parts(struct ggml_tensor *dst, int ith, int nth, void *unused);
void op_join(struct ggml_tensor *dst, int ith, int nth, void *unused);

/* One line to ggml's log; false, so that a check is one statement. */
bool op_refuse(const char *function, const char *format, ...) __attribute__((format(printf, 2, 3)));

static inline bool op_has(const struct op_call *call, enum op_flag flag) {
    return (call->with.flags & flag) != 0;
}

/* Whether the records of a state tensor hold o too. */
static inline bool op_state_has_o(const struct ggml_tensor *state) { return state->ne[0] > 2; }

static inline char *op_base(void *scratch) {
    const size_t past = (uintptr_t)scratch % OP_LINE;
    return (char *)scratch + (past == 0 ? 0 : OP_LINE - past);
}

static inline struct op_header *op_header_of(char *base) {
    return (struct op_header *)(void *)base;
}

static inline struct op_slot *op_slot_of(const struct op_call *call, char *base, int thread) {
    return (struct op_slot *)(void *)(base + call->slot_at + (size_t)thread * OP_SLOT_BYTES);
}

static inline float *op_work_of(const struct op_call *call, char *base, int thread,
                                enum op_work work) {
    const size_t n = (size_t)thread * WORK_COUNT + work;
    return (float *)(void *)(base + call->work_at + n * call->record_bytes);
}

static inline int64_t op_number_of(const struct op_call *call, struct op_index at) {
    const struct varve_attention *a = &call->attention;
    return (at.b * a->n_query + at.i) * a->n_head + at.h;
}

static inline struct op_index op_index_of(const struct op_call *call, int64_t r) {
    const struct varve_attention *a = &call->attention;
    return (struct op_index){r / a->n_head / a->n_query, r / a->n_head % a->n_query,
                             (int32_t)(r % a->n_head)};
}

static inline float *op_carry_of(const struct op_call *call, char *base, struct op_index at) {
    return (float *)(void *)(base + call->carry_at +
                             (size_t)op_number_of(call, at) * call->record_bytes);
}

/* Row of a tensor [.., n_head, n_query, n_batch]. */
static inline char *op_row_of(const struct ggml_tensor *t, struct op_index at) {
    return (char *)t->data + (size_t)at.h * t->nb[1] + (size_t)at.i * t->nb[2] +
           (size_t)at.b * t->nb[3];
}

/* One record as a state of the library's. */
static inline struct varve_state op_state_of(const struct op_call *call, float *record) {
    return (struct varve_state){record, 1, 1, 1, call->with.head_dim_v};
}

void op_record_empty(const struct op_call *call, float *record);

#endif
