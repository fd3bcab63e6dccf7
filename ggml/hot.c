/* The hot tier as the plug-in uses it: settings, which tensors have twins, parts of nodes, budget.
 * The rule itself is the library's (varve/hot.h, docs/DESIGN.md 9). */
#include "plugin.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A cache tensor that was attended or written, and its twins. */
struct store {
    const void *data;
    size_t bytes;
    struct varve_twins *twins;             /* NULL: none, as for f16 */
    struct varve_twins_account counted[2]; /* what is in the account already: as K, as V */
    uint64_t attended_at; /* number of the latest write when attended since its own */
};

struct part {
    struct varve_hot_node node;
    struct varve_mask mask;
    struct varve_hot_view view;
};

enum { SIDE_K = 0, SIDE_V = 1, N_SIDE = 2 };
enum {
    ROWS_HOT,
    ROWS_SINK,
    ROWS_COLD,
    ROWS_MISSED,
    TWINS_WRITTEN,
    TWINS_STALE,
    TWINS_EVICTED,
    N_COUNT
};

struct account {
    _Atomic uint64_t count[N_SIDE][N_COUNT];
    _Atomic uint64_t bytes_cold;
    _Atomic int64_t bytes, bytes_peak; /* hot and staging */
    _Atomic uint64_t bytes_staging;
};

struct plugin_hot {
    struct plugin_hot *next; /* younger */
    struct plugin_tiers tiers;
    struct varve_hot *tier; /* made when first needed */
    struct store **store;
    int32_t n_store, at_store;
    int64_t *cells;
    int64_t n_cells;
    struct part *part;
    struct hot_part *ready;
    int64_t n_part;
    struct store *k, *v; /* of the node at hand */
    uint64_t n_write;
    struct account account;
};

static struct account total;
static struct plugin_hot *oldest;
static struct plugin_tiers settings;
static bool settings_read;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of the three above */

/* ---- settings ------------------------------------------------------------------------------- */

/* Call with the lock held. */
static struct plugin_tiers *current_settings(void) {
    if (!settings_read) {
        settings = plugin_config()->tiers;
        settings_read = true;
    }
    return &settings;
}

bool hot_set_tiers(const char *tiers, int32_t n_sink, int64_t hot_max) {
    pthread_mutex_lock(&lock);
    struct plugin_tiers wanted = *current_settings();
    const bool ok = n_sink >= -1 && n_sink <= VARVE_HOT_ROWS_MAX && hot_max >= -1 &&
                    (tiers == NULL || plugin_read_tiers(tiers, &wanted.window));
    wanted.n_sink = n_sink >= 0 ? n_sink : wanted.n_sink;
    wanted.hot_max = hot_max >= 0 ? hot_max : wanted.hot_max;
    if (ok) {
        settings = wanted;
    }
    pthread_mutex_unlock(&lock);
    return ok;
}

/* ---- budget --------------------------------------------------------------------------------- */

static void note_peak(struct account *account, int64_t now) {
    int64_t peak = atomic_load(&account->bytes_peak);
    while (now > peak && !atomic_compare_exchange_weak(&account->bytes_peak, &peak, now)) {}
}

/* The library asks before it allocates. The limit holds for all contexts together. */
static bool reserve(void *user, int64_t bytes) {
    struct plugin_hot *hot = user;
    const int64_t limit = hot->tiers.hot_max;
    int64_t now = atomic_load(&total.bytes);
    do {
        if (bytes > 0 && limit > 0 && now > limit - bytes) {
            return false;
        }
    } while (!atomic_compare_exchange_weak(&total.bytes, &now, now + bytes));
    note_peak(&total, now + bytes);
    note_peak(&hot->account, atomic_fetch_add(&hot->account.bytes, bytes) + bytes);
    return true;
}

/* ---- life ----------------------------------------------------------------------------------- */

struct plugin_hot *hot_create(void) {
    struct plugin_hot *hot = calloc(1, sizeof(*hot));
    if (hot == NULL) {
        return NULL;
    }
    pthread_mutex_lock(&lock);
    hot->tiers = *current_settings();
    struct plugin_hot **end = &oldest;
    while (*end != NULL) {
        end = &(*end)->next;
    }
    *end = hot;
    pthread_mutex_unlock(&lock);
    return hot;
}

