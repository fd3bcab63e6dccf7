/* FLASH_ATTN_EXT: the tensors become an attention problem over one segment.
 *
 * ggml's shapes: Q [DK, n_query, n_head, n_batch], K [DK, n_kv, n_head_kv, n_batch],
 * V [DV, n_kv, n_head_kv, n_batch], mask [>= n_kv, >= n_query, by modulo, by modulo] in F16, sinks
 * [n_head], result [DV, n_head, n_query, n_batch]. op_params: scale, max_bias, softcap, precision
 * (ours is never below what it can ask for), upper bound of visible rows (a hint only). */
#include "plugin.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SRC_Q = 0, SRC_K = 1, SRC_V = 2, SRC_MASK = 3, SRC_SINKS = 4 };

struct problem {
    struct varve_attention attention;
    struct varve_segment segment;
    struct varve_mask mask;
    struct varve_io io;
};

/* ---- translation ---------------------------------------------------------------------------- */

/* ggml lets K and V have fewer heads or sequences than Q, shared by neighbours (i / ratio). The
 * library has one ratio for both; a tensor that all share is read with a stride of zero. */
static bool share(int64_t have, int64_t want, size_t nb, int64_t *stride) {
    *stride = have == want ? (int64_t)nb : 0;
    return have == want || have == 1;
}

static const char *check_types(const struct ggml_tensor *op, struct problem *p) {
    const struct ggml_tensor *q = op->src[SRC_Q];
    const struct ggml_tensor *k = op->src[SRC_K];
    const struct ggml_tensor *v = op->src[SRC_V];
    if (q == NULL || k == NULL || v == NULL) {
        return "a source is missing";
    }
    if (q->type != GGML_TYPE_F32 || op->type != GGML_TYPE_F32) {
        return "Q and the result must be F32";
    }
    if (!plugin_format(k->type, &p->segment.k_format)) {
        return "K is in a format that varve does not have";
    }
    if (!plugin_format(v->type, &p->segment.v_format)) {
        return "V is in a format that varve does not have";
    }
    if (k->ne[0] % ggml_blck_size(k->type) != 0 || v->ne[0] % ggml_blck_size(v->type) != 0) {
        return "the head size is not a multiple of the format's block";
    }
    if (q->nb[0] != sizeof(float) || op->nb[0] != sizeof(float) ||
        k->nb[0] != ggml_type_size(k->type) || v->nb[0] != ggml_type_size(v->type)) {
        return "rows must be contiguous";
    }
    return NULL;
}

static const char *check_shape(const struct ggml_tensor *op) {
    const struct ggml_tensor *q = op->src[SRC_Q];
    const struct ggml_tensor *k = op->src[SRC_K];
    const struct ggml_tensor *v = op->src[SRC_V];
    for (int i = 0; i < 4; i++) {
        const bool may_be_empty = i == 1;
        const int64_t least = may_be_empty ? 0 : 1;
        if (q->ne[i] < least || k->ne[i] < least || v->ne[i] < least || q->ne[i] > INT32_MAX ||
            k->ne[i] > INT32_MAX || v->ne[i] > INT32_MAX) {
            return "a dimension is empty or larger than 2^31 - 1";
        }
    }
    if (k->ne[0] != q->ne[0] || k->ne[1] != v->ne[1]) {
        return "Q, K and V do not fit together";
    }
    if (op->ne[0] != v->ne[0] || op->ne[1] != q->ne[2] || op->ne[2] != q->ne[1] ||
        op->ne[3] != q->ne[3]) {
        return "the result does not fit Q and V";
    }
    return NULL;
}

