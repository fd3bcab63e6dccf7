/* llama.cpp lays out models and contexts without memory for them; what that tells is added up. */
#include "plan.h"

#include "args.h"
#include "back_ends.h"
#include "log.h"
#include "model_file.h"

#include "gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- model ---------------------------------------------------------------------------------- */

/* What no tensor comes with when there is no file. */
static void no_data(struct ggml_tensor *tensor, void *user) {
    (void)tensor;
    (void)user;
}

static struct llama_model *load(const struct plan_options *o) {
    struct llama_model_params params = llama_model_default_params();
    params.n_gpu_layers = 0; /* varve serves caches in host memory */
    params.load_mode = LLAMA_LOAD_MODE_NONE;
    params.no_alloc = true;
    if (o->model != NULL) {
        return llama_model_load_from_file(o->model, params);
    }
    struct gguf_context *header = dimensions_header(&o->dimensions);
    struct llama_model *model =
        header != NULL ? llama_model_init_from_user(header, no_data, NULL, params) : NULL;
    gguf_free(header);
    return model;
}

bool model_open(struct plan_model *m, const struct plan_options *o) {
    m->options = o;
    if (o->model != NULL && !model_file_check(o->model)) {
        return false;
    }
    m->model = load(o);
    if (m->model == NULL) {
        cli_say("cannot plan %s: %s; is the file whole, and a model that this llama.cpp knows?",
                o->model != NULL ? o->model : "these dimensions", log_take_error());
        return false;
    }
    if (llama_model_has_encoder(m->model) || !llama_model_has_decoder(m->model)) {
        cli_say("%s does not continue text (it has an encoder): there is no KV cache to plan",
                o->model);
        return false;
    }
    m->weights = o->model != NULL ? llama_model_size(m->model) : 0;
    m->n_ctx_train = llama_model_n_ctx_train(m->model);
    m->is_random = model_file_is_random(m->model);
    if (llama_model_meta_val_str(m->model, "general.name", m->name, sizeof(m->name)) <= 0) {
        llama_model_desc(m->model, m->name, sizeof(m->name));
    }
    return true;
}

/* ---- context -------------------------------------------------------------------------------- */

void plan_figures_free(struct plan_figures *f) {
    free(f->layers);
    memset(f, 0, sizeof(*f));
}

/* llama.cpp keeps for each cell its position, shift, 2-D position and token, and a set of 256
 * sequences (llama-kv-cells.h); for each cell in use a node in two ordered sets, 48 bytes each with
 * what malloc adds. */
enum { CELL_BYTES = 4 + 4 + 12 + 32 + 2 * 48 };

/* Cells are those of a cache, whatever the number of its layers: caches differ in length. */
static uint64_t cells_bytes(const struct plan_figures *f) {
    uint64_t n = 0;
    for (size_t i = 0; i < f->n_layer; i++) {
        bool known = false;
        for (size_t j = 0; j < i && !known; j++) {
            known = f->layers[j].n_cell == f->layers[i].n_cell;
        }
        n += known ? 0 : (uint64_t)(f->layers[i].n_cell * f->layers[i].n_stream);
    }
    return n * CELL_BYTES;
}

static uint64_t max(uint64_t a, uint64_t b) { return a > b ? a : b; }

/* Staging, views and scratch serve one layer after the other, but for staged rows that a later
 * layer reads again: then each tensor has its own. */
static void add_up(struct plan_figures *f, int64_t hot_max) {
    uint64_t staging = 0, view = 0, work = 0;
    for (size_t i = 0; i < f->n_layer; i++) {
        const struct plan_layer *layer = &f->layers[i];
        const struct varve_ggml_need *need = &layer->need;
        f->declined = need->declined != NULL ? need->declined : f->declined;
        f->cold += layer->cold_k + layer->cold_v;
        staging = max(staging, need->staging);
        view = max(view, need->view);
        work = max(work, need->work);
        if (layer->shares) {
            continue;
        }
        f->sinks += need->sinks_k + need->sinks_v;
        f->hot += need->hot_k + need->hot_v - need->sinks_k - need->sinks_v;
        f->scratch += need->tables;
        f->staging += need->staging_own;
    }
    f->staging += staging + view;
    f->scratch += work;
    const uint64_t limit = (uint64_t)hot_max;
    if (hot_max > 0 && f->hot + f->sinks + f->staging > limit) {
        f->sinks = f->sinks < limit ? f->sinks : limit;
        f->hot = f->hot < limit - f->sinks ? f->hot : limit - f->sinks;
        f->staging = limit - f->sinks - f->hot;
    }
    f->cells = cells_bytes(f);
    f->mask = f->mask < f->compute ? f->mask : f->compute;
    f->compute -= f->mask;
    f->total = f->cold + f->hot + f->sinks + f->staging + f->state + f->cells + f->graphs +
               f->mask + f->compute + f->scratch + f->output;
}

