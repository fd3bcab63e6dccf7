#include "rounds.h"

#include "measure.h"
#include "progress.h"

#include <math.h>

/* One sample of each; a round without the slow ones leaves NaN in their place. */
static void run_round(struct rounds *rounds, int i, bool with_slow) {
    if (rounds->begin != NULL) rounds->begin(rounds->user);
    for (int v = 0; v < rounds->n_variant; v++) {
        struct variant *const variant = rounds->variants[v];
        variant->sample_values[i] = NAN;
        if (variant->slow && !with_slow) continue;
        const double start = measure_seconds();
        variant->sample_values[i] = variant->sample(variant->user);
        variant->wall = measure_seconds() - start;
    }
}

static double wall(const struct rounds *rounds, bool slow) {
    double sum = 0;
    for (int v = 0; v < rounds->n_variant; v++) {
        if (rounds->variants[v]->slow == slow) sum += rounds->variants[v]->wall;
    }
    return sum;
}

static double time_left(const struct rounds *rounds, double spent) {
    const int n_slow = ROUNDS_STOCK_LEAST - rounds->n_slow_round;
    const int n = ROUNDS_LEAST - rounds->n_round;
    const double needed =
        (n_slow > 0 ? n_slow : 0) * wall(rounds, true) + (n > 0 ? n : 0) * wall(rounds, false);
    return fmax(rounds->seconds - spent, needed);
}

void rounds_run(struct rounds *rounds, const char *title) {
    rounds->n_round = rounds->n_slow_round = 0;
    progress_case(title, NAN);
    run_round(rounds, 0, true); /* the warm-up, overwritten by the first round */
    progress_case(title, time_left(rounds, 0));
    const double begin = measure_seconds();
    double slow_spent = 0;
    for (int i = 0; i < ROUNDS_MOST; i++) {
        const double spent = measure_seconds() - begin, slow = wall(rounds, true);
        const bool with_slow =
            rounds->n_slow_round < ROUNDS_STOCK_LEAST || slow_spent + slow <= rounds->seconds / 2;
        const double next = wall(rounds, false) + (with_slow ? slow : 0);
        if (i >= ROUNDS_LEAST && spent + next > rounds->seconds) break;
        run_round(rounds, i, with_slow);
        rounds->n_round = i + 1;
        rounds->n_slow_round += with_slow;
        slow_spent += with_slow ? wall(rounds, true) : 0;
        progress_round(rounds->n_round, time_left(rounds, measure_seconds() - begin));
    }
    progress_clear();
}

double rounds_ratio(const struct rounds *rounds, const struct variant *a, const struct variant *b) {
    double ratio[ROUNDS_MOST];
    for (int i = 0; i < rounds->n_round; i++) ratio[i] = a->sample_values[i] / b->sample_values[i];
    return measure_median(ratio, rounds->n_round);
}

double rounds_median(const struct rounds *rounds, const struct variant *v) {
    return measure_median(v->sample_values, rounds->n_round);
}
