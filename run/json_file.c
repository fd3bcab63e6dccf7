#include "json_file.h"

#include "args.h"

#include <errno.h>
#include <fcntl.h>
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
