/* varve: attention over a segmented, mixed-precision KV cache on CPUs.
 *
 * SPDX-License-Identifier: MIT
 *
 * The whole public interface, in the order in which data flows: formats, context, segments, plan,
 * run, state. Every function is documented with six entries: purpose, @units (shapes and units),
 * @owns (who owns what afterwards), @errors, @threads and @see (the section of docs/DESIGN.md or
 * the paper it follows).
 *
 * Words. `n_query` query rows, `n_head` query heads, `n_head_kv` KV heads, group = n_head /
 * n_head_kv. A *row* is K (or V) of one token for all KV heads. A *segment* is a borrowed run of
 * rows in one K format and one V format. A *state* is, per query and head, the running maximum m,
 * the running sum s and the unnormalised output o of an online softmax; m and LSE are natural
 * logarithms. Strides are in bytes, always; counts begin with n_; sizes end with _bytes.
 *
 * Nothing here prints, aborts, exits or keeps global state. Functions that can fail return
 * enum varve_status and write nothing on failure. Those that have a context send one line to its
 * log callback that names the argument, its value and what was expected.
 */
#ifndef VARVE_VARVE_H
#define VARVE_VARVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(VARVE_BUILD) && defined(__GNUC__)
#define VARVE_API __attribute__((visibility("default")))
#else
#define VARVE_API
#endif

#define VARVE_VERSION_MAJOR 0
#define VARVE_VERSION_MINOR 1
#define VARVE_VERSION_PATCH 0

/* ------------------------------------------------------------------------------------ status */

/* Result of every call that can fail. The numbers are part of the ABI. */
enum varve_status {
    VARVE_OK = 0,
    VARVE_ERROR_ARGUMENT = 1,    /* a NULL, shape, stride or value that is not allowed */
    VARVE_ERROR_UNSUPPORTED = 2, /* valid, but this build cannot do it */
    VARVE_ERROR_OVERFLOW = 3,    /* a size does not fit into size_t or int64_t */
    VARVE_ERROR_MEMORY = 4,      /* the allocator returned NULL, or a buffer is too small */
};

/** Text of a status, for messages.
 *  @units  status: any value; unknown ones give "unknown status".
 *  @owns   static storage, never freed.
 *  @errors none.
 *  @threads safe.
 *  @see    docs/DESIGN.md 2 (promise 7) */
VARVE_API const char *varve_status_text(enum varve_status status);

/** Version of the library that is running, "major.minor.patch".
 *  @units  none.
 *  @owns   static storage, never freed.
 *  @errors none.
 *  @threads safe.
 *  @see    docs/DESIGN.md 8 (ABI rule) */
VARVE_API const char *varve_version(void);

/* ----------------------------------------------------------------------------------- formats */

/* How one K or V row is stored. Bytes are ggml's (docs/FORMATS.md). The numbers are ABI. */
enum varve_format {
    VARVE_FORMAT_F32 = 0,
    VARVE_FORMAT_F16 = 1,
    VARVE_FORMAT_BF16 = 2,
    VARVE_FORMAT_Q8_0 = 3,
    VARVE_FORMAT_Q4_0 = 4,
    VARVE_FORMAT_Q4_1 = 5,
    VARVE_FORMAT_Q5_0 = 6,
    VARVE_FORMAT_Q5_1 = 7,
    VARVE_FORMAT_IQ4_NL = 8,
};
#define VARVE_FORMAT_COUNT 9

/** Name of a format as llama.cpp spells it on its command line ("q4_0").
 *  @units  format: one of enum varve_format.
 *  @owns   static storage, never freed.
 *  @errors NULL for a value outside the enum.
 *  @threads safe.
 *  @see    docs/FORMATS.md */
VARVE_API const char *varve_format_name(enum varve_format format);

/** Format of a name, the inverse of varve_format_name.
 *  @units  name: NUL-terminated, any case.
 *  @owns   nothing kept.
 *  @errors VARVE_ERROR_ARGUMENT for NULL or an unknown name; *format is then untouched.
 *  @threads safe.
 *  @see    docs/FORMATS.md */
VARVE_API enum varve_status varve_format_parse(const char *name, enum varve_format *format);

/** Number of consecutive values that share one block of bytes (1 for float formats, else 32).
 *  @units  values.
 *  @owns   nothing.
 *  @errors 0 for a value outside the enum.
 *  @threads safe.
 *  @see    docs/FORMATS.md */
