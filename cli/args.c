#include "args.h"

#include "varve/hot.h"
#include "varve/varve.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

void cli_say(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs("varve: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

static void append(char *list, size_t list_bytes, const char *name) {
    const size_t used = strlen(list);
    snprintf(list + used, list_bytes - used, "%s%s", used > 0 ? ", " : "", name);
}

const char *cli_cache_type(const char *option, const char *value) {
    enum varve_format format;
    if (varve_format_parse(value, &format) == VARVE_OK) {
        return varve_format_name(format);
    }
    char list[256] = "";
    for (int i = 0; i < VARVE_FORMAT_COUNT; i++) {
        append(list, sizeof(list), varve_format_name((enum varve_format)i));
    }
    cli_say("%s %s: no such cache type; known are %s", option, value, list);
    return NULL;
}

const char *cli_isa(const char *value) {
    char list[256] = "";
    const char *name = NULL;
    bool available = false;
    for (int32_t i = 0; (name = varve_isa_name(i, &available)) != NULL; i++) {
        if (strcasecmp(name, value) == 0 && available) {
            return name;
        }
        if (strcasecmp(name, value) == 0) {
            cli_say("--isa %s: this CPU does not have it", value);
            return NULL;
        }
        append(list, sizeof(list), name);
    }
    cli_say("--isa %s: no such level; known are %s", value, list);
    return NULL;
}

/* The digits at the beginning of text as a number of 0 or more; *end is what follows them. */
static bool read_digits(const char *text, int64_t *value, char **end) {
    errno = 0;
    *value = text[0] >= '0' && text[0] <= '9' ? strtoll(text, end, 10) : -1;
    return *value >= 0 && errno == 0;
}

bool cli_integer(const char *option, const char *value, int64_t min, int64_t max, int64_t *out) {
    char *end = NULL;
    if (!read_digits(value, out, &end) || *end != '\0' || *out < min || *out > max) {
        cli_say("%s %s: expected a whole number from %" PRId64 " to %" PRId64, option, value, min,
                max);
        return false;
    }
    return true;
}

bool cli_bytes(const char *option, const char *value, int64_t *out) {
    static const char suffixes[] = "KMG";
    char *end = NULL;
    if (read_digits(value, out, &end)) {
        const char *suffix = *end != '\0' ? strchr(suffixes, *end) : NULL;
        const int shift = suffix != NULL ? 10 * (int)(suffix - suffixes + 1) : 0;
        if (end[suffix != NULL] == '\0' && *out <= INT64_MAX >> shift) {
            *out <<= shift;
            return true;
        }
    }
    cli_say("%s %s: expected a number of bytes, as in 1000000, 512K, 64M or 2G", option, value);
    return false;
}

bool cli_class(const char *value, enum varve_arithmetic *out) {
    const char *name;
    for (int i = 0; (name = varve_arithmetic_name((enum varve_arithmetic)i)) != NULL; i++) {
        *out = (enum varve_arithmetic)i;
        if (strcmp(value, name) == 0) return true;
    }
    cli_say("--class %s: no such arithmetic; known are default, exact, q8 and fast", value);
    return false;
}

bool cli_tiers(const char *option, const char *value, const char **out) {
    int64_t window = 0;
    char *end = NULL;
    *out = value;
    if (strcmp(value, "none") == 0 ||
        (strncmp(value, "f16:", 4) == 0 && read_digits(value + 4, &window, &end) && *end == '\0' &&
         window >= 1 && window <= VARVE_HOT_ROWS_MAX)) {
        return true;
    }
    cli_say("%s %s: expected f16:W, with W from 1 to %d recent rows to keep in F16, or none",
            option, value, VARVE_HOT_ROWS_MAX);
    return false;
}

bool cli_sinks(const char *option, const char *value, int64_t *out) {
    return cli_integer(option, value, 0, VARVE_HOT_ROWS_MAX, out);
}

int64_t cli_usable_cpus(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 4;
}

int64_t cli_available_memory(void) {
    FILE *file = fopen("/proc/meminfo", "re");
    char line[128];
    long long kib = 0;
    while (file != NULL && kib == 0 && fgets(line, sizeof(line), file) != NULL) {
        (void)sscanf(line, "MemAvailable: %lld kB", &kib);
    }
    if (file != NULL) {
        fclose(file);
    }
    return (int64_t)kib << 10;
}