static const char *set_attention(const struct ggml_tensor *op, struct problem *p) {
    const struct ggml_tensor *q = op->src[SRC_Q];
    const struct ggml_tensor *k = op->src[SRC_K];
    const struct ggml_tensor *v = op->src[SRC_V];
    const int64_t n_head_kv = k->ne[2] > v->ne[2] ? k->ne[2] : v->ne[2];
    float params[3];
    memcpy(params, op->op_params, sizeof(params));

    if (q->ne[2] % n_head_kv != 0) {
        return "the number of heads is not a multiple of the number of KV heads";
    }
    struct varve_segment *s = &p->segment;
    if (!share(k->ne[2], n_head_kv, k->nb[2], &s->k_head_stride) ||
        !share(v->ne[2], n_head_kv, v->nb[2], &s->v_head_stride)) {
        return "K and V have different numbers of heads";
    }
    if (!share(k->ne[3], q->ne[3], k->nb[3], &s->k_batch_stride) ||
        !share(v->ne[3], q->ne[3], v->nb[3], &s->v_batch_stride)) {
        return "K or V have another number of sequences than Q";
    }
    if (!isfinite(params[0]) || !isfinite(params[1]) || !isfinite(params[2])) {
        return "scale, max_bias and softcap must be finite";
    }
    s->k = k->data;
    s->v = v->data;
    s->n_rows = k->ne[1];
    s->k_row_stride = (int64_t)k->nb[1];
    s->v_row_stride = (int64_t)v->nb[1];
    struct varve_attention *a = &p->attention; /* field by field: padding stays zero */
    a->head_dim_k = (int32_t)k->ne[0];
    a->head_dim_v = (int32_t)v->ne[0];
    a->n_head = (int32_t)q->ne[2];
    a->n_head_kv = (int32_t)n_head_kv;
    a->n_query = q->ne[1];
    a->n_batch = q->ne[3];
    a->scale = params[0];
    a->arithmetic = plugin_config()->arithmetic;
    /* Without a mask ggml's ALiBi adds nothing; the library's would go by position. */
    a->max_bias = op->src[SRC_MASK] != NULL && params[1] > 0.0f ? params[1] : 0.0f;
    a->softcap = fabsf(params[2]); /* an even function of it */
    return NULL;
}

static const char *set_mask(const struct ggml_tensor *op, struct problem *p) {
    const struct ggml_tensor *mask = op->src[SRC_MASK];
    if (mask == NULL) {
        return NULL;
    }
    if (mask->type != GGML_TYPE_F16 || mask->nb[0] != sizeof(ggml_fp16_t)) {
        return "the mask must be F16 with contiguous rows";
    }
    if (mask->ne[0] < p->segment.n_rows || mask->ne[1] < p->attention.n_query) {
        return "the mask is smaller than the scores";
    }
    if (mask->ne[2] < 1 || mask->ne[3] < 1 || p->attention.n_head % mask->ne[2] != 0 ||
        p->attention.n_batch % mask->ne[3] != 0) {
        return "the mask does not fit heads or sequences";
    }
    p->mask = (struct varve_mask){
        .data = mask->data,
        .n_column = mask->ne[0],
        .n_query = mask->ne[1],
        .n_head = (int32_t)mask->ne[2],
        .n_batch = mask->ne[3],
        .row_stride = (int64_t)mask->nb[1],
        .head_stride = (int64_t)mask->nb[2],
        .batch_stride = (int64_t)mask->nb[3],
    };
    p->io.mask = &p->mask;
    return NULL;
}

static const char *set_io(const struct ggml_tensor *op, struct problem *p) {
    const struct ggml_tensor *q = op->src[SRC_Q];
    const struct ggml_tensor *sinks = op->src[SRC_SINKS];
    if (sinks != NULL && (sinks->type != GGML_TYPE_F32 || sinks->ne[0] != q->ne[2] ||
                          sinks->nb[0] != sizeof(float))) {
        return "the sinks must be one F32 per head";
    }
    p->io.query = (struct varve_query){
        .data = q->data,
        .query_stride = (int64_t)q->nb[1],
        .head_stride = (int64_t)q->nb[2],
        .batch_stride = (int64_t)q->nb[3],
    };
    p->io.segments = &p->segment;
    p->io.n_segment = 1;
    p->io.sinks = sinks != NULL ? sinks->data : NULL;
    p->io.output = (struct varve_output){
        .data = op->data,
        .query_stride = (int64_t)op->nb[2],
        .head_stride = (int64_t)op->nb[1],
        .batch_stride = (int64_t)op->nb[3],
    };
    return NULL;
}

/* NULL, or the reason why not. The result points into itself: it must stay where it is. */
static const char *translate(const struct ggml_tensor *op, struct problem *p) {
    memset(p, 0, sizeof(*p));
    const char *reason = check_types(op, p);
    reason = reason != NULL ? reason : check_shape(op);
    reason = reason != NULL ? reason : set_attention(op, p);
    reason = reason != NULL ? reason : set_mask(op, p);
    return reason != NULL ? reason : set_io(op, p);
}

const char *attention_decline(const struct ggml_tensor *op) {
    struct problem p;
    const char *reason = translate(op, &p);
    if (reason != NULL) {
        return reason;
    }
    /* The library has the last word, while declining is still possible. */
    struct varve_plan *plan = NULL;
    p.segment.k = NULL;
    p.segment.v = NULL;
    if (varve_plan_create(plugin_varve(), &p.attention, &p.segment, 1, 1, &plan) != VARVE_OK) {
        return "the library has no plan for this shape";
    }
    varve_plan_destroy(plan);
    return NULL;
}

