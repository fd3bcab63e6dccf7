/* Cases of the test of varve_ggml_flash_attn_ext_with_state: shapes and options, drawn from a seed.
 *
 * A context has two parts, each with types of its own. A chain of calls attends to it: call i takes
 * the next n_rows[p][i] rows of part p. */
#ifndef VARVE_TEST_FLASH_CASE_H
#define VARVE_TEST_FLASH_CASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ggml.h"

enum { FLASH_CALLS_MAX = 17, FLASH_PARTS = 2 };

enum flash_mask {
    FLASH_MASK_NONE,
    FLASH_MASK_ZERO,    /* all visible */
    FLASH_MASK_HIDDEN,  /* a third is hidden */
    FLASH_MASK_SPARSE,  /* nearly all is hidden, so that some calls see nothing */
    FLASH_MASK_VALUES,  /* random values, some hidden */
    FLASH_MASK_QUERIES, /* some queries see nothing */
    FLASH_MASK_COUNT
};

enum flash_alloc {
    FLASH_ALLOC_CONTEXT, /* tensors lie in the memory of the context */
    FLASH_ALLOC_GRAPH,   /* no_alloc: ggml_gallocr places the nodes, and uses memory again */
    FLASH_ALLOC_BUFFER,  /* no_alloc: a back end's buffer for all */
    FLASH_ALLOC_COUNT
};

enum flash_output {
    FLASH_OUTPUT_FRESH,    /* each call has a new tensor */
    FLASH_OUTPUT_SHARED,   /* all calls write into one tensor */
    FLASH_OUTPUT_REDIRECT, /* data and strides of the nodes are changed after building */
    FLASH_OUTPUT_COUNT
};

struct flash_case {
    char name[32];
    uint64_t seed; /* of the data */
    int32_t dk, dv, n_head, n_head_kv, n_query, n_batch, n_call;
    int64_t n_rows[FLASH_PARTS][FLASH_CALLS_MAX];
    enum ggml_type k_type[FLASH_PARTS], v_type[FLASH_PARTS];
    enum flash_mask mask[FLASH_PARTS];
    bool mask_per_head[FLASH_PARTS], mask_per_batch[FLASH_PARTS];
    bool mask_copies; /* each call has a mask of its own; else views into one that is larger */
    bool interleaved; /* heads of a row side by side, as in llama.cpp's cache; else contiguous */
    bool shared_rows; /* K and V have ne[3] = 1 */
    bool empty_as_null;
    bool poison; /* rows that nobody sees hold NaN */
    float softcap, max_bias;
    bool sinks;
    int n_thread, n_thread_again, n_thread_max;
    enum flash_alloc alloc;
    enum flash_output output;
    bool state_with_o;
    bool state_in_graph; /* the state is a tensor of the graph that computes; else a leaf */
    bool graph_per_call; /* the state carries over from graph to graph */
    bool normalise;
    bool call_without_state;
    bool start_by_init; /* varve_ggml_state_init in place of `first` */
    int64_t offset;     /* bytes by which states and outputs lie beside a boundary of 64 */
    double tolerance;   /* absolute, of all differences; 0: none but the derived bounds */
    bool stock_in_f32;
};

/* ggml's type of one of varve's formats, which bear the same names. */
enum ggml_type flash_type(int format);

/* Cases by number: first those that are listed, then as many random ones as wanted. */
int flash_case_n_listed(void);
void flash_case_listed(int i, struct flash_case *c);
void flash_case_random(uint64_t seed, int i, struct flash_case *c);

int64_t flash_case_rows(const struct flash_case *c, int part, int n_call); /* of the first calls */
int64_t flash_case_all_rows(const struct flash_case *c);
bool flash_case_has_mask(const struct flash_case *c);
/* A line with shape and options. */
void flash_case_describe(const struct flash_case *c, char *text, size_t text_bytes);

#endif
