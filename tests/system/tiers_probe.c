/* A host of llama.cpp that does what it is told, word by word: for tests of the hot tier.
 *
 * usage: tiers_probe MODEL TEXT name=value...
 *
 * TEXT "-" stands for pseudo-random tokens. Words are worked off from left to right. Options hold
 * for contexts that are opened later:
 *   type_k, type_v    cache types (default q4_0)
 *   ctx               cells of the cache, of all sequences (default 2048)
 *   ubatch            tokens evaluated at once (default 512)
 *   sequences         default 1
 *   unified           1: one cache for all sequences (default 1)
 *   threads           default 1
 *   tiers, sinks, hot_max   as VARVE_TIERS, VARVE_SINKS, VARVE_HOT_MAX (through the plug-in's own
 *                     function; gives "set_tiers 1" or 0; without the plug-in nothing happens)
 * Contexts are numbered 0 to 3, sequences from 0, positions as llama.cpp counts them:
 *   open=I, close=I, use=I       open=I also uses it
 *   say=S,FROM,N[,STEP]   evaluates N tokens of the text behind what sequence S holds, STEP at once
 *   together=FROM,N       N tokens to every sequence, one of each in a batch
 *   stream=N              N tokens one by one in sequence 0; when the cache is full, half of what
 * is behind the first 4 rows is removed and the rest shifted rm=S,P0,P1  add=S,P0,P1,D  cp=A,B
 * keep=S  clear=DATA      llama_memory_* get=S,X     set=S,X   sequence state into and out of store
 * X: "state_X hash bytes", "set_X n" cut=X,N               keeps N bytes of store X record=X logits
 * of each evaluation (its last token) go to record X from now on, until open or use compare=X,Y of
 * two records: "X_Y.kld", "X_Y.max", "X_Y.same" (bit for bit), "X_Y.n" account=NAME          the
 * account of the context in use: "NAME.k.rows_hot" and so on total=NAME            the account of
 * all contexts counters=NAME         "NAME.served", "NAME.declined", "NAME.failed", "NAME.nodes"
 *   rss=NAME              "NAME.rss" and "NAME.peak" of the process in KiB
 *
 * X and Y are single letters. Logits that are not finite end the program. */
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

enum { N_CONTEXT = 4, N_STORE = 26, N_TEXT = 1 << 20, N_ARG = 5, N_KEEP = 4 };

struct record {
    float *values;
    size_t n;
};

struct bytes {
    uint8_t *data;
    size_t n;
};

struct host {
    struct llama_model *model;
    enum ggml_type type_k, type_v;
    int ctx, ubatch, sequences, unified, threads;
    struct llama_context *context[N_CONTEXT];
    uint64_t opened[N_CONTEXT]; /* order of opening, which numbers the accounts */
    uint64_t n_opened;
    int used, n_vocab;
    llama_token *text;
    int n_text, at_stream;
    struct record record[N_STORE];
    struct record *recording;
    struct bytes store[N_STORE];
    struct llama_batch batch;
    uint64_t nodes; /* FLASH_ATTN_EXT nodes that were computed */
};

static void fail(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "tiers_probe: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    exit(1);
}

/* ---- contexts ------------------------------------------------------------------------------- */

static bool count_node(struct ggml_tensor *node, bool ask, void *user) {
    struct host *host = user;
    host->nodes += ask && node->op == GGML_OP_FLASH_ATTN_EXT;
    return !ask; /* nobody looks at results */
}

static void log_errors(enum ggml_log_level level, const char *text, void *user) {
    (void)user;
    if (level == GGML_LOG_LEVEL_ERROR) {
        fputs(text, stderr);
    }
}

static struct llama_context *in_use(const struct host *host) {
    struct llama_context *context = host->context[host->used];
    if (context == NULL) {
        fail("context %d is not open", host->used);
    }
    return context;
}

static llama_memory_t memory(const struct host *host) { return llama_get_memory(in_use(host)); }

static void close_context(struct host *host, int i) {
    llama_free(host->context[i]);
    host->context[i] = NULL;
}