/* A segment of n rows of the node's, F16 on the sides that are hot. */
static struct varve_segment planned_rows(const struct problem *p, int64_t n, bool k_hot,
                                         bool v_hot) {
    struct varve_segment s = p->segment;
    s.n_rows = n;
    s.k_format = k_hot ? VARVE_FORMAT_F16 : s.k_format;
    s.v_format = v_hot ? VARVE_FORMAT_F16 : s.v_format;
    return s;
}

size_t attention_scratch(const struct ggml_tensor *op, int64_t n_k, int64_t n_v, int64_t n_twice,
                         int32_t n_thread) {
    struct problem p;
    if (translate(op, &p) != NULL) {
        return 0;
    }
    const int64_t n_row = p.segment.n_rows;
    const int64_t n_hot = n_k > n_v ? n_k : n_v;
    const int64_t n_split = n_hot < n_row ? n_hot : n_row;
    const int64_t n_part =
        n_hot > 0 ? p.attention.n_batch : 1; /* parts have scratch of their own */
    p.attention.n_batch /= n_part;
    const struct varve_segment segments[] = {
        planned_rows(&p, n_row - n_split, false, false),
        planned_rows(&p, n_split + n_twice, n_k > 0, n_v > 0),
    };
    struct varve_plan *plan = NULL;
    if (varve_plan_create(plugin_varve(), &p.attention, segments, 2, n_thread, &plan) != VARVE_OK) {
        return 0;
    }
    const size_t bytes = (varve_plan_scratch_bytes(plan) + 63) / 64 * 64;
    varve_plan_destroy(plan);
    return (size_t)n_part * bytes;
}

/* ---- computation ---------------------------------------------------------------------------- */

static enum ggml_status status_of(enum varve_status status) {
    switch (status) {
    case VARVE_OK: return GGML_STATUS_SUCCESS;
    case VARVE_ERROR_MEMORY: return GGML_STATUS_ALLOC_FAILED;
    default: return GGML_STATUS_FAILED;
    }
}

/* What runs at once: a whole node, or its batch entries one beside the other. */
struct attention_run {
    const struct varve_plan *plan;
    const struct varve_io *io;
    struct varve_hot_view *view; /* NULL: no checks */
    char *scratch;
};

struct attention_runs {
    struct attention_run *run;
    int64_t n;
};

/* Checks of twins come with the first phase, behind its other tasks, which are larger. */
static int64_t n_check(const struct attention_run *run, int32_t phase) {
    return phase == 0 && run->view != NULL ? run->view->n_check : 0;
}

/* Tasks of the parts are numbered through. */
static void run_task(void *arg, int32_t phase, int64_t task, int32_t worker) {
    const struct attention_runs *runs = arg;
    const struct attention_run *run = runs->run;
    int64_t n = 0;
    while (task >= (n = varve_plan_n_task(run->plan, phase)) + n_check(run, phase)) {
        task -= n + n_check(run, phase);
        run++;
    }
    if (task < n) {
        varve_run_task(run->plan, run->io, run->scratch, phase, task, worker);
    } else {
        varve_hot_check(run->view, task - n);
    }
}

static void run_all(struct plugin_backend *backend, struct attention_runs *runs) {
    /* Multiply-adds of one thread in a microsecond, AVX-512 kernels in decode. */
    static const double work_per_microsecond = 3e4;
    struct plugin_tasks tasks = {.run = run_task, .arg = runs};
    double work = 0.0;
    for (int64_t i = 0; i < runs->n; i++) {
        work += varve_plan_work(runs->run[i].plan);
        for (int32_t phase = 0; phase < VARVE_PHASE_COUNT; phase++) {
            tasks.n_task[phase] +=
                varve_plan_n_task(runs->run[i].plan, phase) + n_check(&runs->run[i], phase);
        }
    }
    const int32_t n_thread =
        tasks.n_task[0] > 1
            ? threads_wanted(backend->threads, backend->n_thread, work / work_per_microsecond)
            : 1;
    threads_run(backend->threads, n_thread, &tasks);
}