VARVE_API int32_t varve_format_block_values(enum varve_format format);

/** Bytes that n_values consecutive values take.
 *  @units  n_values: > 0 and a multiple of the block; *bytes: bytes.
 *  @owns   nothing.
 *  @errors VARVE_ERROR_ARGUMENT (NULL, format, not a multiple), VARVE_ERROR_OVERFLOW.
 *  @threads safe.
 *  @see    docs/FORMATS.md */
VARVE_API enum varve_status varve_format_row_bytes(enum varve_format format, int64_t n_values,
                                                   size_t *bytes);

/** Writes values in a format, byte for byte as ggml's reference quantizers do.
 *  @units  src: n_values floats; dst: varve_format_row_bytes(format, n_values) bytes.
 *  @owns   both buffers stay the caller's and must not overlap.
 *  @errors as varve_format_row_bytes, and VARVE_ERROR_ARGUMENT for a NULL buffer.
 *  @threads safe.
 *  @see    docs/FORMATS.md; ggml's quantize_row_*_ref define the bytes */
VARVE_API enum varve_status varve_format_encode(enum varve_format format, const float *src,
                                                int64_t n_values, void *dst);

/** Reads values back as F32: the exact meaning of the stored bytes.
 *  @units  src: varve_format_row_bytes(format, n_values) bytes; dst: n_values floats.
 *  @owns   both buffers stay the caller's and must not overlap.
 *  @errors as varve_format_row_bytes, and VARVE_ERROR_ARGUMENT for a NULL buffer.
 *  @threads safe.
 *  @see    docs/FORMATS.md */
VARVE_API enum varve_status varve_format_decode(enum varve_format format, const void *src,
                                                int64_t n_values, float *dst);

/* Whose bytes. ggml has several encoders for q8_0, which round differently; of the other formats
 * there is one, and all of these mean it. docs/FORMATS.md 4. */
enum varve_encoder {
    VARVE_ENCODER_REFERENCE = 0, /* x * (1 / d), half away from zero: varve_format_encode */
    VARVE_ENCODER_AVX = 1,       /* x * (127 / amax), half to even: ggml-cpu on x86-64 */
    VARVE_ENCODER_NEON = 2       /* x * (1 / d), half to even: ggml-cpu on 64-bit ARM */
};
#define VARVE_ENCODER_COUNT 3

/* ----------------------------------------------------------------------------------- context */

enum varve_log_level { VARVE_LOG_ERROR = 0, VARVE_LOG_INFO = 1 };

/* What the host gives to the library. Zero-initialise, then set what you need; new fields are added
 * at the end only, and struct_bytes tells the library which ones the caller knew. */
struct varve_context_params {
    size_t struct_bytes; /* sizeof(struct varve_context_params) */
    /* Memory of plans. NULL: the C library's. `allocate` returns a block aligned to `alignment` (a
     * power of two, at most 64) or NULL; `release` gets the same pointer and size. Both may be
     * called from any thread that calls into this context. */
    void *(*allocate)(void *user, size_t bytes, size_t alignment);
    void (*release)(void *user, void *block, size_t bytes);
    /* One complete line without a newline. NULL: silence. May be called from any thread. */
    void (*log)(void *user, enum varve_log_level level, const char *line);
    void *user;      /* passed to the three functions above */
    const char *isa; /* highest ISA level to use ("scalar", "avx2", "neon", ...); NULL: the best */
};

/* A kernel table and the host's callbacks. Immutable once created. */
struct varve_context;

/** Creates a context: detects the CPU, builds the kernel table.
 *  @units  params: NULL means all defaults.
 *  @owns   *context is the caller's, released by varve_context_destroy; params is not kept.
 *  @errors VARVE_ERROR_ARGUMENT (context NULL, struct_bytes 0, only one of allocate and release),
 *          VARVE_ERROR_UNSUPPORTED (isa unknown, or above what this CPU has),
 *          VARVE_ERROR_MEMORY. *context is NULL on failure.
 *  @threads safe.
 *  @see    docs/DESIGN.md 4 (kernel table) */
VARVE_API enum varve_status varve_context_create(const struct varve_context_params *params,
                                                 struct varve_context **context);

