/* varve: attention over an F16 part and a quantized part of a KV cache as one call in a ggml graph,
 * with an online-softmax state that carries over from call to call.
 *
 * SPDX-License-Identifier: MIT
 *
 * For authors of ggml graphs, with unmodified ggml: a call builds two nodes (GGML_OP_CUSTOM) that
 * ggml's CPU back end runs. Link with libvarve-op and with ggml; nothing else of varve is needed.
 * docs/state.md has the mathematics, drawings, and what goes wrong easily.
 *
 *     struct varve_ggml_state_params p = {.struct_bytes = sizeof(p), .first = true};
 *     y = varve_ggml_flash_attn_ext_with_state(ctx, q, k0, v0, m0, kq0, vq0, mq0, state,
 *                                              scale, 0, 0, &p);
 *     p.first = false;
 *     p.final = true;
 *     p.previous = y;
 *     y = varve_ggml_flash_attn_ext_with_state(ctx, q, k1, v1, m1, kq1, vq1, mq1, state,
 *                                              scale, 0, 0, &p);
 *     ggml_build_forward_expand(graph, y);
 *
 * Shapes are those of ggml, innermost first. n_q queries, n_head query heads, n_head_kv KV heads,
 * n_batch sequences, DK and DV head sizes of K and V. */
#ifndef VARVE_OP_H
#define VARVE_OP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <ggml.h> /* not "": varve/ggml.h lies beside this file */

