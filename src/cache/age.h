/* The ageing rule on bits, without memory: docs/DESIGN.md 9, rules 3 and 6. Rows stand in words of
 * 64 in the order of writing, bit 63 the newest; a query walks the words from the newest to the
 * oldest and carries along how many rows it has seen. */
#ifndef VARVE_CACHE_AGE_H
#define VARVE_CACHE_AGE_H

#include <stdint.h>

/* Rows that may be rejected before the window gets short. */
#define VARVE_AGE_SLACK 32

/* Rows that are written at once without staging; a ring has room for them beside window and slack.
 */
#define VARVE_AGE_ROOM 8

struct varve_age {
    uint64_t window; /* rows of this word that the query reads hot by age */
    uint64_t kept;   /* rows that are in the window or in the slack behind it */
};

/* One word of a walk. seen: rows of the word that the query sees; n_newer: those it saw in newer
 * words; window: W. */
struct varve_age varve_age_step(uint64_t seen, int64_t n_newer, int64_t window);

#endif
