#include "kv_size.h"

#include "ggml.h"

#include <stdlib.h>

static void count(struct kv_size *kv, const struct ggml_tensor *view, uint64_t *values) {
    const struct ggml_tensor *cache = view->view_src != NULL ? view->view_src : view;
    for (size_t i = 0; i < kv->n_cache; i++) {
        if (kv->caches[i] == cache) {
            return;
        }
    }
    if (cache->op != GGML_OP_NONE) {
        return; /* computed, so not a cache */
    }
    const struct ggml_tensor **more = realloc(kv->caches, (kv->n_cache + 1) * sizeof(*more));
    if (more == NULL) {
        kv->failed = true;
        return;
    }
    kv->caches = more;
    kv->caches[kv->n_cache++] = cache;
    kv->bytes += ggml_nbytes(cache);
    *values += (uint64_t)ggml_nelements(cache);
    kv->bytes_f16 += (uint64_t)ggml_nelements(cache) * ggml_type_size(GGML_TYPE_F16);
}

bool kv_size_see(struct ggml_tensor *node, bool ask, void *data) {
    struct kv_size *kv = data;
    if (ask && !kv->complete && node->op == GGML_OP_FLASH_ATTN_EXT) {
        count(kv, node->src[1], &kv->values_k);
        count(kv, node->src[2], &kv->values_v);
    }
    return !ask; /* nobody looks at results */
}

void kv_size_free(struct kv_size *kv) { free(kv->caches); }
