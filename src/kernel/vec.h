/* What kernels share whatever the width of their vectors, VEC_LANES floats. Included by the vec_*.h
 * of an ISA, which defines it. */
#ifndef VARVE_KERNEL_VEC_H
#define VARVE_KERNEL_VEC_H

#include <stdint.h>
#include <string.h>

#include "kernel/dispatch.h" /* the prototypes */

/* Kernels are written once for any tile shape and inlined with constant shapes: only then do the
 * accumulator arrays become registers. GCC needs the loops over them unrolled by pragma, because
 * its own unrolling comes after it has decided to keep the arrays in memory. */
#define VEC_INLINE static inline __attribute__((always_inline))
#if defined(VARVE_SANITIZED)
#define VEC_UNROLL /* instrumented, unrolled loops take minutes to compile */
#elif defined(__clang__)
#define VEC_UNROLL _Pragma("clang loop unroll(full)")
#else
#define VEC_UNROLL _Pragma("GCC unroll 32")
#endif

VEC_INLINE int32_t vec_min_i32(int32_t a, int32_t b) { return a < b ? a : b; }

/* Parts of `most` that n values take. */
VEC_INLINE int32_t vec_parts(int32_t n, int32_t most) { return (n + most - 1) / most; }

/* Fetches the rows from .. from + n - 1 of a block into L1, as far as there are such rows. Rows of
 * one KV head lie apart in memory, often one per page or two, where no hardware prefetcher follows.
 */
VEC_INLINE void vec_prefetch(const uint8_t *const *rows, int32_t n_row, int32_t from, int32_t n,
                             int64_t offset, int64_t bytes) {
    for (int32_t r = from; r < vec_min_i32(from + n, n_row); r++) {
        const char *const row = (const char *)(rows[r] + offset);
        for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(row + at, 0, 3);
    }
}

/* Fetches rows from .. from + n - 1 of what comes next, into L2: in L1 they would push out what is
 * at hand. Of more than a block two for each. */
VEC_INLINE void vec_fetch_ahead(const struct varve_ahead *ahead, int32_t from, int32_t n) {
    const int32_t each = ahead->n > VARVE_TILE_ROWS ? 2 : 1;
    for (int32_t r = each * from; r < vec_min_i32(each * (from + n), ahead->n); r++) {
        const char *const row = (const char *)ahead->rows[r] + ahead->offset;
        for (int32_t at = 0; at < ahead->bytes; at += 64) __builtin_prefetch(row + at, 0, 2);
    }
}

/* The same line by line, evenly over a kernel of up to AHEAD_QUERIES queries: of many at once the
 * later ones wait, and the kernel's own loads with them (docs/performance.md 2). */
enum { AHEAD_QUERIES = 8 };
struct vec_ahead {
    const char *at, *end; /* next line; the end of its row, or NULL after the last one */
    int64_t step;         /* 64, or 0 after the last line: that is asked for again, for nothing */
    const uint8_t *const *row, *const *last; /* of the rows after this one */
    int64_t offset, bytes;
    int32_t n_line; /* for each step */
};

VEC_INLINE void vec_ahead_row(struct vec_ahead *ahead) {
    ahead->at = (const char *)*ahead->row++ + ahead->offset;
    ahead->end = ahead->at + ahead->bytes;
}

/* For a kernel of about n_step steps; if it takes fewer, the last lines are not asked for. Without
 * rows the kernel's own first one is asked for. */
VEC_INLINE struct vec_ahead vec_ahead_of(const struct varve_ahead *of, const uint8_t *own,
                                         int32_t n_step) {
    struct vec_ahead ahead = {.at = (const char *)own};
    if (of->n <= 0) return ahead;
    const int32_t row_lines = (of->bytes + 63) / 64;
    ahead.step = 64;
    ahead.row = of->rows;
    ahead.last = of->rows + of->n;
    ahead.offset = of->offset;
    ahead.bytes = (int64_t)row_lines * 64;
    vec_ahead_row(&ahead);
    ahead.n_line = vec_parts(of->n * row_lines, n_step > 0 ? n_step : 1);
    return ahead;
}

VEC_INLINE void vec_ahead_line(struct vec_ahead *ahead) {
    __builtin_prefetch(ahead->at, 0, 2);
    ahead->at += ahead->step;
    if (__builtin_expect(ahead->at == ahead->end, 0)) {
        if (ahead->row == ahead->last) {
            ahead->at -= ahead->step;
            ahead->step = 0;
            ahead->end = NULL;
        } else {
            vec_ahead_row(ahead);
        }
    }
}

VEC_INLINE void vec_ahead_step(struct vec_ahead *ahead) {
    for (int32_t i = ahead->n_line; i > 0; i--) vec_ahead_line(ahead);
}

/* The rows r .. r + VEC_LANES - 1 of a block. Rows past the last are replaced by the last one, so
 * that the caller can compute all of them and keep the first few. `spare` is the memory for that.
 */
VEC_INLINE const uint8_t *const *vec_rows(const uint8_t *const *rows, int32_t n_row, int32_t r,
                                          const uint8_t *spare[VEC_LANES]) {
    if (r + VEC_LANES <= n_row) return rows + r;
    for (int32_t i = 0; i < VEC_LANES; i++) spare[i] = rows[vec_min_i32(r + i, n_row - 1)];
    return spare;
}

/* half[b][r] = the half float at offset + b * step of row r, for n_row rows and n_block blocks. One
 * by one through memory: compilers would insert them into vectors, which takes the one port that
 * the transposes need. Gathered well before they are loaded as vectors, they cost next to nothing.
 */
VEC_INLINE void vec_gather_halves(const uint8_t *const *rows, int32_t n_row, int64_t offset,
                                  int64_t step, const int32_t n_block, int32_t ld, uint16_t *half) {
    for (int32_t r = 0; r < n_row; r++) {
        const uint8_t *from = rows[r] + offset;
        VEC_UNROLL
        for (int32_t b = 0; b < n_block; b++, from += step) {
            memcpy(&half[b * ld + r], from, sizeof *half);
            __asm__("" : "+m"(half[b * ld + r]));
        }
    }
}

#endif
