/* Contracts of the kernels: pure functions over one block of KV rows. No kernel allocates, starts
 * threads, logs, or reads or writes a global.
 *
 * A *block* is up to VARVE_TILE_ROWS KV rows of one KV head, given as a list of row pointers, so
 * that pages, strides and dropped rows cost one pointer load per row and kernels know nothing of
 * segments. Its *queries* are the (query, head of the group) pairs that attend to that KV head.
 *
 * There are two ways through a block, chosen by the plan from the number of queries and the table:
 *   direct (few queries)   score -> softmax -> fold              straight from the stored bytes
 *   tiled  (many queries)  unpackk -> tilescore -> softmax -> unpackv -> tilefold
 *                          each row decoded once, then shared by all queries of the tile;
 *                          packk -> packscore and packv -> packfold instead where integers are
 *                          multiplied faster
 * Both give the same arithmetic class (docs/NUMERICS.md): `exact` products of F32 Q, or `q8`
 * integer dot products. Class `fast` is tiled only:
 *   pairk -> pairscore -> softmax -> pairv -> pairfold, products of bfloat16
 *
 * Common rules. Pointers given do not overlap, unless V rows are views of K rows (both read only).
 * Row pointers need no alignment; no kernel reads a byte before or past a row. Scratch buffers
 * (q, s, o, tiles) are 64-byte aligned and their leading dimensions are multiples of 16 floats;
 * what is said to be "padding" in them may be written and must not be relied on.
 */
#ifndef VARVE_KERNEL_KERNEL_H
#define VARVE_KERNEL_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/isa.h"
#include "format/format.h"

#define VARVE_PAIRED 32    /* paired values come in such blocks, the last one filled with zeros */
#define VARVE_TILE_ROWS 64 /* KV rows per block: leading dimension of scores and of the K tile */

/* The queries of a block. `f` is set for exact, `pair` for fast, the others for q8. */
struct varve_queries {
    int32_t n;          /* number of query rows, >= 1 */
    int32_t head_dim;   /* DK */
    int32_t ld;         /* leading dimension of f, i and fi in elements: DK rounded up to 16 */
    int32_t n_block;    /* DK / 32 for q8 */
    const float *f;     /* [n][ld] F32 queries; columns DK..ld-1 are zero */
    const int8_t *i;    /* [n][ld] Q in 8 bits, |i| <= 127; columns DK..ld-1 are zero */
    const float *fi;    /* [n][ld] the same integers as F32, for the tile kernels */
    const float *d;     /* [n][n_block] query value = d * i */
    const int32_t *sum; /* [n][n_block] sum of i over the block */
    int32_t ld_pair;    /* DK rounded up to VARVE_PAIRED, halved */
    /* [n][ld_pair] Q in bfloat16, nearest-even, denormals zero: word j holds values 2 j (low) and
     * 2 j + 1; zeros past DK */
    const uint32_t *pair;
};

/* Rows that will be asked for soon, at `offset` of each: hints to fetch into L2, a few at a time
 * between the kernel's own rows, because many requests at once wait for each other. May be of
 * another format; n 0: none. */
struct varve_ahead {
    const uint8_t *const *rows;
    int64_t offset;
    int32_t n, bytes; /* rows, of two blocks at most; bytes of each */
};

/* score: s[a][r] = q_a . k_r for a < n, r < n_row; nothing else of s is written.
 *   exact: F32 products and sums of f with the row's values (F16 and BF16 are exact in F32).
 *   q8:    s = sum over blocks b of  d_a[b] * ( dk_r[b] * I  +  mk_r[b] * sum_a[b] ),
 *          I = the exact integer sum of i * qk over the block.
 * n_row 1..VARVE_TILE_ROWS. No scale, mask or softcap here. */
struct varve_score_args {
    const struct varve_format_traits *format; /* of K */
    const struct varve_queries *q;
    const uint8_t *const *rows;
    int32_t n_row;
    float *s; /* [n][VARVE_TILE_ROWS] */
    struct varve_ahead ahead;
};
typedef void varve_score_fn(const struct varve_score_args *args);

/* fold: o[a][d] = alpha[a] * o[a][d] + sum over r < n_row of p[a][r] * v_r[d], in F32 with F32 p,
 * v_r[d] the decoded value. Where alpha[a] is 0, o[a] is not read (it may hold anything).
 * If `sparse`, a term whose p is exactly 0 is not formed, so that V may hold NaN or infinity there;
 * otherwise no p of a visible row is skipped and V is finite as far as the caller knows.
 * Columns DV..ld-1 of o are padding. */
