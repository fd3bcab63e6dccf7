/* One case: what takes part in its rounds, and what comes out. */
#include "attend.h"
#include "case.h"
#include "measure.h"
#include "mixed.h"
#include "peak.h"
#include "rounds.h"
#include "stock.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct run {
    struct bench_problem problem;
    struct stock *stock[2]; /* flash attention and matrix products, or the write and NULL */
    struct attend *attend, *pages, *positions, *full;
    struct mixed *mixed;
    struct mixed_times times; /* of the last walk */
    struct rounds rounds;
    struct variant v_stock[2], v_varve, v_cold, v_pages, v_positions, v_full, v_read, v_peak,
        v_twins, v_view;
};

/* ---- samples -------------------------------------------------------------------------------- */

/* A walk over layers that fit a cache may take less than a clock can tell: walk on. */
static double sample_of(double (*walk)(void *), void *user) {
    const double least = 1e-3;
    const double start = measure_seconds();
    double sum = 0;
    int n = 0;
    do {
        sum += walk(user);
        n++;
    } while (measure_seconds() - start < least);
    return sum / n;
}

static double walk_stock(void *user) { return stock_walk(user); }
static double walk_attend(void *user) { return attend_walk(user); }
static double walk_write(void *user) { return mixed_write_walk(user); }

static double sample_stock(void *user) { return sample_of(walk_stock, user); }
static double sample_attend(void *user) { return sample_of(walk_attend, user); }
static double sample_write(void *user) { return sample_of(walk_write, user); }

/* Each walk is a step that writes rows, so there is only one. */
static double sample_mixed(void *user) {
    struct run *const run = user;
    run->times = mixed_walk(run->mixed);
    return run->times.attend + run->times.twins + run->times.view;
}
static double sample_twins(void *user) { return ((struct run *)user)->times.twins; }
static double sample_view(void *user) { return ((struct run *)user)->times.view; }

static double walk_read(void *user) {
    const struct bench_problem *const p = user;
    const int n_thread = p->c.n_thread;
    const double start = measure_seconds();
    for (int64_t i = 0; i < p->c.n_layer; i++) {
        measure_read(p->layer[i].k, (size_t)p->k_bytes, n_thread);
        measure_read(p->layer[i].v, (size_t)p->v_bytes, n_thread);
    }
    return (measure_seconds() - start) / (double)p->c.n_layer;
}

/* GB/s */
static double sample_read(void *user) {
    const struct bench_problem *const p = user;
    return 1e-9 * (double)(p->k_bytes + p->v_bytes) / sample_of(walk_read, user);
}

/* GFLOPS */
static double sample_peak(void *user) {
    const struct bench_problem *const p = user;
    return peak_gflops(varve_context_isa(p->context), p->c.n_thread);
}

static void begin_round(void *user) { mixed_advance(user); }

/* ---- set up --------------------------------------------------------------------------------- */

static void take_part(struct run *run, struct variant *v, double (*sample)(void *), void *user) {
    v->sample = sample;
    v->user = user;
    run->rounds.variants[run->rounds.n_variant++] = v;
}

static void set_up_stock(struct run *run) {
    struct bench_problem *const p = &run->problem;
    run->stock[0] = stock_create(p, p->c.kind == BENCH_WRITE ? STOCK_WRITE : STOCK_FLASH);
    if (problem_turns_v(&p->c)) run->stock[1] = stock_create(p, STOCK_PRODUCTS);
    for (int i = 0; i < 2 && run->stock[i] != NULL; i++) {
        run->v_stock[i].slow = true;
        take_part(run, &run->v_stock[i], sample_stock, run->stock[i]);
    }
}

static void set_up(struct run *run) {
    struct bench_problem *const p = &run->problem;
    const struct bench_case *const c = &p->c;
    run->rounds.seconds = c->seconds;
    set_up_stock(run);
    if (c->kind == BENCH_MIXED || c->kind == BENCH_WRITE) run->mixed = mixed_create(p);
    if (c->kind != BENCH_WRITE) run->attend = attend_create(p, 0, ATTEND_MASK);
    if (c->kind == BENCH_WRITE) {
        take_part(run, &run->v_varve, sample_write, run->mixed);
    } else if (c->kind == BENCH_MIXED) {
        run->rounds.begin = begin_round;
        run->rounds.user = run->mixed;
        take_part(run, &run->v_varve, sample_mixed, run);
        take_part(run, &run->v_twins, sample_twins, run);
        take_part(run, &run->v_view, sample_view, run);
        take_part(run, &run->v_cold, sample_attend, run->attend);
    } else {
        take_part(run, &run->v_varve, sample_attend, run->attend);
    }
    if (c->page_rows > 0 && c->kind != BENCH_WRITE && c->kind != BENCH_MIXED) {
        run->pages = attend_create(p, c->page_rows, ATTEND_MASK);
        take_part(run, &run->v_pages, sample_attend, run->pages);
    }
    if (c->causal && c->kind == BENCH_PREFILL) {
        run->positions = attend_create(p, 0, ATTEND_POSITIONS);
        run->full = attend_create(p, 0, ATTEND_ALL);
        take_part(run, &run->v_positions, sample_attend, run->positions);
        take_part(run, &run->v_full, sample_attend, run->full);
    }
    take_part(run, &run->v_read, sample_read, p);
    if (c->kind != BENCH_WRITE) take_part(run, &run->v_peak, sample_peak, p);
}

