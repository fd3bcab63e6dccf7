#include "check/check.h"

#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "check/tol.h"

/* ------------------------------------------------------------------------------------ reports */

enum { MAX_MESSAGE = 4 }; /* per kernel: the first failures tell the most */

void check_case(struct check *check, const char *format, ...) {
    va_list list;
    va_start(list, format);
    vsnprintf(check->what, sizeof check->what, format, list);
    va_end(list);
}

void check_fail(struct check *check, const char *format, ...) {
    if (check->n_failure++ >= MAX_MESSAGE) return;
    va_list list;
    va_start(list, format);
    printf("FAIL %s: %s: ", check->name, check->what);
    vprintf(format, list);
    printf("\n");
    va_end(list);
}

void check_near(struct check *check, const char *name, int a, int r, double got, double want,
                double tolerance) {
    if (fabs(got - want) <= tolerance) return;
    check_fail(check, "%s[%d][%d] is %.9g, expected %.9g within %.3g", name, a, r, got, want,
               tolerance);
}

/* ------------------------------------------------------------------------------------ crashes */

static sigjmp_buf crash_return;
static volatile sig_atomic_t crash_armed;

static void on_crash(int number) {
    if (!crash_armed) _exit(128 + number);
    siglongjmp(crash_return, number);
}

void check_guarded(struct check *check, void (*body)(struct check *, const void *),
                   const void *data) {
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
    enum { N_SIGNAL = sizeof signals / sizeof signals[0] };
    struct sigaction action, before[N_SIGNAL];
    memset(&action, 0, sizeof action);
    action.sa_handler = on_crash;
    for (int i = 0; i < N_SIGNAL; i++) sigaction(signals[i], &action, &before[i]);
    const int number = sigsetjmp(crash_return, 1);
    if (number == 0) {
        crash_armed = 1;
        body(check, data);
    } else {
        check_fail(check, "crashed: %s", strsignal(number));
    }
    crash_armed = 0;
    for (int i = 0; i < N_SIGNAL; i++) sigaction(signals[i], &before[i], NULL);
}

/* ------------------------------------------------------------------------------------- random */

uint32_t check_random(struct check *check) {
    check->random = check->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(check->random >> 32);
}

int check_range(struct check *check, int first, int last) {
    return first + (int)(check_random(check) % (uint32_t)(last - first + 1));
}

float check_unit(struct check *check) { return (float)(int32_t)check_random(check) * INPUT_UNIT; }

static int next_rows(const struct check *check, int n_row) {
    return check->brief && n_row >= 16 ? n_row + 12 : n_row + 1;
}

void check_blocks(struct check *check, const struct check_line *line, int n, check_block_fn *run,
                  check_time_fn *bench) {
    for (int i = 0; i < n; i++) {
        for (int n_row = 1; n_row <= VARVE_TILE_ROWS; n_row = next_rows(check, n_row))
            run(check, line, n_row);
    }
    if (check->bench) bench(check, line);
}

int check_queries(struct check *check) {
    enum { MOST = 20, STEP = 7 }; /* without a common divisor */
    if (!check->brief) return check_range(check, 1, MOST);
    return 1 + (int)(STEP * check->n_queries++ % MOST);
}

/* ------------------------------------------------------------------------------------- memory */

enum { MARGIN = 64 }; /* bytes around a buffer that are filled and compared */

struct region {
    uint8_t *start, *end; /* what may be accessed */
    uint8_t *from, *to;   /* what the last caller got */
};

static struct region regions[BUFFER_COUNT];
static uint8_t *forbidden;

static uint8_t *map(size_t bytes, int protection) {
    void *const p = mmap(NULL, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        perror("mmap");
        exit(2);
    }
    return p;
}

static struct region *get_region(int id, size_t bytes) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t capacity = (bytes + 2 * MARGIN + page - 1) / page * page;
    struct region *const region = &regions[id];
    if (region->start != NULL && (size_t)(region->end - region->start) >= capacity) return region;
    if (region->start != NULL) {
        munmap(region->start - page, (size_t)(region->end - region->start) + 2 * page);
    }
    uint8_t *const whole = map(capacity + 2 * page, PROT_NONE);
    if (mprotect(whole + page, capacity, PROT_READ | PROT_WRITE) != 0) {
        perror("mprotect");
        exit(2);
    }
    region->start = whole + page;
    region->end = region->start + capacity;
    return region;
}

/* The part of the margins that exists: none next to a forbidden page. */
static void margins(const struct region *region, size_t *before, size_t *after) {
    *before = (size_t)(region->from - region->start);
    *after = (size_t)(region->end - region->to);
    if (*before > MARGIN) *before = MARGIN;
    if (*after > MARGIN) *after = MARGIN;
}

static uint8_t *fill(struct region *region, uint8_t *from, size_t bytes) {
    size_t before, after;
    region->from = from;
    region->to = from + bytes;
    margins(region, &before, &after);
    memset(from - before, 0xFF, before + bytes + after);
    return from;
}

void *check_aligned(int id, size_t bytes) {
    struct region *const region = get_region(id, bytes);
    return fill(region, region->end - (bytes + 63) / 64 * 64, bytes);
}

void *check_place(struct check *check, int id, size_t bytes, enum check_place place) {
    struct region *const region = get_region(id, bytes);
    uint8_t *from = region->end - bytes;
    if (place == PLACE_START) from = region->start;
    if (place == PLACE_INSIDE) from -= check_range(check, 1, 63);
    return fill(region, from, bytes);
}

void check_around(struct check *check, int id, const char *name) {
    const struct region *const region = &regions[id];
    size_t before, after;
    margins(region, &before, &after);
    bool changed = false;
    for (size_t i = 1; i <= before; i++) changed |= region->from[-(ptrdiff_t)i] != 0xFF;
    for (size_t i = 0; i < after; i++) changed |= region->to[i] != 0xFF;
    if (changed) check_fail(check, "wrote outside %s", name);
}

const uint8_t *check_forbidden(void) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (forbidden == NULL) forbidden = map(3 * page, PROT_NONE) + page;
    return forbidden;
}

/* ---------------------------------------------------------------------------------- benchmark */

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Nanoseconds per call: the best of several runs of about 2 ms each. */
static double time_call(void (*call)(check_fn *, const void *), check_fn *run, const void *args) {
    enum { RUN_NS = 2000000, N_RUN = 7 };
    int64_t n = 1;
    double best = 0;
    for (int i = 0; i < N_RUN;) {
        const int64_t start = now_ns();
        for (int64_t j = 0; j < n; j++) call(run, args);
        const int64_t ns = now_ns() - start;
        if (ns < RUN_NS) {
            n *= 2;
            continue;
        }
        const double each = (double)ns / (double)n;
        if (i++ == 0 || each < best) best = each;
    }
    return best;
}

void check_bench(const struct check *check, const struct check_line *line, check_fn *scalar,
                 void (*call)(check_fn *, const void *), const void *args, double bytes,
                 double n_multiply) {
    if (check->count) {
        if (line->isa == VARVE_ISA_SCALAR) return; /* the contract, written to be read */
        printf("%s %lld\n", line->symbol, (long long)check_count(call, line->run, args));
        return;
    }
    const double own = time_call(call, line->run, args);
    const double reference = time_call(call, scalar, args);
    printf("  %-32s %-34s %9.0f ns %7.2f x scalar %7.2f GB/s %7.2f GMAC/s\n", line->symbol,
           line->slot, own, reference / own, bytes / own, n_multiply / own);
}