/** Releases a context. Plans made from it must be gone.
 *  @units  context: may be NULL.
 *  @owns   the context is invalid afterwards.
 *  @errors none.
 *  @threads caller locks.
 *  @see    docs/DESIGN.md 4 */
VARVE_API void varve_context_destroy(struct varve_context *context);

/** Name of the ISA level whose kernels the context uses.
 *  @units  context: not NULL.
 *  @owns   static storage.
 *  @errors none.
 *  @threads safe.
 *  @see    docs/DESIGN.md 4 */
VARVE_API const char *varve_context_isa(const struct varve_context *context);

/** Name of the i-th ISA level that this build knows, weakest first, and whether this CPU has it.
 *  @units  i: 0, 1, 2...; *available may be NULL.
 *  @owns   static storage.
 *  @errors NULL when i is past the last level.
 *  @threads safe.
 *  @see    docs/DESIGN.md 4 */
VARVE_API const char *varve_isa_name(int32_t i, bool *available);

/** Writes a row as varve_format_encode does, with the kernels of the context and by any of ggml's
 *  encoders.
 *  @units  as varve_format_encode.
 *  @owns   both buffers stay the caller's and must not overlap.
 *  @errors as varve_format_encode. VARVE_ERROR_UNSUPPORTED, with anything in dst, for encoders
 *          other than the reference one where a block holds a NaN, an infinity, or values so small
 *          that the reciprocal of its step overflows: there the encoder itself has to be asked.
 *  @threads safe.
 *  @see    varve_encoder_find */
VARVE_API enum varve_status varve_encode(const struct varve_context *context,
                                         enum varve_format format, enum varve_encoder encoder,
                                         const float *src, int64_t n_values, void *dst);

/* A function that encodes a row, as ggml has them. */
typedef void varve_from_float_fn(const float *src, void *dst, int64_t n_values);

/** Finds the encoder whose bytes a function writes, by comparing both on blocks that tell encoders
 *  apart: ties, values a few units in the last place beside them, steps of many sizes, NaN.
 *  @units  theirs is given n_values floats, a multiple of 32, and room for their row.
 *  @owns   nothing; theirs is not kept.
 *  @errors VARVE_ERROR_ARGUMENT; VARVE_ERROR_UNSUPPORTED where none writes the same bytes, or where
 *          this library has no kernel that would be faster.
 *  @threads safe; takes some 100 microseconds.
 *  @see    docs/FORMATS.md 4 */
VARVE_API enum varve_status varve_encoder_find(const struct varve_context *context,
                                               enum varve_format format,
                                               varve_from_float_fn *theirs,
                                               enum varve_encoder *encoder);

/* --------------------------------------------------------------------------------- attention */

/* How products are formed (docs/NUMERICS.md 2). Depends on format and option, never on shape. */
enum varve_arithmetic {
    VARVE_ARITHMETIC_DEFAULT = 0, /* EXACT for f32, f16 and bf16 rows, Q8 for quantized rows */
    VARVE_ARITHMETIC_EXACT = 1,   /* F32 Q, F32-accurate products, for every format */
    VARVE_ARITHMETIC_Q8 = 2,      /* quantized rows: Q in 8 bits per block of 32, exact integer dot
                                     products; float rows: as EXACT */
    VARVE_ARITHMETIC_FAST = 3,    /* many queries: Q, K, P and V rounded to bfloat16, sums in F32,
                                     where the CPU has such products; few queries, other CPUs,
                                     quantized K, and quantized V beside it: as DEFAULT */
};

/** Name of a class: "default", "exact", "q8" or "fast".
 *  @units  arithmetic: one of enum varve_arithmetic.
 *  @owns   static storage, never freed.
 *  @errors NULL for a value outside the enum.
 *  @threads safe.
 *  @see    docs/NUMERICS.md 2 */
VARVE_API const char *varve_arithmetic_name(enum varve_arithmetic arithmetic);

