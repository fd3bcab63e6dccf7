#include "json_file.h"

#include "out_file.h"
#include "utf8.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

json_t *json_file_string(const char *text, size_t n_byte) {
    static const char replacement[] = "\xef\xbf\xbd";
    char *clean = malloc(3 * n_byte + 1); /* a byte becomes three at most */
    if (clean == NULL) {
        return NULL;
    }
    size_t n = 0;
    for (size_t i = 0; i < n_byte;) {
        const size_t length = utf8_length(text + i, n_byte - i);
        memcpy(clean + n, length > 0 ? text + i : replacement, length > 0 ? length : 3);
        n += length > 0 ? length : 3;
        i += length > 0 ? length : 1;
    }
    json_t *string = json_stringn(clean, n);
    free(clean);
    return string;
}

json_t *json_file_text(const char *text) {
    return text != NULL ? json_file_string(text, strlen(text)) : json_null();
}
