/* Random KV rows and queries for the tests of the kernels. */
#ifndef CHECK_ROWS_H
#define CHECK_ROWS_H

#include "check/check.h"

/* What rows hold. */
enum rows_kind {
    ROWS_NORMAL,
    ROWS_ZERO,  /* steps are zero */
    ROWS_SMALL, /* steps are subnormal in F16 */
    ROWS_HUGE,
    ROWS_PATTERN, /* every bit pattern of the integers, those that no encoder writes included */
    ROWS_INTEGER, /* steps and minima are small integers: all sums are exact in F32 */
    ROWS_MIXED,   /* another kind for each row */
    ROWS_KIND_COUNT
};
const char *rows_kind_name(enum rows_kind kind);

struct rows {
    const struct varve_format_traits *format;
    int32_t head_dim;
    int32_t n_row;
    const uint8_t *rows[VARVE_TILE_ROWS]; /* those past n_row must not be followed */
    float *value;                         /* [n_row][head_dim], decoded */
    int8_t *q;                            /* [n_row][head_dim], quantized formats only */
    float *d, *m;                         /* [n_row][head_dim / 32]; m is 0 without has_min */
};

/* Head size of what is timed and counted. */
enum { BENCH_D = 128 };

/* A format from the first to the last. */
const struct varve_format_traits *rows_format(struct check *check, enum varve_format first,
                                              enum varve_format last);

/* Each row lies at a page's end or beginning, or at an odd address. */
void rows_create(struct rows *rows, struct check *check, const struct varve_format_traits *format,
                 enum rows_kind kind, int32_t head_dim, int32_t n_row);
/* Overwrites the bytes of row r so that it decodes to NaN (or infinity) everywhere. */
void rows_poison(struct rows *rows, int32_t r);
void rows_destroy(struct rows *rows);

/* |d q| + |m| of value i of row r, what a bound needs; |value| for float formats. */
double rows_abs(const struct rows *rows, int32_t r, int32_t i);

/* A head size for the format: multiples of its block from 32 to 576; any for float formats. */
int32_t rows_head_dim(struct check *check, const struct varve_format_traits *format);

enum queries_kind {
    QUERIES_NORMAL,
    QUERIES_HUGE,
    QUERIES_ZERO,
    QUERIES_INTEGER,
    QUERIES_KIND_COUNT
};

/* Queries in all forms (q8 only when head_dim is a multiple of 32), in guarded buffers. */
void queries_create(struct varve_queries *queries, struct check *check, enum queries_kind kind,
                    int32_t n, int32_t head_dim);

/* What the tests of score, tilescore, packscore and pairscore share. */
struct score_case {
    struct varve_queries q;
    struct rows rows;
    bool exact;    /* integers: all sums are exact in F32 */
    float *scalar; /* [n][VARVE_TILE_ROWS], s for the scalar kernel */
    float *s;      /* for the kernel under test */
};

/* Random kinds of queries and rows, integers in both or in neither. */
void score_create(struct score_case *score, struct check *check,
                  const struct varve_format_traits *format, int32_t n_row);
/* What is timed: a whole block, n queries. */
void score_bench(struct score_case *score, struct check *check,
                 const struct varve_format_traits *format, int32_t n);
void score_destroy(struct score_case *score);

#endif
