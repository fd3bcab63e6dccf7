#include "options.h"

#include "args.h"
#include "config.h"

#include <argp.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char doc[] =
    "Measures what a quantized KV cache does to a model's predictions. Each configuration of the "
    "cache reads the same text; the KL divergence of its probabilities from those of an F16 cache "
    "is given beside the bytes that it takes, with everything counted. Tables go to stdout, "
    "progress to stderr. --tasks adds pass keys to be found and a list to be copied."
    "\vA configuration is TYPE or TYPE/TYPE (K/V), then +wN for the N most recent rows in F16, +sN "
    "for the first N (default: 4 with +wN, else 0), +norot for no rotation of quantized rows, "
    "+stock for llama.cpp's own attention. --configs takes a list separated by commas, or the name "
    "of a file with one configuration in a line.\n\n"
    "To each one with a window those of its bytes without a window and the next larger uniform "
    "type are added (--no-partners leaves them out).\n\n"
    "Examples:\n"
    "  varve eval\n"
    "  varve eval -m model.gguf -f book.txt -f code.c --ctx 8192 --mode decode --json "
    "figures.json\n"
    "  varve eval --configs q8_0,q8_0/q5_1,q4_0+w256+s4 --chunks 8 --report report.html\n"
    "  varve eval --configs f16,q8_0,q4_0 --tasks passkey,copy --task-items 100\n"
    "  varve eval --from-json figures.json --report report.html --plot figures.svg\n\n"
    "After Ctrl-C, the same command with --resume goes on with the chunk that was broken off. "
    "Figures do not depend on --threads, but for stock's. docs/EVAL.md says how they are "
    "computed.\n\n"
    "Environment: VARVE_MODEL names the default model.\n\n"
    "Exit code: 0; 130 after Ctrl-C; 64 for a wrong option; else 1.";

enum {
    KEY_CONFIGS = 0x100,
    KEY_CHUNKS,
    KEY_MODE,
    KEY_FROM,
    KEY_TOP_K,
    KEY_SEED,
    KEY_JSON,
    KEY_REPORT,
    KEY_PLOT,
    KEY_FROM_JSON,
    KEY_WORK,
    KEY_RESUME,
    KEY_KEEP,
    KEY_TASKS,
    KEY_TASK_ITEMS,
    KEY_NO_PARTNERS,
};

static const struct argp_option option_list[] = {
    {"model", 'm', "FILE", 0, "Model, a GGUF file (default: the one that was set up by make)", 0},
    {"file", 'f', "FILE", 0,
     "Text; may be given several times, - is stdin (default: licences, documentation and source "
     "code that make has set up)",
     0},
    {"configs", KEY_CONFIGS, "LIST", 0,
     "Configurations, or a file with them (default: uniform and mixed types, and windows from 64 "
     "to 1024 rows)",
     0},
    {"ctx", 'c', "N", 0, "Tokens of a chunk, which has the context for itself (default: 2048)", 0},
    {"chunks", KEY_CHUNKS, "N", 0, "Chunks of each text; 0 takes all of it (default: 1)", 0},
    {"mode", KEY_MODE, "MODE", 0,
     "prefill: tokens are read in batches; decode: those that are scored one by one, as in a chat "
     "(default: prefill)",
     0},
    {"from", KEY_FROM, "N", 0,
     "First position of a chunk that is scored (default: half of --ctx, as llama-perplexity)", 0},
    {"top-k", KEY_TOP_K, "N", 0,
     "Tokens of each position that the reference keeps; the rest is one sum (default: 1024)", 0},
    {"tasks", KEY_TASKS, "LIST", 0,
     "Tasks with exact answers beside the texts: passkey (five keys in a text of --ctx tokens are "
     "asked for), copy (a list of half as many is repeated), or passkey,copy (default: none)",
     0},
    {"task-items", KEY_TASK_ITEMS, "N", 0,
     "Items of each task at least: keys, lines of the list (default: 50)", 0},
    {"threads", 't', "N", 0, "Threads (default: the CPUs that this process may use)", 0},
    {"seed", KEY_SEED, "S", 0,
     "Seed of the confidence intervals and of the tasks, 0 to 2^32 - 1 (default: 1)", 0},
    {"json", KEY_JSON, "FILE", 0, "Write the figures to a file, as JSON", 0},
    {"report", KEY_REPORT, "FILE", 0,
     "Write a report to a file: a page of HTML with pictures and tables, which needs no network",
     0},
    {"plot", KEY_PLOT, "FILE", 0,
     "Draw divergence against bytes, as SVG or with a name in .png as PNG (needs gnuplot)", 0},
    {"from-json", KEY_FROM_JSON, "FILE", 0,
     "Run no model: --report and --plot show what --json wrote to this file before", 0},
    {"work", KEY_WORK, "FOLDER", 0,
     "Folder of unfinished work, removed at the end (default: varve-eval.part)", 0},
    {"resume", KEY_RESUME, NULL, 0, "Go on with what an earlier run left in that folder", 0},
    {"keep", KEY_KEEP, NULL, 0, "Keep the folder, so that --resume can add configurations", 0},
    {"no-partners", KEY_NO_PARTNERS, NULL, 0, "Only the configurations of the list", 0},
    {0},
};

