#include "page.h"

#include "out_file.h"

#include <string.h>

/* Made of eval/report/ by cmake/embed.cmake; "@data@" stands once where the figures belong. */
extern const unsigned char page_text[];
extern const unsigned long page_text_bytes;

/* JSON within an HTML script element, which "</script" or "<!--" in a string would end or bend. */
static int put_json(const char *text, size_t n, void *to) {
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '<' ? fputs("\\u003c", to) == EOF : fputc(text[i], to) == EOF) {
            return -1;
        }
    }
    return 0;
}

bool page_write(const char *path, int fd, const json_t *root) {
    static const char mark[] = "@data@";
    const char *text = (const char *)page_text;
    const char *at = memmem(text, page_text_bytes, mark, sizeof(mark) - 1);
    FILE *to = out_file_begin("--report", path, fd);
    if (to == NULL) {
        return false;
    }
    const size_t n_before = (size_t)(at - text),
                 n_after = page_text_bytes - n_before - (sizeof(mark) - 1);
    const bool ok = root != NULL && fwrite(text, 1, n_before, to) == n_before &&
                    json_dump_callback(root, put_json, to, JSON_COMPACT) == 0 &&
                    fwrite(at + sizeof(mark) - 1, 1, n_after, to) == n_after;
    return out_file_end("--report", path, to, ok);
}