#ifdef __cplusplus
extern "C" {
#endif

#if defined(VARVE_OP_BUILD) && defined(__GNUC__)
#define VARVE_OP_API __attribute__((visibility("default")))
#else
#define VARVE_OP_API
#endif

/* The most threads of a graph that share one call; more are allowed and find nothing to do. */
#define VARVE_GGML_STATE_THREADS 64

/* How a call stands to those before and after it. Zero-initialise, set struct_bytes, then what you
 * need; new fields come at the end. */
struct varve_ggml_state_params {
    size_t struct_bytes; /* sizeof(struct varve_ggml_state_params) */
    /* The first call over a state: what the state and the output hold is never read. Without it
     * the state goes on from what it holds: an earlier call, or varve_ggml_state_init. */
    bool first;
    /* The last call: the output is divided by the sum, learned sinks enter. */
    bool final;
    /* Divide the output of this call although it is not the last one. No sinks enter. */
    bool normalise;
    /* What must be computed before: the result of the previous call over the same state (or any
     * other node of the graph). With a state without o it must be that result, since it holds o.
     * NULL: nothing; then a state that is not new must have been filled before the graph runs. */
    struct ggml_tensor *previous;
    /* The tensor to write the result into, F32 [DV, n_head, n_q, n_batch]; the returned node is a
     * view of it. Calls may share it, and it may be `previous` itself. NULL: a new tensor. */
    struct ggml_tensor *output;
    /* Learned sink logits, F32 [n_head], entered once, by the last call; NULL: none. Calls that are
     * not the last may be given them too. */
    struct ggml_tensor *sinks;
    /* How many threads can share the call, which sizes its scratch; 0: VARVE_GGML_STATE_THREADS. */
    int32_t n_thread_max;
};

/* In the environment, VARVE_TRACE=1 prints a line for each call that has run, 2 also looks for
 * values that are not finite. VARVE_TRACE_FILE names a file for them. VARVE_ISA limits kernels. */

/** Builds attention of q over the rows of (k, v) and of (k_quant, v_quant), on top of what a state
 *  holds already. Segments may have any number of rows, 0 and 1 included, equal or not.
 *  @units  q: F32 [DK, n_q, n_head, n_batch]. k: [DK, n_kv, n_head_kv, n_batch], v: [DV, n_kv,
 *          n_head_kv, n_batch] (not transposed), k_quant and v_quant the same with an n_kv of
 *          their own; each of them in any of f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, iq4_nl;
 *          values of a row contiguous, other strides free; ne[3] may be 1 where n_batch is not.
 *          Either pair may be NULL (both of it), or have no rows. mask, mask_quant: F16 [>= n_kv,
 *          >= n_q, 1 or n_head, 1 or n_batch], each may be NULL, or a view into a larger one;
 *          -inf hides a row; the mask of a part that is NULL is not looked at. DK and DV are
 *          multiples of 32 for quantized types. All counts but n_kv are at least 1. Without any v,
 *          DV is that of state, output or previous, else DK.
 *          state: F32, contiguous, [2 + DV, n_head, n_q, n_batch]: per query and head the maximum m
 *          of the logits (natural-log units, -inf when empty), the sum s of exp(logit - m) and
 *          o[DV] = sum of exp(logit - m) v; or [2, n_head, n_q, n_batch]: m and s alone, o is then
 *          what the results of the calls hold. NULL for one complete call (first and final).
 *          scale, max_bias (ALiBi), logit_softcap: as ggml_flash_attn_ext; the logit is
 *          softcap(scale q.k) + slope * mask. params: NULL means first and final.
 *          Result: F32 [DV, n_head, n_q, n_batch]. After the last call, or with `normalise`, the
 *          attention over all rows so far (zeros for a query that saw none); before, o as above.
 *          Where the result is divided, a state without o is stored as m = LSE, s = 1 (empty: -inf,
 *          0), so that the divided result is its o. Sinks change the result only, never a state: a
 *          state without o and the result of a call with sinks do not belong together.
 *  @owns   the nodes belong to ctx. The state stays the caller's: a leaf with host memory, or a
 *          tensor of the graph. It is written in place while the returned node is computed, and
 *          must not overlap inputs or output. Nothing to free. ctx takes 2 tensors: the returned
 *          node and its scratch. The returned node's data and nb are read when it runs.
 *  @errors NULL, with one line to ggml's log that names the argument, its value and what was
 *          expected; nothing is added to ctx then. No memory while the graph runs: result and state
 *          are NaN and a line says so.
 *  @threads building: one thread per ctx. Running: any number of threads of
 *          the graph; the same bits for each.
 *  @see    docs/state.md; docs/DESIGN.md 6; online softmax: Milakov and Gimelshein 2018 */
VARVE_OP_API struct ggml_tensor *varve_ggml_flash_attn_ext_with_state(
    struct ggml_context *ctx, struct ggml_tensor *q, struct ggml_tensor *k, struct ggml_tensor *v,
    struct ggml_tensor *mask, struct ggml_tensor *k_quant, struct ggml_tensor *v_quant,
    struct ggml_tensor *mask_quant, struct ggml_tensor *state, float scale, float max_bias,
    float logit_softcap, const struct varve_ggml_state_params *params);

/** Makes a state empty (m = -inf, s = 0, o = 0), outside of a graph.
 *  @units  state: F32, contiguous, with o or without, with memory of the host.
 *  @owns   nothing kept.
 *  @errors false, with a line to ggml's log: NULL, no memory, another type or shape.
 *  @threads one thread per state.
 *  @see    docs/state.md */
VARVE_OP_API bool varve_ggml_state_init(struct ggml_tensor *state);

/** Builds the merge of two states: afterwards `into` is the state of both sets of rows. For calls
 *  that each had a state of their own; the order of merges does not matter beyond rounding.
 *  @units  into, from: states with o, of equal shapes: F32 [2 + DV, n_head, n_q, n_batch].
 *          into_after, from_after: the nodes that filled them (results of calls or of merges), or
 *          NULL where the tensor is itself such a node or was filled before.
 *  @owns   the returned node is a view of `into`; `from` is not changed. ctx takes 2 tensors.
 *  @errors NULL with a line to ggml's log, as above; also when the two overlap.
 *  @threads as above.
 *  @see    docs/state.md */
VARVE_OP_API struct ggml_tensor *varve_ggml_state_merge(struct ggml_context *ctx,
                                                        struct ggml_tensor *into,
                                                        struct ggml_tensor *into_after,
                                                        struct ggml_tensor *from,
                                                        struct ggml_tensor *from_after);

/** Builds the division of a state: the attention over all its rows.
 *  @units  state: with o. after: the node that filled it, or NULL. sinks: F32 [n_head] or NULL.
 *          Result: F32 [DV, n_head, n_q, n_batch]; with `with_lse` [DV + 1, ...], whose last value
 *          is the natural LSE, sinks included.
 *  @owns   the returned node is new; the state is not changed. ctx takes 2 tensors.
 *  @errors NULL with a line to ggml's log, as above.
 *  @threads as above.
 *  @see    docs/state.md */
VARVE_OP_API struct ggml_tensor *varve_ggml_state_finish(struct ggml_context *ctx,
                                                         struct ggml_tensor *state,
                                                         struct ggml_tensor *after,
                                                         struct ggml_tensor *sinks, bool with_lse);

/* What one call takes. */
struct varve_ggml_state_sizes {
    size_t state_bytes;   /* of a state with o */
    size_t scratch_bytes; /* of the tensor between the two nodes, which belongs to the graph */
    size_t output_bytes;
};

/** Sizes of a call, before any memory is taken.
 *  @units  as the arguments of the call; tensors need shapes and types only. bytes.
 *  @owns   nothing kept.
 *  @errors false with a line to ggml's log where the call would give NULL, also when a size does
 *          not fit into size_t; *sizes is not written then.
 *  @threads safe.
 *  @see    docs/state.md */
VARVE_OP_API bool varve_ggml_state_sizes(const struct ggml_tensor *q, const struct ggml_tensor *k,
                                         const struct ggml_tensor *v,
                                         const struct ggml_tensor *k_quant,
                                         const struct ggml_tensor *v_quant, int32_t n_thread_max,
                                         struct varve_ggml_state_sizes *sizes);

#ifdef __cplusplus
}
#endif

#endif
