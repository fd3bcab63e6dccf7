/* Reading and writing at a place of a file, in full: parent and children share its position. */
#ifndef VARVE_RUN_FILE_AT_H
#define VARVE_RUN_FILE_AT_H

#include <stddef.h>
#include <sys/types.h>

/* Both give NULL, or what went wrong. */
const char *file_write_at(int fd, const void *data, size_t n_byte, off_t at);
const char *file_read_at(int fd, void *data, size_t n_byte, off_t at);

#endif
