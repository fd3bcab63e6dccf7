#include "progress.h"

#include "stop.h"

#include <stdio.h>
#include <unistd.h>

static const double redraw_seconds = 0.3;

void progress_begin(struct progress *p, enum progress_kind kind, int32_t n_total) {
    *p = (struct progress){.kind = kind,
                           .n_total = n_total,
                           .began = stop_clock(),
                           .n_percent = 10,
                           .terminal = isatty(STDERR_FILENO) == 1};
    p->batch_began = p->drawn = p->began;
}

/* A token costs more the more tokens are before it: a straight line through the costs seen at the
 * beginning and last. The costs of single tokens scatter more than they grow: their mean. */
static double seconds_left(const struct progress *p, double done, double spent) {
    const double rest = p->n_total - done;
    if (p->kind == PROGRESS_COMPARISON) {
        return rest * spent / done;
    }
    double slope = 0;
    if (p->last.at > p->first.at && p->last.seconds > p->first.seconds) {
        slope = (p->last.seconds - p->first.seconds) / (p->last.at - p->first.at);
    }
    return rest * (p->last.seconds + slope * (done + rest / 2 - p->last.at));
}

static void draw(const struct progress *p, double done) {
    const double spent = stop_clock() - p->began;
    fprintf(stderr, "%s%s %3.0f %%, %.0f of %d tokens",
            p->terminal ? "\r" : "varve: ", p->kind == PROGRESS_PROMPT ? "prompt" : "comparison",
            100 * done / p->n_total, done, p->n_total);
    if (done > 0) {
        fprintf(stderr, ", %.1f tokens/s", done / spent);
    }
    if (p->n_done > 0 && done < p->n_total) {
        const double left = seconds_left(p, done, spent);
        fprintf(stderr, left < 100 ? ", %.0f s left" : ", %.1f min left",
                left < 100 ? left : left / 60);
    }
    fputs(p->terminal ? "\033[K" : "\n", stderr);
}

void progress_batch(struct progress *p, int32_t n_token) {
    p->n_batch = n_token;
    p->n_tick = 0;
}

void progress_tick(struct progress *p) {
    p->n_tick++;
    const double now = stop_clock();
    if (!p->terminal || p->n_batch == 0 || now - p->drawn < redraw_seconds) {
        return;
    }
    p->drawn = now;
    double part = p->n_tick_batch > 0 ? (double)p->n_tick / (double)p->n_tick_batch : 0;
    part = part < 1 ? part : 1;
    draw(p, p->n_done + part * p->n_batch);
}

void progress_advance(struct progress *p) {
    const double now = stop_clock();
    p->last =
        (struct progress_cost){(now - p->batch_began) / p->n_batch, p->n_done + 0.5 * p->n_batch};
    if (p->n_done == 0) {
        p->first = p->last;
        p->n_tick_batch = p->n_tick;
    }
    p->n_done += p->n_batch;
    p->n_batch = 0;
    p->batch_began = now;
    const int32_t percent = (int32_t)(100.0 * p->n_done / p->n_total);
    const bool is_due = now - p->drawn >= redraw_seconds || p->n_done == p->n_total;
    if (!p->terminal && percent >= p->n_percent && is_due) {
        p->n_percent = percent / 10 * 10 + 10;
        p->drawn = now;
        draw(p, p->n_done);
    }
}

void progress_end(struct progress *p) {
    if (p->terminal && p->drawn > p->began) {
        fputs("\r\033[K", stderr);
    }
}

double progress_seconds(const struct progress *p) { return p->batch_began - p->began; }
