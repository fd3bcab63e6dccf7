/* What the hot tier costs in a decode step of one layer, interleaved, medians and ratios:
 *
 *     bench-hot [head_dim [heads_kv [group [rows [window [threads]]]]]]
 *
 * A step writes one row of K and of V, makes the view and attends, comparing fingerprints on the
 * way as the plug-in does. Beside it: the same rows all cold, without a tier. The comparisons are
 * also timed alone, by one thread; nothing of the cold rows stays in the cache between steps that
 * would not with many layers: there are N_LAYER of them, in turn. */
#include "measure.h"

#include "varve/hot.h"

#include <math.h>
#include <stdio.h>

#ifdef _OPENMP
#include <omp.h>
#endif

enum { ROUNDS = 41, N_LAYER = 30 };

struct layer {
    char *k, *v;
    struct varve_twins *k_twins, *v_twins;
};

struct bench {
    struct varve_context *context;
    struct varve_hot *hot;
    struct varve_hot_view view;
    struct varve_attention attention;
    struct varve_segment cold; /* of any layer, without pointers */
    struct varve_plan *plan_cold, *plan_mixed;
    struct layer layer[N_LAYER];
    int64_t n_row, at; /* the ring of cells goes around */
    int64_t n_value;
    size_t row_bytes;
    int n_thread;
    void *scratch;
    float *query, *output, *values;
};

struct times {
    double cold, mixed, write, view, check;
};

static void must(enum varve_status status) {
    if (status == VARVE_OK) return;
    fprintf(stderr, "bench-hot: %s\n", varve_status_text(status));
    exit(1);
}

static struct varve_twins *add_tensor(struct bench *b, enum varve_format format, const char *cold) {
    const struct varve_twins_params params = {.struct_bytes = sizeof params,
                                              .format = format,
                                              .n_value = b->n_value,
                                              .cold = cold,
                                              .cold_stride = (int64_t)b->row_bytes,
                                              .n_cell = b->n_row};
    struct varve_twins *twins;
    must(varve_twins_create(b->hot, &params, &twins));
    return twins;
}

/* The values do not matter for time, but the bytes must be those that the fingerprint was taken of.
 */
static void write_rows(struct bench *b, struct varve_twins *twins, int64_t first, int64_t n) {
    int64_t cells[64];
    for (int64_t i = 0; i < n; i++) cells[i] = (first + i) % b->n_row;
    must(varve_twins_write(twins, cells, n));
    for (int64_t i = 0; i < n; i++) varve_twins_write_row(twins, i, b->values);
}

static struct varve_hot_node node_of(const struct bench *b, const struct layer *layer) {
    struct varve_hot_node node = {
        .cold = b->cold, .n_query = 1, .k = layer->k_twins, .v = layer->v_twins, .defer = true};
    node.cold.k = layer->k;
    node.cold.v = layer->v;
    return node;
}

static int32_t worker_of_thread(void) {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

/* All tasks of a plan, and behind those of the first phase the checks of a view. */
static void run_tasks(struct bench *b, const struct varve_plan *plan, const struct varve_io *io,
                      struct varve_hot_view *view) {
#pragma omp parallel num_threads(b->n_thread)
    for (int32_t phase = 0; phase < VARVE_PHASE_COUNT; phase++) {
        const int64_t n_task = varve_plan_n_task(plan, phase);
        const int64_t n_check = view != NULL && phase == 0 ? view->n_check : 0;
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < n_task + n_check; i++) {
            if (i < n_task) {
                varve_run_task(plan, io, b->scratch, phase, i, worker_of_thread());
            } else {
                varve_hot_check(view, i - n_task);
            }
        }
    }
}

static double attend(struct bench *b, const struct varve_segment *segments, int64_t n_segment,
                     struct varve_hot_view *view, struct varve_plan **plan) {
    if (*plan == NULL) {
        must(varve_plan_create(b->context, &b->attention, segments, n_segment, b->n_thread, plan));
        free(b->scratch);
        b->scratch = aligned_alloc(64, (varve_plan_scratch_bytes(*plan) + 64) * 2 / 64 * 64);
    }
    const int64_t head = 4 * b->attention.head_dim_k;
    const struct varve_io io = {.query = {b->query, 0, head, 0},
                                .segments = segments,
                                .n_segment = n_segment,
                                .output = {.data = b->output, .head_stride = head}};
    must(varve_io_check(*plan, &io));
    const double start = seconds();
    run_tasks(b, *plan, &io, view);
    const bool fresh = view == NULL || varve_hot_settle(view);
    const double end = seconds();
    if (!fresh) {
        fprintf(stderr, "bench-hot: a twin was stale\n");
        exit(1);
    }
    return end - start;
}

/* One step of all layers; mean times of one. */
static struct times step(struct bench *b) {
    struct times t = {0};
    for (int i = 0; i < N_LAYER; i++) {
        struct layer *layer = &b->layer[i];
        struct varve_hot_node node = node_of(b, layer);
        t.cold += attend(b, &node.cold, 1, NULL, &b->plan_cold);
    }
    for (int i = 0; i < N_LAYER; i++) {
        struct layer *layer = &b->layer[i];
        const struct varve_hot_node node = node_of(b, layer);
        double start = seconds();
        write_rows(b, layer->k_twins, b->at, 1);
        write_rows(b, layer->v_twins, b->at, 1);
        t.write += seconds() - start;
        start = seconds();
        must(varve_hot_view(b->hot, &node, &b->view));
        t.view += seconds() - start;
        t.mixed += attend(b, b->view.segments, b->view.n_segment, &b->view, &b->plan_mixed);
    }
    for (int i = 0; i < N_LAYER; i++) {
        const struct varve_hot_node node = node_of(b, &b->layer[i]);
        must(varve_hot_view(b->hot, &node, &b->view));
        const double start = seconds();
        for (int64_t c = 0; c < b->view.n_check; c++) varve_hot_check(&b->view, c);
        t.check += seconds() - start;
        (void)varve_hot_settle(&b->view);
    }
    b->at++;
    return (struct times){t.cold / N_LAYER, t.mixed / N_LAYER, t.write / N_LAYER, t.view / N_LAYER,
                          t.check / N_LAYER};
}

