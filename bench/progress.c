#include "progress.h"

#include "measure.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

static struct {
    int n_case, at;
    char title[160];
    double drawn;
} now;

static const double redraw_seconds = 0.2;

static int on_terminal(void) { return isatty(STDERR_FILENO) == 1; }

void progress_total(int n_case, double seconds) {
    now.n_case = n_case;
    now.at = 0;
    fprintf(stderr, "varve bench: %d %s, about %.0f s, more where stock is slow\n", n_case,
            n_case == 1 ? "case" : "cases", seconds);
}

void progress_next(void) { now.at++; }

void progress_case(const char *title, double seconds) {
    snprintf(now.title, sizeof now.title, "%s", title);
    if (on_terminal()) {
        fprintf(stderr, "\r\033[K%d of %d: %s, ", now.at, now.n_case, title);
        fprintf(stderr, isnan(seconds) ? "warming up" : "about %.0f s", seconds);
        fflush(stderr);
    } else if (!isnan(seconds)) {
        fprintf(stderr, "varve bench: %d of %d: %s, about %.0f s\n", now.at, now.n_case, title,
                seconds);
    }
    now.drawn = measure_seconds();
}

void progress_round(int n_done, double seconds_left) {
    if (!on_terminal() || measure_seconds() - now.drawn < redraw_seconds) return;
    now.drawn = measure_seconds();
    fprintf(stderr, "\r\033[K%d of %d: %s, %d %s done, %.0f s left", now.at, now.n_case, now.title,
            n_done, n_done == 1 ? "round" : "rounds", seconds_left);
    fflush(stderr);
}

void progress_clear(void) {
    if (on_terminal()) fputs("\r\033[K", stderr);
}
