/* encode: bytes against the scalar kernel's. That those are ggml's is tests/ggml's business. */
#include <math.h>
#include <string.h>

#include "base/fp16.h"
#include "check/check.h"

enum { MOST_BLOCKS = 19 };

/* Kinds of blocks. Those from KIND_SMALL on may be out of the ordinary. */
enum kind {
    KIND_NORMAL,
    KIND_HALVES, /* multiples of half a step, exact ties among them */
    KIND_BESIDE, /* up to two units in the last place beside those */
    KIND_ZEROS,  /* of both signs */
    KIND_SAME,   /* one magnitude */
    KIND_SMALL,
    KIND_HUGE,
    KIND_ANY, /* bits */
    KIND_COUNT
};

static float draw(struct check *check, enum kind kind, float step) {
    const float sign = check_range(check, 0, 1) ? 1.0f : -1.0f;
    const int half = check_range(check, 0, 2 * 127);
    switch (kind) {
    case KIND_HALVES: return sign * step * (float)half * 0.5f;
    case KIND_BESIDE: {
        const uint32_t bits = varve_f32_to_bits(step * (float)(half + 1) * 0.5f);
        return sign * varve_bits_to_f32(bits + (uint32_t)check_range(check, 0, 4) - 2u);
    }
    case KIND_ZEROS: return sign * 0.0f;
    case KIND_SAME: return sign * step;
    case KIND_SMALL: return check_unit(check) * 0x1p-126f;
    case KIND_HUGE: return check_unit(check) * 3.4e38f;
    case KIND_ANY: return varve_bits_to_f32(check_random(check));
    default: return check_unit(check);
    }
}

static void fill(struct check *check, enum kind kind, float *x) {
    const float step = check_range(check, 0, 1) ? 1.0f : 1.0f + fabsf(check_unit(check));
    const int scale = check_range(check, -30, 30), most = check_range(check, 1, 127);
    for (int i = 0; i < VARVE_BLOCK; i++) {
        x[i] = draw(check, kind, step);
        if (kind == KIND_HALVES || kind == KIND_BESIDE) {
            x[i] = ldexpf(fmodf(x[i], step * (float)most), scale);
        }
    }
    if (kind == KIND_HALVES) x[check_range(check, 0, VARVE_BLOCK - 1)] = ldexpf(step * 127, scale);
}

static void run_case(struct check *check, const struct check_line *line,
                     enum varve_encoder encoder) {
    const struct varve_format_traits *const format = varve_format_traits(line->index);
    const int n_block = check_range(check, 1, MOST_BLOCKS), n = n_block * VARVE_BLOCK;
    const size_t bytes = (size_t)n_block * (size_t)format->block_bytes;
    const enum check_place place = (enum check_place)check_range(check, 0, PLACE_COUNT - 1);
    float *const x = check_place(check, BUFFER_X, (size_t)n * sizeof *x, PLACE_END);
    uint8_t *const want = check_aligned(BUFFER_S2, bytes);
    uint8_t *const row = check_place(check, BUFFER_ROW, bytes, place);
    const enum kind most = check_range(check, 0, 3) ? KIND_SAME : KIND_ANY;
    for (int b = 0; b < n_block; b++) {
        fill(check, (enum kind)check_range(check, 0, (int)most), x + b * VARVE_BLOCK);
    }
    check_case(check, "encoder %d, %d blocks, kinds to %d", (int)encoder, n_block, (int)most);
    struct varve_encode_args args = {format, encoder, n, x, want};
    const bool expected = check->scalar->encode[line->index].run(&args);
    args.row = row;
    const bool done = ((varve_encode_fn *)line->run)(&args);
    if (!done && most == KIND_SAME) check_fail(check, "declined a row of ordinary blocks");
    if (encoder != VARVE_ENCODER_REFERENCE && line->index == VARVE_FORMAT_Q8_0 && done != expected)
        check_fail(check, "%s what scalar does not", done ? "accepted" : "declined");
    for (size_t i = 0; done && i < bytes; i++) {
        if (row[i] == want[i]) continue;
        check_fail(check, "byte %d of block %d is %#x, expected %#x",
                   (int)(i % (size_t)format->block_bytes), (int)(i / (size_t)format->block_bytes),
                   row[i], want[i]);
    }
    check_around(check, BUFFER_ROW, "row");
}

static void call(check_fn *run, const void *args) { ((varve_encode_fn *)run)(args); }

static void bench(struct check *check, const struct check_line *line) {
    enum { N = 1024 };
    const struct varve_format_traits *const format = varve_format_traits(line->index);
    float *const x = check_aligned(BUFFER_X, N * sizeof *x);
    for (int i = 0; i < N; i++) x[i] = check_unit(check);
    uint8_t *const row =
        check_aligned(BUFFER_S, (size_t)(N / VARVE_BLOCK) * (size_t)format->block_bytes);
    const struct varve_encode_args args = {format, VARVE_ENCODER_REFERENCE, N, x, row};
    check_bench(check, line, (check_fn *)check->scalar->encode[line->index].run, call, &args,
                N * sizeof *x, 0);
}

void varve_check_encode(struct check *check, const struct check_line *line) {
    for (int i = 0; i < 200 * check->n_case; i++) {
        for (int e = 0; e < VARVE_ENCODER_COUNT; e++) run_case(check, line, (enum varve_encoder)e);
    }
    if (check->bench) bench(check, line);
}
