#include "mixed.h"

#include "args.h"
#include "attend.h"
#include "measure.h"
#include "stock.h"

#include "varve/hot.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <omp.h>

enum { F16_NEG_INF = 0xfc00, RING_WRITE = 8 };

/* Cold rows of K or V with the twins of each layer. */
struct side {
    enum varve_format format;
    int64_t n_value, row_bytes;
    const float *values; /* rows that are written */
    stock_from_float_fn from_float;
    bool encodes; /* varve has an encoder with stock's bytes */
    enum varve_encoder encoder;
    struct varve_twins **twins; /* of each layer; NULL entries: a float cache has none */
};

struct mixed {
    struct bench_problem *problem;
    struct varve_hot *hot;
    struct varve_hot_view view;
    struct side k, v;
    struct varve_plan *plan; /* for the number of segments' rows at hand */
    int64_t plan_rows;
    void *scratch;
    float *filler;  /* values of rows that are written before queries are there */
    int64_t *cells; /* of the rows that are written at once */
    int64_t at;     /* rows written so far, where the next one goes; see cell_of */
};

/* ---- twins ---------------------------------------------------------------------------------- */

static char *cold_of(const struct mixed *m, const struct side *side, int64_t layer) {
    const struct bench_layer *const l = &m->problem->layer[layer];
    return side == &m->k ? l->k : l->v;
}

static void add_side(struct mixed *m, struct side *side, enum varve_format format,
                     int64_t n_value) {
    const struct bench_case *const c = &m->problem->c;
    size_t row_bytes = 0;
    attend_must(varve_format_row_bytes(format, n_value, &row_bytes), "rows of this size");
    side->format = format;
    side->n_value = n_value;
    side->row_bytes = (int64_t)row_bytes;
    side->from_float = stock_from_float(format);
    side->encodes = varve_encoder_find(m->problem->context, format, side->from_float,
                                       &side->encoder) == VARVE_OK;
    side->twins = measure_allocate((size_t)c->n_layer * sizeof(struct varve_twins *));
    for (int64_t i = 0; i < c->n_layer; i++) {
        const struct varve_twins_params params = {.struct_bytes = sizeof params,
                                                  .format = format,
                                                  .n_value = n_value,
                                                  .cold = cold_of(m, side, i),
                                                  .cold_stride = side->row_bytes,
                                                  .n_cell = c->n_row};
        side->twins[i] = NULL;
        if (c->window == 0 || varve_format_block_values(format) == 1) continue;
        attend_must(varve_twins_create(m->hot, &params, &side->twins[i]), "no twins");
    }
}

/* One row: the bytes of ggml's quantizer, and the twin. As the plug-in writes it. */
static void write_row(const struct mixed *m, const struct side *side, int64_t layer, int64_t i,
                      const float *values) {
    char *const row = cold_of(m, side, layer) + m->cells[i] * side->row_bytes;
    if (!side->encodes || varve_encode(m->problem->context, side->format, side->encoder, values,
                                       side->n_value, row) != VARVE_OK) {
        side->from_float(values, row, side->n_value);
    }
    if (side->twins[layer] != NULL) varve_twins_write_row(side->twins[layer], i, values);
}

static void write_side(const struct mixed *m, const struct side *side, int64_t layer, int64_t n,
                       const float *values) {
    if (side->twins[layer] != NULL) {
        attend_must(varve_twins_write(side->twins[layer], m->cells, n), "rows not announced");
    }
    if (n < RING_WRITE) { /* as the plug-in: small nodes run on one thread */
        for (int64_t i = 0; i < n; i++) {
            write_row(m, side, layer, i, values + i * side->n_value);
        }
        return;
    }
#pragma omp parallel for num_threads(m->problem->c.n_thread) schedule(static)
    for (int64_t i = 0; i < n; i++) write_row(m, side, layer, i, values + i * side->n_value);
}

/* The ring leaves out the first rows, which stay pinned. */
static int64_t cell_of(const struct mixed *m, int64_t at) {
    const struct bench_case *const c = &m->problem->c;
    return at < c->n_row ? at : c->n_sink + (at - c->n_sink) % (c->n_row - c->n_sink);
}

static void set_cells(struct mixed *m, int64_t n) {
    for (int64_t i = 0; i < n; i++) m->cells[i] = cell_of(m, m->at + i);
}

