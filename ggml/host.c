/* Facts about the process that has loaded us: its version of ggml, its CPU back end.
 *
 * We link ggml-base only (builds that load their back ends at run time have no ggml-cpu to link),
 * so the registry (libggml) and the CPU back end are found by looking at what is loaded. */
#include "plugin.h"

#include "ggml-cpu.h"

#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* ---- loaded libraries ----------------------------------------------------------------------- */

struct library_search {
    const char *prefix; /* of the file name without folder */
    char path[4096];    /* of the first one found */
    int n_found;
};

static int visit_library(struct dl_phdr_info *info, size_t size, void *data) {
    (void)size;
    struct library_search *search = data;
    const char *slash = strrchr(info->dlpi_name, '/');
    const char *name = slash != NULL ? slash + 1 : info->dlpi_name;
    if (strncmp(name, search->prefix, strlen(search->prefix)) == 0) {
        if (search->n_found++ == 0) {
            snprintf(search->path, sizeof(search->path), "%s", info->dlpi_name);
        }
    }
    return 0;
}

/* A symbol of a library that is loaded already, even one that was loaded with RTLD_LOCAL. The
 * reference that dlopen takes is given back: the host keeps its libraries. */
static void *symbol_of(const char *path, const char *symbol) {
    void *handle = dlopen(path, RTLD_NOLOAD | RTLD_LAZY);
    if (handle == NULL) {
        return NULL;
    }
    void *address = dlsym(handle, symbol);
    dlclose(handle);
    return address;
}

static void *symbol_in(const char *prefix, const char *symbol) {
    void *address = dlsym(RTLD_DEFAULT, symbol);
    if (address != NULL) {
        return address;
    }
    struct library_search search = {.prefix = prefix};
    dl_iterate_phdr(visit_library, &search);
    return search.n_found > 0 ? symbol_of(search.path, symbol) : NULL;
}

/* ---- refusal -------------------------------------------------------------------------------- */

/* Whether the caller sees the same ggml-base as we do. A host that carries ggml inside another
 * library, or under another soname, would otherwise get a second copy with its own tables. */
static bool caller_shares_ggml(const void *caller) {
    Dl_info info;
    if (dladdr(caller, &info) == 0 || info.dli_fname == NULL) {
        return true;
    }
    void *theirs = symbol_of(info.dli_fname, "ggml_version");
    if (theirs == NULL) {
        theirs = dlsym(RTLD_DEFAULT, "ggml_version"); /* the program itself called us */
    }
    Dl_info ours_info;
    Dl_info theirs_info;
    if (theirs == NULL || dladdr(theirs, &theirs_info) == 0 ||
        dladdr((const void *)(uintptr_t)&ggml_version, &ours_info) == 0) {
        return true;
    }
    /* Compared by library, as the address of a function may be that of a stub. */
    return theirs_info.dli_fbase == ours_info.dli_fbase;
}

static bool same_major_minor(const char *a, const char *b) {
    int a_major = -1;
    int a_minor = -1;
    int b_major = -2;
    int b_minor = -2;
    return sscanf(a, "%d.%d", &a_major, &a_minor) == 2 &&
           sscanf(b, "%d.%d", &b_major, &b_minor) == 2 && a_major == b_major && a_minor == b_minor;
}

const char *host_refusal(const void *caller) {
    static char line[512];
    struct library_search search = {.prefix = "libggml-base"};
    dl_iterate_phdr(visit_library, &search);
    if (search.n_found > 1 || !caller_shares_ggml(caller)) {
        return "not loaded: this process holds two copies of libggml-base (one of them is the "
               "host's); start it so that only the host's own ggml libraries are found, or build "
               "varve with -DVARVE_GGML_SOURCE pointing to the host's llama.cpp";
    }
    const char *built_for = plugin_config()->built_for;
    if (!same_major_minor(ggml_version(), built_for)) {
        snprintf(line, sizeof(line),
                 "not loaded: built for ggml %s, but this program has ggml %s; build varve with "
                 "-DVARVE_GGML_SOURCE pointing to this program's llama.cpp",
                 built_for, ggml_version());
        return line;
    }
    if (!plugin_formats_match()) {
        return "not loaded: this ggml stores rows in blocks of other sizes; build varve with "
               "-DVARVE_GGML_SOURCE pointing to this program's llama.cpp";
    }
    return NULL;
}