static void trace_account(const struct plugin_hot *hot) {
    struct varve_ggml_account a;
    memset(&a, 0, sizeof(a));
    int32_t number = 0;
    pthread_mutex_lock(&lock);
    for (const struct plugin_hot *other = oldest; other != hot; other = other->next) {
        number++;
    }
    pthread_mutex_unlock(&lock);
    if (hot_account(number, &a, sizeof(a)) && a.k.rows_hot + a.v.rows_hot > 0) {
        counters_report_account("context", &a);
    }
}

void hot_destroy(struct plugin_hot *hot) {
    if (hot == NULL) {
        return;
    }
    if (plugin_config()->trace) {
        trace_account(hot);
    }
    for (int64_t i = 0; i < hot->n_part; i++) {
        varve_hot_view_release(&hot->part[i].view);
    }
    varve_hot_destroy(hot->tier);
    pthread_mutex_lock(&lock);
    struct plugin_hot **at = &oldest;
    while (*at != hot) {
        at = &(*at)->next;
    }
    *at = hot->next;
    pthread_mutex_unlock(&lock);
    atomic_fetch_sub(&total.bytes_cold, atomic_load(&hot->account.bytes_cold));
    atomic_fetch_sub(&total.bytes_staging, atomic_load(&hot->account.bytes_staging));
    for (int32_t i = 0; i < hot->n_store; i++) {
        learn_forget(hot->store[i]->data, hot->store[i]->bytes);
        free(hot->store[i]);
    }
    free(hot->store);
    free(hot->cells);
    free(hot->part);
    free(hot->ready);
    free(hot);
}

static bool make_tier(struct plugin_backend *backend) {
    struct plugin_hot *hot = backend->hot;
    const struct varve_hot_params params = {
        .struct_bytes = sizeof(params),
        .window = hot->tiers.window,
        .n_sink = hot->tiers.n_sink,
        .reserve = reserve,
        .user = hot,
    };
    return hot->tier != NULL || varve_hot_create(backend->varve, &params, &hot->tier) == VARVE_OK;
}

/* ---- stores --------------------------------------------------------------------------------- */

/* The store of a tensor, added if it is new; NULL: no memory. Layers come in the same order again
 * and again, so the search begins where the last one ended. */
static struct store *find_store(struct plugin_hot *hot, const struct ggml_tensor *root) {
    const size_t bytes = ggml_nbytes(root);
    for (int32_t i = 0; i < hot->n_store; i++) {
        const int32_t at = (hot->at_store + i) % hot->n_store;
        if (hot->store[at]->data == root->data && hot->store[at]->bytes == bytes) {
            hot->at_store = at;
            return hot->store[at];
        }
    }
    struct store **more = realloc(hot->store, (size_t)(hot->n_store + 1) * sizeof(*more));
    hot->store = more != NULL ? more : hot->store;
    struct store *added = more != NULL ? calloc(1, sizeof(*added)) : NULL;
    if (added == NULL) {
        return NULL;
    }
    added->data = root->data;
    added->bytes = bytes;
    hot->at_store = hot->n_store++;
    hot->store[hot->at_store] = added;
    atomic_fetch_add(&hot->account.bytes_cold, bytes);
    atomic_fetch_add(&total.bytes_cold, bytes);
    return added;
}

/* Most twins of a tensor. With a budget each of n_tensor gets its share of three quarters; staging
 * lives on the rest. */
static int64_t row_limit(const struct plugin_tiers *tiers, const struct ggml_tensor *root,
                         int64_t n_tensor) {
    const int64_t ring = varve_hot_ring_rows(tiers->window, tiers->n_sink);
    const int64_t n_ring =
        root->ne[2] > 4 ? root->ne[2] : 4; /* ne[2]: sequences with rows of their own */
    const int64_t usual = n_ring * ring;
    if (tiers->hot_max == 0) {
        return usual;
    }
    const int64_t row_bytes = (root->ne[0] * 2 + 63) / 64 * 64 + 24;
    const int64_t share = tiers->hot_max / 4 * 3 / (n_tensor > 0 ? n_tensor : 1) / row_bytes;
    return share < 1 ? 1 : share < usual ? share : usual; /* the account wants twins in any case */
}

bool hot_twins_params(const struct plugin_tiers *tiers, const struct ggml_tensor *root,
                      const struct learn_facts *facts, int64_t n_tensor,
                      struct varve_twins_params *params) {
    *params = (struct varve_twins_params){
        .struct_bytes = sizeof(*params),
        .n_value = root->ne[0],
        .cold = root->data,
        .cold_stride = (int64_t)root->nb[1],
        .n_cell = root->ne[1] * root->ne[2] * root->ne[3],
        .n_row_max = row_limit(tiers, root, n_tensor),
        .shared = facts->n_sequence > root->ne[2], /* streams share nothing */
        .reread = facts->reread,
    };
    return plugin_format(root->type, &params->format) && ggml_is_contiguous(root);
}

