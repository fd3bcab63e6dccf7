/* llama.cpp measures the compute buffer of a context that must not allocate with
 * ggml_backend_sched_reserve_size. This program stands before the library's own: it hears the exact
 * size and sees the largest graph, with all cache tensors as they would be allocated. */
#include "plan.h"

#include <dlfcn.h>

static struct plan_figures *target;
static const struct plan_options *target_options;

void capture_into(struct plan_figures *figures, const struct plan_options *options) {
    target = figures;
    target_options = options;
}

/* Back ends with one buffer type share one buffer; `sizes` has it for each of them. */
static uint64_t buffer_bytes(ggml_backend_sched_t sched, const size_t *sizes) {
    uint64_t bytes = 0;
    for (int i = 0; i < ggml_backend_sched_get_n_backends(sched); i++) {
        ggml_backend_buffer_type_t type =
            ggml_backend_sched_get_buffer_type(sched, ggml_backend_sched_get_backend(sched, i));
        bool shared = false;
        for (int j = 0; j < i && !shared; j++) {
            shared = type == ggml_backend_sched_get_buffer_type(
                                 sched, ggml_backend_sched_get_backend(sched, j));
        }
        bytes += shared ? 0 : sizes[i];
    }
    return bytes;
}

typedef void (*reserve_size_fn)(ggml_backend_sched_t sched, struct ggml_cgraph *graph,
                                size_t *sizes);

__attribute__((visibility("default"))) void
ggml_backend_sched_reserve_size(ggml_backend_sched_t sched, struct ggml_cgraph *graph,
                                size_t *sizes) {
    reserve_size_fn own = (reserve_size_fn)dlsym(RTLD_NEXT, "ggml_backend_sched_reserve_size");
    own(sched, graph, sizes);
    if (target == NULL) {
        return;
    }
    target->compute += buffer_bytes(sched, sizes);
    if (!collect_graph(target, graph, target_options)) {
        plan_figures_free(target);
    }
}