static bool add_file(const char *path, struct eval_options *o) {
    const char **more = realloc(o->files, ((size_t)o->n_file + 1) * sizeof(*more));
    if (more == NULL) {
        cli_say("out of memory");
        return false;
    }
    o->files = more;
    o->files[o->n_file++] = path;
    return true;
}

static bool set_mode(const char *value, struct eval_options *o) {
    o->decode = strcmp(value, "decode") == 0;
    if (!o->decode && strcmp(value, "prefill") != 0) {
        cli_say("--mode %s: expected prefill or decode", value);
        return false;
    }
    return true;
}

static bool set_tasks(const char *value, struct eval_options *o) {
    const bool ok = task_parse_list(value, o->tasks);
    if (!ok) {
        cli_say("--tasks %s: expected passkey, copy or passkey,copy", value);
    }
    return ok;
}

static bool set_option(int key, const char *arg, struct eval_options *o) {
    switch (key) {
    case 'm': o->model = arg; return true;
    case 'f': return add_file(arg, o);
    case KEY_CONFIGS: o->configs = arg; return true;
    case 'c': return cli_integer("--ctx", arg, 16, 1 << 24, &o->n_ctx);
    case KEY_CHUNKS: return cli_integer("--chunks", arg, 0, 1 << 16, &o->n_chunk);
    case KEY_MODE: return set_mode(arg, o);
    case KEY_FROM: return cli_integer("--from", arg, 0, 1 << 24, &o->from);
    case KEY_TOP_K: return cli_integer("--top-k", arg, 1, 1 << 24, &o->top_k);
    case 't': return cli_integer("-t", arg, 1, 512, &o->n_threads);
    case KEY_SEED: return cli_integer("--seed", arg, 0, UINT32_MAX, &o->seed);
    case KEY_JSON: o->json = arg; return true;
    case KEY_REPORT: o->report = arg; return true;
    case KEY_PLOT: o->plot = arg; return true;
    case KEY_FROM_JSON: o->from_json = arg; return true;
    case KEY_WORK: o->work = arg; return true;
    case KEY_RESUME: o->resume = true; return true;
    case KEY_KEEP: o->keep = true; return true;
    case KEY_TASKS: return set_tasks(arg, o);
    case KEY_TASK_ITEMS: return cli_integer("--task-items", arg, 1, 1 << 16, &o->n_task_item);
    case KEY_NO_PARTNERS: o->alone = true; return true;
    default: return false;
    }
}

static error_t parse_option(int key, char *arg, struct argp_state *state) {
    if (key == ARGP_KEY_ARG) {
        cli_say("eval: %s: not an option; a text is given with -f", arg);
        return EINVAL;
    }
    if (key < ' ' || key > KEY_NO_PARTNERS) { /* argp's own */
        return ARGP_ERR_UNKNOWN;
    }
    return set_option(key, arg, state->input) ? 0 : EINVAL;
}

bool eval_options_parse(int argc, char **argv, struct eval_options *o) {
    static const struct argp argp = {option_list, parse_option, NULL, doc, NULL, NULL, NULL};
    *o = (struct eval_options){.configs = config_default_list(),
                               .work = "varve-eval.part",
                               .n_ctx = 2048,
                               .n_chunk = 1,
                               .from = -1,
                               .top_k = 1024,
                               .n_threads = cli_usable_cpus(),
                               .seed = 1,
                               .n_task_item = 50};
    if (argp_parse(&argp, argc, argv, 0, NULL, o) != 0) {
        return false;
    }
    if (o->from_json != NULL && (o->json != NULL || (o->report == NULL && o->plot == NULL))) {
        cli_say("--from-json makes a report or a plot: give --report or --plot, and no --json");
        return false;
    }
    o->from = o->from >= 0 ? o->from : o->n_ctx / 2;
    if (o->from > o->n_ctx - 2) {
        cli_say("--from %d: a chunk has %d tokens, so at most %d", (int)o->from, (int)o->n_ctx,
                (int)o->n_ctx - 2);
        return false;
    }
    if (o->model == NULL) {
        const char *model = getenv("VARVE_MODEL");
        o->model = model != NULL && model[0] != '\0' ? model : VARVE_RUN_MODEL;
    }
    return true;
}

bool eval_options_has_tasks(const struct eval_options *o) {
    bool any = false;
    for (int k = 0; k < n_task; k++) {
        any = any || o->tasks[k];
    }
    return any;
}