static void tear_down(struct run *run) {
    stock_destroy(run->stock[0]);
    stock_destroy(run->stock[1]);
    attend_destroy(run->attend);
    attend_destroy(run->pages);
    attend_destroy(run->positions);
    attend_destroy(run->full);
    mixed_destroy(run->mixed);
    problem_destroy(&run->problem);
}

/* ---- results -------------------------------------------------------------------------------- */

static double written_bytes(const struct bench_problem *p) {
    const struct bench_case *const c = &p->c;
    const double n_value = (double)(c->head_dim_k + c->head_dim_v) * c->n_head_kv;
    const double cold = (double)(p->k_bytes + p->v_bytes) / (double)c->n_row;
    double twins = 0;
    if (c->window > 0) {
        const bool k = varve_format_block_values(c->type_k) > 1;
        const bool v = varve_format_block_values(c->type_v) > 1;
        twins = 2.0 * (k * c->head_dim_k + v * c->head_dim_v) * c->n_head_kv;
    }
    return (double)c->n_query * (4 * n_value + cold + twins);
}

/* Bytes that the written rows differ from stock's: 0 when they are the same, else 1. */
static double write_error(struct run *run) {
    struct bench_problem *const p = &run->problem;
    const size_t k = (size_t)p->k_bytes, v = (size_t)p->v_bytes;
    char *const ours = measure_allocate(k + v);
    (void)mixed_write_walk(run->mixed);
    memcpy(ours, p->layer[0].k, k);
    memcpy(ours + k, p->layer[0].v, v);
    const size_t row_k = k / (size_t)p->c.n_row, row_v = v / (size_t)p->c.n_row;
    memset(p->layer[0].k + k - row_k, 0xff, row_k); /* stock must write them anew */
    memset(p->layer[0].v + v - row_v, 0xff, row_v);
    (void)stock_walk(run->stock[0]);
    const bool same =
        memcmp(ours, p->layer[0].k, k) == 0 && memcmp(ours + k, p->layer[0].v, v) == 0;
    free(ours);
    return same ? 0 : 1;
}

static void check_results(struct run *run, int faster, struct bench_result *r) {
    const struct bench_problem *const p = &run->problem;
    if (p->c.kind == BENCH_WRITE) {
        r->max_rel_err = write_error(run);
        r->stock_rel_err = 0;
        return;
    }
    const struct varve_segment segment = problem_segment(p, p->c.n_layer - 1);
    struct varve_io io = problem_io(p);
    io.segments = &segment;
    io.n_segment = 1;
    if (run->mixed != NULL) (void)stock_walk(run->stock[faster]); /* rows have been written since */
    r->stock_rel_err = attend_error(p, &io, stock_output(run->stock[faster]));
    if (run->mixed != NULL) {
        r->max_rel_err = mixed_error(run->mixed);
        return;
    }
    (void)attend_walk(run->attend);
    r->max_rel_err = attend_error(p, &io, p->output);
}

static void fill_speeds(const struct run *run, struct bench_result *r) {
    const struct bench_problem *const p = &run->problem;
    const struct bench_case *const c = &p->c;
    const struct rounds *const rounds = &run->rounds;
    r->bytes = c->kind == BENCH_WRITE   ? written_bytes(p)
               : c->kind == BENCH_MIXED ? mixed_bytes(run->mixed)
                                        : (double)(p->k_bytes + p->v_bytes);
    r->gbps = 1e-6 * r->bytes / r->ms;
    r->read_gbps = rounds_median(rounds, &run->v_read);
    /* bytes / time of one round over the read of the same round */
    double share[ROUNDS_MOST], of_peak[ROUNDS_MOST];
    r->flops = c->kind == BENCH_WRITE
                   ? 0
                   : 2.0 * (c->head_dim_k + c->head_dim_v) * c->n_head * p->n_visible;
    for (int i = 0; i < rounds->n_round; i++) {
        const double seconds = run->v_varve.sample_values[i];
        share[i] = 1e-9 * r->bytes / seconds / run->v_read.sample_values[i];
        of_peak[i] = r->flops > 0 ? 1e-9 * r->flops / seconds / run->v_peak.sample_values[i] : NAN;
    }
    r->read_ratio = measure_median(share, rounds->n_round);
    r->gflops = r->peak_gflops = r->peak_ratio = NAN;
    if (r->flops == 0) return;
    r->gflops = 1e-6 * r->flops / r->ms;
    r->peak_gflops = rounds_median(rounds, &run->v_peak);
    r->peak_ratio = measure_median(of_peak, rounds->n_round);
}

