#include "flash_run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check/problem.h"
#include "flash_graph.h"
#include "varve/op.h"

/* A run: leaves, and the graph at hand. */
struct run {
    const struct flash_data *data;
    const struct flash_case *c;
    int n_thread;
    bool with_o, in_graph; /* of the state of this run */
    struct flash_leaves leaves;
    struct ggml_tensor *states[FLASH_CALLS_MAX]; /* a chain has one */
    struct ggml_tensor *output;                  /* the shared one, or NULL */
    struct ggml_tensor *target;                  /* where nodes are redirected to, or NULL */
    struct flash_graph graph;
    struct flash_result *result;
};

static bool failed(struct run *run, const char *error) {
    if (run->result->error == NULL) run->result->error = error;
    return false;
}

/* ---- memory --------------------------------------------------------------------------------- */

static void state_ne(const struct run *run, bool with_o, int64_t ne[4]) {
    ne[0] = with_o ? 2 + run->c->dv : 2;
    ne[1] = run->c->n_head;
    ne[2] = run->c->n_query;
    ne[3] = run->c->n_batch;
}

static void output_ne(const struct run *run, int64_t ne[4]) {
    state_ne(run, true, ne);
    ne[0] = run->c->dv;
}

/* A place for redirected nodes whose strides are not those of a contiguous tensor: queries and
 * heads lie apart. */
static struct ggml_tensor *new_target(struct run *run) {
    const struct flash_case *const c = run->c;
    const int64_t ne[4] = {c->dv + 3, c->n_head + 1, c->n_query + 1, c->n_batch};
    struct ggml_tensor *const all = flash_leaf(&run->leaves, ne, run->c->offset);
    return ggml_view_4d(run->leaves.ctx, all, c->dv, c->n_head, c->n_query, c->n_batch, all->nb[1],
                        all->nb[2], all->nb[3], 0);
}

static size_t state_bytes(const struct run *run) {
    return ((size_t)run->c->dv + 5) * 4 * (size_t)(run->c->n_head + 1) *
               (size_t)(run->c->n_query + 1) * (size_t)run->c->n_batch +
           1024;
}

/* The library's own word on what calls take, with room for headers' alignment. */
static size_t graph_bytes(struct run *run) {
    struct varve_ggml_state_sizes sizes = {0};
    const struct flash_data *const d = run->data;
    if (!varve_ggml_state_sizes(d->q, d->k[0], d->v[0], d->k[1], d->v[1], run->c->n_thread_max,
                                &sizes)) {
        failed(run, "varve_ggml_state_sizes failed");
        return 1 << 20;
    }
    const size_t each =
        sizes.scratch_bytes + sizes.output_bytes + sizes.state_bytes + state_bytes(run) + 4096;
    /* masks that are copies */
    size_t masks = 0;
    for (int p = 0; p < FLASH_PARTS; p++) {
        if (d->mask[p] != NULL) masks += ggml_nbytes(d->mask[p]);
    }
    return each * (size_t)(2 * run->c->n_call + 2) + 2 * masks + (1 << 20);
}

/* An empty state; its o is never read, so it may hold NaN. */
static void make_empty(struct run *run, struct ggml_tensor *state) {
    if (!varve_ggml_state_init(state)) failed(run, "varve_ggml_state_init failed");
    const int64_t n = state->ne[0];
    for (int64_t r = 0; r < ggml_nrows(state); r++) {
        memset((float *)state->data + r * n + 2, 0xFF, (size_t)(n - 2) * sizeof(float));
    }
}

static void leaves_of(struct run *run, enum flash_way way) {
    const struct flash_case *const c = run->c;
    const int n_state = way == FLASH_PARTIALS ? c->n_call : 1;
    int64_t ne[4];
    flash_leaves_begin(&run->leaves, c->alloc, state_bytes(run) * (size_t)(n_state + 2));
    state_ne(run, run->with_o, ne);
    for (int i = 0; i < n_state && !run->in_graph; i++) {
        run->states[i] = flash_leaf(&run->leaves, ne, c->offset);
    }
    output_ne(run, ne);
    if (way != FLASH_PARTIALS && c->output == FLASH_OUTPUT_SHARED) {
        run->output = flash_leaf(&run->leaves, ne, c->offset);
    }
    if (way != FLASH_PARTIALS && c->output == FLASH_OUTPUT_REDIRECT) run->target = new_target(run);
    flash_leaves_end(&run->leaves);
    for (int i = 0; i < n_state && c->start_by_init; i++) make_empty(run, run->states[i]);
}

