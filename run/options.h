/* Command line of `varve run`. */
#ifndef VARVE_RUN_OPTIONS_H
#define VARVE_RUN_OPTIONS_H

#include "launch.h"

#include <stdbool.h>
#include <stdint.h>

struct run_options {
    const char *model;  /* path */
    const char *prompt; /* text of -p, or NULL */
    const char *file;   /* path of -f, or NULL */
    const char *json;   /* path, or NULL */
    const char *type_k; /* canonical names of cache types */
    const char *type_v;
    struct launch_tiers tiers;
    int64_t n_predict;
    int64_t n_ctx; /* 0: as many tokens as are needed */
    int64_t n_threads;
    int64_t seed;
    int64_t limit; /* seconds for everything, 0: none */
    double temp;   /* 0: greedy */
    bool chat;
    bool compare;
};

/* Fills in what the command line says and defaults for the rest; strings are those of argv, of the
 * environment or static. False after a line that says what is wrong. */
bool options_parse(int argc, char **argv, struct run_options *options);

#endif
