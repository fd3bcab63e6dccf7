/* SET_ROWS: rows written into a cache, byte for byte as stock ggml writes them on this machine.
 *
 * ggml's shapes: source [n, n_row, n2, n3] in F32 or F16, indices [n_row, n2', n3'] by modulo,
 * destination [n, n_dst, n2, n3]. ggml leaves open what two equal indices give; here the last one
 * wins at any number of threads, because work is cut by destination row: whoever owns a row sees
 * all writes to it, in order. */
#include "plugin.h"

#include <string.h>

struct writer {
    const struct varve_context *varve;
    const struct ggml_tensor *op;
    const struct ggml_tensor *source;
    const struct ggml_tensor *index;
    host_from_float_fn from_float; /* NULL: copy */
    bool encodes; /* varve's encoder gives the same bytes, wherever it does not decline */
    enum varve_format format;
    enum varve_encoder encoder;
    struct varve_twins *twins; /* NULL: none */
    float *wide;               /* one row of F32 per worker, for F16 sources */
    int64_t n_part;
};

/* Rows that share a cache line at their borders stay together. */
enum { ROWS_PER_BLOCK = 8 };

static const struct ggml_tensor *index_of(const struct ggml_tensor *op) { return op->src[1]; }

static const char *check_types(const struct ggml_tensor *op) {
    const struct ggml_tensor *source = op->src[0];
    const struct ggml_tensor *index = op->src[1];
    enum varve_format format;
    if (source == NULL || index == NULL) {
        return "a source is missing";
    }
    if (source->type != GGML_TYPE_F32 && source->type != GGML_TYPE_F16) {
        return "rows must come as F32 or F16";
    }
    if (index->type != GGML_TYPE_I32 && index->type != GGML_TYPE_I64) {
        return "indices must be I32 or I64";
    }
    if (!plugin_format(op->type, &format)) {
        return "the cache is in a format that varve does not have";
    }
    if (op->ne[0] % ggml_blck_size(op->type) != 0) {
        return "the row is not a multiple of the format's block";
    }
    if (!ggml_is_contiguous_rows(source) || !ggml_is_contiguous_rows(op)) {
        return "rows must be contiguous";
    }
    return NULL;
}

static const char *check_shape(const struct ggml_tensor *op) {
    const struct ggml_tensor *source = op->src[0];
    const struct ggml_tensor *index = op->src[1];
    if (source->ne[0] != op->ne[0] || source->ne[2] != op->ne[2] || source->ne[3] != op->ne[3] ||
        index->ne[0] != source->ne[1] || index->ne[3] != 1) {
        return "source, indices and cache do not fit together";
    }
    if (index->ne[1] < 1 || index->ne[2] < 1 || op->ne[2] % index->ne[1] != 0 ||
        op->ne[3] % index->ne[2] != 0) {
        return "the indices do not fit the cache";
    }
    return NULL;
}

const char *set_rows_decline(const struct ggml_tensor *op) {
    const char *reason = check_types(op);
    reason = reason != NULL ? reason : check_shape(op);
    if (reason != NULL) {
        return reason;
    }
    /* Masks and lists of experts are written into results of other nodes, caches never are. */
    if (learn_root(op)->op != GGML_OP_NONE) {
        return "the destination is not a cache";
    }
    if (host_from_float(op->type) == NULL) {
        return "ggml's CPU back end, whose bytes are to be written, was not found";
    }
    return NULL;
}

/* ---- computation ---------------------------------------------------------------------------- */

static int64_t read_index(const struct ggml_tensor *index, int64_t i, int64_t i2, int64_t i3) {
    const char *at = (const char *)index->data + (size_t)i * index->nb[0] +
                     (size_t)(i2 % index->ne[1]) * index->nb[1] +
                     (size_t)(i3 % index->ne[2]) * index->nb[2];
    if (index->type == GGML_TYPE_I32) {
        return *(const int32_t *)(const void *)at;
    }
    return *(const int64_t *)(const void *)at;
}

/* Before anything is written: a wrong index is the host's mistake, but no reason to end it. */
static bool indices_fit(const struct ggml_tensor *op) {
    const struct ggml_tensor *index = index_of(op);
    for (int64_t i3 = 0; i3 < index->ne[2]; i3++) {
        for (int64_t i2 = 0; i2 < index->ne[1]; i2++) {
            for (int64_t i = 0; i < index->ne[0]; i++) {
                const int64_t row = read_index(index, i, i2, i3);
                if (row < 0 || row >= op->ne[1]) {
                    plugin_log(GGML_LOG_LEVEL_ERROR,
                               "SET_ROWS '%s': index %lld of row %lld is outside of the cache's "
                               "%lld rows; nothing written",
                               op->name, (long long)row, (long long)i, (long long)op->ne[1]);
                    return false;
                }
            }
        }
    }
    return true;
}

