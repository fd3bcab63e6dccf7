/* The report as a page: a template (eval/report/) with the figures in it. */
#ifndef VARVE_EVAL_PAGE_H
#define VARVE_EVAL_PAGE_H

#include <jansson.h>
#include <stdbool.h>

/* root: what figures_json gives. fd: of --report's file. False after a line. */
bool page_write(const char *path, int fd, const json_t *root);

#endif
