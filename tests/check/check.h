/* Kernel checker: the engine. It walks kernels.inc and calls varve_check_<op> for each line, so
 * that a new line needs no edit here and a new op without a test does not link.
 */
#ifndef CHECK_CHECK_H
#define CHECK_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernel/dispatch.h"

typedef void check_fn(void); /* any kernel; cast back to its own type before the call */

struct check;
struct check_line {
    const char *op;
    const char *slot;
    const char *symbol;
    enum varve_isa isa;
    int index; /* of the slot within its array: a format, or exact/q8 */
    check_fn *run;
    void (*test)(struct check *, const struct check_line *);
};

struct check {
    uint64_t random;
    int n_case;         /* rounds over the row counts */
    bool brief;         /* not all row counts */
    uint32_t n_queries; /* calls of check_queries */
    bool bench;
    bool count; /* with bench: instructions instead of time */
    const struct varve_kernels *scalar;
    const char *name; /* of what is being checked */
    char what[200];   /* the case at hand */
    int n_failure;    /* of what is being checked */
};

#define VARVE_KERNEL(op, slot, isa, symbol) \
    void varve_check_##op(struct check *check, const struct check_line *line);
#include "kernel/kernels.inc"
#undef VARVE_KERNEL
void varve_check_codec(struct check *check, const struct varve_format_traits *format);

/* ---- reports ---- */

/* Describes the next case; the text is printed with each failure and with a crash. */
void check_case(struct check *check, const char *format, ...) __attribute__((format(printf, 2, 3)));
void check_fail(struct check *check, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Fails unless |got - want| <= tolerance; a NaN always fails. */
void check_near(struct check *check, const char *name, int a, int r, double got, double want,
                double tolerance);

/* Runs body(check, data) and turns a fatal signal in it into a failure. */
void check_guarded(struct check *check, void (*body)(struct check *, const void *),
                   const void *data);

/* ---- random numbers ---- */

uint32_t check_random(struct check *check);
int check_range(struct check *check, int first, int last); /* both included */
float check_unit(struct check *check);                     /* -1 .. 1 */

/* A number of queries, 1 to 20. Brief: all of them in turn, as many as there are row counts. */
int check_queries(struct check *check);

/* ---- memory between two forbidden pages ---- */

enum check_buffer {
    BUFFER_ROW = 0, /* 64 of them, one per row */
    BUFFER_F = VARVE_TILE_ROWS,
    BUFFER_I,
    BUFFER_FI,
    BUFFER_D,
    BUFFER_SUM,
    BUFFER_PAIR,
    BUFFER_S,
    BUFFER_S2,
    BUFFER_O,
    BUFFER_O2,
    BUFFER_P,
    BUFFER_ALPHA,
    BUFFER_T,
    BUFFER_T2,
    BUFFER_DK,
    BUFFER_DK2,
    BUFFER_MK,
    BUFFER_MK2,
    BUFFER_X,
    BUFFER_BIAS,
    BUFFER_COUNT
};
enum check_place { PLACE_END, PLACE_START, PLACE_INSIDE, PLACE_COUNT };

/* Memory filled with 0xFF (NaN in every float type). `aligned`: on 64 bytes and as near to the page
 * behind it as that allows. `place`: exactly before or after a forbidden page, or at some odd
 * address. The memory is valid until the next call with the same id. */
void *check_aligned(int id, size_t bytes);
void *check_place(struct check *check, int id, size_t bytes, enum check_place place);
/* Fails if bytes around the buffer have changed. */
void check_around(struct check *check, int id, const char *name);
/* Address that must not be read. */
const uint8_t *check_forbidden(void);

/* ---- the cases of a kernel ---- */

typedef void check_block_fn(struct check *check, const struct check_line *line, int32_t n_row);
typedef void check_time_fn(struct check *check, const struct check_line *line);

/* Runs a case for blocks of 1 to VARVE_TILE_ROWS rows, n times over, and `bench` if times or counts
 * are wanted. Brief: 1 to 16 rows, which has every remainder of a tile of any level, then steps of
 * 12 to the full block. */
void check_blocks(struct check *check, const struct check_line *line, int n, check_block_fn *run,
                  check_time_fn *bench);

/* ---- benchmark ---- */

/* Times a kernel and the scalar one on the same arguments and prints a line; or counts the
 * instructions of the kernel, if it is not scalar itself. */
void check_bench(const struct check *check, const struct check_line *line, check_fn *scalar,
                 void (*call)(check_fn *, const void *), const void *args, double bytes,
                 double n_multiply);

/* Queries of a tile to time; fewer to count, since a step takes some 20 microseconds. */
static inline int32_t check_tile_queries(const struct check *check) {
    return check->count ? 16 : 64;
}

/* Instructions of a call, by single steps: the same on every machine that runs the same code. -1:
 * this system does not let a process be traced. */
int64_t check_count(void (*call)(check_fn *, const void *), check_fn *run, const void *args);

#endif
