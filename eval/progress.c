#include "progress.h"

#include "stop.h"

#include <stdio.h>
#include <unistd.h>

static bool on_terminal(void) { return isatty(STDERR_FILENO) == 1; }

static double redraw_seconds(void) { return on_terminal() ? 0.3 : 15; }

/* As if all configurations were as fast as those so far: the list is short and most are alike. */
static void draw(struct eval_progress *p) {
    const struct eval_job *job = p->job;
    const int32_t n_text = p->n_chunk - p->tasks->n_sequence;
    const int64_t n_each = n_text * job->options->n_ctx + p->tasks->n_token;
    const int64_t n_new = p->n_done - p->n_there;
    const double spent = job->spent + stop_clock() - p->began;
    p->drawn = stop_clock();
    fprintf(stderr, "%s%d of %d: %s, chunk %d of %d, %.0f %%",
            on_terminal() ? "\r" : "varve: ", job->number, job->n_run,
            job->config != NULL ? job->config->label : "reference",
            p->chunk < p->n_chunk ? p->chunk + 1 : p->n_chunk, p->n_chunk,
            100 * (double)p->n_done / (double)n_each);
    if (n_new + job->n_token > 0) {
        const double rate = (double)(n_new + job->n_token) / spent;
        const double left = (double)(n_each * (job->n_run - job->number + 1) - p->n_done) / rate;
        fprintf(stderr, ", %.1f tokens/s", rate);
        fprintf(stderr, left < 100 ? ", %.0f s left" : ", %.1f min left",
                left < 100 ? left : left / 60);
    }
    fputs(on_terminal() ? "\033[K" : "\n", stderr);
}

void eval_progress_begin(struct eval_progress *p, const struct eval_job *job, int32_t n_chunk,
                         int32_t n_there, const struct task_run *tasks, int32_t n_answered) {
    const int64_t n_token = n_there * job->options->n_ctx + task_run_tokens(tasks, n_answered);
    *p = (struct eval_progress){.job = job,
                                .tasks = tasks,
                                .n_chunk = n_chunk + tasks->n_sequence,
                                .chunk = n_there + n_answered,
                                .n_done = n_token,
                                .n_there = n_token,
                                .began = stop_clock(),
                                .drawn = stop_clock()};
}

void eval_progress_advance(struct eval_progress *p, int32_t n_token) {
    p->n_done += n_token;
    if (stop_clock() - p->drawn >= redraw_seconds()) {
        draw(p);
    }
}

void eval_progress_chunk(struct eval_progress *p) {
    p->chunk++;
    if (!on_terminal()) {
        draw(p);
    }
}

void eval_progress_end(const struct eval_progress *p) {
    if (on_terminal() && p->drawn > p->began) {
        fputs("\r\033[K", stderr);
    }
}
