/* Which cache tensors are attended by us.
 *
 * SET_ROWS also serves samplers, masks and the caches of attention that is not ours. Writing a row
 * that somebody else attends gains nothing and costs a graph split, so it is left to ggml once that
 * is known. A graph says it in this order: first the scheduler asks about the write, later about
 * the use. What is learned from one graph therefore holds for the next; llama.cpp reserves several
 * graphs before it computes the first one. */
#include "plugin.h"

#include <pthread.h>

enum { n_slot = 8192 }; /* two tensors per layer and context; full: nothing new is learned */

struct known {
    const void *data;
    size_t bytes;
    bool stock;
};

static struct known table[n_slot];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

const struct ggml_tensor *learn_root(const struct ggml_tensor *tensor) {
    while (tensor->view_src != NULL) {
        tensor = tensor->view_src;
    }
    return tensor;
}

/* The slot of a root, or the free slot where it belongs, or NULL. Call with the lock held. */
static struct known *find(const struct ggml_tensor *root) {
    const size_t bytes = ggml_nbytes(root);
    const uint64_t hash = plugin_hash(bytes, &root->data, sizeof(root->data));
    for (size_t i = 0; i < 64; i++) {
        struct known *slot = &table[(hash + i) % n_slot];
        if (slot->data == NULL || (slot->data == root->data && slot->bytes == bytes)) {
            return slot;
        }
    }
    return NULL;
}

bool learn_written(const struct ggml_tensor *root) {
    if (root->data == NULL) {
        return true;
    }
    bool ours = true;
    pthread_mutex_lock(&lock);
    struct known *slot = find(root);
    if (slot != NULL && slot->data == NULL) {
        *slot = (struct known){root->data, ggml_nbytes(root), false};
    } else if (slot != NULL) {
        ours = !slot->stock;
    }
    pthread_mutex_unlock(&lock);
    return ours;
}

static void set_stock(const struct ggml_tensor *tensor, bool stock) {
    const struct ggml_tensor *root = tensor != NULL ? learn_root(tensor) : NULL;
    if (root == NULL || root->data == NULL) {
        return;
    }
    pthread_mutex_lock(&lock);
    struct known *slot = find(root);
    if (slot != NULL && slot->data != NULL && slot->stock != stock) {
        slot->stock = stock;
        counters_add(COUNT_STOCK_ATTENTION, stock ? 1 : 0);
    }
    pthread_mutex_unlock(&lock);
}

void learn_attended_by_stock(const struct ggml_tensor *tensor) { set_stock(tensor, true); }

void learn_attended_by_us(const struct ggml_tensor *tensor) { set_stock(tensor, false); }
