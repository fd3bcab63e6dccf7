#include "json_file.h"

#include "out_file.h"

#include <errno.h>
#include <stdio.h>

static const char option[] = "--json";

int json_file_open(const char *path) { return out_file_open(option, path); }

bool json_file_write(const char *path, int fd, json_t *root) {
    FILE *to = out_file_begin(option, path, fd);
    if (to == NULL) {
        return false;
    }
    errno = 0;
    const bool ok = root != NULL && json_dumpf(root, to, JSON_INDENT(2)) == 0;
    return out_file_end(option, path, to, ok && fputc('\n', to) != EOF);
}

bool json_file_close(const char *path, int fd) { return out_file_close(option, path, fd); }
