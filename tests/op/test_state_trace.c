/* VARVE_TRACE: lines of key=value that name what a call did; at level 2 the origin of a value that
 * is not finite; nothing when it is off. The level is read once per process, so that each run has a
 * process of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "hand.h"

enum { N_THREAD = 3, DK = 64, DV = 32, N_QUERY = 2, N_HEAD = 4, N_HEAD_KV = 2, N_BATCH = 2 };
enum { TEXT = 16384 };

enum plant { PLANT_NOTHING, PLANT_Q, PLANT_K, PLANT_V, PLANT_MASK, PLANT_K_QUANT, PLANT_STATE };

static char file_path[64], output_path[64];

/* ---- in the child --------------------------------------------------------------------------- */

static void put_nan(const struct ggml_tensor *t, int64_t i1, int64_t i2, int64_t i3) {
    memset((char *)t->data + (size_t)i1 * t->nb[1] + (size_t)i2 * t->nb[2] + (size_t)i3 * t->nb[3],
           0xFF, ggml_row_size(t->type, t->ne[0]));
}

/* Two calls over 70 F16 and 5 q8_0 rows, then over 1 F16 row. */
static struct ggml_tensor *build(struct hand *hand, enum plant plant) {
    struct ggml_tensor *const q = hand_rows(hand, GGML_TYPE_F32, DK, N_QUERY, N_HEAD, N_BATCH);
    struct ggml_tensor *const k = hand_rows(hand, GGML_TYPE_F16, DK, 70, N_HEAD_KV, N_BATCH);
    struct ggml_tensor *const v = hand_rows(hand, GGML_TYPE_BF16, DV, 70, N_HEAD_KV, N_BATCH);
    struct ggml_tensor *const kq = hand_rows(hand, GGML_TYPE_Q8_0, DK, 5, N_HEAD_KV, N_BATCH);
    struct ggml_tensor *const vq = hand_rows(hand, GGML_TYPE_Q4_1, DV, 5, N_HEAD_KV, N_BATCH);
    struct ggml_tensor *const mask = hand_tensor(hand, GGML_TYPE_F16, 70, N_QUERY, 1, 1, 0);
    struct ggml_tensor *const state =
        hand_tensor(hand, GGML_TYPE_F32, 2 + DV, N_HEAD, N_QUERY, N_BATCH, 0);
    memset(mask->data, 0, ggml_nbytes(mask));
    if (plant == PLANT_Q) put_nan(q, 1, 3, 1);
    if (plant == PLANT_K) put_nan(k, 42, 1, 1);
    if (plant == PLANT_V) put_nan(v, 69, 0, 1);
    if (plant == PLANT_MASK) memset((char *)mask->data + 2 * 33, 0xFF, 2);
    if (plant == PLANT_K_QUANT) put_nan(kq, 3, 1, 0);
    varve_ggml_state_init(state);
    if (plant == PLANT_STATE) {
        ((float *)state->data)[0] = 0;
        ((float *)state->data)[1] = NAN;
    }
    struct varve_ggml_state_params params = {.struct_bytes = sizeof params};
    struct ggml_tensor *const y = varve_ggml_flash_attn_ext_with_state(
        hand->ctx, q, k, v, mask, kq, vq, NULL, state, 0.1f, 0, 0, &params);
    params.previous = y;
    params.final = true;
    struct ggml_tensor *const one_k =
        ggml_view_4d(hand->ctx, k, DK, 1, N_HEAD_KV, N_BATCH, k->nb[1], k->nb[2], k->nb[3], 0);
    struct ggml_tensor *const one_v =
        ggml_view_4d(hand->ctx, v, DV, 1, N_HEAD_KV, N_BATCH, v->nb[1], v->nb[2], v->nb[3], 0);
    return varve_ggml_flash_attn_ext_with_state(hand->ctx, q, one_k, one_v, NULL, NULL, NULL, NULL,
                                                state, 0.1f, 0, 0, &params);
}

