/* Whether a child should come to an end: asked for by the parent (Ctrl-C), because its time is up,
 * or because nobody takes its text any more. */
#ifndef VARVE_RUN_STOP_H
#define VARVE_RUN_STOP_H

#include <stdbool.h>
#include <stdint.h>

/* Monotonic time, in seconds. */
double stop_clock(void);

/* From now on SIGTERM asks for a stop, SIGINT and SIGPIPE do nothing, and the time is limited to
 * so many seconds (0: not). A terminal sends SIGINT to parent and child; the parent alone counts
 * how often. */
void stop_begin(int64_t limit);

/* Reasons; the last one is an error. */
#define STOP_SIGNAL "interrupted"
#define STOP_LIMIT "time limit"
#define STOP_OUTPUT "stdout cannot be written"

void stop_because(const char *reason); /* the first one counts */

/* Cheap enough to be asked after every node of a graph. */
bool stop_requested(void);
const char *stop_reason(void); /* NULL: go on */

#endif
