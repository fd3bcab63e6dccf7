/* What the host lends to the library: memory and a log. */
#ifndef VARVE_BASE_HOST_H
#define VARVE_BASE_HOST_H

#include <stddef.h>

#include "varve/varve.h"

#define VARVE_ALIGN 64 /* a cache line: no two threads' scratch shares one */

struct varve_host {
    void *(*allocate)(void *user, size_t bytes, size_t alignment);
    void (*release)(void *user, void *block, size_t bytes);
    void (*log)(void *user, enum varve_log_level level, const char *line);
    void *user;
};

/* Callbacks of params, or the C library's memory and silence where params is NULL or has NULLs. */
struct varve_host varve_host_from(const struct varve_context_params *params);

/* NULL when the host has no memory; one log line then. */
void *varve_host_allocate(const struct varve_host *host, size_t bytes);
void varve_host_release(const struct varve_host *host, void *block, size_t bytes);

/* Sends one line and returns `status`, so that a check is one statement. */
enum varve_status varve_fail(const struct varve_host *host, enum varve_status status,
                             const char *format, ...)
#ifdef __GNUC__
    __attribute__((format(printf, 3, 4)))
#endif
    ;

#endif
