/* A host of llama.cpp for models with sliding windows: a conversation of three turns.
 *
 * usage: window_probe MODEL TEXT [name=value...]
 *   type          of the cache, K and V (default f16)
 *   flash         1: flash attention (default 1)
 *   ubatch        tokens evaluated at once (default 512)
 *   prompt        tokens of the first turn (default 1600)
 *   full          1: layers with a window have as large a cache as the others; it never wraps
 *   fresh         1: nothing is reused, each turn evaluates all that was said from the start
 *   window        replaces the model's window
 *   write         file for the logits, as floats
 *   reference     such a file: gives the mean KL divergence from it
 *
 * In each turn a prompt is evaluated, then further tokens one by one: those of the text, not those
 * that the model would say, so that all runs see the same.
 *   1  the prompt; a checkpoint is taken some way before its end
 *   2  the end of turn 1 is removed, with a part of the prompt, and other text follows
 *   3  back to the checkpoint, and other text follows. A checkpoint holds rows of the windowed
 *      cache only: llama-server needs it when that has lost them, and trusts the other cache
 * The later turns are only worth something while rows are really reused: this program fails when
 * those of a whole window before the first new position are not there.
 *
 * Logits are compared as in probe.c. Attention nodes are counted by the scheduler's callback. */
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

enum {
    N_CONTEXT = 2048,
    N_THREAD = 2,
    N_DECODE = 16,     /* tokens one by one, per turn */
    N_BEHIND = 100,    /* tokens of the first prompt behind the checkpoint */
    N_TURN = 200,      /* prompt of the later turns */
    N_REMOVED = 40,    /* turn 2 removes what was decoded and 24 tokens of the prompt */
    OUTPUT_EVERY = 16, /* positions of a prompt: logits of all would take most of the time */
};

struct options {
    enum ggml_type type;
    int flash, ubatch, prompt, full, fresh, window;
    const char *write, *reference;
};

struct run {
    struct options options;
    struct llama_model *model;
    struct llama_context *context;
    llama_memory_t memory;
    struct llama_batch batch;
    llama_token *text;
    llama_token said[N_CONTEXT]; /* what the cache stands for */
    int n_text, n_said, n_vocab;
    int n_kept; /* positions that the windowed cache holds after turn 1 */
    FILE *write, *reference;
    float *expected;
    double sum;
    uint64_t n_output, not_finite;
    uint64_t flash_nodes, other_nodes; /* attention by FLASH_ATTN_EXT, and without it */
};

static void fail(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "window_probe: ");
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

static bool parse_number(struct options *o, const char *name, const char *value) {
    const struct {
        const char *name;
        int *value;
    } known[] = {
        {"flash", &o->flash}, {"ubatch", &o->ubatch}, {"prompt", &o->prompt},
        {"full", &o->full},   {"fresh", &o->fresh},   {"window", &o->window},
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcmp(name, known[i].name) == 0) {
            *known[i].value = atoi(value);
            return true;
        }
    }
    return false;
}