static void use_context(struct host *host, int i) {
    host->used = i;
    host->recording = NULL;
}

static void open_context(struct host *host, int i) {
    struct llama_context_params params = llama_context_default_params();
    close_context(host, i);
    params.n_ctx = (uint32_t)host->ctx;
    params.n_batch = (uint32_t)host->ctx;
    params.n_ubatch = (uint32_t)host->ubatch;
    params.n_seq_max = (uint32_t)host->sequences;
    params.n_threads = params.n_threads_batch = host->threads;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    params.type_k = host->type_k;
    params.type_v = host->type_v;
    params.kv_unified = host->unified != 0;
    params.cb_eval = count_node;
    params.cb_eval_user_data = host;
    host->context[i] = llama_init_from_model(host->model, params);
    if (host->context[i] == NULL) {
        fail("no context with these options");
    }
    host->opened[i] = ++host->n_opened;
    use_context(host, i);
}

/* ---- evaluation ----------------------------------------------------------------------------- */

static void take(struct host *host, int i) {
    const float *logits = llama_get_logits_ith(in_use(host), i);
    const size_t n = (size_t)host->n_vocab;
    for (size_t k = 0; k < n; k++) {
        if (!isfinite(logits[k])) {
            fail("logits are not finite");
        }
    }
    struct record *to = host->recording;
    if (to != NULL) {
        to->values = realloc(to->values, (to->n + n) * sizeof(float));
        memcpy(to->values + to->n, logits, n * sizeof(float));
        to->n += n;
    }
}

static void add_token(struct host *host, int at, int position, int sequence, bool out) {
    struct llama_batch *batch = &host->batch;
    const int i = batch->n_tokens++;
    batch->token[i] = host->text[at % host->n_text];
    batch->pos[i] = position;
    batch->n_seq_id[i] = 1;
    batch->seq_id[i][0] = sequence;
    batch->logits[i] = out;
}

static void decode(struct host *host) {
    const int32_t status = llama_decode(in_use(host), host->batch);
    if (status != 0) {
        fail("llama_decode gave %d", status);
    }
}

static int next_position(const struct host *host, int sequence) {
    return llama_memory_seq_pos_max(memory(host), sequence) + 1;
}

static void say(struct host *host, int sequence, int from, int n, int step) {
    for (int done = 0; done < n;) {
        const int first = next_position(host, sequence);
        const int count = n - done < step ? n - done : step;
        host->batch.n_tokens = 0;
        for (int i = 0; i < count; i++) {
            add_token(host, from + done + i, first + i, sequence, i == count - 1);
        }
        decode(host);
        take(host, count - 1);
        done += count;
    }
}

static void together(struct host *host, int from, int n) {
    const int n_seq = (int)llama_n_seq_max(in_use(host));
    for (int i = 0; i < n; i++) {
        host->batch.n_tokens = 0;
        for (int s = 0; s < n_seq; s++) {
            add_token(host, from + i, next_position(host, s), s, true);
        }
        decode(host);
        for (int s = 0; s < n_seq; s++) {
            take(host, s);
        }
    }
}

static void stream(struct host *host, int n) {
    const int n_ctx = (int)llama_n_ctx(in_use(host));
    for (int i = 0; i < n; i++) {
        const int n_past = next_position(host, 0);
        if (n_past >= n_ctx) {
            const int n_discard = (n_past - N_KEEP) / 2;
            llama_memory_seq_rm(memory(host), 0, N_KEEP, N_KEEP + n_discard);
            llama_memory_seq_add(memory(host), 0, N_KEEP + n_discard, n_past, -n_discard);
        }
        say(host, 0, host->at_stream++, 1, 1);
    }
}

/* ---- states and records --------------------------------------------------------------------- */

static uint64_t hash_of(const uint8_t *data, size_t n) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < n; i++) {
        hash = (hash ^ data[i]) * UINT64_C(0x100000001b3);
    }
    return hash;
}

static void get_state(struct host *host, int sequence, struct bytes *to, char name) {
    to->n = llama_state_seq_get_size(in_use(host), sequence);
    to->data = realloc(to->data, to->n);
    to->n = llama_state_seq_get_data(in_use(host), to->data, to->n, sequence);
    printf("state_%c %016" PRIx64 " %zu\n", name, hash_of(to->data, to->n), to->n);
}

