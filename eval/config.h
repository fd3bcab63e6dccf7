/* One configuration of the cache, as on the command line, and those that it is compared with. */
#ifndef VARVE_EVAL_CONFIG_H
#define VARVE_EVAL_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

struct eval_config {
    char label[64]; /* canonical: q8_0/q4_0+w256+s4 */
    const char *type_k, *type_v;
    int64_t window, n_sink; /* rows in F16 beside the cache; window 0: no tiers */
    bool stock, no_rotation;
    bool added; /* for a comparison at equal bytes */
};

enum { CONFIG_LIST_MOST = 256 };

/* Values of one cell of the cache, over all layers. */
struct eval_cell {
    double k, v;
};

/* The configuration of a text like "q8_0/q4_0+w256+s4", "q4_0+norot" or "f16+stock". False after a
 * line. */
bool config_parse(const char *text, struct eval_config *config);

/* A list separated by commas, or the file of that name with one or more in a line and # before
 * comments. *configs is the caller's; doubles are left out. The number, 0 after a line. */
int32_t config_list(const char *list, struct eval_config **configs);

/* The cache of varve run without options. */
#define CONFIG_DEFAULT "q4_0+w256+s4"

/* What is evaluated without --configs. */
const char *config_default_list(void);

/* Bytes of one cell in the types of a configuration, without rows in F16 beside them. */
double config_cell_bytes(const struct eval_config *config, const struct eval_cell *cell);

/* Without a window: the pair of types whose bytes are nearest, K being no smaller than V; and the
 * smallest uniform type with at least so many bytes, f16 where there is none. */
struct eval_config config_same_bytes(double bytes, const struct eval_cell *cell);
struct eval_config config_next_uniform(double bytes, const struct eval_cell *cell);

#endif
