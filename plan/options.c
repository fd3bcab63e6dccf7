#include "options.h"

#include "args.h"

#include <argp.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

static const char doc[] =
    "Says what a model takes in memory on llama.cpp with varve: per layer and in total, and how "
    "long a context fits. Only the header of the model file is read; nothing of that size is "
    "allocated."
    "\vExamples:\n"
    "  varve plan -m model.gguf\n"
    "  varve plan -m model.gguf --ram 16G --ctk q8_0 --ctv q5_1 --tiers f16:512\n"
    "  varve plan -m model.gguf -c 32768 --slots 4 --json plan.json\n"
    "  varve plan --layers 32 --kv-heads 8 --heads 32 --head-dim 128 -c 32768\n\n"
    "llama.cpp itself lays out the model, its caches and its compute buffer, without memory for "
    "them; the plug-in adds what it would take. So models with sliding windows, latent attention "
    "(MLA), shared or recurrent layers are as llama.cpp has them. A split model is named by its "
    "first file.\n\n"
    "Not counted: the program itself, and activations in CPU work buffers (a few MiB). Weights "
    "count in full; mapped from a file, they may be dropped and read again.\n\n"
    "Exit code: 0; 64 for a wrong option; else 1, also when the context does not fit into --ram.";

enum {
    KEY_TYPE_K = 0x100,
    KEY_TYPE_V,
    KEY_TIERS,
    KEY_SINKS,
    KEY_HOT_MAX,
    KEY_RAM,
    KEY_SLOTS,
    KEY_UBATCH,
    KEY_UNIFIED,
    KEY_JSON,
    KEY_DIMENSION, /* and one for each row of the table */
};

/* Dimensions, with what stands for one that was not given. */
static const struct dimension {
    const char *name;
    size_t offset;
    int64_t otherwise;
    const char *help;
} dimensions[] = {
    {"layers", offsetof(struct plan_dimensions, n_layer), 0, "Layers"},
    {"kv-heads", offsetof(struct plan_dimensions, n_head_kv), 0, "KV heads of a layer"},
    {"head-dim", offsetof(struct plan_dimensions, n_head_dim), 0, "Values of a head"},
    {"heads", offsetof(struct plan_dimensions, n_head), 0,
     "Query heads, a multiple of the KV heads (default: as many)"},
    {"embedding", offsetof(struct plan_dimensions, n_embd), 0,
     "Values of a token between layers (default: heads x head size)"},
    {"feed-forward", offsetof(struct plan_dimensions, n_ff), 0,
     "Values inside a feed-forward layer (default: 4 x embedding)"},
    {"vocabulary", offsetof(struct plan_dimensions, n_vocab), 32000, "Tokens (default: 32000)"},
    {"ctx-train", offsetof(struct plan_dimensions, n_ctx_train), 131072,
     "The longest context of the model (default: 131072)"},
    {"window", offsetof(struct plan_dimensions, window), 0,
     "Rows of a sliding window in three layers of four (default: 0, none)"},
};
enum { n_dimension = sizeof(dimensions) / sizeof(dimensions[0]), DIMENSION_MAX = 1 << 24 };

static const struct argp_option option_list[] = {
    {"model", 'm', "FILE", 0, "Model, a GGUF file (default: none, dimensions are given)", 1},
    {"ctx-size", 'c', "N", 0,
     "Context of all slots together, in tokens (default: what the model was trained for, at most "
     "8192, for each slot)",
     1},
    {"ctx", 'c', NULL, OPTION_ALIAS, NULL, 1},
    {"slots", KEY_SLOTS, "S", 0, "Sequences at once, 1 to 256 (default: 1)", 1},
    {"unified", KEY_UNIFIED, NULL, 0,
     "All slots share one cache, as llama-server has it without -np (default: each has its part)",
     1},
    {"ram", KEY_RAM, "BYTES", 0,
     "Memory to fit into; K, M and G stand for 2^10, 2^20 and 2^30 (default: what is available on "
     "this machine)",
     1},
    {"ctk", KEY_TYPE_K, "TYPE", 0,
     "Type of the K cache: f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1 or iq4_nl (default: q4_0)",
     1},
    {"ctv", KEY_TYPE_V, "TYPE", 0, "Type of the V cache (default: q4_0)", 1},
    {"tiers", KEY_TIERS, "TIERS", 0,
     "f16:W keeps the W most recent rows of a quantized cache in F16 too; none turns that off "
     "(default: VARVE_TIERS, else f16:256)",
     1},
    {"sinks", KEY_SINKS, "N", 0,
     "First rows of a sequence that stay in F16 (default: VARVE_SINKS, else 4)", 1},
    {"hot-max", KEY_HOT_MAX, "BYTES", 0,
     "The most memory for the rows in F16 (default: VARVE_HOT_MAX, else 0, no limit)", 1},
    {"ubatch-size", 'u', "N", 0, "Tokens computed at once, 1 to 65536 (default: 512)", 1},
    {"threads", 't', "N", 0, "Threads (default: the CPUs that this process may use)", 1},
    {"json", KEY_JSON, "FILE", 0, "Write the figures to a file, as JSON, in bytes", 1},
    {0},
};