/* The state of call i: a leaf, or made in the graph. */
static struct ggml_tensor *state_of(struct run *run, int i) {
    if (run->states[i] == NULL) {
        int64_t ne[4];
        state_ne(run, run->with_o, ne);
        run->states[i] = ggml_new_tensor(run->graph.ctx, GGML_TYPE_F32, 4, ne);
        ggml_set_input(run->states[i]); /* memory that is not used for anything before */
    }
    return run->states[i];
}

/* ---- calls ---------------------------------------------------------------------------------- */

struct part_rows {
    int64_t first[FLASH_PARTS], n[FLASH_PARTS];
};

/* Whether a part of a call has tensors. Of two empty ones that are not to be there one is: V says
 * what DV is. */
static bool has_part(const struct run *run, const struct part_rows *rows, int p) {
    if (run->data->k[p] == NULL) return false;
    if (rows->n[p] > 0 || !run->c->empty_as_null) return true;
    return rows->n[1 - p] == 0 && (p == 0 || run->data->k[0] == NULL);
}

/* Rows first .. first + n of a part's K or V. */
static struct ggml_tensor *rows_of(struct run *run, struct ggml_tensor *t, int64_t first,
                                   int64_t n) {
    return ggml_view_4d(run->graph.ctx, t, t->ne[0], n, t->ne[2], t->ne[3], t->nb[1], t->nb[2],
                        t->nb[3], (size_t)first * t->nb[1]);
}

/* The mask's columns for these rows: a view, or a narrower copy. */
static struct ggml_tensor *mask_of(struct run *run, struct ggml_tensor *t, int64_t first,
                                   int64_t n) {
    if (t == NULL) return NULL;
    struct ggml_tensor *const view =
        ggml_view_4d(run->graph.ctx, t, n, t->ne[1], t->ne[2], t->ne[3], t->nb[1], t->nb[2],
                     t->nb[3], (size_t)first * t->nb[0]);
    return run->c->mask_copies && n > 0 ? ggml_cont(run->graph.ctx, view) : view;
}

static struct ggml_tensor *call(struct run *run, const struct part_rows *rows,
                                struct ggml_tensor *state,
                                const struct varve_ggml_state_params *params) {
    const struct flash_data *const d = run->data;
    struct ggml_tensor *k[FLASH_PARTS] = {0}, *v[FLASH_PARTS] = {0}, *mask[FLASH_PARTS] = {0};
    for (int p = 0; p < FLASH_PARTS; p++) {
        if (!has_part(run, rows, p)) continue;
        k[p] = rows_of(run, d->k[p], rows->first[p], rows->n[p]);
        v[p] = rows_of(run, d->v[p], rows->first[p], rows->n[p]);
        mask[p] = mask_of(run, d->mask[p], rows->first[p], rows->n[p]);
    }
    struct ggml_tensor *const y = varve_ggml_flash_attn_ext_with_state(
        run->graph.ctx, d->q, k[0], v[0], mask[0], k[1], v[1], mask[1], state,
        1 / sqrtf((float)run->c->dk), run->c->max_bias, run->c->softcap, params);
    if (y == NULL) failed(run, "a call gave NULL");
    if (y != NULL && run->target != NULL) {
        y->data = run->target->data;
        memcpy(y->nb, run->target->nb, sizeof y->nb);
    }
    return y;
}

static struct varve_ggml_state_params params_of(const struct run *run, int i, int n_call) {
    return (struct varve_ggml_state_params){.struct_bytes = sizeof(struct varve_ggml_state_params),
                                            .first = i == 0 && !run->c->start_by_init,
                                            .final = i == n_call - 1,
                                            .normalise = run->c->normalise,
                                            .output = run->output,
                                            .sinks = run->data->sinks, /* the last one takes them */
                                            .n_thread_max = run->c->n_thread_max};
}