static void measure(struct bench *b, enum varve_format format, int32_t window) {
    const struct varve_hot_params params = {
        .struct_bytes = sizeof params, .window = window, .n_sink = 4};
    must(varve_hot_create(b->context, &params, &b->hot));
    size_t head_bytes = 0;
    must(varve_format_row_bytes(format, b->attention.head_dim_k, &head_bytes));
    b->row_bytes = head_bytes * (size_t)b->attention.n_head_kv;
    b->cold = (struct varve_segment){.k_format = format,
                                     .v_format = format,
                                     .n_rows = b->n_row,
                                     .k_row_stride = (int64_t)b->row_bytes,
                                     .v_row_stride = (int64_t)b->row_bytes,
                                     .k_head_stride = (int64_t)head_bytes,
                                     .v_head_stride = (int64_t)head_bytes};
    for (int i = 0; i < N_LAYER; i++) {
        struct layer *layer = &b->layer[i];
        layer->k = make_rows(format, (int32_t)b->n_value, b->n_row, b->row_bytes);
        layer->v = make_rows(format, (int32_t)b->n_value, b->n_row, b->row_bytes);
        layer->k_twins = add_tensor(b, format, layer->k);
        layer->v_twins = add_tensor(b, format, layer->v);
    }
    for (b->at = 0; b->at < window + 64; b->at += 8) {
        for (int i = 0; i < N_LAYER; i++) {
            struct varve_hot_node node = node_of(b, &b->layer[i]);
            node.defer = false;
            write_rows(b, b->layer[i].k_twins, b->at, 8);
            write_rows(b, b->layer[i].v_twins, b->at, 8);
            must(varve_hot_view(b->hot, &node, &b->view));
        }
    }
    double cold[ROUNDS], mixed[ROUNDS], write[ROUNDS], view[ROUNDS], check[ROUNDS];
    (void)step(b);
    for (int i = 0; i < ROUNDS; i++) {
        const struct times t = step(b);
        cold[i] = t.cold;
        mixed[i] = t.mixed + t.write + t.view;
        write[i] = t.write;
        view[i] = t.view;
        check[i] = t.check;
    }
    const double c = median(cold, ROUNDS), m = median(mixed, ROUNDS), t = median(write, ROUNDS),
                 s = median(view, ROUNDS), f = median(check, ROUNDS) / b->n_thread;
    printf(
        "%-5s all cold %8.1f us   mixed %8.1f us (x %.3f)   of it twins %5.1f us, view %5.1f us, "
        "fingerprints %5.1f us on %d threads (%.1f %%)\n",
        varve_format_name(format), 1e6 * c, 1e6 * m, m / c, 1e6 * t, 1e6 * s, 1e6 * f, b->n_thread,
        100 * (t + s + f) / m);
    varve_hot_view_release(&b->view);
    varve_hot_destroy(b->hot);
    varve_plan_destroy(b->plan_cold);
    varve_plan_destroy(b->plan_mixed);
    b->plan_cold = b->plan_mixed = NULL;
    for (int i = 0; i < N_LAYER; i++) {
        free(b->layer[i].k);
        free(b->layer[i].v);
    }
}

int main(int argc, char **argv) {
    int64_t value[] = {64, 3, 3, 8192, 256, 2};
    for (int i = 1; i < argc && i <= 6; i++) value[i - 1] = atoll(argv[i]);
    for (int i = 0; i < 6; i++) {
        if (value[i] < 1 || argc > 7) {
            fprintf(stderr, "usage: bench-hot [head_dim [heads_kv [group [rows [window "
                            "[threads]]]]]]\n");
            return 2;
        }
    }
    static struct bench b;
    must(varve_context_create(NULL, &b.context));
    b.attention = (struct varve_attention){.head_dim_k = (int32_t)value[0],
                                           .head_dim_v = (int32_t)value[0],
                                           .n_head = (int32_t)(value[1] * value[2]),
                                           .n_head_kv = (int32_t)value[1],
                                           .n_query = 1,
                                           .n_batch = 1,
                                           .scale = 1.0f / sqrtf((float)value[0])};
    b.n_value = value[0] * value[1];
    b.n_row = value[3];
    b.n_thread = (int)value[5];
    const size_t n_query = (size_t)b.attention.n_head * (size_t)value[0];
    b.query = malloc(n_query * sizeof(float));
    b.output = malloc(n_query * sizeof(float));
    b.values = calloc((size_t)b.n_value, sizeof(float));
    for (size_t i = 0; i < n_query; i++) b.query[i] = sinf((float)i);
    printf("isa %s, head size %d, %d KV heads, %d heads, %lld rows, window %lld, %d threads; one "
           "layer of %d\n",
           varve_context_isa(b.context), b.attention.head_dim_k, b.attention.n_head_kv,
           b.attention.n_head, (long long)value[3], (long long)value[4], b.n_thread, N_LAYER);
    measure(&b, VARVE_FORMAT_Q8_0, (int32_t)value[4]);
    measure(&b, VARVE_FORMAT_Q4_0, (int32_t)value[4]);
    free(b.scratch);
    free(b.query);
    free(b.output);
    free(b.values);
    varve_context_destroy(b.context);
    return 0;
}