static int run_child(const char *level, bool to_file, enum plant plant) {
    struct hand hand;
    struct hand_nodes nodes;
    if (freopen(output_path, "w", stderr) == NULL) return 2;
    if (level != NULL) setenv("VARVE_TRACE", level, 1);
    if (level == NULL) unsetenv("VARVE_TRACE");
    if (to_file) setenv("VARVE_TRACE_FILE", file_path, 1);
    if (!to_file) unsetenv("VARVE_TRACE_FILE");
    hand_begin(&hand);
    struct ggml_tensor *const y = build(&hand, plant);
    if (y == NULL) return 3;
    hand_nodes_of(&hand, y, 0, &nodes);
    for (int i = 0; i < nodes.n; i++) {
        for (int thread = 0; thread < N_THREAD; thread++) {
            hand_run(nodes.node[i], thread, N_THREAD);
        }
    }
    hand_end(&hand);
    fflush(NULL);
    return 0;
}

/* ---- in the parent -------------------------------------------------------------------------- */

static void read_text(const char *path, char *text) {
    FILE *const file = fopen(path, "r");
    const size_t n = file != NULL ? fread(text, 1, TEXT - 1, file) : 0;
    text[n] = '\0';
    if (file != NULL) fclose(file);
}

/* What the process wrote to the file and to stderr. */
static void run(const char *level, bool to_file, enum plant plant, char *in_file, char *on_stderr) {
    unlink(file_path);
    fflush(NULL);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) _exit(run_child(level, to_file, plant));
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    read_text(file_path, in_file);
    read_text(output_path, on_stderr);
}

/* The value of a key in a line; "" when it is not there. Values may be in quotes. */
static const char *value_of(const char *line, const char *key) {
    static char values[16][256];
    static int next;
    char *const value = values[next++ % 16];
    char pattern[64];
    value[0] = '\0';
    snprintf(pattern, sizeof pattern, " %s=", key);
    const char *p = strstr(line, pattern);
    if (p == NULL) return value;
    p += strlen(pattern);
    const char end = *p == '"' ? '"' : ' ';
    p += end == '"';
    size_t n = 0;
    while (p[n] != '\0' && p[n] != end && p[n] != '\n' && n < 255) n++;
    memcpy(value, p, n);
    value[n] = '\0';
    return value;
}

/* "varve-op", then words key=value; a word without a value is allowed behind a call's number. */
static void check_syntax(const char *line) {
    assert_int_equal(strncmp(line, "varve-op ", 9), 0);
    const char *p = line + 9;
    int n_word = 0;
    while (*p != '\0') {
        const size_t key = strcspn(p, "= ");
        assert_true(key > 0);
        p += key;
        if (*p == '=') {
            p++;
            const char *const quote = *p == '"' ? strchr(p + 1, '"') : NULL;
            if (*p == '"') assert_non_null(quote);
            p = quote != NULL ? quote + 1 : p + strcspn(p, " ");
        } else {
            assert_int_equal(n_word, 1);
        }
        assert_true(*p == ' ' || *p == '\0');
        p += *p == ' ';
        n_word++;
    }
}

static int lines_of(char *text, char **lines, int most) {
    int n = 0;
    for (char *line = strtok(text, "\n"); line != NULL && n < most; line = strtok(NULL, "\n")) {
        check_syntax(line);
        lines[n++] = line;
    }
    return n;
}

static void range_of(const char *line, const char *key, double *low, double *high) {
    assert_int_equal(sscanf(value_of(line, key), "[%lf,%lf]", low, high), 2);
}

static void check_first_call(const char *line) {
    double low, high;
    assert_string_equal(value_of(line, "op"), "attend");
    assert_string_equal(value_of(line, "rows_f16"), "70");
    assert_string_equal(value_of(line, "rows_quant"), "5");
    assert_string_equal(value_of(line, "type_k"), "f16");
    assert_string_equal(value_of(line, "type_v"), "bf16");
    assert_string_equal(value_of(line, "type_k_quant"), "q8_0");
    assert_string_equal(value_of(line, "type_v_quant"), "q4_1");
    assert_string_equal(value_of(line, "threads"), "3");
    assert_non_null(strstr(value_of(line, "kernels"), "varve_"));
    range_of(line, "m_before", &low, &high);
    assert_true(low == -INFINITY && high == -INFINITY);
    range_of(line, "m_after", &low, &high);
    assert_true(isfinite(low) && low <= high);
    range_of(line, "s_after", &low, &high);
    assert_true(low >= 1 && high <= 75 * 1.001 && low <= high);
}