struct varve_fold_args {
    const struct varve_format_traits *format; /* of V */
    int32_t n;                                /* queries */
    int32_t head_dim;                         /* DV */
    int32_t ld;                               /* leading dimension of o: DV rounded up to 16 */
    int32_t n_row;
    bool sparse;
    const uint8_t *const *rows;
    const float *p;     /* [n][VARVE_TILE_ROWS] */
    const float *alpha; /* [n] */
    float *o;           /* [n][ld] */
    struct varve_ahead ahead;
};
typedef void varve_fold_fn(const struct varve_fold_args *args);

/* foldq: fold in class q8, for quantized formats. No p is negative. Per query and block of 32
 * columns, with P = max(largest p[a][r], 2^-100) and D = max(largest |d_r|, 2^-100) of the rows of
 * which a term is formed,
 *     u_r  = nearest-even(p[a][r] * (32767 / P)),   t_r = nearest-even(d_r * (32767 / D)),
 *     w_r  = floor(u_r t_r / 2^15 + 1/2),           step = P * (D * FOLDQ_STEP),
 *     o    = alpha * o + step * (sum of w_r * q_r) + (sum of p[a][r] * m_r),
 * the sum of w q an exact integer below 2^31. Every ISA gives the same w. Where some p or d is NaN
 * or some d infinite, the 32 columns are NaN or infinite. All else as fold. */
#define FOLDQ_STEP (32768.0f / (32767.0f * 32767.0f))
typedef void varve_foldq_fn(const struct varve_fold_args *args);

/* unpackk: a block of K rows, decoded and transposed: column r of t is row r.
 *   float formats:     t[d][r] = value.
 *   quantized formats: t[d][r] = the integer q as F32; dk[b][r], mk[b][r] its block's d and m (mk
 * is written only for formats with has_min). Columns n_row .. (n_row rounded up to 16) - 1 are set
 * to zero; the rest is padding. */
struct varve_unpackk_args {
    const struct varve_format_traits *format;
    int32_t head_dim;
    int32_t n_row;
    const uint8_t *const *rows;
    float *t;  /* [DK][VARVE_TILE_ROWS] */
    float *dk; /* [DK / 32][VARVE_TILE_ROWS] */
    float *mk;
    struct varve_ahead ahead;
};
typedef void varve_unpackk_fn(const struct varve_unpackk_args *args);

/* packk: a block of quantized K rows for packscore: byte i of x[j][r] is q + 128 of value 4 j + i
 * of row r. dk and mk as unpackk, zeros past the last row included; there x may be anything. */
struct varve_packk_args {
    const struct varve_format_traits *format;
    int32_t head_dim;
    int32_t n_row;
    const uint8_t *const *rows;
    uint32_t *x; /* [DK / 4][VARVE_TILE_ROWS] */
    float *dk;   /* [DK / 32][VARVE_TILE_ROWS] */
    float *mk;
};
typedef void varve_packk_fn(const struct varve_packk_args *args);

/* unpackv: v[r][d] = decoded value, for r < n_row; columns DV..ld-1 are set to zero. */
struct varve_unpackv_args {
    const struct varve_format_traits *format;
    int32_t head_dim;
    int32_t ld; /* DV rounded up to 16 */
    int32_t n_row;
    const uint8_t *const *rows;
    float *v; /* [n_row][ld] */
    struct varve_ahead ahead;
};
typedef void varve_unpackv_fn(const struct varve_unpackv_args *args);

/* packv: a block of quantized V rows for packfold: x[b][j][c] = q of column 32 b + c of the rows
 * 2 j and 2 j + 1. Only pairs with a row below n_row are written; past the last row dv and mv are
 * zero (mv only with has_min) and q may be anything. */
struct varve_packv_args {
    const struct varve_format_traits *format;
    int32_t head_dim;
    int32_t n_row;
    const uint8_t *const *rows;
    int16_t (*x)[2]; /* [DV / 32][VARVE_TILE_ROWS / 2][32] */
    float *dv;       /* [DV / 32][VARVE_TILE_ROWS] */
    float *mv;
    struct varve_ahead ahead;
};
typedef void varve_packv_fn(const struct varve_packv_args *args);

/* tilescore: as score, from an unpacked K tile. Slot `exact`: s = sum over d of f * t. Slot `q8`:
 * the formula of score q8 with fi and t, integer sums exact (|I| < 2^24); mk NULL without minimum.
 * Columns up to n_row rounded up to 16 may be written. */
struct varve_tilescore_args {
    const struct varve_queries *q;
    const float *t, *dk, *mk; /* as unpackk wrote them */
    int32_t n_row;
    float *s; /* [n][VARVE_TILE_ROWS] */
};
typedef void varve_tilescore_fn(const struct varve_tilescore_args *args);

/* packscore: as tilescore q8, from a packed block. */
struct varve_packscore_args {
    const struct varve_queries *q;
    const uint32_t *x; /* as packk wrote them */
    const float *dk, *mk;
    int32_t n_row;
    float *s;                 /* [n][VARVE_TILE_ROWS] */
    struct varve_ahead ahead; /* rows of K: packing has no time for them */
};
typedef void varve_packscore_fn(const struct varve_packscore_args *args);