static struct varve_hot_node node_of(const struct mixed *m, int64_t layer) {
    return (struct varve_hot_node){.cold = problem_segment(m->problem, layer),
                                   .n_query = 1,
                                   .k = m->k.twins[layer],
                                   .v = m->v.twins[layer]};
}

/* Writes rows and attends to the first n_seen, so that rows age and first rows are pinned. */
static void fill(struct mixed *m, int64_t n, int64_t n_seen) {
    set_cells(m, n);
    for (int64_t i = 0; i < m->problem->c.n_layer; i++) {
        struct varve_hot_node node = node_of(m, i);
        node.cold.n_rows = n_seen;
        write_side(m, &m->k, i, n, m->filler);
        write_side(m, &m->v, i, n, m->filler);
        attend_must(varve_hot_view(m->hot, &node, &m->view), "no view");
    }
    m->at += n;
}

static void fill_window(struct mixed *m) {
    const struct bench_case *const c = &m->problem->c;
    const int64_t n_sink = c->n_sink < c->n_row ? c->n_sink : c->n_row;
    if (n_sink > 0) fill(m, n_sink, n_sink);
    const int64_t first = c->n_row - c->window - 64; /* the slack too, and a little more */
    if (m->at < first) m->at = first;
    while (m->at < c->n_row) {
        const int64_t left = c->n_row - m->at;
        fill(m, left < RING_WRITE ? left : RING_WRITE, c->n_row);
    }
}

struct mixed *mixed_create(struct bench_problem *p) {
    struct mixed *const m = measure_allocate(sizeof *m);
    const struct bench_case *const c = &p->c;
    *m = (struct mixed){.problem = p};
    const struct varve_hot_params params = {
        .struct_bytes = sizeof params, .window = c->window, .n_sink = c->n_sink};
    if (c->window > 0) attend_must(varve_hot_create(p->context, &params, &m->hot), "no hot tier");
    const int64_t n_k = (int64_t)c->head_dim_k * c->n_head_kv;
    const int64_t n_v = (int64_t)c->head_dim_v * c->n_head_kv;
    add_side(m, &m->k, c->type_k, n_k);
    add_side(m, &m->v, c->type_v, n_v);
    const int64_t n = c->n_query + c->n_sink + RING_WRITE;
    m->cells = measure_allocate((size_t)n * sizeof *m->cells);
    const int64_t n_filler = n * (n_k > n_v ? n_k : n_v);
    m->filler = measure_allocate((size_t)n_filler * sizeof *m->filler);
    for (int64_t i = 0; i < n_filler; i++) m->filler[i] = sinf((float)i);
    m->k.values = c->kind == BENCH_WRITE ? p->query : m->filler;
    m->v.values = c->kind == BENCH_WRITE ? p->values_v : m->filler;
    if (c->window > 0) fill_window(m);
    if (c->kind == BENCH_WRITE) m->at = c->n_row - c->n_query; /* where stock writes */
    return m;
}

void mixed_destroy(struct mixed *m) {
    if (m == NULL) return;
    varve_hot_view_release(&m->view);
    varve_hot_destroy(m->hot);
    varve_plan_destroy(m->plan);
    free(m->k.twins);
    free(m->v.twins);
    free(m->scratch);
    free(m->filler);
    free(m->cells);
    free(m);
}

/* ---- a step --------------------------------------------------------------------------------- */

/* Query i sees all cells but those that queries after it write. */
void mixed_advance(struct mixed *m) {
    const int64_t n_query = m->problem->c.n_query, n_row = m->problem->c.n_row;
    for (int64_t i = 0; i < n_query; i++) {
        uint16_t *const mask = m->problem->mask + i * n_row;
        for (int64_t j = 0; j < n_row; j++) mask[j] = 0;
        for (int64_t j = i + 1; j < n_query; j++) mask[cell_of(m, m->at + j)] = F16_NEG_INF;
    }
    set_cells(m, n_query);
    m->at += n_query;
}

static void replan(struct mixed *m, const struct varve_hot_view *view) {
    const struct bench_problem *const p = m->problem;
    if (m->plan != NULL && m->plan_rows == view->n_row) return;
    varve_plan_destroy(m->plan);
    attend_must(varve_plan_create(p->context, &p->attention, view->segments, view->n_segment,
                                  p->c.n_thread, &m->plan),
                "no plan for this view");
    free(m->scratch);
    m->scratch = measure_allocate(varve_plan_scratch_bytes(m->plan));
    m->plan_rows = view->n_row;
}

