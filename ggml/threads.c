/* Threads, without bringing a second team of spinning ones into the host.
 *
 * A host with OpenMP has a team already: a parallel region with exactly its number of threads runs
 * on that team (any other number would make the runtime rebuild it). A host without has its own
 * workers, which spin between nodes; ours then sleep on a condition variable, and whoever wakes
 * late finds the tasks taken and nobody waiting for it. Both run the same loop below. */
#include "plugin.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>

#ifdef _OPENMP
#include <omp.h>
#endif

/* ---- tasks ---------------------------------------------------------------------------------- */

/* Counters on cache lines of their own: every thread writes them. */
struct phase_count {
    alignas(64) _Atomic int64_t next;
    alignas(64) _Atomic int64_t done;
};

struct run {
    const struct plugin_tasks *tasks;
    bool crowded; /* more threads than cores */
    struct phase_count phase[VARVE_PHASE_COUNT];
};

static void pause_cpu(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* A phase ends when its tasks have ended, not when all threads have arrived: a thread that comes
 * late holds up nobody. Where every thread has a core, the wait is short unless the other thread
 * has lost its core, and giving away ours as well would only make it longer; so yield late. Where
 * threads share cores, yield soon. */
static void wait_for_phase(const struct run *run, struct phase_count *count, int64_t n_task) {
    const int n_spin = run->crowded ? 200 : 40000; /* about 8 microseconds, and 1.5 ms */
    for (int i = 0; atomic_load_explicit(&count->done, memory_order_acquire) < n_task; i++) {
        if (i < n_spin) {
            pause_cpu();
        } else {
            sched_yield();
        }
    }
}

/* Runs tasks of one phase until there are none left to begin. */
static void work_phase(struct run *run, int32_t phase, int32_t worker) {
    const struct plugin_tasks *tasks = run->tasks;
    struct phase_count *count = &run->phase[phase];
    for (;;) {
        const int64_t task = atomic_fetch_add_explicit(&count->next, 1, memory_order_relaxed);
        if (task >= tasks->n_task[phase]) {
            return;
        }
        tasks->run(tasks->arg, phase, task, worker);
        atomic_fetch_add_explicit(&count->done, 1, memory_order_release);
    }
}

/* The end of the last phase is waited for where the threads are joined. */
static void work(struct run *run, int32_t worker) {
    for (int32_t phase = 0; phase < VARVE_PHASE_COUNT; phase++) {
        if (run->tasks->n_task[phase] == 0) {
            continue;
        }
        if (phase > 0) {
            wait_for_phase(run, &run->phase[phase - 1], run->tasks->n_task[phase - 1]);
        }
        work_phase(run, phase, worker);
    }
}

/* ---- a small pool --------------------------------------------------------------------------- */

struct plugin_threads {
    bool openmp;
    int32_t n_core;
    pthread_mutex_t lock;
    pthread_cond_t wake;      /* a new run, or stop */
    pthread_cond_t idle;      /* the last worker has left a run */
    struct run *run;          /* NULL: nothing to do */
    uint64_t generation;      /* counts runs */
    int32_t n_wanted;         /* workers that may join the run */
    _Atomic int32_t n_active; /* workers inside it; written with the lock held */
    bool stop;
    int32_t n_thread; /* started so far */
    int32_t n_thread_max;
    pthread_t *thread;
};

struct worker_start {
    struct plugin_threads *pool;
    int32_t worker; /* 1 .. */
};

static void *worker_main(void *arg) {
    const struct worker_start start = *(struct worker_start *)arg;
    free(arg);
    struct plugin_threads *pool = start.pool;
    uint64_t seen = 0;

    pthread_mutex_lock(&pool->lock);
    while (!pool->stop) {
        if (pool->run == NULL || pool->generation == seen || start.worker > pool->n_wanted) {
            pthread_cond_wait(&pool->wake, &pool->lock);
            continue;
        }
        seen = pool->generation;
        struct run *run = pool->run;
        pool->n_active++;
        pthread_mutex_unlock(&pool->lock);
        work(run, start.worker);
        pthread_mutex_lock(&pool->lock);
        if (--pool->n_active == 0) {
            pthread_cond_signal(&pool->idle);
        }
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

static bool start_worker(struct plugin_threads *pool) {
    struct worker_start *start = malloc(sizeof(*start));
    if (start == NULL) {
        return false;
    }
    *start = (struct worker_start){pool, pool->n_thread + 1};
    /* Signals belong to the host's threads. */
    sigset_t all;
    sigset_t old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    const int failed = pthread_create(&pool->thread[pool->n_thread], NULL, worker_main, start);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (failed != 0) {
        free(start);
        return false;
    }
    pool->n_thread++;
    return true;
}

/* Fewer threads than wanted are no error: results do not depend on their number. */
static void grow_pool(struct plugin_threads *pool, int32_t n_thread) {
    if (n_thread > pool->n_thread_max) {
        pthread_t *thread = realloc(pool->thread, (size_t)n_thread * sizeof(*thread));
        if (thread == NULL) {
            return;
        }
        pool->thread = thread;
        pool->n_thread_max = n_thread;
    }
    while (pool->n_thread < n_thread && start_worker(pool)) {}
}

static void run_on_pool(struct plugin_threads *pool, int32_t n_thread, struct run *run) {
    grow_pool(pool, n_thread - 1);
    pthread_mutex_lock(&pool->lock);
    pool->run = run;
    pool->generation++;
    pool->n_wanted = n_thread - 1;
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);

    work(run, 0);

    pthread_mutex_lock(&pool->lock);
    pool->run = NULL; /* nobody joins any more */
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; i < 2000 && pool->n_active > 0; i++) {
        pause_cpu(); /* mostly the last task is about to end */
    }
    pthread_mutex_lock(&pool->lock);
    while (pool->n_active > 0) {
        pthread_cond_wait(&pool->idle, &pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
}

/* ---- interface ------------------------------------------------------------------------------ */

struct plugin_threads *threads_create(void) {
    struct plugin_threads *threads = calloc(1, sizeof(*threads));
    if (threads == NULL) {
        return NULL;
    }
#ifdef _OPENMP
    threads->openmp = host_has_openmp();
#endif
    cpu_set_t cores;
    threads->n_core = sched_getaffinity(0, sizeof(cores), &cores) == 0 ? CPU_COUNT(&cores) : 1;
    pthread_mutex_init(&threads->lock, NULL);
    pthread_cond_init(&threads->wake, NULL);
    pthread_cond_init(&threads->idle, NULL);
    return threads;
}

void threads_destroy(struct plugin_threads *threads) {
    if (threads == NULL) {
        return;
    }
    pthread_mutex_lock(&threads->lock);
    threads->stop = true;
    pthread_cond_broadcast(&threads->wake);
    pthread_mutex_unlock(&threads->lock);
    for (int32_t i = 0; i < threads->n_thread; i++) {
        pthread_join(threads->thread[i], NULL);
    }
    pthread_cond_destroy(&threads->idle);
    pthread_cond_destroy(&threads->wake);
    pthread_mutex_destroy(&threads->lock);
    free(threads->thread);
    free(threads);
}

static void run_on_team(int32_t n_thread, struct run *run) {
#ifdef _OPENMP
#pragma omp parallel num_threads(n_thread)
    work(run, omp_get_thread_num());
#else
    (void)n_thread;
    work(run, 0);
#endif
}

bool threads_pay(const struct plugin_threads *threads, double microseconds) {
    /* Handing out tasks takes about 8 microseconds on a team that is awake, and 25 to wake sleepers
     * (best of 300, 2 cores); half of the work must be worth more than that. */
    return microseconds > 2.0 * (threads->openmp ? 8.0 : 25.0);
}

/* The workers of a host without OpenMP spin for tens of milliseconds before they sleep, each on a
 * core that one of ours wants. Where tasks outlast several time slices, threads of ours in greater
 * number get more of the cores: with as many again as the host has, half of them, with three times
 * as many three quarters. */
enum { crowd = 3 };
static const double crowd_pays_microseconds = 5000.0;

int32_t threads_most(const struct plugin_threads *threads, int32_t n_thread) {
    const bool may_crowd = !threads->openmp && n_thread > 1 && n_thread <= INT32_MAX / crowd;
    return may_crowd ? crowd * n_thread : n_thread;
}

int32_t threads_wanted(const struct plugin_threads *threads, int32_t n_thread,
                       double microseconds) {
    if (!threads_pay(threads, microseconds)) {
        return 1;
    }
    const bool is_long = microseconds / n_thread >= crowd_pays_microseconds;
    return is_long ? threads_most(threads, n_thread) : n_thread;
}

void threads_run(struct plugin_threads *threads, int32_t n_thread,
                 const struct plugin_tasks *tasks) {
    struct run run = {.tasks = tasks, .crowded = n_thread > threads->n_core};
    if (n_thread <= 1) {
        work(&run, 0);
    } else if (threads->openmp) {
        run_on_team(n_thread, &run);
    } else {
        run_on_pool(threads, n_thread, &run);
    }
}