/* The problem: shapes and numerics, no data. Zero-initialise, then set. */
struct varve_attention {
    int32_t head_dim_k; /* DK > 0, a multiple of the K format's block */
    int32_t head_dim_v; /* DV > 0, a multiple of the V format's block; may differ from DK */
    int32_t n_head;     /* query heads, a multiple of n_head_kv */
    int32_t n_head_kv;  /* KV heads */
    int64_t n_query;    /* query rows per batch entry, >= 0 */
    int64_t n_batch;    /* independent sequences (streams), >= 0 */
    float scale;        /* factor of q.k, usually 1/sqrt(DK) */
    float softcap;      /* 0: off; else logits become softcap * tanh(logit / softcap) */
    float max_bias;     /* 0: off; else ALiBi: the mask is multiplied by the head's slope */
    enum varve_arithmetic arithmetic;
    /* Visibility by position, without a mask tensor: query i stands at query_pos + i, row r of a
     * segment at segment.pos + r. A mask tensor, if given, applies on top. */
    bool causal;       /* rows after the query are not seen */
    int64_t window;    /* 0: off; else only rows with query position - row position < window */
    int64_t query_pos; /* absolute position of query 0, used by causal, window and ALiBi */
    /* Leave the partial state of each chunk in scratch, also when there is one chunk: no phase 1,
     * no state, no output. varve_partial_read then gives the merged records. */
    bool partials;
    bool
        alibi_by_mask; /* rows without a mask tensor get no ALiBi bias, as in ggml; else by position
                        */
};

struct varve_mask;

/* A borrowed run of rows. Row r of KV head h of batch entry b starts at
 * k + r * k_row_stride + h * k_head_stride + b * k_batch_stride, likewise for V. Rows may overlap,
 * and V may be a view of K (MLA). The memory must stay readable until the run has returned. */
struct varve_segment {
    enum varve_format k_format;
    enum varve_format v_format;
    const void *k; /* may be NULL when n_rows is 0 */
    const void *v;
    int64_t n_rows; /* >= 0 */
    int64_t k_row_stride, k_head_stride, k_batch_stride;
    int64_t v_row_stride, v_head_stride, v_batch_stride;
    int64_t mask_column; /* column of the mask tensor that belongs to row 0 */
    int64_t pos;         /* absolute position of row 0, for causal, window and ALiBi without mask */
    const struct varve_mask *mask; /* the segment's own mask; NULL: that of struct varve_io */
};

/* F16 mask, added to the scaled logits (after softcap, times the ALiBi slope); -inf hides a row.
 * Element (b, h, i, c) is at data + b % n_batch * batch_stride + h % n_head * head_stride +
 * i * row_stride + 2 * c. */
struct varve_mask {
    const void *data; /* not NULL */
    int64_t n_column; /* columns that may be read: mask_column + n_rows of each segment <= this */
    int64_t n_query;  /* rows that may be read, >= the problem's n_query */
    int32_t n_head;   /* 1: shared by all heads; a divisor of the problem's n_head */
    int64_t n_batch;  /* 1: shared; a divisor of the problem's n_batch */
    int64_t row_stride, head_stride, batch_stride;
};

/* F32 vectors: element (b, i, h, d) at data + b * batch_stride + i * query_stride +
 * h * head_stride + 4 * d. */
struct varve_query {
    const float *data;
    int64_t query_stride, head_stride, batch_stride;
};
struct varve_output {
    float *data; /* NULL: not wanted (LSE only) */
    int64_t query_stride, head_stride, batch_stride;
    float *lse; /* NULL: not wanted; else contiguous [n_batch][n_query][n_head], natural log */
};

/* Everything a run reads and writes. With `state`, the segments are accumulated into it and neither
 * output nor sinks may be given; without, the result goes to `output`. */
struct varve_io {
    struct varve_query query;
    const struct varve_segment *segments; /* n_segment of them, may be NULL when n_segment is 0 */
    int64_t n_segment;
    const struct varve_mask *mask; /* of segments without one of their own; NULL: no mask */
    const float *sinks;            /* NULL, or n_head learned sink logits, entered once */
    struct varve_state *state;     /* NULL: one complete attention */
    struct varve_output output;
};

/* -------------------------------------------------------------------------------------- plan */

/* How a problem is cut into tasks, which kernels serve it, how scratch is laid out. Depends on
 * shapes and formats alone: never on the number of threads, so the same bits come out for any. */
struct varve_plan;

/** Makes a plan for a problem over segments.
 *  @units  n_worker: how many tasks may run at once (>= 1; sizes the scratch, and with few
 *          queries the tasks; no result depends on it). The segments' formats and lengths count,
 *          their pointers do not; a plan serves any io whose segments use only these formats and
 *          have the same total number of rows.
 *  @owns   *plan is the caller's, released by varve_plan_destroy before the context; nothing else
 *          is kept but the context.
 *  @errors VARVE_ERROR_ARGUMENT, VARVE_ERROR_UNSUPPORTED, VARVE_ERROR_OVERFLOW, VARVE_ERROR_MEMORY.
 *          *plan is NULL on failure.
 *  @threads safe.
 *  @see    docs/DESIGN.md 5 (plan) */