static void set_state(struct host *host, int sequence, const struct bytes *from, char name) {
    printf("set_%c %zu\n", name,
           llama_state_seq_set_data(in_use(host), from->data, from->n, sequence));
}

static void compare(const struct host *host, const char *x, const char *y) {
    const struct record *a = &host->record[x[0] - 'a'];
    const struct record *b = &host->record[y[0] - 'a'];
    const size_t n_vocab = (size_t)host->n_vocab;
    if (a->n != b->n || a->n == 0) {
        fail("records %s and %s have %zu and %zu values", x, y, a->n, b->n);
    }
    double max = 0, kl = 0;
    for (size_t i = 0; i < a->n; i++) {
        max = fmax(max, fabs((double)a->values[i] - b->values[i]));
    }
    for (size_t i = 0; i < a->n; i += n_vocab) {
        kl += divergence(a->values + i, b->values + i, n_vocab);
    }
    printf("%s_%s.kld %.9g\n", x, y, kl / (double)(a->n / n_vocab));
    printf("%s_%s.max %.9g\n", x, y, max);
    printf("%s_%s.same %d\n", x, y, memcmp(a->values, b->values, a->n * sizeof(float)) == 0);
    printf("%s_%s.n %zu\n", x, y, a->n / n_vocab);
}

/* ---- what the plug-in says ------------------------------------------------------------------ */

/* As a pointer to data, as ISO C has no cast to a function; NULL without the plug-in. */
static void *plugin_function(const char *name) {
    ggml_backend_reg_t reg = ggml_backend_reg_by_name(VARVE_GGML_NAME);
    return reg != NULL ? ggml_backend_reg_get_proc_address(reg, name) : NULL;
}

static void print_side(const char *name, const char *side, const struct varve_ggml_side *a) {
    const struct {
        const char *name;
        uint64_t value;
    } fields[] = {
        {"rows_hot", a->rows_hot},           {"rows_sink", a->rows_sink},
        {"rows_cold", a->rows_cold},         {"rows_missed", a->rows_missed},
        {"twins_written", a->twins_written}, {"twins_stale", a->twins_stale},
        {"twins_evicted", a->twins_evicted},
    };
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        printf("%s.%s.%s %" PRIu64 "\n", name, side, fields[i].name, fields[i].value);
    }
}

static void print_account(const char *name, int32_t number) {
    struct varve_ggml_account a = {0};
    varve_ggml_account_fn read = NULL;
    *(void **)&read = plugin_function(VARVE_GGML_ACCOUNT);
    if (read == NULL) {
        return;
    }
    if (!read(number, &a, sizeof(a))) {
        fail("no account %d", number);
    }
    print_side(name, "k", &a.k);
    print_side(name, "v", &a.v);
    printf("%s.bytes_cold %" PRIu64 "\n%s.bytes_hot %" PRIu64 "\n", name, a.bytes_cold, name,
           a.bytes_hot);
    printf("%s.bytes_hot_peak %" PRIu64 "\n%s.bytes_staging %" PRIu64 "\n", name, a.bytes_hot_peak,
           name, a.bytes_staging);
    printf("%s.bytes_limit %" PRIu64 "\n%s.window %d\n%s.n_sink %d\n", name, a.bytes_limit, name,
           a.window, name, a.n_sink);
}

/* Accounts are numbered by age. */
static int32_t number_of_account(const struct host *host) {
    int32_t number = 0;
    for (int i = 0; i < N_CONTEXT; i++) {
        number += host->context[i] != NULL && host->opened[i] < host->opened[host->used];
    }
    return number;
}

static void print_counters(const struct host *host, const char *name) {
    struct varve_ggml_counters c = {0};
    varve_ggml_counters_fn read = NULL;
    *(void **)&read = plugin_function(VARVE_GGML_COUNTERS);
    if (read != NULL) {
        read(&c, sizeof(c));
    }
    printf("%s.served %" PRIu64 "\n%s.declined %" PRIu64 "\n", name, c.attention_nodes, name,
           c.attention_declined);
    printf("%s.failed %" PRIu64 "\n%s.nodes %" PRIu64 "\n", name, c.failed_nodes, name,
           host->nodes);
}

