/* The back end's tables: registry, device, back end, in the shape of ggml-blas. This is the only
 * file that ggml calls into. */
#include "plugin.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define PLUGIN_EXPORT __attribute__((visibility("default")))

/* ---- back end ------------------------------------------------------------------------------- */

void *plugin_scratch(struct plugin_backend *backend, size_t bytes) {
    if (bytes > backend->scratch_bytes) {
        if (bytes > SIZE_MAX - 63) {
            return NULL;
        }
        const size_t rounded = (bytes + 63) & ~(size_t)63; /* as aligned_alloc wants it */
        void *scratch = aligned_alloc(64, rounded);
        if (scratch == NULL) {
            return NULL;
        }
        free(backend->scratch);
        backend->scratch = scratch;
        backend->scratch_bytes = rounded;
    }
    return backend->scratch;
}

static const char *backend_get_name(ggml_backend_t backend) {
    (void)backend;
    return VARVE_GGML_NAME;
}

static void backend_free(ggml_backend_t backend) {
    struct plugin_backend *self = backend->context;
    plans_free(self);
    hot_destroy(self->hot);
    threads_destroy(self->threads);
    ggml_backend_free(self->neighbours);
    free(self->scratch);
    free(self);
    free(backend);
}

static enum ggml_status compute_node(struct plugin_backend *self, const struct ggml_tensor *node) {
    if (node_only_renames(node)) {
        return GGML_STATUS_SUCCESS;
    }
    switch (node->op) {
    case GGML_OP_FLASH_ATTN_EXT: return attention_compute(self, node);
    case GGML_OP_SET_ROWS: return set_rows_compute(self, node);
    default:
        plugin_log(GGML_LOG_LEVEL_ERROR, "asked to compute %s, which it never accepted",
                   ggml_op_desc(node));
        return GGML_STATUS_FAILED;
    }
}

static enum ggml_status backend_graph_compute(ggml_backend_t backend, struct ggml_cgraph *graph) {
    struct plugin_backend *self = backend->context;
    const int n_node = ggml_graph_n_nodes(graph);
    for (int i = 0, next; i < n_node; i = next) {
        const struct ggml_tensor *node = ggml_graph_node(graph, i);
        next = i + 1;
        if ((node->flags & GGML_TENSOR_FLAG_COMPUTE) == 0) {
            continue;
        }
        const enum ggml_status status = neighbours_is_one(node)
                                            ? neighbours_compute(self, graph, i, &next)
                                            : compute_node(self, node);
        if (status != GGML_STATUS_SUCCESS) {
            counters_add(COUNT_FAILED_NODES, 1);
            return status;
        }
    }
    return GGML_STATUS_SUCCESS;
}

static const struct ggml_backend_i backend_interface = {
    .get_name = backend_get_name,
    .free = backend_free,
    .graph_compute = backend_graph_compute,
};

static ggml_guid_t backend_guid(void) {
    static ggml_guid guid = {0x76, 0x61, 0x72, 0x76, 0x65, 0x2d, 0x67, 0x67,
                             0x6d, 0x6c, 0x8e, 0x41, 0x5b, 0x1f, 0xc3, 0x02};
    return &guid;
}

static void backend_set_n_threads(ggml_backend_t backend, int n_threads) {
    if (backend == NULL || !ggml_guid_matches(ggml_backend_guid(backend), backend_guid())) {
        return;
    }
    enum { n_max = 1024 };
    struct plugin_backend *self = backend->context;
    self->n_thread = n_threads < 1 ? 1 : n_threads > n_max ? n_max : n_threads;
}

/* ---- device --------------------------------------------------------------------------------- */

static void library_log(void *user, enum varve_log_level level, const char *line) {
    (void)user;
    plugin_log(level == VARVE_LOG_ERROR ? GGML_LOG_LEVEL_ERROR : GGML_LOG_LEVEL_INFO, "%s", line);
}

static struct varve_context *shared_context;

static void create_shared_context(void) {
    struct varve_context_params params = {
        .struct_bytes = sizeof(params),
        .log = library_log,
        .isa = plugin_config()->isa,
    };
    if (varve_context_create(&params, &shared_context) != VARVE_OK) {
        shared_context = NULL;
    }
}

/* One table of kernels for the process. It is immutable, so contexts may share it. */
struct varve_context *plugin_varve(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, create_shared_context);
    return shared_context;
}

static const char *device_get_name(ggml_backend_dev_t dev) {
    (void)dev;
    return VARVE_GGML_NAME;
}

static const char *device_get_description(ggml_backend_dev_t dev) {
    (void)dev;
    return "attention by varve";
}

static void device_get_memory(ggml_backend_dev_t dev, size_t *free_bytes, size_t *total_bytes) {
    (void)dev;
    *free_bytes = 0; /* none of its own */
    *total_bytes = 0;
}

static enum ggml_backend_dev_type device_get_type(ggml_backend_dev_t dev) {
    (void)dev;
    return GGML_BACKEND_DEVICE_TYPE_ACCEL;
}

