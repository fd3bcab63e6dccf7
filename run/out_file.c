#include "out_file.h"

#include "args.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

int out_file_open(const char *option, const char *path) {
    const int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0) {
        cli_say("%s %s: cannot be written: %s", option, path, strerror(errno));
    }
    return fd;
}

static bool complain(const char *option, const char *path, int reason) {
    cli_say("%s %s: the figures could not be written: %s", option, path, strerror(reason));
    return false;
}

FILE *out_file_begin(const char *option, const char *path, int fd) {
    /* EINVAL and ESPIPE: no file but a device */
    const bool is_empty = (ftruncate(fd, 0) == 0 || errno == EINVAL) &&
                          (lseek(fd, 0, SEEK_SET) == 0 || errno == ESPIPE);
    const int copy = is_empty ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
    FILE *to = copy >= 0 ? fdopen(copy, "w") : NULL;
    if (to == NULL) {
        complain(option, path, errno);
        if (copy >= 0) {
            close(copy);
        }
    }
    return to;
}

bool out_file_end(const char *option, const char *path, FILE *to, bool ok) {
    ok = ok && ferror(to) == 0 && fflush(to) == 0;
    const int reason = errno;
    fclose(to);
    return ok || complain(option, path, reason);
}

bool out_file_close(const char *option, const char *path, int fd) {
    return close(fd) == 0 || complain(option, path, errno);
}