/* Plans and checks all parts, lays out their scratch one behind the other. */
static enum varve_status prepare(struct plugin_backend *backend, const struct hot_part *parts,
                                 struct attention_runs *runs) {
    size_t bytes = 0;
    for (int64_t i = 0; i < runs->n; i++) {
        struct attention_run *run = &runs->run[i];
        run->io = &parts[i].io;
        run->view = parts[i].view;
        enum varve_status status = plans_get(backend, &parts[i].attention, run->io->segments,
                                             run->io->n_segment, &run->plan);
        if (status == VARVE_OK) {
            status = varve_io_check(run->plan, run->io); /* logs what is wrong */
        }
        const size_t part = status == VARVE_OK ? varve_plan_scratch_bytes(run->plan) : 0;
        if (part > SIZE_MAX / 2 - bytes) {
            status = VARVE_ERROR_MEMORY;
        }
        if (status != VARVE_OK) {
            return status;
        }
        bytes += (part + 63) / 64 * 64;
    }
    char *scratch = plugin_scratch(backend, bytes);
    if (bytes > 0 && scratch == NULL) {
        return VARVE_ERROR_MEMORY;
    }
    for (int64_t i = 0; i < runs->n; i++) {
        runs->run[i].scratch = scratch;
        scratch += (varve_plan_scratch_bytes(runs->run[i].plan) + 63) / 64 * 64;
    }
    return VARVE_OK;
}

/* Stale twins show when all is done: what read them runs once more. */
static enum varve_status settle(struct plugin_backend *backend, const struct hot_part *parts,
                                int64_t n) {
    enum varve_status status = VARVE_OK;
    for (int64_t b = 0; b < n && status == VARVE_OK; b++) {
        if (hot_settle(backend, b)) {
            continue;
        }
        struct attention_run again;
        struct attention_runs runs = {&again, 1};
        status = prepare(backend, &parts[b], &runs);
        if (status == VARVE_OK) {
            run_all(backend, &runs);
        }
    }
    hot_finish(backend);
    return status;
}

static void count_node(const struct plugin_backend *backend, const struct ggml_tensor *op) {
    const struct ggml_tensor *k = op->src[SRC_K];
    const struct ggml_tensor *v = op->src[SRC_V];
    const uint64_t row_bytes = ggml_row_size(k->type, k->ne[0]) * (uint64_t)k->ne[2] +
                               ggml_row_size(v->type, v->ne[0]) * (uint64_t)v->ne[2];
    const uint64_t n_row = (uint64_t)(k->ne[1] * k->ne[3]);
    counters_add(COUNT_ATTENTION_NODES, 1);
    counters_add(COUNT_ATTENTION_ROWS, n_row);
    counters_add(COUNT_ATTENTION_BYTES, n_row * row_bytes);

    const struct plugin_config *config = plugin_config();
    if ((config->launched || config->trace) && plugin_first_time(UINT64_C(0x76617276655f6f6e))) {
        char tiers[128];
        hot_describe(backend, op, tiers, sizeof(tiers));
        const enum varve_arithmetic arithmetic = config->arithmetic;
        plugin_say("attention runs on varve (%s%s%s; K %s, V %s%s; %d thread%s)",
                   varve_context_isa(backend->varve),
                   arithmetic != VARVE_ARITHMETIC_DEFAULT ? ", class " : "",
                   arithmetic != VARVE_ARITHMETIC_DEFAULT ? varve_arithmetic_name(arithmetic) : "",
                   ggml_type_name(k->type), ggml_type_name(v->type), tiers, (int)backend->n_thread,
                   backend->n_thread == 1 ? "" : "s");
    }
}

enum ggml_status attention_compute(struct plugin_backend *backend, const struct ggml_tensor *op) {
    struct problem p;
    const char *reason = translate(op, &p);
    if (reason != NULL) {
        plugin_log(GGML_LOG_LEVEL_ERROR, "'%s' cannot be computed: %s", op->name, reason);
        return GGML_STATUS_FAILED;
    }
    if (ggml_is_empty(op)) {
        return GGML_STATUS_SUCCESS;
    }
    backend->n_node++;
    const struct hot_part whole = {p.attention, p.io, NULL};
    const struct hot_part *parts = NULL;
    struct attention_run one;
    const int64_t n_part = hot_parts(backend, op, &p.attention, &p.io, &parts);
    struct attention_runs runs = {&one, n_part > 0 ? n_part : 1};
    if (n_part == 0) {
        parts = &whole;
    }
    if (runs.n > 1 && (runs.run = calloc((size_t)runs.n, sizeof(*runs.run))) == NULL) {
        return GGML_STATUS_ALLOC_FAILED;
    }
    enum varve_status status = prepare(backend, parts, &runs);
    if (status == VARVE_OK) {
        run_all(backend, &runs);
        status = n_part > 0 ? settle(backend, parts, n_part) : VARVE_OK;
    }
    if (status == VARVE_OK) {
        count_node(backend, op);
    } else {
        plugin_log(GGML_LOG_LEVEL_ERROR, "'%s' cannot be computed: %s", op->name,
                   varve_status_text(status));
    }
    if (runs.run != &one) {
        free(runs.run);
    }
    return status_of(status);
}
