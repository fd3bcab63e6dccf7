/* llama.cpp's log: kept silent, but for the error that ends a run and for what varve says. */
#ifndef VARVE_RUN_LOG_H
#define VARVE_RUN_LOG_H

void log_begin(void);

/* The first error since the beginning or since it was last taken, without line end; it tells most,
 * later ones repeat that something failed. */
const char *log_take_error(void);

#endif
