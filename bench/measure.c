#include "measure.h"

#include "args.h"

#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

double measure_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double measure_median(const double *values, int n) {
    double *const sorted = measure_allocate((size_t)(n + 1) * sizeof *sorted);
    int n_found = 0;
    for (int i = 0; i < n; i++) {
        if (!isnan(values[i])) sorted[n_found++] = values[i];
    }
    qsort(sorted, (size_t)n_found, sizeof *sorted, by_value);
    const double middle = n_found == 0 ? NAN
                          : n_found % 2 == 1
                              ? sorted[n_found / 2]
                              : 0.5 * (sorted[n_found / 2 - 1] + sorted[n_found / 2]);
    free(sorted);
    return middle;
}

double measure_least(const double *values, int n) {
    double least = NAN;
    for (int i = 0; i < n; i++) least = fmin(least, values[i]);
    return least;
}

void *measure_allocate(size_t bytes) {
    void *const block = aligned_alloc(64, (bytes + 64) / 64 * 64);
    if (block == NULL) {
        cli_say("bench: no memory for %zu bytes", bytes);
        exit(EXIT_FAILURE);
    }
    return block;
}

static volatile uint64_t sink;

void measure_read(const void *data, size_t bytes, int n_thread) {
    uint64_t sum = 0;
    const uint64_t *words = data;
    const int64_t n = (int64_t)(bytes / 8);
#pragma omp parallel for num_threads(n_thread) reduction(+ : sum) schedule(static)
    for (int64_t i = 0; i < n; i++) sum += words[i];
    sink += sum;
}

/* ---- the machine ---------------------------------------------------------------------------- */

/* A number with an optional K or M behind it; -1 when the file is not there. */
static int64_t number_of_file(int cpu, const char *name) {
    char path[128];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cache/index3/%s", cpu, name);
    FILE *const file = fopen(path, "re");
    long long value = -1;
    char unit = 0;
    if (file == NULL) return -1;
    if (fscanf(file, "%lld%c", &value, &unit) < 1) value = -1;
    fclose(file);
    return unit == 'K' ? value << 10 : unit == 'M' ? value << 20 : value;
}

int64_t measure_last_level_cache(void) {
    enum { ID_MAX = 1024 };
    static bool seen[ID_MAX];
    memset(seen, 0, sizeof seen);
    cpu_set_t set;
    int64_t total = 0;
    if (sched_getaffinity(0, sizeof set, &set) != 0) CPU_ZERO(&set);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &set)) continue;
        const int64_t id = number_of_file(cpu, "id"), bytes = number_of_file(cpu, "size");
        if (bytes <= 0 || id < 0 || id >= ID_MAX || seen[id]) continue;
        seen[id] = true;
        total += bytes;
    }
    const int64_t guess = 32 << 20;
    return total > 0 ? total : guess;
}