/* pairk: a block of K rows for pairscore, float formats: half i (0 the lower) of x[j][r] is value
 * 2 j + i of row r in bfloat16, nearest-even. Denormals may be kept or be zero. Values from DK up
 * to the next multiple of VARVE_PAIRED are zero; past the last row x may be anything. */
struct varve_pairk_args {
    const struct varve_format_traits *format;
    int32_t head_dim;
    int32_t n_row;
    const uint8_t *const *rows;
    uint32_t *x; /* [DK rounded up to VARVE_PAIRED, halved][VARVE_TILE_ROWS] */
    struct varve_ahead ahead;
};
typedef void varve_pairk_fn(const struct varve_pairk_args *args);

/* pairscore: s = sum over d of q.pair * x, products exact, sums in F32 with any rounding of the
 * last place, denormals zero on the way in or out (docs/NUMERICS.md 3, fast). Columns as tilescore.
 */
struct varve_pairscore_args {
    const struct varve_queries *q;
    const uint32_t *x; /* as pairk wrote it */
    int32_t n_row;
    float *s; /* [n][VARVE_TILE_ROWS] */
};
typedef void varve_pairscore_fn(const struct varve_pairscore_args *args);

/* pairv: a block of V rows for pairfold: half i of x[j][d] is the value d of row 2 j + i, decoded
 * to F32 as unpackv does, then rounded as in pairk. Columns DV..ld-1, and rows from n_row up to the
 * next multiple of VARVE_PAIRED, are zero. */
struct varve_pairv_args {
    const struct varve_format_traits *format;
    int32_t head_dim;
    int32_t ld; /* DV rounded up to 16 */
    int32_t n_row;
    const uint8_t *const *rows;
    uint32_t *x; /* [n_row rounded up to VARVE_PAIRED, halved][ld] */
    struct varve_ahead ahead;
};
typedef void varve_pairv_fn(const struct varve_pairv_args *args);

/* pairfold: as fold, with p rounded to bfloat16 (nearest-even, denormals zero) and the values of
 * pairv; products and sums as pairscore. What is skipped if `sparse`, and o, as fold. */
struct varve_pairfold_args {
    int32_t n, head_dim, ld, n_row;
    bool sparse;
    const uint32_t *x;  /* as pairv wrote it */
    const float *p;     /* [n][VARVE_TILE_ROWS] */
    const float *alpha; /* [n] */
    float *o;           /* [n][ld] */
};
typedef void varve_pairfold_fn(const struct varve_pairfold_args *args);

/* tilefold: as fold, from an unpacked V tile v[r][d] with leading dimension ld. */
struct varve_tilefold_args {
    int32_t n, head_dim, ld, n_row;
    bool sparse;
    const float *v;     /* [n_row][ld] */
    const float *p;     /* [n][VARVE_TILE_ROWS] */
    const float *alpha; /* [n] */
    float *o;           /* [n][ld] */
};
typedef void varve_tilefold_fn(const struct varve_tilefold_args *args);

/* packfold: as foldq, with its weights, from a packed block. No p is negative. */
struct varve_packfold_args {
    int32_t n, head_dim, ld, n_row;
    bool sparse;
    const int16_t (*x)[2]; /* as packv wrote them; mv NULL without minimum */
    const float *dv, *mv;
    const float *p;     /* [n][VARVE_TILE_ROWS] */
    const float *alpha; /* [n] */
    float *o;           /* [n][ld] */
};
typedef void varve_packfold_fn(const struct varve_packfold_args *args);

/* softmax: one online-softmax step of each query over a block. For each of the n queries, with its
 * s, slope and bias:
 *   x_r  = s_r * scale;  if softcap != 0: x_r = softcap * tanh(s_r * scale / softcap)
 *   x_r += slope * bias_r   (bias NULL: nothing);  where bias_r is -inf, x_r = -inf whatever s_r is
 *   M    = max(*m, max x_r);  p_r = exp(x_r - M), exactly 0 where x_r is -inf
 *   *alpha = exp(*m - M)  (0 when *m is -inf),  *sum = *alpha * *sum + sum p_r,  *m = M
 * If M is still -inf (nothing visible yet): all p_r = 0, *alpha = 0, *sum = 0 and *m stays -inf.
 * s is replaced by p; entries n_row .. (n_row rounded up to 16) - 1 of s become 0, those behind are
 * padding.
 * exp is within 2 ulp for arguments in [-87, 0] and 0 or a denormal's worth below; exp(0) = 1. A
 * NaN among the visible scores makes M and the sum NaN, for this query only.
 */
