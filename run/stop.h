/* Whether a run should come to an end: asked for by the parent (Ctrl-C), because its time is up,
 * or because nobody takes its text any more. */
#ifndef VARVE_RUN_STOP_H
#define VARVE_RUN_STOP_H

#include <stdbool.h>
#include <stdint.h>

/* Monotonic time, in seconds. */
double stop_clock(void);

/* Limits the time from now on, also that of children to come. */
void stop_after(int64_t seconds);

/* In a child: from now on SIGTERM asks for a stop, SIGINT and SIGPIPE do nothing. A terminal sends
 * SIGINT to parent and child; the parent alone counts how often. */
void stop_on_signal(void);

/* Reasons; the last one is an error. */
#define STOP_SIGNAL "interrupted"
#define STOP_LIMIT "time limit"
#define STOP_OUTPUT "stdout cannot be written"

void stop_because(const char *reason); /* the first one counts */

/* Cheap enough to be asked after every node of a graph. */
bool stop_requested(void);
const char *stop_reason(void); /* NULL: go on */

#endif
