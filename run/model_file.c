#include "model_file.h"

#include "args.h"

#include "llama.h"

#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* The beginning of a GGUF file; numbers are little-endian. */
struct head {
    char magic[4];
    uint32_t version;
    uint64_t n_tensor, n_key;
};
_Static_assert(sizeof(struct head) == 24, "no padding");

enum { VERSION_MIN = 2, VERSION_MAX = 3, KEY_BYTES_MIN = 13, TENSOR_BYTES_MIN = 24 };

static bool check_version(const char *path, uint32_t version) {
    if (version == 1) {
        cli_say(
            "%s is GGUF of version 1, which llama.cpp has not read since 2023; convert the model "
            "anew",
            path);
    } else if ((version & 0xffff) == 0 && version != 0) {
        cli_say(
            "%s is a GGUF file in the byte order of another machine; take the little-endian one",
            path);
    } else if (version < VERSION_MIN || version > VERSION_MAX) {
        cli_say("%s says that it is GGUF of version %" PRIu32 ", but versions %d and %d are known; "
                "is the file damaged, or newer than this llama.cpp?",
                path, version, VERSION_MIN, VERSION_MAX);
    } else {
        return true;
    }
    return false;
}

/* Each key and each tensor takes some bytes of the header. */
static bool check_counts(const char *path, const struct head *head, uint64_t file_bytes) {
    if (head->n_tensor <= file_bytes / TENSOR_BYTES_MIN &&
        head->n_key <= file_bytes / KEY_BYTES_MIN) {
        return true;
    }
    cli_say("%s says that it has %" PRIu64 " tensors and %" PRIu64 " keys, but it has %" PRIu64
            " bytes only: it is damaged, or not wholly there; fetch it again",
            path, head->n_tensor, head->n_key, file_bytes);
    return false;
}

static bool check_open_file(const char *path, FILE *file) {
    struct stat info;
    struct head head;
    if (fstat(fileno(file), &info) != 0) {
        cli_say("cannot read the model %s: %s; give another one with -m", path, strerror(errno));
    } else if (!S_ISREG(info.st_mode)) {
        cli_say("the model %s is not a file; give another one with -m", path);
    } else if (info.st_size == 0) {
        cli_say("the model %s is empty; fetch it again, or give another one with -m", path);
    } else if (fread(&head, 1, sizeof(head), file) < sizeof(head.magic) ||
               memcmp(head.magic, "GGUF", sizeof(head.magic)) != 0) {
        cli_say("%s is not a GGUF file; give a model in that format with -m", path);
    } else if (info.st_size < (off_t)sizeof(head)) {
        cli_say("%s ends inside its header; fetch it again", path);
    } else {
        return check_version(path, head.version) &&
               check_counts(path, &head, (uint64_t)info.st_size);
    }
    return false;
}

bool model_file_check(const char *path) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        cli_say("cannot read the model %s: %s; give another one with -m", path, strerror(errno));
        return false;
    }
    const bool ok = check_open_file(path, file);
    fclose(file);
    return ok;
}

bool model_file_is_random(const struct llama_model *model) {
    char value[8] = "";
    return llama_model_meta_val_str(model, "varve.random_weights", value, sizeof(value)) > 0 &&
           strcmp(value, "true") == 0;
}
