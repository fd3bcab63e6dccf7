#include "stop.h"

#include <signal.h>
#include <stddef.h>
#include <time.h>

static volatile sig_atomic_t asked;
static const char *reason;
static double deadline; /* 0: none; children inherit it */

double stop_clock(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void on_signal(int number) {
    (void)number;
    asked = 1;
}

void stop_after(int64_t seconds) { deadline = stop_clock() + (double)seconds; }

void stop_on_signal(void) {
    const struct sigaction ask = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGTERM, &ask, NULL);
    sigaction(SIGINT, &ignore, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
}

void stop_because(const char *why) {
    if (reason == NULL) {
        reason = why;
    }
}

bool stop_requested(void) {
    if (asked) {
        stop_because(STOP_SIGNAL);
    } else if (deadline > 0 && stop_clock() > deadline) {
        stop_because(STOP_LIMIT);
    }
    return reason != NULL;
}

const char *stop_reason(void) {
    stop_requested();
    return reason;
}
