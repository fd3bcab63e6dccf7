#include "json_file.h"

#include "args.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int json_file_open(const char *path) {
    const int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0) {
        cli_say("--json %s: cannot be written: %s", path, strerror(errno));
    }
    return fd;
}

static bool complain(const char *path, int reason) {
    cli_say("--json %s: the figures could not be written: %s", path, strerror(reason));
    return false;
}

bool json_file_write(const char *path, int fd, json_t *root) {
    /* EINVAL and ESPIPE: no file but a device */
    const bool is_empty = (ftruncate(fd, 0) == 0 || errno == EINVAL) &&
                          (lseek(fd, 0, SEEK_SET) == 0 || errno == ESPIPE);
    errno = 0;
    const bool ok = is_empty && root != NULL && json_dumpfd(root, fd, JSON_INDENT(2)) == 0 &&
                    write(fd, "\n", 1) == 1;
    return ok || complain(path, errno);
}

bool json_file_close(const char *path, int fd) { return close(fd) == 0 || complain(path, errno); }

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