VARVE_API enum varve_status varve_plan_create(const struct varve_context *context,
                                              const struct varve_attention *attention,
                                              const struct varve_segment *segments,
                                              int64_t n_segment, int32_t n_worker,
                                              struct varve_plan **plan);

/** Releases a plan.
 *  @units  plan: may be NULL.
 *  @owns   the plan is invalid afterwards.
 *  @errors none.
 *  @threads caller locks.
 *  @see    docs/DESIGN.md 5 */
VARVE_API void varve_plan_destroy(struct varve_plan *plan);

/** Exact scratch that a run of this plan uses.
 *  @units  bytes; may be 0. The memory needs an alignment of 64.
 *  @owns   nothing.
 *  @errors none.
 *  @threads safe.
 *  @see    docs/DESIGN.md 5 */
VARVE_API size_t varve_plan_scratch_bytes(const struct varve_plan *plan);

/** Number of tasks in a phase. All tasks of phase 0 must have ended before one of phase 1 begins;
 *  within a phase any order and any threads will do.
 *  @units  phase: 0 or 1 (VARVE_PHASE_COUNT phases); phase 1 may have none.
 *  @owns   nothing.
 *  @errors 0 for another phase.
 *  @threads safe.
 *  @see    docs/DESIGN.md 5 */
VARVE_API int64_t varve_plan_n_task(const struct varve_plan *plan, int32_t phase);
#define VARVE_PHASE_COUNT 2

/** Describes the plan in one line: kernels, tiles, chunks, tasks, scratch.
 *  @units  text: text_bytes bytes; always NUL-terminated when text_bytes > 0.
 *  @owns   text stays the caller's.
 *  @errors returns the length that the whole text needs, as snprintf does.
 *  @threads safe.
 *  @see    docs/DESIGN.md 5 */
VARVE_API int varve_plan_print(const struct varve_plan *plan, char *text, size_t text_bytes);

/** Multiply-adds of the plan's scores and folds if every row were visible: a measure of work by
 *  which a host can decide whether several threads pay.
 *  @units  multiply-add pairs.
 *  @owns   nothing.
 *  @errors none.
 *  @threads safe.
 *  @see    docs/DESIGN.md 5 */
VARVE_API double varve_plan_work(const struct varve_plan *plan);

/* --------------------------------------------------------------------------------------- run */

/** Checks an io against a plan. varve_run does this itself; hosts that drive tasks call it once.
 *  @units  see struct varve_io.
 *  @owns   nothing kept.
 *  @errors VARVE_ERROR_ARGUMENT with a log line that names the field.
 *  @threads safe.
 *  @see    docs/DESIGN.md 2 (promise 7) */
VARVE_API enum varve_status varve_io_check(const struct varve_plan *plan,
                                           const struct varve_io *io);

/** Runs a plan to the end.
 *  @units  scratch: varve_plan_scratch_bytes, aligned to 64, contents undefined before and after;
 *          n_thread: >= 1, threads of the OpenMP team to use, at most the plan's n_worker; in a
 *          build without OpenMP the calling thread does all.
 *  @owns   everything stays the caller's; borrowed until the call returns.
 *  @errors VARVE_ERROR_ARGUMENT, VARVE_ERROR_MEMORY (scratch NULL or misaligned).
 *  @threads safe for different outputs, states and scratch.
 *  @see    docs/DESIGN.md 3, 5; online softmax: Milakov and Gimelshein 2018; tiling: Dao 2022 */
VARVE_API enum varve_status varve_run(const struct varve_plan *plan, const struct varve_io *io,
                                      void *scratch, int32_t n_thread);

/** Runs one task, for engines with their own threads. Call varve_io_check once before.
 *  @units  phase: 0 or 1; task: 0 .. varve_plan_n_task(plan, phase) - 1, each exactly once; worker:
 *          0 .. n_worker - 1, no two tasks at once with the same worker.
 *  @owns   as varve_run.
 *  @errors none: the arguments have been checked.
 *  @threads safe under the rules above.
 *  @see    docs/DESIGN.md 5 */