/* ---- the CPU back end ----------------------------------------------------------------------- */

/* The registry entry of ggml's CPU back end, NULL as long as it is not registered. */
static ggml_backend_reg_t cpu_registry(void) {
    ggml_backend_reg_t (*by_name)(const char *) = NULL;
    *(void **)&by_name = symbol_in("libggml.so", "ggml_backend_reg_by_name");
    return by_name != NULL ? by_name("CPU") : NULL;
}

typedef const struct ggml_type_traits_cpu *(*cpu_traits_fn)(enum ggml_type type);

static cpu_traits_fn find_cpu_traits(void) {
    /* Several variants of libggml-cpu may be mapped after their scores were compared; the one in
     * use is the one whose code the registry points to. */
    cpu_traits_fn traits = NULL;
    const ggml_backend_reg_t reg = cpu_registry();
    Dl_info info;
    if (reg != NULL && dladdr((const void *)(uintptr_t)reg->iface.get_name, &info) != 0) {
        *(void **)&traits = symbol_of(info.dli_fname, "ggml_get_type_traits_cpu");
    }
    if (traits == NULL) {
        *(void **)&traits = symbol_in("libggml-cpu", "ggml_get_type_traits_cpu");
    }
    return traits;
}

host_from_float_fn host_from_float(enum ggml_type type) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static cpu_traits_fn traits;

    pthread_mutex_lock(&lock);
    if (traits == NULL) {
        traits = find_cpu_traits();
    }
    const cpu_traits_fn found = traits;
    pthread_mutex_unlock(&lock);
    return found != NULL ? found(type)->from_float : NULL;
}

bool host_encoder(enum ggml_type type, enum varve_format *format, enum varve_encoder *encoder) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static struct {
        bool asked, found;
        enum varve_encoder encoder;
    } known[VARVE_FORMAT_COUNT];

    const host_from_float_fn theirs = host_from_float(type);
    struct varve_context *varve = plugin_varve();
    if (!plugin_format(type, format) || theirs == NULL || varve == NULL) {
        return false;
    }
    pthread_mutex_lock(&lock);
    if (!known[*format].asked) {
        known[*format].asked = true;
        known[*format].found =
            varve_encoder_find(varve, *format, theirs, &known[*format].encoder) == VARVE_OK;
    }
    const bool found = known[*format].found;
    *encoder = known[*format].encoder;
    pthread_mutex_unlock(&lock);
    return found;
}

ggml_backend_t host_cpu_backend(void) {
    const ggml_backend_reg_t reg = cpu_registry();
    if (reg == NULL || ggml_backend_reg_dev_count(reg) == 0) {
        return NULL;
    }
    ggml_backend_t backend = ggml_backend_dev_init(ggml_backend_reg_dev_get(reg, 0), NULL);
    ggml_backend_set_n_threads_t set_n_threads = NULL;
    *(void **)&set_n_threads = ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads");
    if (backend != NULL && set_n_threads != NULL) {
        set_n_threads(backend, 1);
    }
    return backend;
}

bool host_has_openmp(void) {
    const ggml_backend_reg_t reg = cpu_registry();
    ggml_backend_get_features_t get_features = NULL;
    if (reg != NULL) {
        *(void **)&get_features =
            ggml_backend_reg_get_proc_address(reg, "ggml_backend_get_features");
    }
    if (get_features == NULL) {
        return false;
    }
    for (const struct ggml_backend_feature *f = get_features(reg); f->name != NULL; f++) {
        if (strcmp(f->name, "OPENMP") == 0 && strcmp(f->value, "1") == 0) {
            return true;
        }
    }
    return false;
}