static void set_tiers(const char *tiers, int sinks, long long hot_max) {
    varve_ggml_set_tiers_fn set = NULL;
    *(void **)&set = plugin_function(VARVE_GGML_SET_TIERS);
    if (set != NULL) {
        printf("set_tiers %d\n", set(tiers, sinks, hot_max));
    }
}

static void print_memory(const char *name) {
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        long kib = 0;
        if (sscanf(line, "VmRSS: %ld", &kib) == 1) {
            printf("%s.rss %ld\n", name, kib);
        } else if (sscanf(line, "VmHWM: %ld", &kib) == 1) {
            printf("%s.peak %ld\n", name, kib);
        }
    }
    if (file != NULL) {
        fclose(file);
    }
}

/* ---- words ---------------------------------------------------------------------------------- */

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

static bool set_option(struct host *host, const char *name, const char *value) {
    const struct {
        const char *name;
        int *value;
    } numbers[] = {
        {"ctx", &host->ctx},         {"ubatch", &host->ubatch},   {"sequences", &host->sequences},
        {"unified", &host->unified}, {"threads", &host->threads},
    };
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        if (strcmp(name, numbers[i].name) == 0) {
            *numbers[i].value = atoi(value);
            return true;
        }
    }
    if (strcmp(name, "type_k") == 0) {
        host->type_k = parse_type(value);
    } else if (strcmp(name, "type_v") == 0) {
        host->type_v = parse_type(value);
    } else if (strcmp(name, "tiers") == 0) {
        set_tiers(value, -1, -1);
    } else if (strcmp(name, "sinks") == 0) {
        set_tiers(NULL, atoi(value), -1);
    } else if (strcmp(name, "hot_max") == 0) {
        set_tiers(NULL, -1, atoll(value));
    } else {
        return false;
    }
    return true;
}

static bool change_memory(struct host *host, const char *name, const int *n) {
    if (strcmp(name, "rm") == 0) {
        if (!llama_memory_seq_rm(memory(host), n[0], n[1], n[2])) {
            fail("cannot remove positions %d to %d", n[1], n[2]);
        }
    } else if (strcmp(name, "add") == 0) {
        llama_memory_seq_add(memory(host), n[0], n[1], n[2], n[3]);
    } else if (strcmp(name, "cp") == 0) {
        llama_memory_seq_cp(memory(host), n[0], n[1], -1, -1);
    } else if (strcmp(name, "keep") == 0) {
        llama_memory_seq_keep(memory(host), n[0]);
    } else if (strcmp(name, "clear") == 0) {
        llama_memory_clear(memory(host), n[0] != 0);
    } else {
        return false;
    }
    return true;
}

static bool evaluate(struct host *host, const char *name, const int *n, int n_arg) {
    if (strcmp(name, "say") == 0) {
        say(host, n[0], n[1], n[2], n_arg > 3 ? n[3] : n[2]);
    } else if (strcmp(name, "together") == 0) {
        together(host, n[0], n[1]);
    } else if (strcmp(name, "stream") == 0) {
        stream(host, n[0]);
    } else if (strcmp(name, "open") == 0) {
        open_context(host, n[0]);
    } else if (strcmp(name, "close") == 0) {
        close_context(host, n[0]);
    } else if (strcmp(name, "use") == 0) {
        use_context(host, n[0]);
    } else {
        return false;
    }
    return true;
}

static int letter(const char *text) {
    if (text[0] < 'a' || text[0] > 'z' || text[1] != '\0') {
        fail("%s is no letter", text);
    }
    return text[0] - 'a';
}