static struct llama_context_params context_params(const struct plan_options *o, const char *type_k,
                                                  const char *type_v, int64_t n_ctx) {
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = (uint32_t)n_ctx;
    params.n_batch = (uint32_t)(o->n_ubatch > 2048 ? o->n_ubatch : 2048);
    params.n_ubatch = (uint32_t)o->n_ubatch;
    params.n_seq_max = (uint32_t)o->n_slot;
    /* One for each sequence, as text is generated: the buffer for more is not touched then. */
    params.n_outputs_max = (uint32_t)o->n_slot;
    params.n_threads = params.n_threads_batch = (int32_t)o->n_threads;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    params.offload_kqv = false;
    params.swa_full = false;
    params.kv_unified = o->unified || o->n_slot == 1;
    params.type_k = back_ends_type(type_k);
    params.type_v = back_ends_type(type_v);
    return params;
}

bool probe_context(const struct plan_model *m, const char *type_k, const char *type_v,
                   int64_t n_ctx, struct plan_figures *f, const char **reason) {
    const struct plan_options *o = m->options;
    memset(f, 0, sizeof(*f));
    f->n_swa = llama_model_n_swa(m->model);
    (void)log_take_error();
    capture_into(f, o);
    struct llama_context *context =
        llama_init_from_model(m->model, context_params(o, type_k, type_v, n_ctx));
    capture_into(NULL, NULL);
    if (context == NULL) {
        plan_figures_free(f);
        *reason = log_take_error();
        return false;
    }
    f->n_ctx = llama_n_ctx(context);
    f->n_ctx_seq = llama_n_ctx_seq(context);
    f->output = (uint64_t)o->n_slot * sizeof(float) *
                (uint64_t)llama_vocab_n_tokens(llama_model_get_vocab(m->model));
    llama_free(context);
    if (f->compute == 0) {
        *reason = "this llama.cpp does not measure contexts as the one that varve was built with";
        return false;
    }
    add_up(f, o->tiers.hot_max); /* as the plug-in says it: 0 is no limit */
    return true;
}

/* ---- the longest ---------------------------------------------------------------------------- */

enum { STEP = 256, TOKENS_MOST = 1 << 22 };

static int64_t parts(const struct plan_options *o) { return o->unified ? 1 : o->n_slot; }

int64_t most_tokens(const struct plan_model *m) {
    const int64_t n_part = parts(m->options);
    const int64_t one = m->n_ctx_train < STEP ? STEP : m->n_ctx_train / STEP * STEP;
    const int64_t most = TOKENS_MOST / n_part / STEP * STEP;
    return n_part * (one < most ? one : most);
}

/* Bytes of a context with the weights; 0: refused. */
static uint64_t bytes_at(const struct plan_model *m, const char *type_k, const char *type_v,
                         int64_t n_ctx, const char **reason) {
    struct plan_figures f;
    const bool ok = probe_context(m, type_k, type_v, n_ctx, &f, reason);
    const uint64_t bytes = ok ? f.total + m->weights : 0;
    plan_figures_free(&f);
    return bytes;
}

/* Where a straight line between two contexts crosses the limit, strictly between them. */
static int64_t between(int64_t low, int64_t high, uint64_t at_low, uint64_t at_high, uint64_t bytes,
                       int64_t step) {
    const double part = (double)(bytes - at_low) / (double)(at_high - at_low);
    int64_t guess = low + (int64_t)(part * (double)(high - low)) / step * step;
    guess = guess > low ? guess : low + step;
    return guess < high ? guess : high - step;
}

int64_t longest_context(const struct plan_model *m, const char *type_k, const char *type_v,
                        uint64_t bytes, const char **reason) {
    const int64_t step = STEP * parts(m->options);
    int64_t high = most_tokens(m), low = step;
    uint64_t at_high = bytes_at(m, type_k, type_v, high, reason);
    if (at_high == 0) {
        return -1;
    }
    if (at_high <= bytes) {
        return high;
    }
    uint64_t at_low = bytes_at(m, type_k, type_v, low, reason);
    if (at_low == 0 || at_low > bytes) {
        return at_low == 0 ? -1 : 0;
    }
    bool halve = false; /* every other time, so that a curve does not make it slow */
    while (high - low > step) {
        const int64_t middle = low + (high - low) / 2 / step * step;
        const int64_t n =
            halve && middle > low ? middle : between(low, high, at_low, at_high, bytes, step);
        const uint64_t now = bytes_at(m, type_k, type_v, n, reason);
        if (now == 0) {
            return -1;
        }
        const bool was_near = high - low < 4 * step;
        halve = !halve && !was_near && n != low + step;
        if (now <= bytes) {
            low = n;
            at_low = now;
        } else {
            high = n;
            at_high = now;
        }
    }
    return low;
}
