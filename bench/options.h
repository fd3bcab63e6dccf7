/* Command line of `varve bench`. */
#ifndef VARVE_BENCH_OPTIONS_H
#define VARVE_BENCH_OPTIONS_H

#include "case.h"

enum { TYPES_MOST = 16 };

struct bench_options {
    bool kind[BENCH_KIND_COUNT];
    int64_t head_dim, head_dim_v; /* 0: as K's */
    int64_t kv_heads, q_heads;
    int64_t kv, queries; /* 0: not given */
    enum varve_format type_k[TYPES_MOST], type_v[TYPES_MOST];
    int n_type; /* pairs */
    bool has_tiers;
    int64_t window; /* of the hot tier; 0: none */
    int64_t threads, layers, page_rows;
    const char *isa;
    enum varve_arithmetic arithmetic;
    bool heads_apart, causal, sweep;
    double seconds; /* 0: not given */
    const char *json, *plot, *roofline;
};

/* Strings are those of argv. False after a line that says what is wrong. */
bool options_parse(int argc, char **argv, struct bench_options *options);

/* The cases that the options name, in their order. False after a line. The list is the caller's. */
bool options_cases(const struct bench_options *options, struct bench_case **cases, int *n_case);

#endif
