/* Bytes of the KV cache as allocated, seen from outside: the tensors that attention nodes read. So
 * it is right for layers of different sizes, windows and shared caches. */
#ifndef VARVE_RUN_KV_SIZE_H
#define VARVE_RUN_KV_SIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ggml_tensor;

struct kv_size {
    const struct ggml_tensor **caches; /* those counted so far; owned */
    size_t n_cache;
    bool complete; /* a whole graph has been seen */
    bool failed;   /* no memory for the list */
    uint64_t bytes;
    uint64_t values_k, values_v; /* where V is a view of K, as in MLA, all are K's */
    uint64_t bytes_f16;          /* what the same cells would take in F16 */
};

/* A ggml_backend_sched_eval_callback; data is a struct kv_size. */
bool kv_size_see(struct ggml_tensor *node, bool ask, void *data);

void kv_size_free(struct kv_size *kv);

#endif
