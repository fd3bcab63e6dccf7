/* The child's side of a run. */
#ifndef VARVE_RUN_WORKER_H
#define VARVE_RUN_WORKER_H

/* A child_work; the job is a struct run_job. Does it: text to stdout, progress and complaints to
 * stderr, the report as JSON into a file descriptor. Returns the exit code. To be called once, in a
 * process of its own, after stop_on_signal. */
int worker_run(const void *job, int report);

#endif