/* i: number of the row in the source, by which its twin is known. */
static void write_row(const struct writer *w, int64_t i, const char *from, char *to,
                      int32_t worker) {
    const int64_t n = w->op->ne[0];
    if (w->from_float == NULL) {
        memcpy(to, from, ggml_row_size(w->source->type, n));
        return;
    }
    const float *values = (const float *)(const void *)from;
    if (w->source->type == GGML_TYPE_F16) {
        float *wide = w->wide + (size_t)worker * (size_t)n;
        ggml_fp16_to_fp32_row((const ggml_fp16_t *)(const void *)from, wide, n);
        values = wide;
    }
    if (!w->encodes || varve_encode(w->varve, w->format, w->encoder, values, n, to) != VARVE_OK) {
        w->from_float(values, to, n);
    }
    if (w->twins != NULL) {
        varve_twins_write_row(w->twins, i, values);
    }
}

static void write_part(void *arg, int32_t phase, int64_t part, int32_t worker) {
    (void)phase;
    const struct writer *w = arg;
    const struct ggml_tensor *op = w->op;
    const struct ggml_tensor *source = w->source;
    for (int64_t i3 = 0; i3 < op->ne[3]; i3++) {
        for (int64_t i2 = 0; i2 < op->ne[2]; i2++) {
            for (int64_t i = 0; i < source->ne[1]; i++) {
                const int64_t row = read_index(w->index, i, i2, i3);
                if (row / ROWS_PER_BLOCK % w->n_part != part) {
                    continue;
                }
                write_row(w, i,
                          (const char *)source->data + (size_t)i * source->nb[1] +
                              (size_t)i2 * source->nb[2] + (size_t)i3 * source->nb[3],
                          (char *)op->data + (size_t)row * op->nb[1] + (size_t)i2 * op->nb[2] +
                              (size_t)i3 * op->nb[3],
                          worker);
            }
        }
    }
}

/* What the write takes on one thread: stock's quantizers about 1 ns for a value, ours with twins
 * 0.3, conversions to float formats a tenth. */
static double write_microseconds(const struct writer *w, int64_t n_value) {
    return (double)n_value * (!ggml_is_quantized(w->op->type) ? 1e-4 : w->encodes ? 3e-4 : 1e-3);
}

/* Rows of a plain 2-D write get twins, where the tier wants them. */
static struct varve_twins *announce(struct plugin_backend *backend, const struct ggml_tensor *op) {
    const int64_t n = op->src[0]->ne[1];
    int64_t *cells = ggml_is_quantized(op->type) && op->ne[2] == 1 && op->ne[3] == 1
                         ? hot_cells(backend, n)
                         : NULL;
    if (cells == NULL) {
        return NULL;
    }
    for (int64_t i = 0; i < n; i++) {
        cells[i] = read_index(index_of(op), i, 0, 0);
    }
    return hot_write(backend, op, cells, n);
}

static void count_rows(const struct ggml_tensor *op, uint64_t n_row) {
    counters_add(COUNT_SET_ROWS_NODES, 1);
    counters_add(COUNT_SET_ROWS_ROWS, n_row);
    counters_add(COUNT_SET_ROWS_BYTES, n_row * ggml_row_size(op->type, op->ne[0]));
}

enum ggml_status set_rows_compute(struct plugin_backend *backend, const struct ggml_tensor *op) {
    const struct ggml_tensor *source = op->src[0];
    if (ggml_is_empty(source) || ggml_is_empty(op)) {
        return GGML_STATUS_SUCCESS;
    }
    struct writer w = {
        .varve = backend->varve, .op = op, .source = source, .index = index_of(op), .n_part = 1};
    if (!(source->type == GGML_TYPE_F16 && op->type == GGML_TYPE_F16)) {
        w.from_float = host_from_float(op->type);
        if (w.from_float == NULL) {
            plugin_log(GGML_LOG_LEVEL_ERROR, "SET_ROWS '%s': ggml's CPU back end has gone",
                       op->name);
            return GGML_STATUS_FAILED;
        }
    }
    if (!indices_fit(op)) {
        return GGML_STATUS_FAILED;
    }
    w.encodes = host_encoder(op->type, &w.format, &w.encoder);
    const int64_t n_row = source->ne[1] * source->ne[2] * source->ne[3];
    int32_t n_thread = 1;
    if (backend->n_thread > 1 &&
        threads_pay(backend->threads, write_microseconds(&w, n_row * op->ne[0]))) {
        n_thread = backend->n_thread;
        w.n_part = 4 * (int64_t)n_thread; /* so that a late thread leaves its share to others */
    }
    if (source->type == GGML_TYPE_F16 && w.from_float != NULL) {
        w.wide = plugin_scratch(backend, (size_t)n_thread * (size_t)op->ne[0] * sizeof(float));
        if (w.wide == NULL) {
            plugin_log(GGML_LOG_LEVEL_ERROR, "SET_ROWS '%s': no memory for a row", op->name);
            return GGML_STATUS_ALLOC_FAILED;
        }
    }
    w.twins = announce(backend, op);
    const struct plugin_tasks tasks = {.n_task = {w.n_part}, .run = write_part, .arg = &w};
    threads_run(backend->threads, n_thread, &tasks);
    count_rows(op, (uint64_t)n_row);
    return GGML_STATUS_SUCCESS;
}