static void device_get_props(ggml_backend_dev_t dev, struct ggml_backend_dev_props *props) {
    memset(props, 0, sizeof(*props));
    props->name = device_get_name(dev);
    props->description = device_get_description(dev);
    props->type = device_get_type(dev);
    props->caps.buffer_from_host_ptr = true;
    props->caps.mmap_support = true; /* we read host memory, however it came there */
}

static ggml_backend_t device_init_backend(ggml_backend_dev_t dev, const char *params) {
    (void)params;
    ggml_backend_t backend = calloc(1, sizeof(*backend));
    struct plugin_backend *self = calloc(1, sizeof(*self));
    struct plugin_threads *threads = threads_create();
    struct plugin_hot *hot = hot_create();
    if (backend == NULL || self == NULL || threads == NULL || hot == NULL ||
        plugin_varve() == NULL) {
        hot_destroy(hot);
        threads_destroy(threads);
        free(self);
        free(backend);
        return NULL;
    }
    self->varve = plugin_varve();
    self->threads = threads;
    self->hot = hot;
    self->n_thread = GGML_DEFAULT_N_THREADS;
    backend->guid = backend_guid();
    backend->iface = backend_interface;
    backend->device = dev;
    backend->context = self;
    return backend;
}

static ggml_backend_buffer_type_t device_get_buffer_type(ggml_backend_dev_t dev) {
    (void)dev;
    return ggml_backend_cpu_buffer_type();
}

static ggml_backend_buffer_t device_buffer_from_host_ptr(ggml_backend_dev_t dev, void *ptr,
                                                         size_t size, size_t max_tensor_size) {
    (void)dev;
    (void)max_tensor_size;
    return ggml_backend_cpu_buffer_from_ptr(ptr, size);
}

/* Says a decline once for each kind of node: the reason, types and head sizes, not the lengths. */
static void note_decline(const struct ggml_tensor *op, const char *reason) {
    counters_declined(reason);
    const struct ggml_tensor *a = op->src[0];
    const struct ggml_tensor *b = op->src[1];
    const struct ggml_tensor *c = op->src[2];
    const int64_t shape[] = {
        op->op,
        op->type,
        op->ne[0],
        a != NULL ? a->ne[0] : 0,
        a != NULL ? a->ne[2] : 0, /* heads */
        a != NULL ? (int64_t)a->type : -1,
        b != NULL ? (int64_t)b->type : -1,
        c != NULL ? (int64_t)c->type : -1,
    };
    const uint64_t key = plugin_hash(plugin_hash(2, reason, strlen(reason)), shape, sizeof(shape));
    if (!plugin_first_time(key)) {
        return;
    }
    /* A cache write costs nothing when ggml does it; attention does. */
    plugin_log(op->op == GGML_OP_SET_ROWS ? GGML_LOG_LEVEL_INFO : GGML_LOG_LEVEL_WARN,
               "left to ggml: %s '%s' %s [%lld, %lld, %lld, %lld], sources %s, %s, %s: %s",
               ggml_op_desc(op), op->name, ggml_type_name(op->type), (long long)op->ne[0],
               (long long)op->ne[1], (long long)op->ne[2], (long long)op->ne[3],
               a != NULL ? ggml_type_name(a->type) : "none",
               b != NULL ? ggml_type_name(b->type) : "none",
               c != NULL ? ggml_type_name(c->type) : "none", reason);
}

static bool supports_attention(const struct ggml_tensor *op) {
    const bool test_decline = plugin_config()->decline_attention;
    const char *reason =
        test_decline ? "VARVE_TEST_DECLINE_ATTENTION is set" : attention_decline(op);
    if (reason == NULL) {
        learn_attended_by_us(op);
        counters_add(COUNT_ATTENTION_ACCEPTED, 1);
        return true;
    }
    if (!test_decline) {
        learn_attended_by_stock(op->src[1]);
        learn_attended_by_stock(op->src[2]);
    }
    counters_add(COUNT_ATTENTION_DECLINED, 1);
    note_decline(op, reason);
    return false;
}

static bool supports_set_rows(const struct ggml_tensor *op) {
    const char *reason = set_rows_decline(op);
    if (reason == NULL && !learn_written(learn_root(op))) {
        reason = "this tensor is attended by other code";
    }
    if (reason == NULL) {
        neighbours_written(op);
        counters_add(COUNT_SET_ROWS_ACCEPTED, 1);
        return true;
    }
    counters_add(COUNT_SET_ROWS_DECLINED, 1);
    note_decline(op, reason);
    return false;
}

static bool device_supports_op(ggml_backend_dev_t dev, const struct ggml_tensor *op) {
    (void)dev;
    if (node_only_renames(op)) {
        return true;
    }
    switch (op->op) {
    case GGML_OP_FLASH_ATTN_EXT: return supports_attention(op);
    case GGML_OP_SET_ROWS: return supports_set_rows(op);
    case GGML_OP_MUL_MAT:
        learn_attended_by_stock(op->src[0]); /* counts only for tensors that SET_ROWS writes */
        break;
    default: break;
    }
    neighbours_asked(op);
    return (op->op == GGML_OP_MUL_MAT || op->op == GGML_OP_ROPE) && neighbours_take(op);
}

