/* Rows of fixed size, chunk by chunk, in a file that a broken-off run leaves whole up to the last
 * chunk that was done. */
#ifndef VARVE_EVAL_STORE_H
#define VARVE_EVAL_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct store_shape {
    uint64_t key; /* of all that the content depends on */
    uint32_t row_bytes, figures_bytes;
    int32_t n_chunk, n_row; /* rows of one chunk */
};

struct store {
    const char *path; /* borrowed */
    int fd;           /* -1: not open */
    struct store_shape shape;
    int32_t n_done; /* chunks */
};

/* Opens or makes the file; one with another shape is an error. False after a line, as below. */
bool store_open(struct store *store, const char *path, const struct store_shape *shape);
/* A file that is there, with the rows that it has. */
bool store_open_read(struct store *store, const char *path);
void store_close(struct store *store);

bool store_write_row(struct store *store, int32_t chunk, int32_t row, const void *data);
bool store_read_rows(const struct store *store, int32_t chunk, int32_t row, int32_t n, void *data);

/* The next chunk is done, with some figures of its own; from here on it stays. */
bool store_end_chunk(struct store *store, const void *figures);
bool store_read_figures(const struct store *store, int32_t chunk, void *figures);

#endif
