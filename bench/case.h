/* One case of the benchmark and what was measured of it. */
#ifndef VARVE_BENCH_CASE_H
#define VARVE_BENCH_CASE_H

#include "varve/varve.h"

#include <stdbool.h>
#include <stdint.h>

enum bench_kind {
    BENCH_DECODE,  /* few queries, a long cache, read from memory */
    BENCH_PREFILL, /* many queries at the end of the cache */
    BENCH_MIXED,   /* decode with a hot tier over the cold rows */
    BENCH_WRITE,   /* new rows quantized, their twins staged */
    BENCH_KIND_COUNT
};
const char *bench_kind_name(enum bench_kind kind);

struct bench_case {
    enum bench_kind kind;
    int32_t head_dim_k, head_dim_v, n_head, n_head_kv;
    int64_t n_row, n_query; /* rows in the cache; queries, or rows that are written */
    enum varve_format type_k, type_v;
    int32_t window, n_sink; /* of the hot tier; 0: none */
    int32_t n_thread;
    const char *isa; /* NULL: the best */
    enum varve_arithmetic arithmetic;
    int64_t n_layer;   /* caches that are walked in turn; 0: as many as it takes */
    int64_t page_rows; /* also lend the rows in segments of so many; 0: no */
    bool causal;       /* also with all rows visible, and hidden by positions instead of a mask */
    bool heads_apart;  /* the rows of a head lie together, as in test-backend-ops */
    double seconds;    /* for all rounds, about */
};

struct bench_result {
    struct bench_case c; /* n_layer filled in */
    const char *isa;
    const char *arithmetic; /* "exact", "q8" or "fast" */
    char kernel[512];
    const char *stock; /* which form of stock was the faster one */
    int n_round, n_stock_round;
    double ms, ms_min, stock_ms, speedup; /* of one layer */
    double stock_flash_ms;                /* FLASH_ATTN_EXT alone; NaN for writes */
    double bytes, gbps, read_gbps, read_ratio;
    double flops;                           /* 0: nothing is multiplied */
    double gflops, peak_gflops, peak_ratio; /* NaN without flops */
    double max_rel_err, stock_rel_err;
    double cold_ms, cold_ratio, twins_ms, view_ms; /* mixed; else NaN */
    double pages_ms, pages_ratio;                  /* with page_rows; else NaN */
    double full_ms, full_ratio;         /* of ms and all rows visible; causal, else NaN */
    double position_ms, position_ratio; /* the same of position_ms */
};

/* Measures a case. False after a line. */
bool bench_run(const struct bench_case *c, struct bench_result *result);

#endif
