/* Which cache tensors are attended by us, and what the questions about them tell.
 *
 * SET_ROWS also serves samplers, masks and the caches of attention that is not ours. Writing a row
 * that somebody else attends gains nothing and costs a graph split, so it is left to ggml once that
 * is known. A graph says it in this order: first the scheduler asks about the write, later about
 * the use. What is learned from one graph therefore holds for the next; llama.cpp reserves several
 * graphs before it computes the first one: among them the smallest, which has one query for each
 * sequence that the context may hold. */
#include "plugin.h"

#include <pthread.h>

enum { n_slot = 8192 }; /* two tensors per layer and context; full: nothing new is learned */

struct known {
    const void *data;
    size_t bytes;
    bool stock;
    struct learn_facts facts;
    const void *attention; /* node that was asked about since the last question about a write */
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
static struct known *find_data(const void *data, size_t bytes) {
    const uint64_t hash = plugin_hash(bytes, &data, sizeof(data));
    for (size_t i = 0; i < 64; i++) {
        struct known *slot = &table[(hash + i) % n_slot];
        if (slot->data == NULL || (slot->data == data && slot->bytes == bytes)) {
            return slot;
        }
    }
    return NULL;
}

static struct known *find(const struct ggml_tensor *root) {
    return find_data(root->data, ggml_nbytes(root));
}

void learn_forget(const void *data, size_t bytes) {
    pthread_mutex_lock(&lock);
    struct known *slot = find_data(data, bytes);
    if (slot != NULL && slot->data != NULL) {
        *slot = (struct known){.data = data, .bytes = bytes}; /* the chain of slots stays whole */
    }
    pthread_mutex_unlock(&lock);
}

/* The same, with a free slot taken. */
static struct known *find_or_add(const struct ggml_tensor *root) {
    struct known *slot = find(root);
    if (slot != NULL && slot->data == NULL) {
        *slot = (struct known){.data = root->data, .bytes = ggml_nbytes(root)};
    }
    return slot;
}

bool learn_written(const struct ggml_tensor *root) {
    if (root->data == NULL) {
        return true;
    }
    bool ours = true;
    pthread_mutex_lock(&lock);
    struct known *slot = find_or_add(root);
    if (slot != NULL) {
        ours = !slot->stock;
        slot->attention = NULL;
    }
    pthread_mutex_unlock(&lock);
    return ours;
}

static void set_stock(struct known *slot, bool stock) {
    if (slot->stock != stock) {
        slot->stock = stock;
        counters_add(COUNT_STOCK_ATTENTION, stock ? 1 : 0);
    }
}

void learn_attended_by_stock(const struct ggml_tensor *tensor) {
    const struct ggml_tensor *root = tensor != NULL ? learn_root(tensor) : NULL;
    if (root == NULL || root->data == NULL) {
        return;
    }
    pthread_mutex_lock(&lock);
    struct known *slot = find(root);
    if (slot != NULL && slot->data != NULL) {
        set_stock(slot, true);
        slot->facts.attended = false;
    }
    pthread_mutex_unlock(&lock);
}

static void learn_attention(const struct ggml_tensor *root, const struct ggml_tensor *op,
                            int64_t n_query) {
    if (root->data == NULL || root->op != GGML_OP_NONE) {
        return;
    }
    pthread_mutex_lock(&lock);
    struct known *slot = find_or_add(root);
    if (slot != NULL) {
        set_stock(slot, false);
        struct learn_facts *facts = &slot->facts;
        facts->attended = true;
        /* Reservations go up and down: a full prompt, one query for each sequence, a full prompt.
         * Real graphs come later and may be smaller. */
        facts->settled |= facts->n_sequence != 0 && n_query > facts->n_sequence;
        if (!facts->settled) {
            facts->n_sequence = n_query;
        }
        facts->reread |= slot->attention != NULL && slot->attention != (const void *)op;
        slot->attention = op;
    }
    pthread_mutex_unlock(&lock);
}

void learn_attended_by_us(const struct ggml_tensor *op) {
    const int64_t n_query = op->src[0]->ne[1] * op->src[0]->ne[3];
    const struct ggml_tensor *k = learn_root(op->src[1]);
    const struct ggml_tensor *v = learn_root(op->src[2]);
    learn_attention(k, op, n_query);
    if (v != k) {
        learn_attention(v, op, n_query);
    }
}

struct learn_facts learn_about(const struct ggml_tensor *root) {
    struct learn_facts facts = {0};
    pthread_mutex_lock(&lock);
    const struct known *slot = root->data != NULL ? find(root) : NULL;
    if (slot != NULL && slot->data != NULL) {
        facts = slot->facts;
    }
    pthread_mutex_unlock(&lock);
    return facts;
}

int64_t learn_n_attended(void) {
    int64_t n = 0;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < n_slot; i++) {
        n += table[i].facts.attended;
    }
    pthread_mutex_unlock(&lock);
    return n;
}