static void add_twins(struct plugin_backend *backend, const struct ggml_tensor *root,
                      const struct learn_facts *facts, struct store *store) {
    struct varve_twins_params params;
    if (hot_twins_params(&backend->hot->tiers, root, facts, learn_n_attended(), &params) &&
        make_tier(backend)) {
        (void)varve_twins_create(backend->hot->tier, &params, &store->twins);
    }
}

struct plugin_tiers hot_settings(void) {
    pthread_mutex_lock(&lock);
    const struct plugin_tiers now = *current_settings();
    pthread_mutex_unlock(&lock);
    return now;
}

/* ---- account -------------------------------------------------------------------------------- */

static void add_count(struct plugin_hot *hot, int side, int what, uint64_t now, uint64_t before) {
    if (now != before) {
        atomic_fetch_add_explicit(&hot->account.count[side][what], now - before,
                                  memory_order_relaxed);
        atomic_fetch_add_explicit(&total.count[side][what], now - before, memory_order_relaxed);
    }
}

/* What the twins of a tensor have done since they were last asked. */
static void count_store(struct plugin_hot *hot, struct store *store, int side) {
    if (store->twins == NULL) {
        return;
    }
    const struct varve_twins_account a = varve_twins_account(store->twins);
    const struct varve_twins_account *b = &store->counted[side];
    add_count(hot, side, ROWS_HOT, a.rows_hot, b->rows_hot);
    add_count(hot, side, ROWS_SINK, a.rows_sink, b->rows_sink);
    add_count(hot, side, ROWS_COLD, a.rows_cold, b->rows_cold);
    add_count(hot, side, ROWS_MISSED, a.rows_missed, b->rows_missed);
    add_count(hot, side, TWINS_WRITTEN, a.twins_written, b->twins_written);
    add_count(hot, side, TWINS_STALE, a.twins_stale, b->twins_stale);
    add_count(hot, side, TWINS_EVICTED, a.twins_evicted, b->twins_evicted);
    store->counted[side] = a;
}

static void count_bytes(struct plugin_hot *hot) {
    const uint64_t staging = varve_hot_bytes(hot->tier).staging;
    const uint64_t before = atomic_exchange(&hot->account.bytes_staging, staging);
    atomic_fetch_add(&total.bytes_staging, staging - before);
}

static void read_side(const struct account *account, int side, struct varve_ggml_side *out) {
    uint64_t *const fields[N_COUNT] = {&out->rows_hot,     &out->rows_sink,     &out->rows_cold,
                                       &out->rows_missed,  &out->twins_written, &out->twins_stale,
                                       &out->twins_evicted};
    for (int i = 0; i < N_COUNT; i++) {
        *fields[i] = atomic_load_explicit(&account->count[side][i], memory_order_relaxed);
    }
}

bool hot_account(int32_t context, struct varve_ggml_account *account, size_t account_bytes) {
    if (account == NULL || context < -1) {
        return false;
    }
    struct varve_ggml_account now;
    memset(&now, 0, sizeof(now));
    pthread_mutex_lock(&lock);
    const struct plugin_hot *hot = oldest;
    for (int32_t i = 0; i < context && hot != NULL; i++) {
        hot = hot->next;
    }
    const bool found = context < 0 || hot != NULL;
    if (found) {
        const struct account *from = context < 0 ? &total : &hot->account;
        const struct plugin_tiers *tiers = context < 0 ? current_settings() : &hot->tiers;
        const uint64_t staging = atomic_load(&from->bytes_staging);
        const uint64_t bytes = (uint64_t)atomic_load(&from->bytes);
        read_side(from, SIDE_K, &now.k);
        read_side(from, SIDE_V, &now.v);
        now.bytes_cold = atomic_load(&from->bytes_cold);
        now.bytes_staging = staging;
        now.bytes_hot = bytes > staging ? bytes - staging : 0;
        now.bytes_hot_peak = (uint64_t)atomic_load(&from->bytes_peak);
        now.bytes_limit = (uint64_t)tiers->hot_max;
        now.window = tiers->window;
        now.n_sink = tiers->n_sink;
    }
    pthread_mutex_unlock(&lock);
    if (found) {
        memcpy(account, &now, account_bytes < sizeof(now) ? account_bytes : sizeof(now));
    }
    return found;
}

