#include "format/format.h"

#include <stddef.h>

#include "format/block.h"

const struct varve_format_traits *varve_format_traits(enum varve_format format) {
    static const struct varve_format_traits table[VARVE_FORMAT_COUNT] = {
#define VARVE_FORMAT_FLOAT(suffix, name, values, bytes)                                            \
    [VARVE_FORMAT_##                                                                               \
        suffix] = {VARVE_FORMAT_##suffix, #name, values, bytes, false, false, varve_encode_##name, \
                   varve_decode_##name,   NULL},
#define VARVE_FORMAT_QUANT(suffix, name, bytes, has_min) \
    [VARVE_FORMAT_##suffix] = {VARVE_FORMAT_##suffix,    \
                               #name,                    \
                               VARVE_BLOCK,              \
                               bytes,                    \
                               true,                     \
                               has_min,                  \
                               varve_encode_##name,      \
                               varve_decode_##name,      \
                               varve_split_##name},
#include "format/formats.inc"
#undef VARVE_FORMAT_FLOAT
#undef VARVE_FORMAT_QUANT
    };
    return (unsigned)format < VARVE_FORMAT_COUNT ? &table[format] : NULL;
}

const char *varve_format_name(enum varve_format format) {
    const struct varve_format_traits *const traits = varve_format_traits(format);
    return traits ? traits->name : NULL;
}

/* ASCII only, so that the result does not depend on the locale. */
static bool same_name(const char *name, const char *lower) {
    for (; *lower != '\0'; name++, lower++) {
        const char c = *name >= 'A' && *name <= 'Z' ? (char)(*name + ('a' - 'A')) : *name;
        if (c != *lower) return false;
    }
    return *name == '\0';
}

enum varve_status varve_format_parse(const char *name, enum varve_format *format) {
    if (name == NULL || format == NULL) return VARVE_ERROR_ARGUMENT;
    for (int i = 0; i < VARVE_FORMAT_COUNT; i++) {
        if (same_name(name, varve_format_name((enum varve_format)i))) {
            *format = (enum varve_format)i;
            return VARVE_OK;
        }
    }
    return VARVE_ERROR_ARGUMENT;
}

int32_t varve_format_block_values(enum varve_format format) {
    const struct varve_format_traits *const traits = varve_format_traits(format);
    return traits ? traits->block_values : 0;
}

enum varve_status varve_format_row_bytes(enum varve_format format, int64_t n_values,
                                         size_t *bytes) {
    const struct varve_format_traits *const traits = varve_format_traits(format);
    if (traits == NULL || bytes == NULL) return VARVE_ERROR_ARGUMENT;
    if (n_values <= 0 || n_values % traits->block_values != 0) return VARVE_ERROR_ARGUMENT;
    /* The smaller of size_t and int64_t: sizes enter byte strides, which are int64_t. */
    const uint64_t most = SIZE_MAX < INT64_MAX ? (uint64_t)SIZE_MAX : (uint64_t)INT64_MAX;
    const uint64_t n_block = (uint64_t)(n_values / traits->block_values);
    if (n_block > most / (uint64_t)traits->block_bytes) return VARVE_ERROR_OVERFLOW;
    *bytes = (size_t)(n_block * (uint64_t)traits->block_bytes);
    return VARVE_OK;
}

enum varve_status varve_format_encode(enum varve_format format, const float *src, int64_t n_values,
                                      void *dst) {
    size_t bytes;
    const enum varve_status status = varve_format_row_bytes(format, n_values, &bytes);
    if (src == NULL || dst == NULL) return VARVE_ERROR_ARGUMENT;
    if (status == VARVE_OK) varve_format_traits(format)->encode(src, n_values, dst);
    return status;
}

enum varve_status varve_format_decode(enum varve_format format, const void *src, int64_t n_values,
                                      float *dst) {
    size_t bytes;
    const enum varve_status status = varve_format_row_bytes(format, n_values, &bytes);
    if (src == NULL || dst == NULL) return VARVE_ERROR_ARGUMENT;
    if (status == VARVE_OK) varve_format_traits(format)->decode(src, n_values, dst);
    return status;
}
