/* ggml_type <-> varve_format, and the proof that both mean the same bytes. */
#include "plugin.h"

static const struct {
    enum ggml_type type;
    enum varve_format format;
} pairs[] = {
    {GGML_TYPE_F32, VARVE_FORMAT_F32},       {GGML_TYPE_F16, VARVE_FORMAT_F16},
    {GGML_TYPE_BF16, VARVE_FORMAT_BF16},     {GGML_TYPE_Q8_0, VARVE_FORMAT_Q8_0},
    {GGML_TYPE_Q4_0, VARVE_FORMAT_Q4_0},     {GGML_TYPE_Q4_1, VARVE_FORMAT_Q4_1},
    {GGML_TYPE_Q5_0, VARVE_FORMAT_Q5_0},     {GGML_TYPE_Q5_1, VARVE_FORMAT_Q5_1},
    {GGML_TYPE_IQ4_NL, VARVE_FORMAT_IQ4_NL},
};
enum { n_pair = sizeof(pairs) / sizeof(pairs[0]) };
_Static_assert(n_pair == VARVE_FORMAT_COUNT, "every format needs its type");

bool plugin_format(enum ggml_type type, enum varve_format *format) {
    for (int i = 0; i < n_pair; i++) {
        if (pairs[i].type == type) {
            *format = pairs[i].format;
            return true;
        }
    }
    return false;
}

bool plugin_formats_match(void) {
    for (int i = 0; i < n_pair; i++) {
        const int64_t block = varve_format_block_values(pairs[i].format);
        size_t bytes = 0;
        if (block != ggml_blck_size(pairs[i].type) ||
            varve_format_row_bytes(pairs[i].format, block, &bytes) != VARVE_OK ||
            bytes != ggml_type_size(pairs[i].type)) {
            return false;
        }
    }
    return true;
}
