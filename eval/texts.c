#include "texts.h"

#include "args.h"
#include "input.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LICENCES "/usr/share/common-licenses/"

/* Domains, with files of the system or of the llama.cpp that was set up; those that are not there
 * are passed over. docs/EVAL.md 2 describes them. */
static const struct {
    const char *name;
    const char *files[5];
} domains[] = {
    {"licences",
     {LICENCES "GPL-3", LICENCES "MPL-2.0", LICENCES "Apache-2.0", LICENCES "GFDL-1.3"}},
    {"documentation", {"tools/server/README.md", "docs/build.md", "docs/speculative.md"}},
    {"code", {"src/llama-context.cpp", "src/llama-kv-cache.cpp"}},
};
enum { n_domain = sizeof(domains) / sizeof(domains[0]), n_file = 5 };

/* Joins the files of a domain. False after a line, also when there is none. */
static bool read_domain(int d, struct eval_text *out) {
    size_t n = 0;
    FILE *writer = open_memstream(&out->owned, &n);
    bool ok = writer != NULL;
    for (int i = 0; ok && i < n_file && domains[d].files[i] != NULL; i++) {
        char path[4096];
        struct run_text text;
        char *owned = NULL;
        const char *file = domains[d].files[i];
        snprintf(path, sizeof(path), "%s%s", file[0] == '/' ? "" : VARVE_EVAL_SOURCE "/", file);
        if (access(path, R_OK) != 0) {
            continue;
        }
        ok = input_file("text", path, &text, &owned);
        if (ok) {
            fwrite(text.bytes, 1, text.n, writer);
        }
        free(owned);
    }
    if (writer != NULL) {
        ok = fclose(writer) == 0 && ok;
    }
    out->name = domains[d].name;
    out->text = (struct run_text){out->owned, n};
    return ok;
}

/* A domain without any file is left out, so that the others can be used. */
static bool read_domains(struct eval_text *texts, int32_t *n_text) {
    for (int d = 0; d < n_domain; d++) {
        if (!read_domain(d, &texts[*n_text])) {
            (*n_text)++;
            return false;
        }
        if (texts[*n_text].text.n == 0) {
            cli_say("no text for the domain %s; it is left out", domains[d].name);
            free(texts[*n_text].owned);
            texts[*n_text].owned = NULL;
        } else {
            (*n_text)++;
        }
    }
    if (*n_text == 0) {
        cli_say("no text is there to be read; give one with -f");
    }
    return *n_text > 0;
}

bool texts_read(const struct eval_options *o, struct eval_text **texts, int32_t *n_text) {
    *n_text = 0;
    *texts = calloc((size_t)(o->n_file > 0 ? o->n_file : n_domain), sizeof(**texts));
    if (*texts == NULL) {
        cli_say("out of memory");
        return false;
    }
    if (o->n_file == 0) {
        return read_domains(*texts, n_text);
    }
    for (int32_t i = 0; i < o->n_file; i++) {
        struct eval_text *t = &(*texts)[(*n_text)++];
        t->name = o->files[i];
        if (!input_file("text", o->files[i], &t->text, &t->owned)) {
            return false;
        }
        if (t->text.n == 0) {
            cli_say("the text in %s is empty", o->files[i]);
            return false;
        }
    }
    return true;
}

void texts_free(struct eval_text *texts, int32_t n_text) {
    for (int32_t i = 0; i < n_text; i++) {
        free(texts[i].owned);
    }
    free(texts);
}