static void check_second_call(const char *first, const char *second) {
    assert_string_equal(value_of(second, "rows_f16"), "1");
    assert_string_equal(value_of(second, "rows_quant"), "0");
    assert_string_equal(value_of(second, "m_before"), value_of(first, "m_after"));
    assert_string_equal(value_of(second, "s_before"), value_of(first, "s_after"));
}

static void lines_say_what_calls_did(void **unused) {
    (void)unused;
    static char in_file[TEXT], on_stderr[TEXT];
    for (int way = 0; way < 4; way++) {
        const bool to_file = way % 2 == 0;
        char *lines[8];
        run(way / 2 == 0 ? "1" : "2", to_file, PLANT_NOTHING, in_file, on_stderr);
        assert_string_equal(to_file ? on_stderr : in_file, "");
        assert_int_equal(lines_of(to_file ? in_file : on_stderr, lines, 8), 2);
        check_first_call(lines[0]);
        check_second_call(lines[0], lines[1]);
        assert_string_not_equal(value_of(lines[0], "call"), value_of(lines[1], "call"));
    }
}

static void nothing_is_said_when_off(void **unused) {
    (void)unused;
    static char in_file[TEXT], on_stderr[TEXT];
    static const char *const levels[] = {NULL, "", "0"};
    for (int i = 0; i < 6; i++) {
        run(levels[i / 2], i % 2 == 0, i < 3 ? PLANT_NOTHING : PLANT_K, in_file, on_stderr);
        assert_string_equal(in_file, "");
        assert_string_equal(on_stderr, "");
    }
}

/* Level 1 does not look for them. */
static void level_1_does_not_look_at_values(void **unused) {
    (void)unused;
    static char in_file[TEXT], on_stderr[TEXT];
    char *lines[8];
    run("1", true, PLANT_K, in_file, on_stderr);
    assert_int_equal(lines_of(in_file, lines, 8), 2);
}

static void level_2_names_where_a_nan_comes_from(void **unused) {
    (void)unused;
    static const struct {
        enum plant plant;
        const char *from, *part, *row_key, *row, *batch, *head;
    } wanted[] = {{PLANT_Q, "q", NULL, "from_query", "1", "1", "3"},
                  {PLANT_K, "k", "f16", "from_row", "42", "1", "1"},
                  {PLANT_V, "v", "f16", "from_row", "69", "1", "0"},
                  {PLANT_MASK, "mask", "f16", "from_row", "33", "0", "0"},
                  {PLANT_K_QUANT, "k", "quant", "from_row", "3", "0", "1"},
                  {PLANT_STATE, "state", NULL, "from_query", "0", "0", "0"}};
    static char in_file[TEXT], on_stderr[TEXT];
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        char *lines[8];
        run("2", true, wanted[i].plant, in_file, on_stderr);
        assert_in_range(lines_of(in_file, lines, 8), 3, 4);
        const char *const line = lines[1];
        assert_non_null(strstr(line, "nonfinite"));
        assert_string_equal(value_of(line, "call"), value_of(lines[0], "call"));
        assert_string_equal(value_of(line, "from"), wanted[i].from);
        if (wanted[i].part != NULL) {
            assert_string_equal(value_of(line, "from_part"), wanted[i].part);
        }
        assert_string_equal(value_of(line, wanted[i].row_key), wanted[i].row);
        assert_string_equal(value_of(line, "from_batch"), wanted[i].batch);
        assert_string_equal(value_of(line, "from_head"), wanted[i].head);
        if (wanted[i].plant == PLANT_STATE) { /* a range that has a NaN says so */
            assert_non_null(strstr(value_of(lines[0], "s_before"), "nan"));
            assert_non_null(strstr(value_of(lines[0], "s_after"), "nan"));
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_say_what_calls_did),
        cmocka_unit_test(nothing_is_said_when_off),
        cmocka_unit_test(level_1_does_not_look_at_values),
        cmocka_unit_test(level_2_names_where_a_nan_comes_from),
    };
    snprintf(file_path, sizeof file_path, "/tmp/varve-trace-%d.txt", (int)getpid());
    snprintf(output_path, sizeof output_path, "/tmp/varve-stderr-%d.txt", (int)getpid());
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(file_path);
    unlink(output_path);
    return failed;
}
