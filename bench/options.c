#include "options.h"

#include "args.h"
#include "measure.h"

#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char doc[] =
    "Times varve beside stock ggml in one process, interleaved, on this machine: attention over a "
    "KV cache, and the write of new rows. Beside them it times a plain read of the same bytes with "
    "the same threads, and the arithmetic peak of the instruction set, which are what bounds both. "
    "The results are compared with attention in double."
    "\vCases:\n"
    "  decode   few queries at the end of a long cache. So many layers are walked in turn that "
    "together they fill the last-level cache four times: rows come from memory\n"
    "  prefill  many queries (512 unless --queries is given) at the end of the cache, one layer\n"
    "  mixed    decode with the hot tier: recent and first rows in F16, the rest cold, beside the "
    "same rows all cold\n"
    "  write    new rows (512 unless --queries is given) quantized, with their twins in F16; stock "
    "is SET_ROWS\n"
    "  all      all of them\n\n"
    "Stock is ggml's FLASH_ATTN_EXT; with a V that is not quantized, the faster of that and of the "
    "matrix products that llama.cpp computes with -fa off. It uses the instruction set that it was "
    "built for, whatever --isa says.\n\n"
    "Times are medians of at least 5 rounds (stock: 3), ratios are medians of the rounds' ratios. "
    "Stock may take minutes in prefill over a quantized cache.\n\n"
    "Examples:\n"
    "  varve bench --kv 32768 --type-k q8_0 --type-v q8_0\n"
    "  varve bench --case all --kv 8192 --json figures.json\n"
    "  varve bench --sweep --plot sweep.svg --roofline roofline.svg\n\n"
    "Exit code: 0; 1 when a case could not be measured or a result is wrong; 64 for a wrong "
    "option.";

enum {
    KEY_CASE = 0x100,
    KEY_HEAD_DIM,
    KEY_HEAD_DIM_V,
    KEY_KV_HEADS,
    KEY_Q_HEADS,
    KEY_KV,
    KEY_QUERIES,
    KEY_TYPE_K,
    KEY_TYPE_V,
    KEY_TIERS,
    KEY_THREADS,
    KEY_ISA,
    KEY_CLASS,
    KEY_LAYERS,
    KEY_LAYOUT,
    KEY_PAGES,
    KEY_CAUSAL,
    KEY_SECONDS,
    KEY_SWEEP,
    KEY_JSON,
    KEY_PLOT,
    KEY_ROOFLINE,
};

static const struct argp_option option_list[] = {
    {"case", KEY_CASE, "CASE", 0,
     "decode, prefill, mixed, write, several with commas, or all (default: decode)", 0},
    {"head-dim", KEY_HEAD_DIM, "D", 0, "Values of a head of K (default: 128)", 0},
    {"head-dim-v", KEY_HEAD_DIM_V, "D", 0, "Values of a head of V (default: as K)", 0},
    {"kv-heads", KEY_KV_HEADS, "N", 0, "Heads of K and V (default: 8)", 0},
    {"q-heads", KEY_Q_HEADS, "N", 0, "Heads of queries, a multiple of those (default: 32)", 0},
    {"kv", KEY_KV, "N", 0,
     "Rows (tokens) in the cache (default: 32768); with --sweep, the most (default: 131072)", 0},
    {"queries", KEY_QUERIES, "N", 0, "Queries, or rows to write (default: 1; 512, see below)", 0},
    {"type-k", KEY_TYPE_K, "TYPE", 0,
     "Type of the K cache: f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, iq4_nl; several with "
     "commas (default: q8_0)",
     0},
    {"type-v", KEY_TYPE_V, "TYPE", 0, "Type of the V cache, as many (default: as K)", 0},
    {"tiers", KEY_TIERS, "TIERS", 0,
     "The hot tier of mixed and write: f16:W, with W recent rows, or none (default: f16:256; the "
     "first 4 rows are kept too)",
     0},
    {"threads", KEY_THREADS, "N", 0, "Threads (default: the CPUs that this process may use)", 0},
    {"isa", KEY_ISA, "LEVEL", 0,
     "Highest instruction set for varve, as in avx2 (default: the best of this CPU)", 0},
    {"class", KEY_CLASS, "CLASS", 0,
     "Arithmetic: exact, q8 or fast (default: q8 for a quantized K, else exact; fast: products in "
     "bfloat16 where queries are many)",
     0},
    {"causal", KEY_CAUSAL, NULL, 0,
     "prefill: also with all rows visible to all queries, and with rows hidden by positions "
     "instead of a mask; gives what share of the time is left. For n x n, --kv N --queries N",
     0},
    {"layers", KEY_LAYERS, "N", 0,
     "Layers that are walked in turn; 1 keeps a small cache in the last-level cache (default: see "
     "above; write: 2)",
     0},
    {"layout", KEY_LAYOUT, "LAYOUT", 0,
     "rows: the heads of a row side by side, as in llama.cpp; heads: the rows of a head together "
     "(default: rows)",
     0},
    {"pages", KEY_PAGES, "N", 0,
     "decode and prefill: also lend the cache in segments of N rows, and give the cost", 0},
    {"seconds", KEY_SECONDS, "S", 0, "Time for each case, about (default: 10; with --sweep 3)", 0},
    {"sweep", KEY_SWEEP, NULL, 0,
     "Walk the length of the cache from 256 rows, doubling (default types: f16,q8_0,q4_0)", 0},
    {"json", KEY_JSON, "FILE", 0, "Write the figures to a file, as JSON", 0},
    {"plot", KEY_PLOT, "FILE", 0,
     "Draw the figures, as SVG or with a name in .png as PNG: with --sweep speed against length, "
     "else times (needs gnuplot)",
     0},
    {"roofline", KEY_ROOFLINE, "FILE", 0,
     "Draw the cases below the limits of memory and arithmetic (needs gnuplot)", 0},
    {0},
};