static bool read_dimension(int key, const char *arg, struct plan_options *o) {
    const struct dimension *d = &dimensions[key - KEY_DIMENSION];
    int64_t *const to = (int64_t *)(void *)((char *)&o->dimensions + d->offset);
    char name[32];
    snprintf(name, sizeof(name), "--%s", d->name);
    return cli_integer(name, arg, 1, DIMENSION_MAX, to);
}

static bool read_option(int key, char *arg, struct plan_options *o, bool *known) {
    switch (key) {
    case 'm': o->model = arg; return true;
    case 'c': return cli_integer("-c", arg, 1, 1 << 24, &o->n_ctx);
    case 'u': return cli_integer("-u", arg, 1, 65536, &o->n_ubatch);
    case 't': return cli_integer("-t", arg, 1, 1024, &o->n_threads);
    case KEY_SLOTS: return cli_integer("--slots", arg, 1, 256, &o->n_slot);
    case KEY_UNIFIED: o->unified = true; return true;
    case KEY_RAM: return cli_bytes("--ram", arg, &o->ram);
    case KEY_TYPE_K: return (o->type_k = cli_cache_type("--ctk", arg)) != NULL;
    case KEY_TYPE_V: return (o->type_v = cli_cache_type("--ctv", arg)) != NULL;
    case KEY_TIERS: return cli_tiers("--tiers", arg, &o->tiers.tiers);
    case KEY_SINKS: return cli_sinks("--sinks", arg, &o->tiers.n_sink);
    case KEY_HOT_MAX: return cli_bytes("--hot-max", arg, &o->tiers.hot_max);
    case KEY_JSON: o->json = arg; return true;
    default: break;
    }
    *known = key >= KEY_DIMENSION && key < KEY_DIMENSION + n_dimension;
    return *known && read_dimension(key, arg, o);
}

static error_t parse_dimension(int key, char *arg, struct argp_state *state) {
    bool known = true;
    const bool ok = read_option(key, arg, state->input, &known);
    return !known ? ARGP_ERR_UNKNOWN : ok ? 0 : EINVAL;
}

static error_t parse_option(int key, char *arg, struct argp_state *state) {
    if (key == ARGP_KEY_INIT) {
        state->child_inputs[0] = state->input;
        return 0;
    }
    return parse_dimension(key, arg, state);
}

/* Dimensions that follow from others, and whether those that must be given are. */
static bool complete_dimensions(struct plan_dimensions *d) {
    if (d->n_layer == 0 || d->n_head_kv == 0 || d->n_head_dim == 0) {
        cli_say("plan: give a model with -m, or its dimensions with --layers, --kv-heads and "
                "--head-dim");
        return false;
    }
    d->n_head = d->n_head > 0 ? d->n_head : d->n_head_kv;
    d->n_embd = d->n_embd > 0 ? d->n_embd : d->n_head * d->n_head_dim;
    d->n_ff = d->n_ff > 0 ? d->n_ff : 4 * d->n_embd;
    if (d->n_layer > 4096 || d->n_head > 4096 || d->n_head_dim > 8192 || d->n_embd > 1 << 20 ||
        d->n_ff > 1 << 22 || d->n_vocab > 1 << 22) {
        cli_say(
            "plan: these dimensions are larger than any model's; at most 4096 layers and heads, "
            "8192 values of a head, 2^20 of a token");
        return false;
    }
    if (d->n_head % d->n_head_kv != 0) {
        cli_say("--heads %lld: expected a multiple of the %lld KV heads", (long long)d->n_head,
                (long long)d->n_head_kv);
        return false;
    }
    return true;
}

static bool gives_dimensions(const struct plan_dimensions *d) {
    return d->n_layer + d->n_head + d->n_head_kv + d->n_head_dim + d->n_embd + d->n_ff + d->window >
           0;
}

bool options_parse(int argc, char **argv, struct plan_options *o) {
    struct argp_option rows[n_dimension + 1] = {0};
    *o = (struct plan_options){.type_k = "q4_0",
                               .type_v = "q4_0",
                               .tiers = LAUNCH_TIERS_UNSET,
                               .n_slot = 1,
                               .n_ubatch = 512,
                               .n_threads = cli_usable_cpus()};
    for (int i = 0; i < n_dimension; i++) {
        rows[i] = (struct argp_option){
            dimensions[i].name, KEY_DIMENSION + i, "N", 0, dimensions[i].help, 2};
        *(int64_t *)(void *)((char *)&o->dimensions + dimensions[i].offset) =
            dimensions[i].otherwise;
    }
    const struct argp by_dimension = {rows, parse_dimension, NULL, NULL, NULL, NULL, NULL};
    const struct argp_child children[] = {{&by_dimension, 0, "Without a file: dimensions", 2},
                                          {NULL, 0, NULL, 0}};
    const struct argp argp = {option_list, parse_option, NULL, doc, children, NULL, NULL};
    if (argp_parse(&argp, argc, argv, 0, NULL, o) != 0) {
        return false;
    }
    if (o->model != NULL && gives_dimensions(&o->dimensions)) {
        cli_say("plan: a model has its own dimensions; leave out -m or the dimensions");
        return false;
    }
    return o->model != NULL || complete_dimensions(&o->dimensions);
}