struct varve_softmax_args {
    int32_t n, n_row;
    float scale, softcap;
    const float *slope;       /* [n]; not read where bias is NULL */
    const float *const *bias; /* NULL, or [n][n_row rounded up to 16], 64-byte aligned */
    float *s;                 /* [n][VARVE_TILE_ROWS] */
    float *m, *sum, *alpha;   /* [n] */
};
typedef void varve_softmax_fn(const struct varve_softmax_args *args);

/* quantq: one query row to q8: per block of 32, amax = max |x|, d = amax / 127,
 * i = nearest-even(x * (127 / amax)), both divisions in F32; amax 0 gives d = 0, i = 0. Every ISA
 * gives the same integers and the same d. fi = i as F32, sum = sum of i. A block with a NaN or an
 * infinity gets d = NaN, i = 0 and sum = 0; one so small that 127 / amax is infinite counts as
 * zero: d = 0, i = 0, sum = 0. */
struct varve_quantq_args {
    int32_t head_dim; /* a multiple of 32 */
    const float *x;   /* no alignment */
    int8_t *i;
    float *fi;
    float *d;
    int32_t *sum;
};
typedef void varve_quantq_fn(const struct varve_quantq_args *args);

/* encode: a row of F32 in a quantized format, byte for byte what ggml's encoders write
 * (docs/FORMATS.md 3 and 4). False, with anything in `row`, where a block is out of the ordinary:
 * it has a NaN or an infinity, or the reciprocal of its step overflows. The scalar kernel declines
 * none for the reference encoder, and every kernel declines the same rows for the others. */
struct varve_encode_args {
    const struct varve_format_traits *format;
    enum varve_encoder encoder;
    int64_t n;      /* a multiple of 32 */
    const float *x; /* no alignment */
    uint8_t *row;
};
typedef bool varve_encode_fn(const struct varve_encode_args *args);

/* narrow: F32 to F16, nearest-even, as IEEE has it: subnormals kept, too large gives infinity, NaN
 * some NaN. Every ISA gives the same bits but for the payload of NaN. True if all of h is finite.
 */
struct varve_narrow_args {
    int64_t n;
    const float *x; /* no alignment */
    uint16_t *h;    /* n of them are written */
};
typedef bool varve_narrow_fn(const struct varve_narrow_args *args);

/* fingerprint: XXH3, 64 bits, without a seed. */
struct varve_fingerprint_args {
    const uint8_t *row;
    size_t bytes;
};
typedef uint64_t varve_fingerprint_fn(const struct varve_fingerprint_args *args);

/* One slot of the table: a function and the ISA level it came from. */
#define VARVE_SLOT(type)    \
    struct {                \
        type *run;          \
        enum varve_isa isa; \
        const char *name;   \
    }

/* The kernels of one ISA mask: a value, so that two tables can live in one process. No slot is
 * NULL but foldq, packk, packv and encode of float formats, and pairk of quantized ones. The
 * per-format score slot is q8 for quantized formats and exact for float formats. */
struct varve_kernels {
    enum varve_isa isa;
    VARVE_SLOT(varve_score_fn) score[VARVE_FORMAT_COUNT];
    VARVE_SLOT(varve_fold_fn) fold[VARVE_FORMAT_COUNT];
    VARVE_SLOT(varve_foldq_fn) foldq[VARVE_FORMAT_COUNT];
    VARVE_SLOT(varve_unpackk_fn) unpackk[VARVE_FORMAT_COUNT];
    VARVE_SLOT(varve_unpackv_fn) unpackv[VARVE_FORMAT_COUNT];
    VARVE_SLOT(varve_packk_fn) packk[VARVE_FORMAT_COUNT];
    VARVE_SLOT(varve_packscore_fn) packscore;
    VARVE_SLOT(varve_packv_fn) packv[VARVE_FORMAT_COUNT];
    VARVE_SLOT(varve_packfold_fn) packfold;
    VARVE_SLOT(varve_encode_fn) encode[VARVE_FORMAT_COUNT];
    VARVE_SLOT(varve_tilescore_fn) tilescore[2]; /* [0] exact, [1] q8 */
    VARVE_SLOT(varve_tilefold_fn) tilefold;
    VARVE_SLOT(varve_pairk_fn) pairk[VARVE_FORMAT_COUNT];
    VARVE_SLOT(varve_pairscore_fn) pairscore;
    VARVE_SLOT(varve_pairv_fn) pairv[VARVE_FORMAT_COUNT];
    VARVE_SLOT(varve_pairfold_fn) pairfold;
    VARVE_SLOT(varve_softmax_fn) softmax;
    VARVE_SLOT(varve_quantq_fn) quantq;
    VARVE_SLOT(varve_narrow_fn) narrow;
    VARVE_SLOT(varve_fingerprint_fn) fingerprint;
};

#endif
