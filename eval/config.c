#include "config.h"

#include "args.h"
#include "input.h"

#include "varve/hot.h"
#include "varve/varve.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Types for comparisons, smallest first. */
static const char *const uniform[] = {"q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "f16"};
enum { n_uniform = sizeof(uniform) / sizeof(uniform[0]) };

const char *config_default_list(void) {
    return "f16+stock,f16,q8_0,q5_1,q4_0,q8_0/"
           "q4_0,q4_0+norot,q4_0+w64+s4,q4_0+w256+s0," CONFIG_DEFAULT
           ",q4_0+w1024+s4,q8_0/q4_0+w256+s4";
}

/* ---- one configuration ---------------------------------------------------------------------- */

static void set_label(struct eval_config *c) {
    char tiers[32] = "";
    if (c->window > 0) {
        snprintf(tiers, sizeof(tiers), "+w%d+s%d", (int)c->window, (int)c->n_sink);
    }
    const bool one = strcmp(c->type_k, c->type_v) == 0;
    snprintf(c->label, sizeof(c->label), "%s%s%s%s%s%s", c->type_k, one ? "" : "/",
             one ? "" : c->type_v, tiers, c->no_rotation ? "+norot" : "", c->stock ? "+stock" : "");
}

static bool parse_word(const char *text, const char *word, struct eval_config *c) {
    if (word[0] == 'w') {
        return cli_integer(text, word + 1, 1, VARVE_HOT_ROWS_MAX, &c->window);
    }
    if (word[0] == 's' && strcmp(word, "stock") != 0) {
        return cli_integer(text, word + 1, 0, VARVE_HOT_ROWS_MAX, &c->n_sink);
    }
    if (strcmp(word, "norot") == 0 || strcmp(word, "stock") == 0) {
        c->no_rotation = c->no_rotation || word[0] == 'n';
        c->stock = c->stock || word[0] == 's';
        return true;
    }
    cli_say("configuration %s: '%s' is none of wROWS, sROWS, norot and stock", text, word);
    return false;
}

static bool is_sound(const char *text, const struct eval_config *c) {
    if (c->n_sink >= 0 && c->window == 0) {
        cli_say("configuration %s: sinks need a window, as in q4_0+w256+s4", text);
    } else if (c->window > 0 && c->stock) {
        cli_say("configuration %s: stock has no window", text);
    } else {
        return true;
    }
    return false;
}

bool config_parse(const char *text, struct eval_config *c) {
    char copy[128];
    char *rest = NULL;
    *c = (struct eval_config){.n_sink = -1};
    if (strlen(text) >= sizeof(copy)) {
        cli_say("configuration %s: too long", text);
        return false;
    }
    strcpy(copy, text);
    char *types = strtok_r(copy, "+", &rest);
    char *type_v = types != NULL ? strchr(types, '/') : NULL;
    if (type_v != NULL) {
        *type_v++ = '\0';
    }
    c->type_k = cli_cache_type("configuration", types != NULL ? types : text);
    c->type_v =
        type_v != NULL && c->type_k != NULL ? cli_cache_type("configuration", type_v) : c->type_k;
    bool ok = c->type_k != NULL && c->type_v != NULL;
    for (const char *word = NULL; ok && (word = strtok_r(NULL, "+", &rest)) != NULL;) {
        ok = parse_word(text, word, c);
    }
    if (!ok || !is_sound(text, c)) {
        return false;
    }
    c->n_sink = c->n_sink >= 0 ? c->n_sink : c->window > 0 ? 4 : 0;
    set_label(c);
    return true;
}

/* ---- a list --------------------------------------------------------------------------------- */

static bool is_among(const struct eval_config *configs, int32_t n, const char *label) {
    for (int32_t i = 0; i < n; i++) {
        if (strcmp(configs[i].label, label) == 0) {
            return true;
        }
    }
    return false;
}

/* Takes the list apart. */
static int32_t parse_list(char *list, struct eval_config **configs) {
    int32_t n = 0;
    char *rest = NULL;
    for (char *word = strtok_r(list, ", \t\n", &rest); word != NULL;
         word = strtok_r(NULL, ", \t\n", &rest)) {
        struct eval_config *more = realloc(*configs, ((size_t)n + 1) * sizeof(*more));
        if (more == NULL) {
            cli_say("out of memory");
            return 0;
        }
        *configs = more;
        if (!config_parse(word, &more[n])) {
            return 0;
        }
        n += !is_among(more, n, more[n].label);
        if (n > CONFIG_LIST_MOST) {
            cli_say("--configs: more than %d configurations; leave some out", CONFIG_LIST_MOST);
            return 0;
        }
    }
    if (n == 0) {
        cli_say("--configs: no configuration in it; give some, as in q8_0,q4_0+w256+s4");
    }
    return n;
}

static void blank_comments(char *text) {
    for (char *at = strchr(text, '#'); at != NULL; at = strchr(at, '#')) {
        const size_t n = strcspn(at, "\n");
        memset(at, ' ', n);
    }
}

int32_t config_list(const char *list, struct eval_config **configs) {
    struct stat info;
    struct run_text text = {list, strlen(list)};
    char *owned = NULL;
    *configs = NULL;
    if (stat(list, &info) == 0 && !input_file("list of configurations", list, &text, &owned)) {
        free(owned);
        return 0;
    }
    char *copy = strndup(text.bytes, text.n);
    free(owned);
    if (copy == NULL) {
        cli_say("out of memory");
        return 0;
    }
    blank_comments(copy);
    const int32_t n = parse_list(copy, configs);
    free(copy);
    return n;
}

/* ---- bytes ---------------------------------------------------------------------------------- */

static double bytes_of(const char *type, double n_value) {
    enum varve_format format;
    size_t bytes = 0;
    if (varve_format_parse(type, &format) != VARVE_OK ||
        varve_format_row_bytes(format, 32, &bytes) != VARVE_OK) { /* 32: a block of any format */
        return NAN;
    }
    return n_value / 32 * (double)bytes;
}

double config_cell_bytes(const struct eval_config *c, const struct eval_cell *cell) {
    return bytes_of(c->type_k, cell->k) + bytes_of(c->type_v, cell->v);
}

static struct eval_config plain(const char *type_k, const char *type_v) {
    struct eval_config c = {.type_k = type_k, .type_v = type_v, .added = true};
    set_label(&c);
    return c;
}

struct eval_config config_same_bytes(double bytes, const struct eval_cell *cell) {
    struct eval_config best = plain("f16", "f16");
    double least = fabs(config_cell_bytes(&best, cell) - bytes);
    for (int k = n_uniform - 1; k >= 0; k--) {
        for (int v = k; v >= 0; v--) {
            const struct eval_config c = plain(uniform[k], uniform[v]);
            const double distance = fabs(config_cell_bytes(&c, cell) - bytes);
            if (distance < least) {
                least = distance;
                best = c;
            }
        }
    }
    return best;
}

struct eval_config config_next_uniform(double bytes, const struct eval_cell *cell) {
    for (int i = 0; i < n_uniform; i++) {
        const struct eval_config c = plain(uniform[i], uniform[i]);
        if (config_cell_bytes(&c, cell) >= bytes) {
            return c;
        }
    }
    return plain("f16", "f16");
}
