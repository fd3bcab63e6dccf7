/* A file that is written at the end of a long run: opened before it, so that a path that cannot be
 * written is an error at once, and emptied when there is something to write. `option` is the one
 * that the path was given with, for messages. */
#ifndef VARVE_RUN_OUT_FILE_H
#define VARVE_RUN_OUT_FILE_H

#include <stdbool.h>
#include <stdio.h>

/* Negative after a line. */
int out_file_open(const char *option, const char *path);

/* A stream that replaces the content; out_file_end closes it. NULL after a line. */
FILE *out_file_begin(const char *option, const char *path, int fd);

/* False after a line: also if ok is false, or if something could not be written. */
bool out_file_end(const char *option, const char *path, FILE *to, bool ok);

/* False after a line. */
bool out_file_close(const char *option, const char *path, int fd);

#endif
