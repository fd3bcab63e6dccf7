/* Size arithmetic that notices overflow: sticky, so that a chain is checked once at its end. */
#ifndef VARVE_BASE_CHECKED_H
#define VARVE_BASE_CHECKED_H

#include <stdbool.h>
#include <stddef.h>

struct varve_size {
    size_t value;
    bool overflow;
};

static inline struct varve_size varve_size_of(size_t value) {
    const struct varve_size size = {value, false};
    return size;
}

static inline struct varve_size varve_size_mul(struct varve_size a, size_t b) {
    a.overflow |= __builtin_mul_overflow(a.value, b, &a.value);
    return a;
}

static inline struct varve_size varve_size_add(struct varve_size a, size_t b) {
    a.overflow |= __builtin_add_overflow(a.value, b, &a.value);
    return a;
}

static inline struct varve_size varve_size_sum(struct varve_size a, struct varve_size b) {
    const struct varve_size size = varve_size_add(a, b.value);
    return (struct varve_size){size.value, size.overflow || b.overflow};
}

static inline struct varve_size varve_size_product(struct varve_size a, struct varve_size b) {
    const struct varve_size size = varve_size_mul(a, b.value);
    return (struct varve_size){size.value, size.overflow || b.overflow};
}

/* Rounds up to a multiple of `unit`, a power of two. */
static inline struct varve_size varve_size_round(struct varve_size a, size_t unit) {
    a = varve_size_add(a, unit - 1);
    a.value &= ~(unit - 1);
    return a;
}

#endif
