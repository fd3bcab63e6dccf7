/* The parent's side of a run: each has a process of its own, since a back end is loaded for the
 * whole process, and since llama.cpp ends the process when something goes badly wrong. */
#ifndef VARVE_RUN_CHILD_H
#define VARVE_RUN_CHILD_H

#include <jansson.h>

/* From now on the first SIGINT or SIGTERM stops the run at hand gently and keeps later ones from
 * being started; the second one ends everything at once. */
void child_catch_signals(void);

/* The signal that came, 0: none. */
int child_signal(void);

/* Does a job in a process of its own, with a report as JSON into a file descriptor; returns the
 * exit code. */
typedef int (*child_work)(const void *job, int report);

/* Runs a job to its end; the name is for messages. The report is the caller's; NULL after a line,
 * or when a signal came before. */
json_t *child_run(child_work work, const void *job, const char *name);

#endif
