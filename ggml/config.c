/* The environment and the log. */
#include "plugin.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#ifndef VARVE_GGML_VERSION
#error "VARVE_GGML_VERSION must be the version of ggml that the headers come from"
#endif

/* Exported by ggml-base for its back ends, but declared in a header of C++ and C internals that we
 * have no other use for. */
void ggml_log_internal(enum ggml_log_level level, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static bool flag(const char *name) {
    const char *value = getenv(name);
    if (value == NULL || value[0] == '\0' || strcmp(value, "0") == 0) {
        return false;
    }
    if (strcmp(value, "1") != 0) {
        plugin_say("%s=%s: expected 0 or 1; taken as 0", name, value);
        return false;
    }
    return true;
}

/* The level named by VARVE_ISA, if this CPU has it. */
static const char *isa_level(void) {
    const char *value = getenv("VARVE_ISA");
    if (value == NULL || value[0] == '\0') {
        return NULL;
    }
    for (int32_t i = 0;; i++) {
        bool available = false;
        const char *name = varve_isa_name(i, &available);
        if (name == NULL) {
            plugin_say("VARVE_ISA=%s: no such level; the best one is used", value);
            return NULL;
        }
        if (strcasecmp(name, value) == 0) {
            if (!available) {
                plugin_say("VARVE_ISA=%s: this CPU does not have it; the best one is used", value);
            }
            return available ? name : NULL;
        }
    }
}

/* The class named by VARVE_CLASS. */
static enum varve_arithmetic read_class(void) {
    const char *value = getenv("VARVE_CLASS");
    if (value == NULL || value[0] == '\0') {
        return VARVE_ARITHMETIC_DEFAULT;
    }
    const char *name;
    for (int i = 0; (name = varve_arithmetic_name((enum varve_arithmetic)i)) != NULL; i++) {
        if (strcasecmp(name, value) == 0) {
            return (enum varve_arithmetic)i;
        }
    }
    plugin_say("VARVE_CLASS=%s: expected default, exact, q8 or fast; default is used", value);
    return VARVE_ARITHMETIC_DEFAULT;
}

/* Digits alone: the command line takes no signs and spaces either. */
static bool read_number(const char *text, int64_t least, int64_t most, int64_t *out) {
    char *end = NULL;
    errno = 0;
    const long long n = text[0] >= '0' && text[0] <= '9' ? strtoll(text, &end, 10) : 0;
    if (end == NULL || *end != '\0' || errno != 0 || n < least || n > most) {
        return false;
    }
    *out = n;
    return true;
}

bool plugin_read_tiers(const char *text, int32_t *window) {
    int64_t n = 0;
    if (strcmp(text, "none") != 0 &&
        (strncmp(text, "f16:", 4) != 0 || !read_number(text + 4, 1, VARVE_HOT_ROWS_MAX, &n))) {
        return false;
    }
    *window = (int32_t)n;
    return true;
}

/* A whole number from 0 to `most`; what was there before stays if it is none. */
static int64_t number(const char *name, int64_t otherwise, int64_t most) {
    const char *value = getenv(name);
    if (value == NULL || value[0] == '\0') {
        return otherwise;
    }
    int64_t n = otherwise;
    if (!read_number(value, 0, most, &n)) {
        plugin_say("%s=%s: expected a whole number from 0 to %lld; %lld is used", name, value,
                   (long long)most, (long long)otherwise);
    }
    return n;
}

static struct plugin_config config;

/* The defaults: docs/DESIGN.md 9. */
static void read_tiers(void) {
    config.tiers = (struct plugin_tiers){.window = 256, .n_sink = 4};
    const char *tiers = getenv("VARVE_TIERS");
    config.tiers_given = tiers != NULL && tiers[0] != '\0';
    if (config.tiers_given && !plugin_read_tiers(tiers, &config.tiers.window)) {
        plugin_say("VARVE_TIERS=%s: expected f16:W, with W from 1 to %d, or none; f16:%d is used",
                   tiers, VARVE_HOT_ROWS_MAX, (int)config.tiers.window);
        config.tiers_given = false;
    }
    config.tiers.n_sink = (int32_t)number("VARVE_SINKS", config.tiers.n_sink, VARVE_HOT_ROWS_MAX);
    config.tiers.hot_max = number("VARVE_HOT_MAX", 0, INT64_MAX);
}

static void read_environment(void) {
    config.disable = flag("VARVE_DISABLE");
    const char *trace = getenv("VARVE_TRACE");
    const bool more = trace != NULL && strcmp(trace, "2") == 0; /* a level of libvarve-op's */
    config.trace = more || flag("VARVE_TRACE");
    config.decline_attention = flag("VARVE_TEST_DECLINE_ATTENTION");
    config.isa = isa_level();
    config.arithmetic = read_class();
    const char *pid = getenv("VARVE_EXEC_PID");
    config.launched = pid != NULL && pid[0] != '\0';
    config.launched_here = config.launched && strtol(pid, NULL, 10) == (long)getpid();
    /* For the test of the refusal: as if compiled against another version. */
    const char *version = getenv("VARVE_TEST_GGML_VERSION");
    read_tiers();
    config.built_for = version != NULL && version[0] != '\0' ? version : VARVE_GGML_VERSION;
}

const struct plugin_config *plugin_config(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, read_environment);
    return &config;
}

/* ---- log ------------------------------------------------------------------------------------ */

void plugin_say(const char *format, ...) {
    char line[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    fprintf(stderr, "varve: %s\n", line);
}

void plugin_refuse(const char *reason) {
    /* ggml closes what refuses and may load it again, and the preloaded library wonders at the end.
     * Only the environment is seen by all of them. Children inherit it, hence the process. */
    char pid[32];
    snprintf(pid, sizeof(pid), "%ld", (long)getpid());
    const char *refused = getenv("VARVE_REFUSED");
    if (refused == NULL || strcmp(refused, pid) != 0) {
        plugin_say("%s", reason);
        setenv("VARVE_REFUSED", pid, 1);
    }
}

void plugin_log(enum ggml_log_level level, const char *format, ...) {
    char line[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    if (plugin_config()->trace) {
        fprintf(stderr, "varve: %s\n", line);
    } else {
        ggml_log_internal(level, "varve: %s\n", line);
    }
}

/* FNV-1a. */
uint64_t plugin_hash(uint64_t seed, const void *data, size_t bytes) {
    uint64_t hash = seed ^ UINT64_C(0xcbf29ce484222325);
    const unsigned char *byte = data;
    for (size_t i = 0; i < bytes; i++) {
        hash = (hash ^ byte[i]) * UINT64_C(0x100000001b3);
    }
    return hash;
}

bool plugin_first_time(uint64_t key) {
    enum { n_slot = 1024 };
    static uint64_t seen[n_slot];
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

    key = key == 0 ? 1 : key; /* 0 marks a free slot */
    bool first = false;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < n_slot; i++) {
        uint64_t *slot = &seen[(key + i) % n_slot];
        if (*slot == key) {
            break;
        }
        if (*slot == 0) {
            *slot = key;
            first = true;
            break;
        }
    }
    pthread_mutex_unlock(&lock);
    return first;
}
