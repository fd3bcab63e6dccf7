/* The file of --json, written at the end of a long run (out_file.h). */
#ifndef VARVE_RUN_JSON_FILE_H
#define VARVE_RUN_JSON_FILE_H

#include <jansson.h>
#include <stdbool.h>

/* Negative after a line. */
int json_file_open(const char *path);

/* Replaces the content. False after a line. May be called again. */
bool json_file_write(const char *path, int fd, json_t *root);

/* False after a line. */
bool json_file_close(const char *path, int fd);

/* Text of any bytes as a JSON string: what is not UTF-8 becomes U+FFFD. */
json_t *json_file_string(const char *text, size_t n_byte);

/* The same of a C string; NULL becomes null. */
json_t *json_file_text(const char *text);

#endif