VARVE_API void varve_run_task(const struct varve_plan *plan, const struct varve_io *io,
                              void *scratch, int32_t phase, int64_t task, int32_t worker);

/** Reads one record that a plan with `partials` left in scratch, once all tasks of phase 0 have
 *  ended: the partial states of its chunks, merged in the order of the chunks.
 *  @units  b, i, h: batch entry, query, query head; record: 2 + head_dim_v floats, m, s and o as in
 *          struct varve_state; m = -inf, s = 0 and o = 0 when the query saw no row.
 *  @owns   everything stays the caller's; scratch is not changed.
 *  @errors VARVE_ERROR_ARGUMENT (NULL, an index out of range, a plan without `partials`).
 *  @threads safe: any number of threads may read, the same record too.
 *  @see    docs/DESIGN.md 5, 6 */
VARVE_API enum varve_status varve_partial_read(const struct varve_plan *plan, const void *scratch,
                                               int64_t b, int64_t i, int32_t h, float *record);

/* ------------------------------------------------------------------------------------- state */

/* A state lives in memory of the caller's: for each (batch entry, query, head) one record of 2 + DV
 * floats: m (natural-log units, -inf when empty), s (sum of exp(logit - m)), o[DV] (unnormalised).
 * Record (b, i, h) starts at float ((b * n_query + i) * n_head + h) * (2 + head_dim_v). An empty
 * record has m = -inf and s = 0; its o is never read. */
struct varve_state {
    float *data;
    int64_t n_batch;
    int64_t n_query;
    int32_t n_head;
    int32_t head_dim_v;
};

/** Floats that the state of a problem takes.
 *  @units  floats (4 bytes each).
 *  @owns   nothing.
 *  @errors VARVE_ERROR_ARGUMENT (NULL, negative sizes), VARVE_ERROR_OVERFLOW.
 *  @threads safe.
 *  @see    docs/DESIGN.md 6 (states) */
VARVE_API enum varve_status varve_state_floats(const struct varve_attention *attention,
                                               size_t *n_float);

/** Makes an empty state in the caller's memory: the only initialisation there is.
 *  @units  data: n_float floats, n_float >= varve_state_floats.
 *  @owns   data stays the caller's and is borrowed as long as *state is used.
 *  @errors VARVE_ERROR_ARGUMENT, VARVE_ERROR_OVERFLOW, VARVE_ERROR_MEMORY (n_float too small).
 *  @threads caller locks.
 *  @see    docs/DESIGN.md 6 */
VARVE_API enum varve_status varve_state_init(const struct varve_attention *attention, float *data,
                                             size_t n_float, struct varve_state *state);

/** Merges src into dst: afterwards dst is the state of both sets of rows. Empty states are neutral.
 *  @units  equal shapes.
 *  @owns   both stay the caller's; src is not changed; they must not overlap.
 *  @errors VARVE_ERROR_ARGUMENT (NULL, shapes differ, dst and src share memory).
 *  @threads one thread per object.
 *  @see    docs/DESIGN.md 6 */
VARVE_API enum varve_status varve_state_merge(struct varve_state *dst,
                                              const struct varve_state *src);

/** Divides: writes the attention output and, if wanted, the natural log-sum-exp. The state itself
 *  is not changed, so it can go on growing.
 *  @units  sinks: NULL or n_head logits, entered here and nowhere else; output: as in struct
 *          varve_output, data or lse may be NULL. Empty records give zeros and LSE -inf.
 *  @owns   everything stays the caller's; output must not overlap the state.
 *  @errors VARVE_ERROR_ARGUMENT.
 *  @threads one thread per object.
 *  @see    docs/DESIGN.md 6 */
VARVE_API enum varve_status varve_state_finish(const struct varve_state *state, const float *sinks,
                                               const struct varve_output *output);

/** Fills a state from an exported pair (output, natural LSE), the inverse of varve_state_finish
 *  without sinks: m = LSE, s = 1, o = output; LSE -inf gives an empty record.
 *  @units  output->data and output->lse both needed.
 *  @owns   everything stays the caller's.
 *  @errors VARVE_ERROR_ARGUMENT.
 *  @threads one thread per object.
 *  @see    docs/DESIGN.md 6 */
VARVE_API enum varve_status varve_state_import(struct varve_state *state,
                                               const struct varve_output *output);

#ifdef __cplusplus
}
#endif

#endif
