#include "divergence.h"

#include "args.h"
#include "file_at.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

/* Layout: a head, the tokens, and for each of them the log-probabilities that it was chosen by. The
 * head comes last, so that a file with a head is whole. */
struct head {
    int32_t n_token; /* room for so many */
    int32_t n_row;   /* written */
};

static off_t row_offset(const struct divergence_file *file, int32_t i) {
    return (off_t)sizeof(struct head) + file->n_token * (off_t)sizeof(int32_t) +
           i * (off_t)file->n_vocab * (off_t)sizeof(float);
}

static bool write_at(int fd, const void *data, size_t n_byte, off_t at) {
    const char *reason = file_write_at(fd, data, n_byte, at);
    if (reason != NULL) {
        cli_say("cannot write the temporary file: %s; make room, or set TMPDIR to a folder on "
                "another disk",
                reason);
    }
    return reason == NULL;
}

static bool read_at(int fd, void *data, size_t n_byte, off_t at) {
    const char *reason = file_read_at(fd, data, n_byte, at);
    if (reason != NULL) {
        cli_say("cannot read the temporary file: %s", reason);
    }
    return reason == NULL;
}

static bool allocate(struct divergence_file *file) {
    file->tokens = malloc(((size_t)file->n_token + 1) * sizeof(*file->tokens));
    file->row = malloc((size_t)file->n_vocab * sizeof(*file->row));
    if (file->tokens == NULL || file->row == NULL) {
        cli_say("no memory for the comparison");
        return false;
    }
    return true;
}

bool divergence_write(struct divergence_file *file, int fd, int32_t n_vocab, const int32_t *tokens,
                      int32_t n_token) {
    *file = (struct divergence_file){
        .fd = fd, .n_vocab = n_vocab, .n_token = n_token, .n_row = n_token};
    const size_t n_byte = (size_t)n_token * sizeof(*tokens);
    if (!allocate(file)) {
        return false;
    }
    memcpy(file->tokens, tokens, n_byte);
    return write_at(fd, tokens, n_byte, sizeof(struct head));
}

bool divergence_finish(struct divergence_file *file, int32_t n_row) {
    const struct head head = {file->n_token, n_row};
    return write_at(file->fd, &head, sizeof(head), 0);
}

bool divergence_read(struct divergence_file *file, int fd, int32_t n_vocab) {
    *file = (struct divergence_file){.fd = fd, .n_vocab = n_vocab};
    struct head head;
    if (!read_at(fd, &head, sizeof(head), 0)) {
        return false;
    }
    file->n_token = head.n_token;
    file->n_row = head.n_row;
    return allocate(file) &&
           read_at(fd, file->tokens, (size_t)head.n_token * sizeof(int32_t), sizeof(head));
}

void divergence_close(struct divergence_file *file) {
    free(file->tokens);
    free(file->row);
}

/* log sum exp, in double: the divergences may be as small as 1e-6. */
static double log_sum(const float *logits, int32_t n) {
    double max = logits[0];
    for (int32_t i = 1; i < n; i++) {
        max = logits[i] > max ? logits[i] : max;
    }
    double sum = 0;
    for (int32_t i = 0; i < n; i++) {
        sum += exp(logits[i] - max);
    }
    return max + log(sum);
}

static int32_t top(const float *values, int32_t n) {
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++) {
        best = values[i] > values[best] ? i : best;
    }
    return best;
}

bool divergence_store(struct divergence_file *file, int32_t i, const float *logits) {
    const double sum = log_sum(logits, file->n_vocab);
    for (int32_t j = 0; j < file->n_vocab; j++) {
        file->row[j] = (float)(logits[j] - sum);
    }
    return write_at(file->fd, file->row, (size_t)file->n_vocab * sizeof(float),
                    row_offset(file, i));
}

bool divergence_add(struct divergence_file *file, int32_t i, const float *logits,
                    struct divergence *total) {
    const int32_t n = file->n_vocab;
    if (!read_at(file->fd, file->row, (size_t)n * sizeof(float), row_offset(file, i))) {
        return false;
    }
    const double sum = log_sum(logits, n);
    double kl = 0;
    for (int32_t j = 0; j < n; j++) {
        const double p = exp(file->row[j]);
        kl += p > 0 ? p * (file->row[j] - (logits[j] - sum)) : 0;
    }
    kl = kl < 0 ? 0 : kl; /* by rounding only; NaN stays */
    total->sum += kl;
    total->max = kl > total->max ? kl : total->max;
    total->n_same_top += top(file->row, n) == top(logits, n);
    total->n_position++;
    return true;
}