/* All tasks of the plan, and behind those of the first phase the checks of the view. */
static void run_tasks(struct mixed *m, const struct varve_io *io) {
#pragma omp parallel num_threads(m->problem->c.n_thread)
    for (int32_t phase = 0; phase < VARVE_PHASE_COUNT; phase++) {
        const int64_t n_task = varve_plan_n_task(m->plan, phase);
        const int64_t n_check = phase == 0 ? m->view.n_check : 0;
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < n_task + n_check; i++) {
            if (i < n_task) {
                varve_run_task(m->plan, io, m->scratch, phase, i, omp_get_thread_num());
            } else {
                varve_hot_check(&m->view, i - n_task);
            }
        }
    }
}

static void make_view(struct mixed *m, int64_t layer, bool defer) {
    struct varve_hot_node node = node_of(m, layer);
    node.n_query = m->problem->c.n_query;
    node.mask = &m->problem->varve_mask;
    node.defer = defer;
    attend_must(varve_hot_view(m->hot, &node, &m->view), "no view");
}

static struct varve_io io_of_view(const struct mixed *m) {
    struct varve_io io = problem_io(m->problem);
    io.segments = m->view.segments;
    io.n_segment = m->view.n_segment;
    return io;
}

struct mixed_times mixed_walk(struct mixed *m) {
    const struct bench_case *const c = &m->problem->c;
    struct mixed_times t = {0};
    for (int64_t i = 0; i < c->n_layer; i++) {
        const double start = measure_seconds();
        write_side(m, &m->k, i, c->n_query, m->k.values);
        write_side(m, &m->v, i, c->n_query, m->v.values);
        const double written = measure_seconds();
        make_view(m, i, true);
        const struct varve_io io = io_of_view(m);
        const double viewed = measure_seconds();
        replan(m, &m->view);
        attend_must(varve_io_check(m->plan, &io), "the view does not fit its plan");
        run_tasks(m, &io);
        if (!varve_hot_settle(&m->view)) {
            cli_say("bench: a twin was stale");
            exit(EXIT_FAILURE);
        }
        t.attend += measure_seconds() - viewed;
        t.view += viewed - written;
        t.twins += written - start;
    }
    const double n = (double)c->n_layer;
    return (struct mixed_times){t.attend / n, t.twins / n, t.view / n};
}

/* ---- about it ------------------------------------------------------------------------------- */

static double side_bytes(const struct mixed *m, const struct side *side) {
    const struct bench_case *const c = &m->problem->c;
    const int64_t n_hot = (int64_t)c->window + c->n_sink;
    const double n = (double)(side->twins[0] == NULL ? 0 : n_hot < c->n_row ? n_hot : c->n_row);
    return (double)c->n_row * (double)side->row_bytes + 2 * n * (double)side->n_value;
}

double mixed_bytes(const struct mixed *m) { return side_bytes(m, &m->k) + side_bytes(m, &m->v); }

double mixed_error(struct mixed *m) {
    make_view(m, 0, false);
    replan(m, &m->view);
    const struct varve_io io = io_of_view(m);
    attend_must(varve_run(m->plan, &io, m->scratch, m->problem->c.n_thread), "attention failed");
    return attend_error(m->problem, &io, m->problem->output);
}

void mixed_describe(const struct mixed *m, char *text, size_t text_bytes) {
    attend_describe(m->plan, text, text_bytes);
}

/* ---- writes alone --------------------------------------------------------------------------- */

double mixed_write_walk(struct mixed *m) {
    const struct bench_case *const c = &m->problem->c;
    double spent = 0;
    for (int64_t i = 0; i < c->n_layer; i++) {
        set_cells(m, c->n_query);
        const double start = measure_seconds();
        write_side(m, &m->k, i, c->n_query, m->k.values);
        write_side(m, &m->v, i, c->n_query, m->v.values);
        spent += measure_seconds() - start;
        if (m->hot == NULL) continue;
        const struct varve_hot_node node = node_of(m, i); /* lets rows age */
        attend_must(varve_hot_view(m->hot, &node, &m->view), "no view");
    }
    return spent / (double)c->n_layer;
}