static bool device_supports_buft(ggml_backend_dev_t dev, ggml_backend_buffer_type_t buft) {
    (void)dev;
    return ggml_backend_buft_is_host(buft);
}

static const struct ggml_backend_device_i device_interface = {
    .get_name = device_get_name,
    .get_description = device_get_description,
    .get_memory = device_get_memory,
    .get_type = device_get_type,
    .get_props = device_get_props,
    .init_backend = device_init_backend,
    .get_buffer_type = device_get_buffer_type,
    .buffer_from_host_ptr = device_buffer_from_host_ptr,
    .supports_op = device_supports_op,
    .supports_buft = device_supports_buft,
};

/* ---- registry ------------------------------------------------------------------------------- */

static const char *reg_get_name(ggml_backend_reg_t reg) {
    (void)reg;
    return VARVE_GGML_NAME;
}

static size_t reg_get_device_count(ggml_backend_reg_t reg) {
    (void)reg;
    return plugin_config()->disable ? 0 : 1;
}

static struct ggml_backend_device device;

static ggml_backend_dev_t reg_get_device(ggml_backend_reg_t reg, size_t index) {
    return index < reg_get_device_count(reg) ? &device : NULL;
}

static void *reg_get_proc_address(ggml_backend_reg_t reg, const char *name) {
    (void)reg;
    if (strcmp(name, "ggml_backend_set_n_threads") == 0) {
        return (void *)(uintptr_t)&backend_set_n_threads;
    }
    if (strcmp(name, VARVE_GGML_COUNTERS) == 0) {
        return (void *)(uintptr_t)&counters_read;
    }
    if (strcmp(name, VARVE_GGML_DECLINED) == 0) {
        return (void *)(uintptr_t)&counters_reason;
    }
    if (strcmp(name, VARVE_GGML_ACCOUNT) == 0) {
        return (void *)(uintptr_t)&hot_account;
    }
    if (strcmp(name, VARVE_GGML_SET_TIERS) == 0) {
        return (void *)(uintptr_t)&hot_set_tiers;
    }
    if (strcmp(name, VARVE_GGML_NEED) == 0) {
        return (void *)(uintptr_t)&need_of;
    }
    return NULL;
}

static struct ggml_backend_reg registry = {
    .api_version = GGML_BACKEND_API_VERSION,
    .iface =
        {
            .get_name = reg_get_name,
            .get_device_count = reg_get_device_count,
            .get_device = reg_get_device,
            .get_proc_address = reg_get_proc_address,
        },
};

static struct ggml_backend_device device = {
    .iface = device_interface,
    .reg = &registry,
};

/* ---- exports -------------------------------------------------------------------------------- */

/* What ggml looks up in a library that it loads. The same object at every call: hosts may load us
 * twice (GGML_BACKEND_PATH and a call of their own), and ggml then sees that nothing is new. */
PLUGIN_EXPORT ggml_backend_reg_t ggml_backend_init(void);

ggml_backend_reg_t ggml_backend_init(void) {
    static bool decided;
    static bool refused;
    if (!decided) {
        decided = true;
        const char *refusal = NULL;
        if (!plugin_config()->disable) {
            refusal = host_refusal(__builtin_return_address(0));
            if (refusal == NULL && plugin_varve() == NULL) {
                refusal = "not loaded: no kernels for this CPU could be set up";
            }
        }
        if (refusal != NULL) {
            plugin_refuse(refusal);
            refused = true;
        } else if (!plugin_config()->disable) {
            counters_report_at_exit();
        }
    }
    return refused ? NULL : &registry;
}

/* For the preloaded library of `varve exec`: the back end that a scheduler should name when asked
 * where a node runs. llama.cpp's `-fa auto` compares the device of the attention node with that of
 * the layer and would switch flash attention off if it saw ours; the layer's own is the CPU. */
PLUGIN_EXPORT ggml_backend_t varve_ggml_named_backend(ggml_backend_sched_t sched,
                                                      const struct ggml_tensor *node,
                                                      ggml_backend_t found);

ggml_backend_t varve_ggml_named_backend(ggml_backend_sched_t sched, const struct ggml_tensor *node,
                                        ggml_backend_t found) {
    if (found == NULL || node == NULL || node->op != GGML_OP_FLASH_ATTN_EXT ||
        !ggml_guid_matches(ggml_backend_guid(found), backend_guid())) {
        return found;
    }
    for (int i = 0; i < ggml_backend_sched_get_n_backends(sched); i++) {
        ggml_backend_t backend = ggml_backend_sched_get_backend(sched, i);
        ggml_backend_dev_t dev = ggml_backend_get_device(backend);
        if (dev != NULL && ggml_backend_dev_type(dev) == GGML_BACKEND_DEVICE_TYPE_CPU) {
            return backend;
        }
    }
    return found;
}
