/* Preloaded by `varve exec`, into the program and its children. It needs the C library only and
 * knows ggml by the names of a few functions, which it looks up in the process.
 *
 * 1. Builds of llama.cpp with the CPU back end linked in read GGML_BACKEND_PATH in a few programs
 *    only. Here the plug-in is loaded for all of them, but only when a back end is registered
 *    already: builds that load theirs at run time do so only as long as there are none, and they
 *    read GGML_BACKEND_PATH by themselves.
 * 2. llama.cpp's `-fa auto` asks the scheduler which back end runs the attention node and switches
 *    flash attention off when it is not that of the layer. The question is answered with the CPU
 *    back end for nodes that varve takes.
 * 3. The process that the user started says at its end why varve did not take hold. Children and
 *    programs without ggml stay silent. */
#include <dlfcn.h>
#include <link.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- what is loaded ------------------------------------------------------------------------- */

static int find_ggml_base(struct dl_phdr_info *info, size_t size, void *data) {
    (void)size;
    const char *slash = strrchr(info->dlpi_name, '/');
    if (slash != NULL && strncmp(slash + 1, "libggml-base", strlen("libggml-base")) == 0) {
        *(void **)data = dlopen(info->dlpi_name, RTLD_NOLOAD | RTLD_LAZY);
        return 1;
    }
    return 0;
}

/* A function of ggml-base other than our own of that name, also when the library was opened with
 * RTLD_LOCAL, as Python does. */
static void *ggml_base_symbol(const char *name) {
    void *address = dlsym(RTLD_NEXT, name);
    if (address == NULL) {
        void *base = NULL;
        dl_iterate_phdr(find_ggml_base, &base);
        if (base != NULL) {
            address = dlsym(base, name);
            dlclose(base);
        }
    }
    return address;
}

/* The plug-in if it is loaded, NULL if not. */
static void *plugin_symbol(const char *name) {
    const char *path = getenv("VARVE_PLUGIN");
    void *plugin = path != NULL ? dlopen(path, RTLD_NOLOAD | RTLD_LAZY) : NULL;
    if (plugin == NULL) {
        return NULL;
    }
    void *address = dlsym(plugin, name);
    dlclose(plugin);
    return address;
}

static bool disabled(void) {
    const char *value = getenv("VARVE_DISABLE");
    return value != NULL && strcmp(value, "1") == 0;
}

/* ---- 1: loading ----------------------------------------------------------------------------- */

__attribute__((constructor)) static void load_plugin(void) {
    const char *path = getenv("VARVE_PLUGIN");
    size_t (*n_registered)(void) = NULL;
    void *(*load)(const char *) = NULL;
    *(void **)&n_registered = dlsym(RTLD_DEFAULT, "ggml_backend_reg_count");
    *(void **)&load = dlsym(RTLD_DEFAULT, "ggml_backend_load");
    if (path == NULL || disabled() || n_registered == NULL || load == NULL) {
        return;
    }
    if (n_registered() > 0) {
        load(path);
    }
}

/* ---- 2: the scheduler's answer -------------------------------------------------------------- */

typedef void *(*tensor_backend_fn)(void *sched, void *node);
typedef void *(*named_backend_fn)(void *sched, const void *node, void *found);

__attribute__((visibility("default"))) void *ggml_backend_sched_get_tensor_backend(void *sched,
                                                                                   void *node);

void *ggml_backend_sched_get_tensor_backend(void *sched, void *node) {
    static _Atomic uintptr_t real_address;
    static _Atomic uintptr_t named_address;
    tensor_backend_fn real = (tensor_backend_fn)atomic_load(&real_address);
    if (real == NULL) {
        *(void **)&real = ggml_base_symbol("ggml_backend_sched_get_tensor_backend");
        atomic_store(&real_address, (uintptr_t)real);
    }
    if (real == NULL) {
        return NULL; /* a valid answer: no back end assigned */
    }
    void *found = real(sched, node);
    named_backend_fn named = (named_backend_fn)atomic_load(&named_address);
    if (named == NULL) {
        *(void **)&named = plugin_symbol("varve_ggml_named_backend");
        atomic_store(&named_address, (uintptr_t)named);
    }
    return named != NULL ? named(sched, node, found) : found;
}

/* ---- 3: the end ----------------------------------------------------------------------------- */

__attribute__((destructor)) static void at_exit(void) {
    const char *pid = getenv("VARVE_EXEC_PID");
    if (pid == NULL || strtol(pid, NULL, 10) != (long)getpid() || disabled()) {
        return;
    }
    const char *refused = getenv("VARVE_REFUSED"); /* a process, set by the plug-in */
    if (plugin_symbol("varve_ggml_named_backend") != NULL ||
        (refused != NULL && strcmp(refused, pid) == 0)) {
        return; /* it reports by itself */
    }
    if (ggml_base_symbol("ggml_version") == NULL) {
        fputs("varve: no ggml in this process, so varve did nothing in it (programs that it "
              "started speak for themselves); it helps programs that use llama.cpp's shared "
              "libraries, not those with llama.cpp linked in statically\n",
              stderr);
    } else {
        fputs("varve: ggml is in this process, but the plug-in was not loaded; if no line above "
              "says why: libraries opened later need GGML_BACKEND_PATH (set by varve exec) and a "
              "llama.cpp that loads its back ends at run time, or a call of ggml_backend_load\n",
              stderr);
    }
}