/* ---- values --------------------------------------------------------------------------------- */

/* The next word of a list with commas; false at its end. */
static bool next_word(const char **list, char *word, size_t word_bytes) {
    if (*list == NULL) return false;
    const size_t n = strcspn(*list, ",");
    const size_t kept = n < word_bytes ? n : word_bytes - 1;
    memcpy(word, *list, kept);
    word[kept] = '\0';
    *list = (*list)[n] == ',' ? *list + n + 1 : NULL;
    return true;
}

static bool parse_cases(const char *value, bool kind[BENCH_KIND_COUNT]) {
    char word[32];
    memset(kind, 0, BENCH_KIND_COUNT * sizeof *kind);
    for (const char *at = value; next_word(&at, word, sizeof word);) {
        bool known = false;
        for (int i = 0; i < BENCH_KIND_COUNT; i++) {
            const bool named = strcmp(word, bench_kind_name((enum bench_kind)i)) == 0;
            kind[i] |= named || strcmp(word, "all") == 0;
            known |= kind[i];
        }
        if (!known) {
            cli_say("--case %s: expected decode, prefill, mixed, write or all", value);
            return false;
        }
    }
    return true;
}

/* The number of types; 0 after a line. */
static int parse_types(const char *option, const char *value, enum varve_format *types) {
    char word[32];
    int n = 0;
    for (const char *at = value; next_word(&at, word, sizeof word); n++) {
        if (n == TYPES_MOST) {
            cli_say("%s %s: at most %d types", option, value, TYPES_MOST);
            return 0;
        }
        const char *const name = cli_cache_type(option, word);
        if (name == NULL || varve_format_parse(name, &types[n]) != VARVE_OK) return 0;
    }
    return n;
}

static bool parse_tiers(const char *value, struct bench_options *o) {
    const char *tiers = NULL;
    if (!cli_tiers("--tiers", value, &tiers)) return false;
    o->has_tiers = true;
    o->window = strcmp(tiers, "none") == 0 ? 0 : strtoll(tiers + strlen("f16:"), NULL, 10);
    return true;
}

static bool parse_layout(const char *value, struct bench_options *o) {
    o->heads_apart = strcmp(value, "heads") == 0;
    if (o->heads_apart || strcmp(value, "rows") == 0) return true;
    cli_say("--layout %s: expected rows or heads", value);
    return false;
}

static bool parse_seconds(const char *value, double *seconds) {
    char *end = NULL;
    *seconds = strtod(value, &end);
    if (end != value && *end == '\0' && isfinite(*seconds) && *seconds > 0) return true;
    cli_say("--seconds %s: expected a number above 0", value);
    return false;
}

/* ---- parsing -------------------------------------------------------------------------------- */

struct parse {
    struct bench_options *options;
    int n_k, n_v; /* types given */
};

