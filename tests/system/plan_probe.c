/* What a context really takes: created, filled to its last cell, and measured.
 *
 * usage: plan_probe MODEL CONTEXT SLOTS UNIFIED UBATCH TYPE_K TYPE_V THREADS
 *
 * Weights are read into memory before, so that the growth of the process's Pss is the context's.
 * All slots are filled side by side, first in full batches, then token by token. Prints lines "name
 * value": pss (bytes), and the account of varve's plug-in. */
#include "varve/ggml.h"

#include "ggml-backend.h"
#include "llama.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void fail(const char *what) {
    fprintf(stderr, "plan_probe: %s\n", what);
    exit(1);
}

static void be_silent(enum ggml_log_level level, const char *text, void *user) {
    (void)user;
    if (level == GGML_LOG_LEVEL_ERROR) {
        fputs(text, stderr);
    }
}

static long long pss_bytes(void) {
    FILE *file = fopen("/proc/self/smaps_rollup", "r");
    char line[256];
    long long kib = -1;
    while (file != NULL && kib < 0 && fgets(line, sizeof(line), file) != NULL) {
        if (sscanf(line, "Pss: %lld kB", &kib) != 1) {
            kib = -1;
        }
    }
    if (kib < 0) {
        fail("no /proc/self/smaps_rollup");
    }
    fclose(file);
    return kib * 1024;
}

static enum ggml_type type_named(const char *name) {
    for (int i = 0; i < GGML_TYPE_COUNT; i++) {
        const char *known = ggml_type_name((enum ggml_type)i);
        if (known != NULL && strcmp(known, name) == 0) {
            return (enum ggml_type)i;
        }
    }
    fail("no such type");
    return GGML_TYPE_COUNT;
}

struct fill {
    struct llama_context *context;
    struct llama_batch batch;
    int n_slot, n_vocab;
    unsigned random;
};

/* n tokens for each slot, from position `at` on. */
static void say(struct fill *f, int at, int n) {
    f->batch.n_tokens = 0;
    for (int s = 0; s < f->n_slot; s++) {
        for (int i = 0; i < n; i++) {
            const int to = f->batch.n_tokens++;
            f->random = f->random * 1664525u + 1013904223u;
            f->batch.token[to] = (llama_token)(f->random >> 8) % f->n_vocab;
            f->batch.pos[to] = at + i;
            f->batch.n_seq_id[to] = 1;
            f->batch.seq_id[to][0] = s;
            f->batch.logits[to] = i == n - 1;
        }
    }
    if (llama_decode(f->context, f->batch) != 0) {
        fail("llama_decode failed");
    }
}

static void print_account(void) {
    ggml_backend_reg_t reg = ggml_backend_reg_by_name(VARVE_GGML_NAME);
    varve_ggml_account_fn account =
        reg != NULL
            ? (varve_ggml_account_fn)ggml_backend_reg_get_proc_address(reg, VARVE_GGML_ACCOUNT)
            : NULL;
    struct varve_ggml_account a = {0};
    if (account == NULL || !account(-1, &a, sizeof(a))) {
        fail("no account: is the plug-in loaded?");
    }
    printf("cold %llu\nhot %llu\nstaging %llu\nevicted %llu\n", (unsigned long long)a.bytes_cold,
           (unsigned long long)a.bytes_hot, (unsigned long long)a.bytes_staging,
           (unsigned long long)(a.k.twins_evicted + a.v.twins_evicted));
}

int main(int argc, char **argv) {
    enum { n_step = 16 };
    if (argc != 9) {
        fail("8 arguments expected, see the beginning of the source");
    }
    llama_log_set(be_silent, NULL);
    ggml_backend_load_all();
    struct llama_model_params model_params = llama_model_default_params();
    model_params.load_mode = LLAMA_LOAD_MODE_NONE;
    struct llama_model *model = llama_model_load_from_file(argv[1], model_params);
    if (model == NULL) {
        fail("no model");
    }
    const int n_slot = atoi(argv[3]), n_ubatch = atoi(argv[5]);
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = (uint32_t)atoi(argv[2]);
    params.n_seq_max = params.n_outputs_max = (uint32_t)n_slot;
    params.kv_unified = atoi(argv[4]) != 0;
    params.n_batch = params.n_ubatch = (uint32_t)n_ubatch;
    params.n_threads = params.n_threads_batch = atoi(argv[8]);
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    params.type_k = type_named(argv[6]);
    params.type_v = type_named(argv[7]);
    params.swa_full = false;
    malloc_trim(0); /* what loading has freed would hide what is taken now */
    const long long before = pss_bytes();
    struct fill f = {
        .context = llama_init_from_model(model, params), .n_slot = n_slot, .random = 1};
    if (f.context == NULL) {
        fail("no context");
    }
    f.n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
    f.batch = llama_batch_init(n_ubatch, 0, 1);
    const int n_each = (int)llama_n_ctx(f.context) / n_slot, n_batch = n_ubatch / n_slot;
    int at = 0;
    while (at < n_each - n_step) {
        const int rest = n_each - n_step - at;
        const int n = rest < n_batch ? rest : n_batch;
        say(&f, at, n);
        at += n;
    }
    for (; at < n_each; at++) {
        say(&f, at, 1);
    }
    printf("pss %lld\n", pss_bytes() - before);
    print_account();
    llama_batch_free(f.batch);
    llama_free(f.context);
    llama_model_free(model);
    return 0;
}
