#include "utf8.h"

#include <stdbool.h>
#include <stdint.h>

size_t utf8_length(const char *text, size_t n) {
    const unsigned char *const at = (const unsigned char *)text;
    static const struct {
        unsigned char mask, lead;
        uint32_t least;
    } forms[] = {{0x80, 0x00, 0}, {0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};
    for (size_t length = 1; length <= 4 && length <= n; length++) {
        if ((at[0] & forms[length - 1].mask) != forms[length - 1].lead) {
            continue;
        }
        uint32_t code = at[0] & (unsigned char)~forms[length - 1].mask;
        for (size_t i = 1; i < length; i++) {
            if ((at[i] & 0xc0) != 0x80) {
                return 0;
            }
            code = code << 6 | (at[i] & 0x3f);
        }
        const bool valid = code >= forms[length - 1].least && code <= 0x10ffff &&
                           !(code >= 0xd800 && code <= 0xdfff);
        return valid ? length : 0;
    }
    return 0;
}

size_t utf8_prefix(const char *text, size_t n) {
    size_t i = 0;
    for (size_t length; i < n && (length = utf8_length(text + i, n - i)) > 0; i += length) {}
    return i;
}
