#include "flash_torch.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check/oracle.h"
#include "flash_run.h"

enum { CASES = 12 };
/* F32 against float64; PyTorch has Q in full, so only rows that are not quantized can agree so
 * well: 1e-5 of values that are about 1 */
#define TOLERANCE 1e-5

/* Float rows, no softcap and no sinks, which the other side does not have. */
static void make_case(uint64_t seed, int i, struct flash_case *c) {
    static const enum ggml_type types[] = {GGML_TYPE_F16, GGML_TYPE_F32, GGML_TYPE_BF16};
    flash_case_random(seed + 4711, i, c);
    snprintf(c->name, sizeof c->name, "pytorch-%02d", i);
    for (int p = 0; p < FLASH_PARTS; p++) {
        c->k_type[p] = types[(i + p) % 3];
        c->v_type[p] = types[(i + 2 * p) % 3];
    }
    c->softcap = 0;
    c->sinks = false;
    if (flash_case_all_rows(c) == 0) c->n_rows[0][0] = 5;
}

static void write_rows(FILE *file, const struct ggml_tensor *t, int64_t n_batch) {
    float *const x = malloc((size_t)t->ne[0] * sizeof *x);
    enum varve_format format;
    if (x == NULL || varve_format_parse(ggml_type_name(t->type), &format) != VARVE_OK) abort();
    for (int64_t b = 0; b < n_batch; b++) {
        for (int64_t h = 0; h < t->ne[2]; h++) {
            for (int64_t r = 0; r < t->ne[1]; r++) {
                if (varve_format_decode(format, flash_row(t, r, h, b), t->ne[0], x) != VARVE_OK) {
                    abort();
                }
                fwrite(x, sizeof *x, (size_t)t->ne[0], file);
            }
        }
    }
    free(x);
}

/* [n_batch][n_head][n_query][rows], slopes included. */
static void write_mask(FILE *file, const struct flash_data *data) {
    const struct flash_case *const c = data->c;
    const struct ggml_tensor *const mask = data->whole_mask;
    struct flash_problem p;
    flash_problem_of(data, data->n_rows, &p);
    for (int64_t b = 0; b < c->n_batch; b++) {
        for (int32_t h = 0; h < c->n_head; h++) {
            for (int64_t i = 0; i < c->n_query; i++) {
                for (int64_t r = 0; r < data->n_rows[0] + data->n_rows[1]; r++) {
                    const ggml_fp16_t *const row =
                        mask != NULL ? flash_row(mask, i, h % mask->ne[2], b) : NULL;
                    const float value = row != NULL ? ggml_fp16_to_fp32(row[r]) : 0;
                    const float bias = (float)oracle_slope(&p.attention, h) * value;
                    fwrite(&bias, sizeof bias, 1, file);
                }
            }
        }
    }
}

static bool write_case(const char *path, const struct flash_data *data, const float *output) {
    const struct flash_case *const c = data->c;
    FILE *const file = fopen(path, "wb");
    if (file == NULL) return false;
    const int32_t sizes[] = {c->n_batch,
                             c->n_head,
                             c->n_head_kv,
                             c->n_query,
                             c->dk,
                             c->dv,
                             data->k[0] != NULL ? (int32_t)data->n_rows[0] : 0,
                             data->k[1] != NULL ? (int32_t)data->n_rows[1] : 0};
    fwrite(sizes, sizeof sizes[0], sizeof sizes / sizeof sizes[0], file);
    write_rows(file, data->q, c->n_batch);
    for (int p = 0; p < FLASH_PARTS; p++) {
        if (data->n_rows[p] == 0) continue;
        write_rows(file, data->k[p], c->n_batch);
        write_rows(file, data->v[p], c->n_batch);
    }
    write_mask(file, data);
    const size_t n_output = (size_t)c->n_batch * (size_t)c->n_query * (size_t)c->n_head;
    fwrite(output, sizeof *output, n_output * (size_t)c->dv, file);
    return fclose(file) == 0;
}

/* The script's answer: the largest difference; below 0 where it failed. */
static double compare(const char *path) {
    char command[1024], line[256] = "";
    double difference = -1;
    snprintf(command, sizeof command, "python3 '%s' '%s'", VARVE_TORCH_SCRIPT, path);
    FILE *const pipe = popen(command, "r");
    if (pipe == NULL) return -1;
    if (fgets(line, sizeof line, pipe) == NULL ||
        sscanf(line, "difference %lf", &difference) != 1) {
        difference = -1;
    }
    return pclose(pipe) == 0 ? difference : -1;
}

static void run_case(const struct flash_case *c, const char *path, struct flash_totals *totals) {
    struct flash_data data;
    struct flash_result result;
    double difference = -1;
    flash_data_create(&data, c);
    flash_run(&data, FLASH_CHAIN, c->n_thread, &result);
    if (result.output != NULL && write_case(path, &data, result.output)) {
        difference = compare(path);
    }
    const bool ok = difference >= 0 && difference <= TOLERANCE;
    char text[512];
    flash_case_describe(c, text, sizeof text);
    printf("%-24s %8.2e from float64 %s | %s\n", c->name, difference, ok ? "ok  " : "FAIL", text);
    *(ok ? &totals->n_passed : &totals->n_failed) += 1;
    flash_result_free(&result);
    flash_data_destroy(&data);
}

void flash_torch(uint64_t seed, struct flash_totals *totals) {
    if (system("python3 -c 'import torch' 2>/dev/null") != 0) {
        printf("pytorch: skipped (not installed)\n");
        return;
    }
    char path[] = "/tmp/varve-torch-XXXXXX";
    const int fd = mkstemp(path);
    if (fd < 0) abort();
    close(fd);
    for (int i = 0; i < CASES; i++) {
        struct flash_case c;
        make_case(seed, i, &c);
        run_case(&c, path, totals);
    }
    unlink(path);
}