static double ms_of(const struct run *run, const struct variant *v) {
    return v->sample != NULL ? 1e3 * rounds_median(&run->rounds, v) : NAN;
}

/* Which form of stock is the faster one. */
static int fill_times(const struct run *run, struct bench_result *r) {
    static const char *const names[] = {"flash attention", "matrix products"};
    const struct rounds *const rounds = &run->rounds;
    const int faster =
        run->stock[1] != NULL && ms_of(run, &run->v_stock[1]) < ms_of(run, &run->v_stock[0]);
    r->stock = run->problem.c.kind == BENCH_WRITE ? "set_rows" : names[faster];
    r->n_round = rounds->n_round;
    r->n_stock_round = rounds->n_slow_round;
    r->ms = ms_of(run, &run->v_varve);
    r->ms_min = 1e3 * measure_least(run->v_varve.sample_values, rounds->n_round);
    r->stock_ms = ms_of(run, &run->v_stock[faster]);
    r->stock_flash_ms = run->problem.c.kind == BENCH_WRITE ? NAN : ms_of(run, &run->v_stock[0]);
    r->speedup = rounds_ratio(rounds, &run->v_stock[faster], &run->v_varve);
    r->twins_ms = ms_of(run, &run->v_twins);
    r->view_ms = ms_of(run, &run->v_view);
    r->cold_ms = ms_of(run, &run->v_cold);
    r->pages_ms = ms_of(run, &run->v_pages);
    r->full_ms = ms_of(run, &run->v_full);
    r->position_ms = ms_of(run, &run->v_positions);
    r->cold_ratio = r->pages_ratio = r->full_ratio = r->position_ratio = NAN;
    if (run->mixed != NULL && run->attend != NULL) {
        r->cold_ratio = rounds_ratio(rounds, &run->v_varve, &run->v_cold);
    }
    if (run->pages != NULL) r->pages_ratio = rounds_ratio(rounds, &run->v_pages, &run->v_varve);
    if (run->full != NULL) {
        r->full_ratio = rounds_ratio(rounds, &run->v_varve, &run->v_full);
        r->position_ratio = rounds_ratio(rounds, &run->v_positions, &run->v_full);
    }
    return faster;
}

static void describe(const struct run *run, struct bench_result *r) {
    const struct bench_case *const c = &run->problem.c;
    const bool q8 = varve_format_block_values(c->type_k) > 1;
    const bool fast = c->arithmetic == VARVE_ARITHMETIC_FAST;
    r->isa = varve_context_isa(run->problem.context);
    r->arithmetic = fast ? "fast" : q8 && c->arithmetic != VARVE_ARITHMETIC_EXACT ? "q8" : "exact";
    if (c->kind == BENCH_WRITE) {
        snprintf(r->kernel, sizeof r->kernel, "quantizer of ggml-cpu%s",
                 c->window > 0 ? ", twins in F16 with fingerprints" : "");
    } else if (c->kind == BENCH_MIXED) {
        mixed_describe(run->mixed, r->kernel, sizeof r->kernel);
    } else {
        attend_describe(attend_plan(run->attend), r->kernel, sizeof r->kernel);
    }
}

bool bench_run(const struct bench_case *c, struct bench_result *r) {
    static struct run run; /* too large for a stack */
    memset(&run, 0, sizeof run);
    memset(r, 0, sizeof *r);
    if (!problem_create(c, &run.problem)) return false;
    set_up(&run);
    r->c = run.problem.c;
    char title[128];
    snprintf(title, sizeof title, "%s, %s/%s, %lld rows, %lld %s", bench_kind_name(c->kind),
             varve_format_name(c->type_k), varve_format_name(c->type_v), (long long)c->n_row,
             (long long)c->n_query,
             c->kind == BENCH_WRITE ? "written"
             : c->n_query == 1      ? "query"
                                    : "queries");
    rounds_run(&run.rounds, title);
    const int faster = fill_times(&run, r);
    fill_speeds(&run, r);
    describe(&run, r);
    check_results(&run, faster, r);
    tear_down(&run);
    return true;
}