/* ---- writing -------------------------------------------------------------------------------- */

int64_t *hot_cells(struct plugin_backend *backend, int64_t n) {
    struct plugin_hot *hot = backend->hot;
    if (hot->tiers.window == 0) {
        return NULL;
    }
    if (n > hot->n_cells) {
        int64_t *more = realloc(hot->cells, (size_t)n * sizeof(*more));
        if (more == NULL) {
            return NULL;
        }
        hot->cells = more;
        hot->n_cells = n;
    }
    return hot->cells;
}

struct varve_twins *hot_write(struct plugin_backend *backend, const struct ggml_tensor *op,
                              const int64_t *cells, int64_t n) {
    struct plugin_hot *hot = backend->hot;
    const struct ggml_tensor *root = learn_root(op);
    const struct learn_facts facts = learn_about(root);
    if (!facts.attended || op->data != root->data || op->ne[0] != root->ne[0] ||
        op->nb[1] != root->nb[1]) {
        return NULL;
    }
    struct store *store = find_store(hot, root);
    if (store != NULL && store->twins == NULL) {
        add_twins(backend, root, &facts, store);
    }
    if (store == NULL || store->twins == NULL) {
        return NULL;
    }
    if (facts.reread) {
        varve_twins_set_reread(store->twins);
    }
    hot->n_write++;
    store->attended_at = 0;
    const bool ok = varve_twins_write(store->twins, cells, n) == VARVE_OK;
    count_bytes(hot);
    return ok ? store->twins : NULL;
}

/* ---- attending ------------------------------------------------------------------------------ */

static bool reserve_parts(struct plugin_hot *hot, int64_t n) {
    if (n <= hot->n_part) {
        return true;
    }
    struct part *part = realloc(hot->part, (size_t)n * sizeof(*part));
    if (part != NULL) {
        hot->part = part;
        memset(part + hot->n_part, 0, (size_t)(n - hot->n_part) * sizeof(*part));
    }
    struct hot_part *ready = realloc(hot->ready, (size_t)n * sizeof(*ready));
    if (ready != NULL) {
        hot->ready = ready;
    }
    if (part == NULL || ready == NULL) {
        return false;
    }
    hot->n_part = n;
    return true;
}

/* The store of a source of an attention node. A tensor that is read again after others were written
 * keeps its staged rows from now on. */
static struct store *attended(struct plugin_hot *hot, const struct ggml_tensor *source) {
    struct store *store = find_store(hot, learn_root(source));
    if (store != NULL && store->twins != NULL) {
        if (store->attended_at != 0 && store->attended_at != hot->n_write) {
            varve_twins_set_reread(store->twins);
        }
        store->attended_at = hot->n_write;
    }
    return store;
}

static const void *at_batch(const void *data, int64_t b, int64_t stride) {
    return (const char *)data + b * stride;
}

static void warn_cold(enum varve_status status) {
    if (plugin_first_time(plugin_hash(4, &status, sizeof(status)))) {
        plugin_log(GGML_LOG_LEVEL_WARN, "all rows are read cold: %s", varve_status_text(status));
    }
}

/* The segments of a part. Without memory for them, all its rows are read cold. */
static void view_part(struct plugin_hot *hot, int64_t b) {
    struct part *part = &hot->part[b];
    struct hot_part *ready = &hot->ready[b];
    const enum varve_status status = varve_hot_view(hot->tier, &part->node, &part->view);
    ready->view = &part->view;
    ready->io.segments = part->view.segments;
    ready->io.n_segment = part->view.n_segment;
    if (status == VARVE_OK) {
        return;
    }
    ready->view = NULL;
    ready->io.segments = &part->node.cold;
    ready->io.n_segment = 1;
    warn_cold(status);
}

