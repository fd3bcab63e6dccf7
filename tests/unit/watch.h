/* A host that watches: counts lines and memory of a context. For the tests of the interface. */
#ifndef UNIT_WATCH_H
#define UNIT_WATCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "varve/varve.h"

struct host {
    int n_line;
    char line[512];
    enum varve_log_level level;
    int n_allocate; /* calls */
    int fail_at;    /* the call that returns NULL, counted from 1; 0: none */
    size_t n_live;  /* blocks not released yet */
    size_t live_bytes;
};

static inline void host_log(void *user, enum varve_log_level level, const char *line) {
    struct host *host = user;
    host->n_line++;
    host->level = level;
    snprintf(host->line, sizeof host->line, "%s", line);
}

static inline void *host_allocate(void *user, size_t bytes, size_t alignment) {
    struct host *host = user;
    assert_true(bytes > 0);
    assert_true(alignment > 0 && alignment <= 64 && (alignment & (alignment - 1)) == 0);
    if (++host->n_allocate == host->fail_at) return NULL;
    host->n_live++;
    host->live_bytes += bytes;
    return aligned_alloc(64, (bytes + 63) / 64 * 64);
}

static inline void host_release(void *user, void *block, size_t bytes) {
    struct host *host = user;
    assert_non_null(block);
    host->n_live--;
    host->live_bytes -= bytes;
    free(block);
}

static inline struct varve_context_params params_of(struct host *host) {
    return (struct varve_context_params){.struct_bytes = sizeof(struct varve_context_params),
                                         .allocate = host_allocate,
                                         .release = host_release,
                                         .log = host_log,
                                         .user = host};
}

static inline struct varve_context *context_of(struct host *host) {
    const struct varve_context_params params = params_of(host);
    struct varve_context *context = NULL;
    assert_int_equal(varve_context_create(&params, &context), VARVE_OK);
    assert_non_null(context);
    return context;
}

/* One error line since the last call, with the word in it. */
static inline void expect_line(struct host *host, const char *word) {
    if (host->n_line != 1 || strstr(host->line, word) == NULL || strchr(host->line, '\n') != NULL) {
        fail_msg("expected one line with \"%s\", got %d: \"%s\"", word, host->n_line, host->line);
    }
    assert_int_equal(host->level, VARVE_LOG_ERROR);
    host->n_line = 0;
}

#endif
