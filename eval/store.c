#include "store.h"

#include "args.h"
#include "file_at.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char magic[8] = "varve-e1";

/* Head, figures of all chunks, rows of all chunks. The head is renewed after the rest of a chunk.
 */
struct head {
    char magic[8];
    struct store_shape shape;
    int32_t n_done, reserved;
};

static bool complain(const struct store *s, const char *what, const char *reason) {
    cli_say("cannot %s %s: %s", what, s->path, reason);
    return false;
}

static off_t figures_at(const struct store *s, int32_t chunk) {
    return (off_t)sizeof(struct head) + chunk * (off_t)s->shape.figures_bytes;
}

static off_t row_at(const struct store *s, int32_t chunk, int32_t row) {
    return figures_at(s, s->shape.n_chunk) +
           ((off_t)chunk * s->shape.n_row + row) * (off_t)s->shape.row_bytes;
}

static bool write_at(const struct store *s, const void *data, size_t n_byte, off_t at) {
    const char *reason = file_write_at(s->fd, data, n_byte, at);
    return reason == NULL || complain(s, "write", reason);
}

static bool read_at(const struct store *s, void *data, size_t n_byte, off_t at) {
    const char *reason = file_read_at(s->fd, data, n_byte, at);
    return reason == NULL || complain(s, "read", reason);
}

static bool write_head(const struct store *s) {
    struct head head = {.shape = s->shape, .n_done = s->n_done};
    memcpy(head.magic, magic, sizeof(magic));
    return write_at(s, &head, sizeof(head), 0);
}

static bool read_head(struct store *s) {
    struct head head;
    struct stat info;
    if (!read_at(s, &head, sizeof(head), 0)) {
        return false;
    }
    if (memcmp(head.magic, magic, sizeof(magic)) != 0) {
        return complain(s, "use", "it is no file of varve eval");
    }
    s->shape = head.shape;
    s->n_done = head.n_done;
    if (fstat(s->fd, &info) != 0 || info.st_size < row_at(s, s->n_done, 0)) {
        return complain(s, "use", "it is too short");
    }
    return true;
}

bool store_open(struct store *s, const char *path, const struct store_shape *shape) {
    struct stat info;
    *s = (struct store){.path = path, .shape = *shape};
    s->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (s->fd < 0 || fstat(s->fd, &info) != 0) {
        return complain(s, "open", strerror(errno));
    }
    if (info.st_size == 0) {
        return write_head(s);
    }
    if (!read_head(s)) {
        return false;
    }
    if (memcmp(&s->shape, shape, sizeof(*shape)) != 0) {
        return complain(s, "go on with",
                        "it was made with another model, text or option; repeat those, or give "
                        "another folder with --work");
    }
    return true;
}

bool store_open_read(struct store *s, const char *path) {
    *s = (struct store){.path = path};
    s->fd = open(path, O_RDONLY | O_CLOEXEC);
    return s->fd >= 0 ? read_head(s) : complain(s, "open", strerror(errno));
}

void store_close(struct store *s) {
    if (s->fd >= 0) {
        close(s->fd);
        s->fd = -1;
    }
}

bool store_write_row(struct store *s, int32_t chunk, int32_t row, const void *data) {
    return write_at(s, data, s->shape.row_bytes, row_at(s, chunk, row));
}

bool store_read_rows(const struct store *s, int32_t chunk, int32_t row, int32_t n, void *data) {
    return read_at(s, data, (size_t)n * s->shape.row_bytes, row_at(s, chunk, row));
}

bool store_end_chunk(struct store *s, const void *figures) {
    if (!write_at(s, figures, s->shape.figures_bytes, figures_at(s, s->n_done))) {
        return false;
    }
    if (fdatasync(s->fd) != 0) {
        return complain(s, "write", strerror(errno));
    }
    s->n_done++;
    return write_head(s);
}

bool store_read_figures(const struct store *s, int32_t chunk, void *figures) {
    return read_at(s, figures, s->shape.figures_bytes, figures_at(s, chunk));
}
