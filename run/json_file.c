#include "json_file.h"

#include "out_file.h"

#include <errno.h>
#include <stdint.h>
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

/* Length of the UTF-8 character at the beginning of n bytes, 0 if there is none. */
static size_t utf8_length(const unsigned char *at, size_t n) {
    static const struct {
        unsigned char mask, lead;
        uint32_t least;
    } forms[] = {{0x80, 0x00, 0}, {0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};
    for (size_t length = 1; length <= 4 && length <= n; length++) {
        if ((at[0] & forms[length - 1].mask) != forms[length - 1].lead) {
            continue;
        }
        uint32_t code = at[0] & (unsigned char)~forms[length - 1].mask;
        for (size_t i = 1; i < length; i++) {
            if ((at[i] & 0xc0) != 0x80) {
                return 0;
            }
            code = code << 6 | (at[i] & 0x3f);
        }
        const bool valid = code >= forms[length - 1].least && code <= 0x10ffff &&
                           !(code >= 0xd800 && code <= 0xdfff);
        return valid ? length : 0;
    }
    return 0;
}

json_t *json_file_string(const char *text, size_t n_byte) {
    static const char replacement[] = "\xef\xbf\xbd";
    char *clean = malloc(3 * n_byte + 1); /* a byte becomes three at most */
    if (clean == NULL) {
        return NULL;
    }
    size_t n = 0;
    for (size_t i = 0; i < n_byte;) {
        const size_t length = utf8_length((const unsigned char *)text + i, n_byte - i);
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
