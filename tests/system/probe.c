/* A host of llama.cpp for the system tests: evaluates a text and says what happened.
 *
 * usage: probe MODEL TEXT [name=value...]
 *   type_k, type_v   cache types (default f16)
 *   fa               on, off, auto (default on)
 *   tokens           tokens per sequence and chunk (default 512)
 *   chunks           parts of the text, each in an empty cache (default 1)
 *   ubatch           tokens evaluated at once (default 512)
 *   threads          default 2
 *   sequences        evaluated side by side, each with its own part of the text (default 1)
 *   unified          1: one cache for all sequences (default 0)
 *   generate         tokens to continue greedily, per sequence (default 0)
 *   write            file for the logits of all positions, as floats
 *   reference        such a file: gives the mean KL divergence from it
 *   divergences      file for the divergence at each position, as text
 *   state            file for the saved state
 *
 * llama-perplexity keeps its reference log-probabilities in 16 bits, too coarse for divergences
 * of 1e-6: hence float logits here, and sums in double. Attention nodes are counted by the
 * scheduler's callback, so that "100 % were served" is a comparison of two independent counts. */
#include "ggml-backend.h"
#include "llama.h"
#include "logits.h"
#include "varve/ggml.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
    enum ggml_type type_k, type_v;
    enum llama_flash_attn_type flash;
    int tokens, chunks, ubatch, threads, sequences, unified, generate;
    const char *write, *reference, *divergences, *state;
};

struct divergence {
    double sum, max;
    int64_t n, same_top;
};

struct run {
    struct options options;
    const struct llama_vocab *vocab;
    struct llama_context *context;
    llama_token *text;
    int n_text, n_vocab;
    FILE *write, *reference, *divergences;
    float *expected;
    struct divergence divergence;
    uint64_t flash_nodes, other_nodes; /* attention by FLASH_ATTN_EXT, and without it */
};

static void fail(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "probe: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    exit(1);
}

/* ---- options -------------------------------------------------------------------------------- */

static enum ggml_type parse_type(const char *name) {
    for (int i = 0; i < GGML_TYPE_COUNT; i++) {
        const char *known = ggml_type_name((enum ggml_type)i);
        if (known != NULL && strcmp(known, name) == 0) {
            return (enum ggml_type)i;
        }
    }
    fail("no type %s", name);
    return GGML_TYPE_COUNT;
}

static enum llama_flash_attn_type parse_flash(const char *value) {
    if (strcmp(value, "auto") == 0) {
        return LLAMA_FLASH_ATTN_TYPE_AUTO;
    }
    return strcmp(value, "on") == 0 ? LLAMA_FLASH_ATTN_TYPE_ENABLED
                                    : LLAMA_FLASH_ATTN_TYPE_DISABLED;
}

static bool parse_number(struct options *o, const char *name, const char *value) {
    const struct {
        const char *name;
        int *value;
    } known[] = {
        {"tokens", &o->tokens},       {"chunks", &o->chunks},   {"ubatch", &o->ubatch},
        {"threads", &o->threads},     {"unified", &o->unified}, {"generate", &o->generate},
        {"sequences", &o->sequences},
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcmp(name, known[i].name) == 0) {
            *known[i].value = atoi(value);
            return true;
        }
    }
    return false;
}

static void parse_option(struct options *o, const char *word) {
    char name[32];
    const char *value = strchr(word, '=');
    if (value == NULL || (size_t)(value - word) >= sizeof(name)) {
        fail("expected name=value, not %s", word);
    }
    memcpy(name, word, (size_t)(value - word));
    name[value - word] = '\0';
    value++;
    if (strcmp(name, "type_k") == 0) {
        o->type_k = parse_type(value);
    } else if (strcmp(name, "type_v") == 0) {
        o->type_v = parse_type(value);
    } else if (strcmp(name, "fa") == 0) {
        o->flash = parse_flash(value);
    } else if (strcmp(name, "write") == 0) {
        o->write = value;
    } else if (strcmp(name, "reference") == 0) {
        o->reference = value;
    } else if (strcmp(name, "divergences") == 0) {
        o->divergences = value;
    } else if (strcmp(name, "state") == 0) {
        o->state = value;
    } else if (!parse_number(o, name, value)) {
        fail("no option %s", name);
    }
}

/* ---- set-up --------------------------------------------------------------------------------- */