static void parse_option(struct options *o, char *word) {
    char *value = strchr(word, '=');
    if (value == NULL) {
        fail("expected name=value, not %s", word);
    }
    *value++ = '\0';
    if (strcmp(word, "type") == 0) {
        o->type = parse_type(value);
    } else if (strcmp(word, "write") == 0) {
        o->write = value;
    } else if (strcmp(word, "reference") == 0) {
        o->reference = value;
    } else if (!parse_number(o, word, value)) {
        fail("no option %s", word);
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

static struct llama_model *load_model(const char *path, int window) {
    struct llama_model_params params = llama_model_default_params();
    struct llama_model_kv_override overrides[2] = {{.tag = LLAMA_KV_OVERRIDE_TYPE_INT}};
    struct llama_model *model = llama_model_load_from_file(path, params);
    if (model == NULL || window == 0) {
        return model;
    }
    char name[64];
    llama_model_meta_val_str(model, "general.architecture", name, sizeof(name));
    llama_model_free(model);
    snprintf(overrides[0].key, sizeof(overrides[0].key), "%s.attention.sliding_window", name);
    overrides[0].val_i64 = window;
    params.kv_overrides = overrides;
    return llama_model_load_from_file(path, params);
}

static void read_text(struct run *run, const char *path) {
    enum { n_max = 1 << 15 };
    FILE *file = fopen(path, "rb");
    char *bytes = malloc(n_max);
    if (file == NULL) {
        fail("cannot read %s", path);
    }
    const size_t n = fread(bytes, 1, n_max, file);
    fclose(file);
    run->text = malloc(n_max * sizeof(*run->text));
    run->n_text = llama_tokenize(llama_model_get_vocab(run->model), bytes, (int32_t)n, run->text,
                                 n_max, true, false);
    free(bytes);
    if (run->n_text < run->options.prompt + 2 * N_TURN + 3 * N_DECODE) {
        fail("%s has %d tokens only", path, run->n_text);
    }
}

static void create_context(struct run *run) {
    const struct options *o = &run->options;
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = params.n_batch = N_CONTEXT;
    params.n_ubatch = (uint32_t)o->ubatch;
    params.n_threads = params.n_threads_batch = N_THREAD;
    params.flash_attn_type =
        o->flash ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    params.type_k = params.type_v = o->type;
    params.swa_full = o->full != 0;
    params.cb_eval = count_node;
    params.cb_eval_user_data = run;
    run->context = llama_init_from_model(run->model, params);
    if (run->context == NULL) {
        fail("no context with these options");
    }
    run->memory = llama_get_memory(run->context);
    run->flash_nodes = run->other_nodes = 0; /* llama.cpp may have tried a graph */
}

static FILE *open_or_null(const char *path, const char *mode) {
    FILE *file = path != NULL ? fopen(path, mode) : NULL;
    if (path != NULL && file == NULL) {
        fail("cannot open %s", path);
    }
    return file;
}

/* ---- logits --------------------------------------------------------------------------------- */

static void take_logits(struct run *run, int i) {
    const float *logits = llama_get_logits_ith(run->context, i);
    const size_t n = (size_t)run->n_vocab;
    run->n_output++;
    for (size_t k = 0; k < n; k++) {
        run->not_finite += !isfinite(logits[k]);
    }
    if (run->write != NULL && fwrite(logits, sizeof(float), n, run->write) != n) {
        fail("cannot write the logits");
    }
    if (run->reference != NULL) {
        if (fread(run->expected, sizeof(float), n, run->reference) != n) {
            fail("the reference has too few positions");
        }
        run->sum += divergence(run->expected, logits, run->n_vocab);
    }
}

/* ---- evaluation ----------------------------------------------------------------------------- */

/* Evaluates said[first...] with logits at every `every`th position, or at none for 0. */
static void evaluate(struct run *run, int first, int n, int every) {
    struct llama_batch *batch = &run->batch;
    for (int i = 0; i < n; i++) {
        batch->token[i] = run->said[first + i];
        batch->pos[i] = first + i;
        batch->n_seq_id[i] = 1;
        batch->seq_id[i][0] = 0;
        batch->logits[i] = every > 0 && (i + 1) % every == 0;
    }
    batch->n_tokens = n;
    const int32_t status = llama_decode(run->context, *batch);
    if (status != 0) {
        fail("llama_decode gave %d", status);
    }
    for (int i = every - 1; every > 0 && i < n; i += every) {
        take_logits(run, i);
    }
}

static void say(struct run *run, int n, int every) {
    for (int i = 0; i < n; i++) {
        run->said[run->n_said + i] = *run->text++;
    }
    evaluate(run, run->n_said, n, every);
    run->n_said += n;
}

static void decode(struct run *run) {
    for (int i = 0; i < N_DECODE; i++) {
        say(run, 1, 1);
    }
}

/* Goes on from position n: with what the cache holds, or from the start. */
static void go_back(struct run *run, int n) {
    run->n_said = n;
    if (run->options.fresh) {
        llama_memory_clear(run->memory, true);
        evaluate(run, 0, n, 0);
        return;
    }
    const int window = llama_model_n_swa(run->model);
    const int first = window > 0 && n > window ? n - window + 1 : 0;
    if (!llama_memory_seq_rm(run->memory, 0, n, -1)) {
        fail("cannot remove what follows position %d", n);
    }
    if (llama_memory_seq_pos_min(run->memory, 0) > first ||
        llama_memory_seq_pos_max(run->memory, 0) != n - 1) {
        fail("of the rows before position %d, only those from %d on are there", n,
             llama_memory_seq_pos_min(run->memory, 0));
    }
}

static uint8_t *take_checkpoint(struct run *run, size_t *n) {
    const llama_state_seq_flags flags = LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY;
    *n = llama_state_seq_get_size_ext(run->context, 0, flags);
    uint8_t *bytes = malloc(*n);
    if (llama_state_seq_get_data_ext(run->context, bytes, *n, 0, flags) != *n) {
        fail("cannot take a checkpoint");
    }
    return bytes;
}

static void restore_checkpoint(struct run *run, const uint8_t *bytes, size_t n) {
    if (llama_state_seq_set_data_ext(run->context, bytes, n, 0,
                                     LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY) != n) {
        fail("cannot restore the checkpoint");
    }
}

static void converse(struct run *run) {
    const int n_before = run->options.prompt - N_BEHIND;
    size_t n_checkpoint;
    say(run, n_before, OUTPUT_EVERY);
    uint8_t *checkpoint = take_checkpoint(run, &n_checkpoint);
    say(run, N_BEHIND, OUTPUT_EVERY);
    decode(run);
    run->n_kept = run->n_said - llama_memory_seq_pos_min(run->memory, 0);

    go_back(run, run->n_said - N_REMOVED);
    say(run, N_TURN, OUTPUT_EVERY);
    decode(run);

    restore_checkpoint(run, checkpoint, n_checkpoint);
    go_back(run, n_before - 1); /* a checkpoint has the window of its own last position */
    say(run, N_TURN, OUTPUT_EVERY);
    decode(run);
    free(checkpoint);
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
    printf("served %" PRIu64 "\n", c.attention_nodes);
    printf("declined %" PRIu64 "\n", c.attention_declined);
    printf("written %" PRIu64 "\n", c.set_rows_nodes);
}

static void report(const struct run *run) {
    if (run->reference != NULL) {
        printf("kld %.9g\n", run->sum / (double)run->n_output);
    }
    printf("outputs %" PRIu64 "\n", run->n_output);
    printf("not_finite %" PRIu64 "\n", run->not_finite);
    printf("kept %d\n", run->n_kept);
    printf("window %d\n", llama_model_n_swa(run->model));
    printf("nodes %" PRIu64 "\n", run->flash_nodes);
    printf("other_nodes %" PRIu64 "\n", run->other_nodes);
    report_counters();
}

int main(int argc, char **argv) {
    static struct run run = {
        .options = {.type = GGML_TYPE_F16, .flash = 1, .ubatch = 512, .prompt = 1600}};
    if (argc < 3) {
        fail("usage: window_probe MODEL TEXT [name=value...]");
    }
    for (int i = 3; i < argc; i++) {
        parse_option(&run.options, argv[i]);
    }
    if (run.options.prompt + N_TURN + 2 * N_DECODE > N_CONTEXT) {
        fail("at most %d tokens in all", N_CONTEXT);
    }
    llama_log_set(log_errors, NULL);
    ggml_backend_load_all(); /* reads GGML_BACKEND_PATH */
    llama_backend_init();
    run.model = load_model(argv[1], run.options.window);
    if (run.model == NULL) {
        fail("cannot load %s", argv[1]);
    }
    run.n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(run.model));
    read_text(&run, argv[2]);
    llama_token *text = run.text;
    create_context(&run);
    run.batch = llama_batch_init(N_CONTEXT, 0, 1);
    run.write = open_or_null(run.options.write, "wb");
    run.reference = open_or_null(run.options.reference, "rb");
    run.expected = malloc((size_t)run.n_vocab * sizeof(float));
    converse(&run);
    report(&run);
    if (run.write != NULL && fclose(run.write) != 0) {
        fail("cannot write the results");
    }
    free(text);
    free(run.expected);
    llama_batch_free(run.batch);
    llama_free(run.context);
    llama_model_free(run.model);
    llama_backend_free();
    return 0;
}