static bool keep_or_tell(struct host *host, const char *name, char **arg, const int *n) {
    if (strcmp(name, "get") == 0) {
        get_state(host, n[0], &host->store[letter(arg[1])], arg[1][0]);
    } else if (strcmp(name, "set") == 0) {
        set_state(host, n[0], &host->store[letter(arg[1])], arg[1][0]);
    } else if (strcmp(name, "cut") == 0) {
        host->store[letter(arg[0])].n = (size_t)n[1];
    } else if (strcmp(name, "record") == 0) {
        host->recording = &host->record[letter(arg[0])];
    } else if (strcmp(name, "compare") == 0) {
        (void)letter(arg[0]), (void)letter(arg[1]);
        compare(host, arg[0], arg[1]);
    } else if (strcmp(name, "account") == 0) {
        print_account(arg[0], number_of_account(host));
    } else if (strcmp(name, "total") == 0) {
        print_account(arg[0], -1);
    } else if (strcmp(name, "counters") == 0) {
        print_counters(host, arg[0]);
    } else if (strcmp(name, "rss") == 0) {
        print_memory(arg[0]);
    } else {
        return false;
    }
    return true;
}

static void obey(struct host *host, char *word) {
    char *value = strchr(word, '=');
    if (value == NULL) {
        fail("expected name=value, not %s", word);
    }
    *value++ = '\0';
    if (set_option(host, word, value)) {
        return;
    }
    char *arg[N_ARG] = {"", "", "", "", ""};
    int n[N_ARG] = {0};
    int n_arg = 0;
    for (char *at = strtok(value, ","); at != NULL && n_arg < N_ARG; at = strtok(NULL, ",")) {
        arg[n_arg] = at;
        n[n_arg++] = atoi(at);
    }
    if (!change_memory(host, word, n) && !evaluate(host, word, n, n_arg) &&
        !keep_or_tell(host, word, arg, n)) {
        fail("no word %s", word);
    }
}

/* ---- set-up --------------------------------------------------------------------------------- */

static void invent_text(struct host *host) {
    uint64_t random = 20240229;
    for (host->n_text = 0; host->n_text < N_TEXT; host->n_text++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        host->text[host->n_text] = (llama_token)((random >> 33) % (uint64_t)host->n_vocab);
    }
}

static void read_text(struct host *host, const char *path) {
    FILE *file = fopen(path, "rb");
    char *bytes = malloc(N_TEXT);
    if (file == NULL) {
        fail("cannot read %s", path);
    }
    const size_t n = fread(bytes, 1, N_TEXT, file);
    fclose(file);
    host->n_text = llama_tokenize(llama_model_get_vocab(host->model), bytes, (int32_t)n, host->text,
                                  N_TEXT, true, false);
    free(bytes);
    if (host->n_text < 1) {
        fail("%s has no tokens", path);
    }
}

static void release(struct host *host) {
    for (int i = 0; i < N_CONTEXT; i++) {
        close_context(host, i);
    }
    for (int i = 0; i < N_STORE; i++) {
        free(host->record[i].values);
        free(host->store[i].data);
    }
    free(host->text);
    llama_batch_free(host->batch);
    llama_model_free(host->model);
    llama_backend_free();
}

int main(int argc, char **argv) {
    static struct host host = {.type_k = GGML_TYPE_Q4_0,
                               .type_v = GGML_TYPE_Q4_0,
                               .ctx = 2048,
                               .ubatch = 512,
                               .sequences = 1,
                               .unified = 1,
                               .threads = 1};
    if (argc < 3) {
        fail("usage: tiers_probe MODEL TEXT name=value...");
    }
    llama_log_set(log_errors, NULL);
    ggml_backend_load_all(); /* reads GGML_BACKEND_PATH */
    llama_backend_init();
    host.model = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (host.model == NULL) {
        fail("cannot load %s", argv[1]);
    }
    host.n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(host.model));
    host.text = malloc(N_TEXT * sizeof(*host.text));
    if (strcmp(argv[2], "-") == 0) {
        invent_text(&host);
    } else {
        read_text(&host, argv[2]);
    }
    host.batch = llama_batch_init(1 << 15, 0, 1);
    for (int i = 3; i < argc; i++) {
        obey(&host, argv[i]);
        fflush(stdout);
    }
    release(&host);
    return 0;
}
