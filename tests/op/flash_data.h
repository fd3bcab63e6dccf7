/* The tensors of a case, and the same as a problem for the oracle. */
#ifndef VARVE_TEST_FLASH_DATA_H
#define VARVE_TEST_FLASH_DATA_H

#include "flash_case.h"
#include "ggml-backend.h"
#include "varve/varve.h"

struct flash_data {
    const struct flash_case *c;
    struct ggml_context *ctx;
    ggml_backend_buffer_t buffer; /* NULL where the context itself has the memory */
    struct ggml_tensor *q;
    struct ggml_tensor *k[FLASH_PARTS], *v[FLASH_PARTS]; /* all rows of a part; NULL: no rows */
    struct ggml_tensor *mask[FLASH_PARTS];               /* of all rows of a part, or NULL */
    struct ggml_tensor *sinks;                           /* or NULL */
    struct ggml_tensor *whole_mask; /* [all rows, n_query, ..]: part 0, then part 1; or NULL */
    int64_t n_rows[FLASH_PARTS];
};

/* Everything drawn from the case's seed. */
void flash_data_create(struct flash_data *data, const struct flash_case *c);
/* Overwrites the K and V rows that nobody sees with NaN. */
void flash_data_poison(struct flash_data *data);
void flash_data_destroy(struct flash_data *data);

/* Where a tensor's row (i1, i2, i3) begins; an index beyond ne[3] = 1 counts as 0. */
void *flash_row(const struct ggml_tensor *t, int64_t i1, int64_t i2, int64_t i3);

/* The problem over the first rows of each part, without sinks. Points into data and *p. */
struct flash_problem {
    struct varve_attention attention;
    struct varve_segment segments[FLASH_PARTS];
    struct varve_mask mask;
    struct varve_io io;
};
void flash_problem_of(const struct flash_data *data, const int64_t n_rows[FLASH_PARTS],
                      struct flash_problem *p);

/* A context for tensors: with memory of its own for `bytes` of data, or for their headers alone. */
struct ggml_context *flash_context(bool with_memory, size_t bytes, size_t n_tensor);

#endif