/* Batch entry b of a node, as a node of its own. */
static void make_part(struct plugin_hot *hot, int64_t b, const struct varve_attention *attention,
                      const struct varve_io *io) {
    struct part *part = &hot->part[b];
    struct hot_part *ready = &hot->ready[b];
    part->node = (struct varve_hot_node){.cold = io->segments[0],
                                         .n_query = attention->n_query,
                                         .k = hot->k->twins,
                                         .v = hot->v->twins,
                                         .defer = true};
    struct varve_segment *cold = &part->node.cold;
    cold->k = at_batch(cold->k, b, cold->k_batch_stride);
    cold->v = at_batch(cold->v, b, cold->v_batch_stride);
    memcpy(&ready->attention, attention, sizeof(*attention)); /* with its padding: it is a key */
    ready->attention.n_batch = 1;
    ready->io = *io;
    if (io->mask != NULL) {
        part->mask = *io->mask;
        part->mask.data =
            at_batch(part->mask.data, b % part->mask.n_batch, part->mask.batch_stride);
        part->mask.n_batch = 1;
        part->node.mask = &part->mask;
        ready->io.mask = &part->mask;
    }
    ready->io.query.data = at_batch(io->query.data, b, io->query.batch_stride);
    ready->io.output.data = (float *)((char *)io->output.data + b * io->output.batch_stride);
    view_part(hot, b);
}

/* A mask that differs by head: all rows are read cold, counted as the first head sees them. */
static void count_cold(struct plugin_hot *hot, const struct ggml_tensor *op,
                       const struct varve_attention *attention, const struct varve_io *io,
                       struct store *k, struct store *v) {
    uint64_t n = 0;
    for (int64_t i = 0; i < attention->n_batch * attention->n_query; i++) {
        const int64_t b = i / attention->n_query % io->mask->n_batch;
        const ggml_fp16_t *row = at_batch(at_batch(io->mask->data, b, io->mask->batch_stride),
                                          i % attention->n_query, io->mask->row_stride);
        for (int64_t c = 0; c < io->segments[0].n_rows; c++) {
            n += row[c] != 0xFC00; /* -inf */
        }
    }
    count_store(hot, k, SIDE_K);
    if (v != k) {
        count_store(hot, v, SIDE_V);
    }
    add_count(hot, SIDE_K, ROWS_COLD, k->twins != NULL ? n : 0, 0);
    add_count(hot, SIDE_V, ROWS_COLD, v->twins != NULL && v != k ? n : 0, 0);
    if (plugin_first_time(plugin_hash(3, "mask", 4))) {
        plugin_log(GGML_LOG_LEVEL_WARN, "'%s': the mask differs by head; all rows are read cold",
                   op->name);
    }
}

int64_t hot_parts(struct plugin_backend *backend, const struct ggml_tensor *op,
                  const struct varve_attention *attention, const struct varve_io *io,
                  const struct hot_part **parts) {
    struct plugin_hot *hot = backend->hot;
    struct store *k = attended(hot, op->src[1]);
    struct store *v = attended(hot, op->src[2]);
    if (k == NULL || v == NULL || (k->twins == NULL && v->twins == NULL)) {
        return 0;
    }
    if (io->mask != NULL && io->mask->n_head > 1) {
        count_cold(hot, op, attention, io, k, v);
        return 0;
    }
    const int64_t n = attention->n_batch;
    if (!reserve_parts(hot, n)) {
        warn_cold(VARVE_ERROR_MEMORY);
        return 0;
    }
    hot->k = k;
    hot->v = v;
    for (int64_t b = 0; b < n; b++) {
        make_part(hot, b, attention, io);
    }
    *parts = hot->ready;
    return n;
}

bool hot_settle(struct plugin_backend *backend, int64_t b) {
    struct plugin_hot *hot = backend->hot;
    struct part *part = &hot->part[b];
    if (hot->ready[b].view == NULL || varve_hot_settle(&part->view)) {
        return true;
    }
    part->node.defer = false;
    view_part(hot, b);
    return false;
}

void hot_finish(struct plugin_backend *backend) {
    struct plugin_hot *hot = backend->hot;
    count_store(hot, hot->k, SIDE_K);
    if (hot->v != hot->k) {
        count_store(hot, hot->v, SIDE_V);
    }
    count_bytes(hot);
}

void hot_describe(const struct plugin_backend *backend, const struct ggml_tensor *op, char *text,
                  size_t text_bytes) {
    const struct plugin_tiers *tiers = &backend->hot->tiers;
    const bool quantized =
        ggml_is_quantized(op->src[1]->type) || ggml_is_quantized(op->src[2]->type);
    text[0] = '\0';
    if (quantized && tiers->window > 0) {
        snprintf(text, text_bytes, "; the last %d rows and %d sinks in f16", (int)tiers->window,
                 (int)tiers->n_sink);
    } else if (!quantized && tiers->window > 0 && plugin_config()->tiers_given) {
        snprintf(text, text_bytes, "; tiers have nothing to do, the cache is not quantized");
    }
}
