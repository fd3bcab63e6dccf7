/* What `varve exec` and the programs beside it share: where our own files are, and the environment.
 * Failures are said in one line. */
#ifndef VARVE_CLI_LAUNCH_H
#define VARVE_CLI_LAUNCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Settings of the hot tier; what is NULL or negative is left to the environment. */
struct launch_tiers {
    const char *tiers;
    int64_t n_sink;  /* rows */
    int64_t hot_max; /* bytes */
};
#define LAUNCH_TIERS_UNSET \
    { NULL, -1, -1 }

/* Path of one of our libraries or programs, relative to this program. `needs`: what the program is
 * built with, for the message when it is not there; NULL: nothing special. */
bool launch_find_library(const char *name, char *path, size_t path_bytes);
bool launch_find_program(const char *name, const char *needs, char *path, size_t path_bytes);

bool launch_set(const char *name, const char *value);
/* To "first:second". */
bool launch_set_list(const char *name, const char *first, const char *second);
bool launch_set_tiers(const struct launch_tiers *tiers);

/* Large allocations of the program, the KV cache among them, in pages of 2 MiB where the system
 * lends them (madvise by malloc; another C library takes no notice): docs/performance.md 2. */
bool launch_large_pages(void);

#endif