static bool set_option(int key, const char *arg, struct parse *parse) {
    struct bench_options *const o = parse->options;
    const int64_t rows = (int64_t)1 << 24;
    switch (key) {
    case KEY_CASE: return parse_cases(arg, o->kind);
    case KEY_HEAD_DIM: return cli_integer("--head-dim", arg, 1, 4096, &o->head_dim);
    case KEY_HEAD_DIM_V: return cli_integer("--head-dim-v", arg, 1, 4096, &o->head_dim_v);
    case KEY_KV_HEADS: return cli_integer("--kv-heads", arg, 1, 4096, &o->kv_heads);
    case KEY_Q_HEADS: return cli_integer("--q-heads", arg, 1, 4096, &o->q_heads);
    case KEY_KV: return cli_integer("--kv", arg, 1, rows, &o->kv);
    case KEY_QUERIES: return cli_integer("--queries", arg, 1, 1 << 16, &o->queries);
    case KEY_TYPE_K: return (parse->n_k = parse_types("--type-k", arg, o->type_k)) > 0;
    case KEY_TYPE_V: return (parse->n_v = parse_types("--type-v", arg, o->type_v)) > 0;
    case KEY_TIERS: return parse_tiers(arg, o);
    case KEY_THREADS: return cli_integer("--threads", arg, 1, 512, &o->threads);
    case KEY_ISA: return (o->isa = cli_isa(arg)) != NULL;
    case KEY_CLASS: return cli_class(arg, &o->arithmetic);
    case KEY_LAYERS: return cli_integer("--layers", arg, 1, 1 << 16, &o->layers);
    case KEY_LAYOUT: return parse_layout(arg, o);
    case KEY_PAGES: return cli_integer("--pages", arg, 1, rows, &o->page_rows);
    case KEY_CAUSAL: o->causal = true; return true;
    case KEY_SECONDS: return parse_seconds(arg, &o->seconds);
    case KEY_SWEEP: o->sweep = true; return true;
    case KEY_JSON: o->json = arg; return true;
    case KEY_PLOT: o->plot = arg; return true;
    default: o->roofline = arg; return true;
    }
}

static error_t parse_option(int key, char *arg, struct argp_state *state) {
    if (key == ARGP_KEY_ARG) {
        cli_say("bench: %s: not an option", arg);
        return EINVAL;
    }
    if (key < KEY_CASE || key > KEY_ROOFLINE) { /* argp's own */
        return ARGP_ERR_UNKNOWN;
    }
    return set_option(key, arg, state->input) ? 0 : EINVAL;
}

static bool complete_types(struct parse *parse) {
    struct bench_options *const o = parse->options;
    if (parse->n_k == 0 && parse->n_v == 0 && o->sweep) {
        parse->n_k = parse_types("--type-k", "f16,q8_0,q4_0", o->type_k);
    } else if (parse->n_k == 0) {
        parse->n_k = parse_types("--type-k", "q8_0", o->type_k);
    }
    if (parse->n_v == 0) {
        parse->n_v = parse->n_k;
        memcpy(o->type_v, o->type_k, sizeof o->type_v);
    }
    o->n_type = parse->n_k > parse->n_v ? parse->n_k : parse->n_v;
    if ((parse->n_k != o->n_type && parse->n_k != 1) ||
        (parse->n_v != o->n_type && parse->n_v != 1)) {
        cli_say("bench: %d types of K and %d of V: give as many of each, or one", parse->n_k,
                parse->n_v);
        return false;
    }
    for (int i = 1; i < o->n_type; i++) {
        if (parse->n_k == 1) o->type_k[i] = o->type_k[0];
        if (parse->n_v == 1) o->type_v[i] = o->type_v[0];
    }
    return true;
}

bool options_parse(int argc, char **argv, struct bench_options *o) {
    static const struct argp argp = {option_list, parse_option, NULL, doc, NULL, NULL, NULL};
    *o = (struct bench_options){
        .head_dim = 128, .kv_heads = 8, .q_heads = 32, .window = 256, .threads = cli_usable_cpus()};
    o->kind[BENCH_DECODE] = true;
    struct parse parse = {.options = o};
    if (argp_parse(&argp, argc, argv, 0, NULL, &parse) != 0 || !complete_types(&parse)) {
        return false;
    }
    o->head_dim_v = o->head_dim_v > 0 ? o->head_dim_v : o->head_dim;
    o->kv = o->kv > 0 ? o->kv : o->sweep ? 131072 : 32768;
    o->seconds = o->seconds > 0 ? o->seconds : o->sweep ? 3 : 10;
    if (o->q_heads % o->kv_heads != 0) {
        cli_say("bench: %" PRId64 " query heads are no multiple of %" PRId64 " KV heads",
                o->q_heads, o->kv_heads);
        return false;
    }
    return true;
}