static bool count_node(struct ggml_tensor *node, bool ask, void *user) {
    struct run *run = user;
    if (ask && node->op == GGML_OP_FLASH_ATTN_EXT) {
        run->flash_nodes++;
    } else if (ask && node->op == GGML_OP_SOFT_MAX) {
        run->other_nodes++;
    }
    return !ask; /* nobody looks at results */
}

static void log_errors(enum ggml_log_level level, const char *text, void *user) {
    (void)user;
    if (level == GGML_LOG_LEVEL_ERROR) {
        fputs(text, stderr);
    }
}

static void read_text(struct run *run, const char *path) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        fail("cannot read %s", path);
    }
    enum { n_max = 1 << 20 };
    char *bytes = malloc(n_max);
    const size_t n = fread(bytes, 1, n_max, file);
    fclose(file);
    run->text = malloc(n_max * sizeof(*run->text));
    run->n_text = llama_tokenize(run->vocab, bytes, (int32_t)n, run->text, n_max, true, false);
    free(bytes);
    const struct options *o = &run->options;
    if (run->n_text < o->tokens * o->chunks * o->sequences) {
        fail("%s has %d tokens only", path, run->n_text);
    }
}

static struct llama_context *create_context(struct run *run, struct llama_model *model) {
    const struct options *o = &run->options;
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = (uint32_t)(((o->tokens + o->generate + 255) / 256) * 256 * o->sequences);
    params.n_batch = (uint32_t)(o->tokens * o->sequences);
    params.n_ubatch = (uint32_t)o->ubatch;
    params.n_seq_max = (uint32_t)o->sequences;
    params.n_threads = params.n_threads_batch = o->threads;
    params.flash_attn_type = o->flash;
    params.type_k = o->type_k;
    params.type_v = o->type_v;
    params.kv_unified = o->unified != 0;
    params.cb_eval = count_node;
    params.cb_eval_user_data = run;
    return llama_init_from_model(model, params);
}

static FILE *open_or_null(const char *path, const char *mode) {
    FILE *file = path != NULL ? fopen(path, mode) : NULL;
    if (path != NULL && file == NULL) {
        fail("cannot open %s", path);
    }
    return file;
}

/* ---- logits --------------------------------------------------------------------------------- */