/* ---- results -------------------------------------------------------------------------------- */

static float *floats(int64_t n) {
    float *const x = malloc((size_t)(n + 1) * sizeof *x);
    if (x == NULL) abort();
    return x;
}

/* The first DV values of each row. */
static float *copy_of(const struct run *run, const struct ggml_tensor *t) {
    const int64_t dv = run->c->dv;
    float *const copy = floats(run->result->n_output);
    float *to = copy;
    for (int64_t b = 0; b < run->c->n_batch; b++) {
        for (int64_t i = 0; i < run->c->n_query; i++) {
            for (int64_t h = 0; h < run->c->n_head; h++, to += dv) {
                memcpy(to, flash_row(t, h, i, b), (size_t)dv * sizeof *to);
            }
        }
    }
    return copy;
}

/* LSE and, with o, the divided values of a state. */
static void read_state(struct run *run, const struct ggml_tensor *state) {
    struct flash_result *const r = run->result;
    const int64_t n = state->ne[0], dv = run->c->dv;
    const float *record = state->data;
    r->lse = floats(r->n_record);
    if (n > 2) r->from_state = floats(r->n_output);
    for (int64_t i = 0; i < r->n_record; i++, record += n) {
        const bool empty = record[0] == -INFINITY && record[1] == 0;
        r->lse[i] = empty ? -INFINITY : (float)((double)record[0] + log((double)record[1]));
        for (int64_t d = 0; d < dv && n > 2; d++) {
            r->from_state[i * dv + d] = empty ? 0 : record[2 + d] / record[1];
        }
    }
}

static bool compute(struct run *run, struct ggml_tensor *y) {
    flash_graph_place(&run->graph, y);
    return flash_graph_compute(&run->graph, run->n_thread) ||
           failed(run, "the graph could not be computed");
}

/* ---- one call ------------------------------------------------------------------------------- */

static void run_one_call(struct run *run) {
    const struct part_rows rows = {.n = {run->data->n_rows[0], run->data->n_rows[1]}};
    struct varve_ggml_state_params params = params_of(run, 0, 1);
    struct ggml_tensor *const state = run->c->call_without_state ? NULL : state_of(run, 0);
    params.first = params.first || state == NULL;
    const bool plain =
        state == NULL && params.sinks == NULL && params.output == NULL && params.n_thread_max == 0;
    struct ggml_tensor *const y = call(run, &rows, state, plain ? NULL : &params);
    if (y == NULL || !compute(run, y)) return;
    run->result->output = copy_of(run, y);
    if (state != NULL && !run->in_graph) read_state(run, state);
}

/* ---- a chain -------------------------------------------------------------------------------- */

static struct ggml_tensor *chained_call(struct run *run, int i, struct part_rows *rows,
                                        struct ggml_tensor *previous) {
    struct varve_ggml_state_params params = params_of(run, i, run->c->n_call);
    params.previous = previous;
    for (int p = 0; p < FLASH_PARTS; p++) {
        rows->first[p] += rows->n[p];
        rows->n[p] = run->c->n_rows[p][i];
    }
    return call(run, rows, state_of(run, 0), &params);
}

static void chain_in_one_graph(struct run *run) {
    struct part_rows rows = {0};
    struct ggml_tensor *y = NULL;
    for (int i = 0; i < run->c->n_call; i++) {
        y = chained_call(run, i, &rows, y);
        if (y == NULL) return;
    }
    if (!compute(run, y)) return;
    run->result->output = copy_of(run, y);
    if (!run->in_graph) read_state(run, run->states[0]);
}

