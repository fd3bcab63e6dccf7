#include "options.h"

#include "args.h"

#include <argp.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char doc[] =
    "Answers a prompt with a model, on llama.cpp with attention computed by varve, and says at the "
    "end how fast it was and what the KV cache took. The text goes to stdout, everything else to "
    "stderr. Ctrl-C stops it and still gives the figures; a second one ends it at once."
    "\vExamples:\n"
    "  varve run --chat -p 'What is a glacier?'\n"
    "  varve run -m model.gguf -f long.txt -n 200 --json figures.json\n"
    "  varve run --compare --chat -f question.txt\n\n"
    "--compare runs the prompt three times: on stock llama.cpp with an f16 cache, with varve, and "
    "on stock llama.cpp with the cache types given. Then each one reads the text that the f16 run "
    "wrote, and the KL divergence of its probabilities from those of the f16 run is computed, in "
    "nats per token.\n\n"
    "Environment: VARVE_MODEL names the default model; VARVE_TIERS, VARVE_SINKS and VARVE_HOT_MAX "
    "(bytes) set the hot tier where no option does; LD_LIBRARY_PATH leads to another build "
    "of the same llama.cpp than the one that varve was built with.\n\n"
    "Exit code: 0, also when a time limit ended a run; 130 after Ctrl-C; 64 for a wrong option; "
    "else 1.";

enum {
    KEY_TYPE_K = 0x100,
    KEY_TYPE_V,
    KEY_TIERS,
    KEY_SINKS,
    KEY_HOT_MAX,
    KEY_SEED,
    KEY_TEMP,
    KEY_CHAT,
    KEY_COMPARE,
    KEY_LIMIT,
    KEY_JSON,
};

static const struct argp_option option_list[] = {
    {"model", 'm', "FILE", 0, "Model, a GGUF file (default: the one that was set up by make)", 0},
    {"prompt", 'p', "TEXT", 0, "The prompt", 0},
    {"file", 'f', "FILE", 0, "File with the prompt; - is stdin", 0},
    {"predict", 'n', "N", 0, "The most tokens to generate (default: 128)", 0},
    {"ctx-size", 'c', "N", 0,
     "Context, in tokens: prompt and generated text must fit (default: as much as they need, in "
     "steps of 256, up to what the model was trained for)",
     0},
    {"threads", 't', "N", 0, "Threads (default: the CPUs that this process may use)", 0},
    {"ctk", KEY_TYPE_K, "TYPE", 0,
     "Type of the K cache: f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1 or iq4_nl (default: q4_0)",
     0},
    {"ctv", KEY_TYPE_V, "TYPE", 0, "Type of the V cache (default: q4_0)", 0},
    {"tiers", KEY_TIERS, "TIERS", 0,
     "f16:W keeps the W most recent rows of the cache in F16 too (W: rows, 1 to 2^30); none turns "
     "that off (default: f16:256)",
     0},
    {"sinks", KEY_SINKS, "N", 0,
     "First rows that stay in F16, unless tiers are off (rows, 0 to 2^30; default: 4)", 0},
    {"hot-max", KEY_HOT_MAX, "BYTES", 0,
     "The most memory for the rows in F16, in bytes; K, M and G stand for 2^10, 2^20 and 2^30 "
     "(default: 0, no limit but a few windows for each layer)",
     0},
    {"temp", KEY_TEMP, "T", 0, "Temperature; 0 takes the most likely token (default: 0)", 0},
    {"seed", KEY_SEED, "S", 0, "Seed for a temperature above 0, 0 to 2^32 - 2 (default: 0)", 0},
    {"chat", KEY_CHAT, NULL, 0, "Put the prompt into the chat template of the model", 0},
    {"compare", KEY_COMPARE, NULL, 0, "Run the prompt on stock llama.cpp too, and compare", 0},
    {"limit", KEY_LIMIT, "SECONDS", 0,
     "Stop after so many seconds in all and show what was measured until then (default: no limit)",
     0},
    {"json", KEY_JSON, "FILE", 0, "Write the figures to a file, as JSON", 0},
    {0},
};

static bool parse_temp(const char *value, double *temp) {
    char *end = NULL;
    *temp = strtod(value, &end);
    if (end == value || *end != '\0' || !isfinite(*temp) || *temp < 0) {
        cli_say("--temp %s: expected a number of 0 or more", value);
        return false;
    }
    return true;
}

static bool set_type(const char *option, const char *value, const char **type) {
    *type = cli_cache_type(option, value);
    return *type != NULL;
}