static int top(const float *logits, int n) {
    int best = 0;
    for (int i = 1; i < n; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    return best;
}

static double compare(struct divergence *d, const float *expected, const float *logits, int n) {
    const double kl = divergence(expected, logits, (size_t)n);
    d->sum += kl;
    d->max = kl > d->max ? kl : d->max;
    d->same_top += top(expected, n) == top(logits, n);
    d->n++;
    return kl;
}

static void take_logits(struct run *run, int i) {
    const float *logits = llama_get_logits_ith(run->context, i);
    const size_t n = (size_t)run->n_vocab;
    if (run->write != NULL && fwrite(logits, sizeof(float), n, run->write) != n) {
        fail("cannot write the logits");
    }
    if (run->reference != NULL) {
        if (fread(run->expected, sizeof(float), n, run->reference) != n) {
            fail("the reference has too few positions");
        }
        const double kl = compare(&run->divergence, run->expected, logits, run->n_vocab);
        if (run->divergences != NULL) {
            fprintf(run->divergences, "%.9g\n", kl);
        }
    }
}

/* ---- evaluation ----------------------------------------------------------------------------- */

static void add(struct llama_batch *batch, llama_token token, int position, int sequence,
                bool out) {
    const int i = batch->n_tokens++;
    batch->token[i] = token;
    batch->pos[i] = position;
    batch->n_seq_id[i] = 1;
    batch->seq_id[i][0] = sequence;
    batch->logits[i] = out;
}

static void decode(struct run *run, struct llama_batch *batch) {
    const int32_t status = llama_decode(run->context, *batch);
    if (status != 0) {
        fail("llama_decode gave %d", status);
    }
}

/* Logits are only taken when asked for: the last position is enough to continue. */
static void evaluate_chunk(struct run *run, struct llama_batch *batch, int chunk) {
    const struct options *o = &run->options;
    const bool all = run->write != NULL || run->reference != NULL;
    llama_memory_clear(llama_get_memory(run->context), true);
    batch->n_tokens = 0;
    for (int s = 0; s < o->sequences; s++) {
        const llama_token *text = run->text + (chunk * o->sequences + s) * o->tokens;
        for (int i = 0; i < o->tokens; i++) {
            add(batch, text[i], i, s, all || i == o->tokens - 1);
        }
    }
    decode(run, batch);
    for (int i = 0; all && i < batch->n_tokens; i++) {
        take_logits(run, i);
    }
}

static void generate(struct run *run, struct llama_batch *batch) {
    const struct options *o = &run->options;
    llama_token *next = malloc((size_t)o->sequences * sizeof(*next));
    printf("generated");
    for (int s = 0; s < o->sequences; s++) {
        next[s] = top(llama_get_logits_ith(run->context, (s + 1) * o->tokens - 1), run->n_vocab);
        printf(" %d", next[s]);
    }
    for (int i = 1; i < o->generate; i++) {
        batch->n_tokens = 0;
        for (int s = 0; s < o->sequences; s++) {
            add(batch, next[s], o->tokens + i - 1, s, true);
        }
        decode(run, batch);
        for (int s = 0; s < o->sequences; s++) {
            next[s] = top(llama_get_logits_ith(run->context, s), run->n_vocab);
            printf(" %d", next[s]);
        }
    }
    printf("\n");
    free(next);
}

static void evaluate(struct run *run) {
    const struct options *o = &run->options;
    struct llama_batch batch = llama_batch_init(o->tokens * o->sequences, 0, 1);
    for (int chunk = 0; chunk < o->chunks; chunk++) {
        evaluate_chunk(run, &batch, chunk);
    }
    if (o->generate > 0) {
        generate(run, &batch);
    }
    const size_t n_text = (size_t)o->tokens;
    if (o->state != NULL && !llama_state_save_file(run->context, o->state, run->text, n_text)) {
        fail("cannot save the state to %s", o->state);
    }
    llama_batch_free(batch);
}

/* ---- report --------------------------------------------------------------------------------- */

static void report_counters(void) {
    struct varve_ggml_counters c = {0};
    ggml_backend_reg_t reg = ggml_backend_reg_by_name(VARVE_GGML_NAME);
    varve_ggml_counters_fn read = NULL;
    if (reg != NULL) {
        *(void **)&read = ggml_backend_reg_get_proc_address(reg, VARVE_GGML_COUNTERS);
    }
    if (read != NULL) {
        read(&c, sizeof(c));
    }
    printf("loaded %d\n", reg != NULL);
    printf("served %" PRIu64 "\n", c.attention_nodes);
    printf("declined %" PRIu64 "\n", c.attention_declined);
    printf("written %" PRIu64 "\n", c.set_rows_nodes);
}

static void report(const struct run *run) {
    const struct divergence *d = &run->divergence;
    if (d->n > 0) {
        printf("kld %.9g\n", d->sum / (double)d->n);
        printf("kld_max %.9g\n", d->max);
        printf("same_top %.4f\n", (double)d->same_top / (double)d->n);
    }
    printf("nodes %" PRIu64 "\n", run->flash_nodes);
    printf("other_nodes %" PRIu64 "\n", run->other_nodes);
    report_counters();
}

int main(int argc, char **argv) {
    struct run run = {.options = {.type_k = GGML_TYPE_F16,
                                  .type_v = GGML_TYPE_F16,
                                  .flash = LLAMA_FLASH_ATTN_TYPE_ENABLED,
                                  .tokens = 512,
                                  .chunks = 1,
                                  .ubatch = 512,
                                  .threads = 2,
                                  .sequences = 1}};
    if (argc < 3) {
        fail("usage: probe MODEL TEXT [name=value...]");
    }
    for (int i = 3; i < argc; i++) {
        parse_option(&run.options, argv[i]);
    }
    llama_log_set(log_errors, NULL);
    ggml_backend_load_all(); /* reads GGML_BACKEND_PATH */
    llama_backend_init();
    struct llama_model *model = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (model == NULL) {
        fail("cannot load %s", argv[1]);
    }
    run.vocab = llama_model_get_vocab(model);
    run.n_vocab = llama_vocab_n_tokens(run.vocab);
    read_text(&run, argv[2]);
    run.context = create_context(&run, model);
    if (run.context == NULL) {
        fail("no context with these options");
    }
    run.flash_nodes = run.other_nodes = 0;
    run.write = open_or_null(run.options.write, "wb");
    run.reference = open_or_null(run.options.reference, "rb");
    run.divergences = open_or_null(run.options.divergences, "w");
    run.expected = malloc((size_t)run.n_vocab * sizeof(float));
    evaluate(&run);
    report(&run);
    if ((run.write != NULL && fclose(run.write) != 0) ||
        (run.divergences != NULL && fclose(run.divergences) != 0)) {
        fail("cannot write the results");
    }
    llama_free(run.context);
    llama_model_free(model);
    llama_backend_free();
    return 0;
}