/* Only the state, and without o the shared output, pass from graph to graph. */
static void chain_of_graphs(struct run *run) {
    struct part_rows rows = {0};
    const int n_call = run->c->n_call;
    run->result->n_prefix = run->c->normalise && n_call > 2 ? n_call / 2 : 0;
    for (int i = 0; i < n_call; i++) {
        if (i > 0) {
            flash_graph_free(&run->graph);
            flash_graph_begin(&run->graph, run->c->alloc, graph_bytes(run));
        }
        struct ggml_tensor *const y =
            chained_call(run, i, &rows, i > 0 && !run->with_o ? run->output : NULL);
        if (y == NULL || !compute(run, y)) return;
        if (i == run->result->n_prefix - 1) run->result->prefix = copy_of(run, y);
        if (i == n_call - 1) run->result->output = copy_of(run, y);
    }
    read_state(run, run->states[0]);
}

/* ---- partial states ------------------------------------------------------------------------- */

static bool partial_calls(struct run *run, struct ggml_tensor **after) {
    struct part_rows rows = {0};
    for (int i = 0; i < run->c->n_call; i++) {
        struct varve_ggml_state_params params = params_of(run, 0, 2);
        for (int p = 0; p < FLASH_PARTS; p++) {
            rows.first[p] += rows.n[p];
            rows.n[p] = run->c->n_rows[p][i];
        }
        after[i] = call(run, &rows, state_of(run, i), &params);
        if (after[i] == NULL) return false;
    }
    return true;
}

static void run_partials(struct run *run) {
    struct ggml_tensor *after[FLASH_CALLS_MAX];
    int left[FLASH_CALLS_MAX];
    uint64_t seed = run->c->seed + 77;
    int n = run->c->n_call;
    if (!partial_calls(run, after)) return;
    for (int i = 0; i < n; i++) left[i] = i;
    while (n > 1) { /* any two of those that are left */
        const int a = (int)problem_random(&seed, (uint32_t)n);
        const int b = (a + 1 + (int)problem_random(&seed, (uint32_t)n - 1)) % n;
        const int into = left[a], from = left[b];
        after[into] = varve_ggml_state_merge(run->graph.ctx, run->states[into], after[into],
                                             run->states[from], after[from]);
        if (after[into] == NULL) {
            failed(run, "a merge gave NULL");
            return;
        }
        left[b] = left[--n];
    }
    const bool with_lse = problem_random(&seed, 2) == 0;
    struct ggml_tensor *const y = varve_ggml_state_finish(
        run->graph.ctx, run->states[left[0]], after[left[0]], run->data->sinks, with_lse);
    if (y == NULL) {
        failed(run, "varve_ggml_state_finish gave NULL");
        return;
    }
    if (!compute(run, y)) return;
    run->result->output = copy_of(run, y);
    if (!with_lse) return;
    run->result->lse_has_sinks = true;
    run->result->lse = floats(run->result->n_record);
    const int64_t dv = run->c->dv;
    const float *const values = y->data;
    for (int64_t i = 0; i < run->result->n_record; i++) {
        run->result->lse[i] = values[i * (dv + 1) + dv];
    }
}

/* --------------------------------------------------------------------------------------------- */

void flash_run(const struct flash_data *data, enum flash_way way, int n_thread,
               struct flash_result *result) {
    const struct flash_case *const c = data->c;
    struct run run = {.data = data, .c = c, .n_thread = n_thread, .result = result};
    run.with_o = way == FLASH_PARTIALS || c->state_with_o;
    run.in_graph = c->state_in_graph;
    *result = (struct flash_result){.n_record = (int64_t)c->n_batch * c->n_query * c->n_head};
    result->n_output = result->n_record * c->dv;
    leaves_of(&run, way);
    flash_graph_begin(&run.graph, c->alloc, graph_bytes(&run));
    if (way == FLASH_ONE_CALL) run_one_call(&run);
    if (way == FLASH_PARTIALS) run_partials(&run);
    if (way == FLASH_CHAIN && c->graph_per_call) chain_of_graphs(&run);
    if (way == FLASH_CHAIN && !c->graph_per_call) chain_in_one_graph(&run);
    flash_graph_free(&run.graph);
    flash_leaves_free(&run.leaves);
}

void flash_result_free(struct flash_result *result) {
    free(result->output);
    free(result->lse);
    free(result->from_state);
    free(result->prefix);
}
