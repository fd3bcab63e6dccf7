#include "file_at.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

const char *file_write_at(int fd, const void *data, size_t n_byte, off_t at) {
    for (const char *from = data; n_byte > 0;) {
        const ssize_t n = pwrite(fd, from, n_byte, at);
        if (n < 0 && errno != EINTR) {
            return strerror(errno);
        }
        const size_t done = n > 0 ? (size_t)n : 0;
        from += done;
        n_byte -= done;
        at += (off_t)done;
    }
    return NULL;
}

const char *file_read_at(int fd, void *data, size_t n_byte, off_t at) {
    for (char *to = data; n_byte > 0;) {
        const ssize_t n = pread(fd, to, n_byte, at);
        if (n == 0 || (n < 0 && errno != EINTR)) {
            return n == 0 ? "it is too short" : strerror(errno);
        }
        const size_t done = n > 0 ? (size_t)n : 0;
        to += done;
        n_byte -= done;
        at += (off_t)done;
    }
    return NULL;
}
