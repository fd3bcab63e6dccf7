#include "base/host.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static void *allocate_default(void *user, size_t bytes, size_t alignment) {
    (void)user;
    /* aligned_alloc wants a multiple of the alignment */
    return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

static void release_default(void *user, void *block, size_t bytes) {
    (void)user;
    (void)bytes;
    free(block);
}

struct varve_host varve_host_from(const struct varve_context_params *params) {
    struct varve_host host = {allocate_default, release_default, NULL, NULL};
    if (params == NULL) return host;
    if (params->allocate != NULL) {
        host.allocate = params->allocate;
        host.release = params->release;
    }
    host.log = params->log;
    host.user = params->user;
    return host;
}

void *varve_host_allocate(const struct varve_host *host, size_t bytes) {
    void *block = host->allocate(host->user, bytes, VARVE_ALIGN);
    if (block == NULL) {
        (void)varve_fail(host, VARVE_ERROR_MEMORY, "out of memory: %zu bytes", bytes);
    }
    return block;
}

void varve_host_release(const struct varve_host *host, void *block, size_t bytes) {
    if (block != NULL) host->release(host->user, block, bytes);
}

enum varve_status varve_fail(const struct varve_host *host, enum varve_status status,
                             const char *format, ...) {
    if (host != NULL && host->log != NULL) {
        char line[256];
        va_list args;
        va_start(args, format);
        (void)vsnprintf(line, sizeof line, format, args);
        va_end(args);
        host->log(host->user, VARVE_LOG_ERROR, line);
    }
    return status;
}
