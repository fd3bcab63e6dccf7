/* What is UTF-8 (RFC 3629). */
#ifndef VARVE_RUN_UTF8_H
#define VARVE_RUN_UTF8_H

#include <stddef.h>

/* Length of the character at the beginning of n bytes, 0 if there is none. */
size_t utf8_length(const char *text, size_t n);

/* Bytes up to the first that is not UTF-8, n if all are. */
size_t utf8_prefix(const char *text, size_t n);

#endif
