#include "engine.h"

#include "args.h"
#include "log.h"
#include "stop.h"

#include "ggml-backend.h"

#include <dlfcn.h>
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* ---- back ends ------------------------------------------------------------------------------ */

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

bool engine_load_back_ends(const char *plugin) {
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

/* ---- model ---------------------------------------------------------------------------------- */

static bool go_on_loading(float progress, void *data) {
    (void)progress;
    (void)data;
    return !stop_requested();
}

/* What llama.cpp says about these is hard to read. */
static bool is_gguf(const char *path) {
    struct stat info;
    char magic[4] = "";
    FILE *file = fopen(path, "rb");
    if (file == NULL || fstat(fileno(file), &info) != 0) {
        cli_say("cannot read the model %s: %s; give another one with -m", path, strerror(errno));
    } else if (!S_ISREG(info.st_mode)) {
        cli_say("the model %s is not a file; give another one with -m", path);
    } else if (fread(magic, 1, sizeof(magic), file) != sizeof(magic) ||
               memcmp(magic, "GGUF", sizeof(magic)) != 0) {
        cli_say("%s is not a GGUF file; give a model in that format with -m", path);
    } else {
        fclose(file);
        return true;
    }
    if (file != NULL) {
        fclose(file);
    }
    return false;
}

enum engine_status engine_load_model(const char *path, struct llama_model **model) {
    *model = NULL;
    if (!is_gguf(path)) {
        return ENGINE_FAILED;
    }
    struct llama_model_params params = llama_model_default_params();
    params.n_gpu_layers = 0; /* varve serves caches in host memory */
    params.progress_callback = go_on_loading;
    *model = llama_model_load_from_file(path, params);
    if (*model == NULL) {
        if (stop_requested()) {
            return ENGINE_STOPPED;
        }
        cli_say("cannot load the model %s: %s; is the file whole, and is there memory for it?",
                path, log_take_error());
        return ENGINE_FAILED;
    }
    if (llama_model_has_encoder(*model) || !llama_model_has_decoder(*model)) {
        cli_say("%s does not continue text (it has an encoder); give another model with -m", path);
        return ENGINE_FAILED;
    }
    return ENGINE_OK;
}

enum ggml_type engine_type(const char *name) {
    for (int i = 0; i < GGML_TYPE_COUNT; i++) {
        const char *known = ggml_type_name((enum ggml_type)i);
        if (known != NULL && strcmp(known, name) == 0) {
            return (enum ggml_type)i;
        }
    }
    return GGML_TYPE_COUNT; /* llama.cpp refuses it */
}