static bool set_option(int key, const char *arg, struct run_options *o) {
    switch (key) {
    case 'm': o->model = arg; return true;
    case 'p': o->prompt = arg; return true;
    case 'f': o->file = arg; return true;
    case 'n': return cli_integer("-n", arg, 1, 1 << 24, &o->n_predict);
    case 'c': return cli_integer("-c", arg, 1, 1 << 30, &o->n_ctx);
    case 't': return cli_integer("-t", arg, 1, 512, &o->n_threads);
    case KEY_TYPE_K: return set_type("--ctk", arg, &o->type_k);
    case KEY_TYPE_V: return set_type("--ctv", arg, &o->type_v);
    case KEY_TIERS: return cli_tiers("--tiers", arg, &o->tiers.tiers);
    case KEY_SINKS: return cli_sinks("--sinks", arg, &o->tiers.n_sink);
    case KEY_HOT_MAX: return cli_bytes("--hot-max", arg, &o->tiers.hot_max);
    case KEY_TEMP: return parse_temp(arg, &o->temp);
    case KEY_SEED: return cli_integer("--seed", arg, 0, UINT32_MAX - 1, &o->seed);
    case KEY_CHAT: o->chat = true; return true;
    case KEY_COMPARE: o->compare = true; return true;
    case KEY_LIMIT: return cli_integer("--limit", arg, 1, 1 << 24, &o->limit);
    case KEY_JSON: o->json = arg; return true;
    default: return false;
    }
}

static error_t parse_option(int key, char *arg, struct argp_state *state) {
    if (key == ARGP_KEY_ARG) {
        cli_say("run: %s: not an option; a prompt is given with -p or -f", arg);
        return EINVAL;
    }
    if (key < ' ' || key > KEY_JSON) { /* argp's own */
        return ARGP_ERR_UNKNOWN;
    }
    return set_option(key, arg, state->input) ? 0 : EINVAL;
}

static bool unset(const char *name) {
    const char *value = getenv(name);
    return value == NULL || value[0] == '\0';
}

static bool is_float(const char *type) {
    return strcmp(type, "f16") == 0 || strcmp(type, "f32") == 0;
}

/* An option counts more than the environment, and this more than a default. */
static bool complete_tiers(struct run_options *o) {
    if (is_float(o->type_k) && is_float(o->type_v)) {
        cli_say("nothing in a cache of type %s is rounded further than F16, so --tiers has nothing "
                "to do",
                o->type_k);
        o->tiers.tiers = "none";
    } else if (o->tiers.tiers == NULL) {
        o->tiers.tiers = unset("VARVE_TIERS") ? "f16:256" : getenv("VARVE_TIERS");
        if (!cli_tiers("VARVE_TIERS", o->tiers.tiers, &o->tiers.tiers)) {
            return false;
        }
    }
    if (o->tiers.n_sink < 0) {
        const char *sinks = unset("VARVE_SINKS") ? "4" : getenv("VARVE_SINKS");
        if (!cli_sinks("VARVE_SINKS", sinks, &o->tiers.n_sink)) {
            return false;
        }
    }
    if (o->tiers.hot_max < 0) { /* digits alone, as the plug-in reads it */
        const char *bytes = unset("VARVE_HOT_MAX") ? "0" : getenv("VARVE_HOT_MAX");
        return cli_integer("VARVE_HOT_MAX", bytes, 0, INT64_MAX, &o->tiers.hot_max);
    }
    return true;
}

bool options_parse(int argc, char **argv, struct run_options *o) {
    static const struct argp argp = {option_list, parse_option, NULL, doc, NULL, NULL, NULL};
    *o = (struct run_options){.type_k = "q4_0",
                              .type_v = "q4_0",
                              .tiers = LAUNCH_TIERS_UNSET,
                              .n_predict = 128,
                              .n_threads = cli_usable_cpus()};
    if (argp_parse(&argp, argc, argv, 0, NULL, o) != 0) {
        return false;
    }
    if ((o->prompt != NULL) == (o->file != NULL)) {
        cli_say(o->prompt != NULL ? "run: -p and -f exclude each other"
                                  : "run: no prompt; give -p TEXT or -f FILE");
        return false;
    }
    if (o->model == NULL) {
        o->model = unset("VARVE_MODEL") ? VARVE_RUN_MODEL : getenv("VARVE_MODEL");
    }
    return complete_tiers(o);
}