/* ---- cases ---------------------------------------------------------------------------------- */

enum { SWEEP_FIRST = 256, SINKS = 4 };

static bool is_float(enum varve_format type) { return varve_format_block_values(type) == 1; }

static struct bench_case case_of(const struct bench_options *o, enum bench_kind kind, int type,
                                 int64_t n_row) {
    const bool tiers = kind == BENCH_MIXED || kind == BENCH_WRITE;
    const bool many = kind == BENCH_PREFILL || kind == BENCH_WRITE;
    const int64_t many_queries = n_row < 512 ? n_row : 512;
    const bool nothing_hot = is_float(o->type_k[type]) && is_float(o->type_v[type]);
    return (struct bench_case){
        .kind = kind,
        .head_dim_k = (int32_t)o->head_dim,
        .head_dim_v = (int32_t)o->head_dim_v,
        .n_head = (int32_t)o->q_heads,
        .n_head_kv = (int32_t)o->kv_heads,
        .n_row = n_row,
        .n_query = o->queries > 0 ? o->queries
                   : many         ? many_queries
                                  : 1,
        .type_k = o->type_k[type],
        .type_v = o->type_v[type],
        .window = tiers && !nothing_hot ? (int32_t)o->window : 0,
        .n_sink = kind == BENCH_MIXED ? SINKS : 0,
        .n_thread = (int32_t)o->threads,
        .isa = o->isa,
        .arithmetic = o->arithmetic,
        .n_layer = o->layers,
        .page_rows = o->page_rows,
        .causal = o->causal,
        .heads_apart = o->heads_apart,
        .seconds = o->seconds,
    };
}

/* False after a line. *skip: not an error where all cases are wanted. */
static bool case_fits(const struct bench_case *c, bool only, bool *skip) {
    *skip = false;
    if (c->n_query > c->n_row) {
        cli_say("bench: %" PRId64 " queries are more than the %" PRId64 " rows of the cache",
                c->n_query, c->n_row);
        return false;
    }
    if (c->heads_apart && (c->kind == BENCH_MIXED || c->kind == BENCH_WRITE)) {
        cli_say("bench: --layout heads: %s needs the heads of a row side by side",
                bench_kind_name(c->kind));
        return false;
    }
    if (c->kind != BENCH_MIXED) return true;
    if (c->window == 0) {
        cli_say("bench: %s/%s has no hot tier%s: nothing to measure in mixed",
                varve_format_name(c->type_k), varve_format_name(c->type_v),
                is_float(c->type_k) && is_float(c->type_v) ? ", it is not rounded further than F16"
                                                           : " with --tiers none");
        *skip = !only;
        return !only;
    }
    if (c->n_row <= c->n_query + c->n_sink) {
        cli_say("bench: mixed needs more rows in the cache than %d", (int)c->n_query + c->n_sink);
        return false;
    }
    return true;
}

bool options_cases(const struct bench_options *o, struct bench_case **cases, int *n_case) {
    enum { LENGTHS_MOST = 32 };
    int n_kind = 0;
    for (int k = 0; k < BENCH_KIND_COUNT; k++) n_kind += o->kind[k];
    *n_case = 0;
    *cases = measure_allocate(LENGTHS_MOST * BENCH_KIND_COUNT * TYPES_MOST * sizeof **cases);
    const int64_t first = o->sweep && SWEEP_FIRST < o->kv ? SWEEP_FIRST : o->kv;
    for (int k = 0; k < BENCH_KIND_COUNT; k++) {
        for (int t = 0; o->kind[k] && t < o->n_type; t++) {
            for (int64_t n_row = first; n_row <= o->kv; n_row *= 2) {
                const struct bench_case c = case_of(o, (enum bench_kind)k, t, n_row);
                bool skip;
                if (!case_fits(&c, n_kind * o->n_type == 1, &skip)) {
                    free(*cases);
                    return false;
                }
                if (!skip) (*cases)[(*n_case)++] = c;
            }
        }
    }
    if (*n_case > 0) return true;
    free(*cases);
    return false;
}
