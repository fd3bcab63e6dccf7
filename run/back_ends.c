#include "back_ends.h"

#include "args.h"

#include "varve/ggml.h"

#include "ggml-backend.h"

#include <dlfcn.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

static bool has_cpu(void) { return ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU) != NULL; }

/* A llama.cpp that loads its back ends at run time looks for them beside the running program. This
 * is none of its programs: they lie with its libraries or with its programs. */
static bool load_from_llama(void) {
    static const char *const places[] = {".", "../bin"};
    Dl_info info;
    char own[PATH_MAX] = "";
    void *function = dlsym(RTLD_DEFAULT, "ggml_backend_load_all");
    if (function != NULL && dladdr(function, &info) != 0) {
        snprintf(own, sizeof(own), "%s", info.dli_fname);
    }
    const char *folder = dirname(own);
    for (int i = 0; i < 2 && !has_cpu(); i++) {
        char path[PATH_MAX + 16];
        snprintf(path, sizeof(path), "%s/%s", folder, places[i]);
        ggml_backend_load_all_from_path(path);
    }
    if (!has_cpu()) {
        cli_say("llama.cpp has no back end for the CPU: there is no libggml-cpu*.so for this one "
                "in %s or %s/../bin",
                folder, folder);
    }
    return has_cpu();
}

bool back_ends_load(const char *plugin) {
    if (ggml_backend_reg_count() == 0) {
        ggml_backend_load_all();
    }
    if (!has_cpu() && !load_from_llama()) {
        return false;
    }
    if (plugin != NULL && ggml_backend_load(plugin) == NULL) {
        cli_say("cannot load %s; see the line above, or build varve for this llama.cpp", plugin);
        return false;
    }
    return true;
}

void *back_ends_varve(const char *name) {
    ggml_backend_reg_t reg = ggml_backend_reg_by_name(VARVE_GGML_NAME);
    return reg != NULL ? ggml_backend_reg_get_proc_address(reg, name) : NULL;
}

enum ggml_type back_ends_type(const char *name) {
    for (int i = 0; i < GGML_TYPE_COUNT; i++) {
        const char *known = ggml_type_name((enum ggml_type)i);
        if (known != NULL && strcmp(known, name) == 0) {
            return (enum ggml_type)i;
        }
    }
    return GGML_TYPE_COUNT; /* llama.cpp refuses it */
}
