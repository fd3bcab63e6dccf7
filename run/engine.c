#include "engine.h"

#include "args.h"
#include "log.h"
#include "model_file.h"
#include "stop.h"

static bool go_on_loading(float progress, void *data) {
    (void)progress;
    (void)data;
    return !stop_requested();
}

enum engine_status engine_load_model(const char *path, struct llama_model **model) {
    *model = NULL;
    if (!model_file_check(path)) {
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
