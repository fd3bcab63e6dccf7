#include "launch.h"

#include "args.h"

#include <errno.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- our own files -------------------------------------------------------------------------- */

static bool own_folder(char *folder, size_t folder_bytes) {
    char exe[PATH_MAX];
    const ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
    if (n <= 0) {
        cli_say("cannot read /proc/self/exe: %s", strerror(errno));
        return false;
    }
    exe[n] = '\0';
    snprintf(folder, folder_bytes, "%s", dirname(exe));
    return true;
}

static bool find_in(const char *folder, const char *place, const char *name, char *path,
                    size_t path_bytes) {
    char candidate[2 * PATH_MAX];
    char real[PATH_MAX];
    snprintf(candidate, sizeof(candidate), "%s/%s/%s", folder, place, name);
    if (realpath(candidate, real) == NULL) {
        return false;
    }
    snprintf(path, path_bytes, "%s", real);
    return true;
}

bool launch_find_library(const char *name, char *path, size_t path_bytes) {
    char folder[PATH_MAX];
    if (!own_folder(folder, sizeof(folder))) {
        return false;
    }
    /* ../lib in a build and where it is installed, or ../lib/varve where a distribution keeps
     * plug-ins apart. */
    if (find_in(folder, "../lib", name, path, path_bytes) ||
        find_in(folder, "../lib/varve", name, path, path_bytes)) {
        return true;
    }
    cli_say("%s not found in ../lib or ../lib/varve, seen from %s; was the plug-in for ggml built "
            "and installed?",
            name, folder);
    return false;
}

bool launch_find_program(const char *name, const char *needs, char *path, size_t path_bytes) {
    char folder[PATH_MAX];
    if (!own_folder(folder, sizeof(folder))) {
        return false;
    }
    if (find_in(folder, ".", name, path, path_bytes)) {
        return true;
    }
    if (needs != NULL) {
        cli_say("%s not found in %s; it is built when %s are there: run make build", name, folder,
                needs);
    } else {
        cli_say("%s not found in %s, where it is built and installed with this program", name,
                folder);
    }
    return false;
}

/* ---- environment ---------------------------------------------------------------------------- */

bool launch_set(const char *name, const char *value) {
    if (setenv(name, value, 1) != 0) {
        cli_say("cannot set %s: %s", name, strerror(errno));
        return false;
    }
    return true;
}

bool launch_set_list(const char *name, const char *first, const char *second) {
    char *both = NULL;
    if (asprintf(&both, "%s:%s", first, second) < 0) {
        cli_say("out of memory");
        return false;
    }
    const bool ok = launch_set(name, both);
    free(both);
    return ok;
}

static bool set_number(const char *name, int64_t value) {
    char text[32];
    snprintf(text, sizeof(text), "%" PRId64, value);
    return value < 0 || launch_set(name, text);
}

bool launch_set_tiers(const struct launch_tiers *tiers) {
    return (tiers->tiers == NULL || launch_set("VARVE_TIERS", tiers->tiers)) &&
           set_number("VARVE_SINKS", tiers->n_sink) && set_number("VARVE_HOT_MAX", tiers->hot_max);
}

bool launch_large_pages(void) {
    const char *old = getenv("GLIBC_TUNABLES");
    if (old != NULL && strstr(old, "glibc.malloc.hugetlb") != NULL) {
        return true; /* the user's choice, or an exec within an exec */
    }
    const char *const asked = "glibc.malloc.hugetlb=1";
    const bool some = old != NULL && old[0] != '\0';
    return some ? launch_set_list("GLIBC_TUNABLES", old, asked)
                : launch_set("GLIBC_TUNABLES", asked);
}
