/* The plug-in as a guest: loading and refusing, switches, what it declines, what it learns. */
#include "plugin_host.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- other processes ------------------------------------------------------------------------ */

/* The environment is read once per process, and a process has one registry: these cases run in
 * children, which are this program with the name of the case as argument. */
struct child {
    int code;
    char text[8192]; /* its stderr */
};

static struct child run_child(const char *name, const char *variable, const char *value) {
    struct child child = {.code = -1};
    char file[] = "/tmp/varve-test-XXXXXX";
    const int fd = mkstemp(file);
    assert_true(fd >= 0);
    const pid_t pid = fork();
    if (pid == 0) {
        if (variable != NULL) {
            setenv(variable, value, 1);
        }
        dup2(fd, STDERR_FILENO);
        execl("/proc/self/exe", "test", name, (char *)NULL);
        _exit(99);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    child.code = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
    const ssize_t n = pread(fd, child.text, sizeof(child.text) - 1, 0);
    child.text[n > 0 ? n : 0] = '\0';
    close(fd);
    unlink(file);
    return child;
}

static int count_lines(const char *text, const char *needle) {
    int n = 0;
    for (const char *at = text; (at = strstr(at, needle)) != NULL; at++) {
        n++;
    }
    return n;
}

/* Loads the plug-in; 0: a device is there, 1: loaded without one, 2: refused. */
static int child_load(void) {
    ggml_backend_reg_t reg = ggml_backend_load(plugin_path());
    return reg == NULL ? 2 : ggml_backend_reg_dev_count(reg) == 1 ? 0 : 1;
}

/* Maps a second libggml-base, as a host with its own copy under another name would have it. */
static int child_second_copy(void) {
    Dl_info info;
    char command[9000];
    char copy[] = "/tmp/varve-copy-XXXXXX";
    if (dladdr((const void *)(uintptr_t)&ggml_nbytes, &info) == 0 || mkdtemp(copy) == NULL) {
        return 3;
    }
    snprintf(command, sizeof(command), "cp -L '%s' %s/libggml-base-other.so", info.dli_fname, copy);
    if (system(command) != 0) {
        return 4;
    }
    snprintf(command, sizeof(command), "%s/libggml-base-other.so", copy);
    const bool mapped = dlopen(command, RTLD_NOW | RTLD_LOCAL) != NULL;
    unlink(command);
    rmdir(copy);
    return mapped ? child_load() : 5;
}

static void another_version_of_ggml_is_refused(void **state) {
    (void)state;
    struct child c = run_child("load", "VARVE_TEST_GGML_VERSION", "0.99.1");
    assert_int_equal(c.code, 2);
    assert_int_equal(count_lines(c.text, "varve: not loaded: built for ggml 0.99.1"), 1);
    c = run_child("load", "VARVE_TEST_GGML_VERSION", "9.0");
    assert_int_equal(c.code, 2);
    char near[64]; /* the same major.minor will do */
    snprintf(near, sizeof(near), "%s", ggml_version());
    *strrchr(near, '.') = '\0';
    strcat(near, ".999");
    c = run_child("load", "VARVE_TEST_GGML_VERSION", near);
    assert_int_equal(c.code, 0);
}

static void a_second_ggml_base_is_refused(void **state) {
    (void)state;
    const struct child c = run_child("second-copy", NULL, NULL);
    assert_int_equal(c.code, 2);
    assert_int_equal(count_lines(c.text, "two copies of libggml-base"), 1);
}

static void disable_leaves_no_device(void **state) {
    (void)state;
    const struct child c = run_child("load", "VARVE_DISABLE", "1");
    assert_int_equal(c.code, 1);
    assert_int_equal(count_lines(c.text, "varve:"), 0);
}

static void bad_values_are_reported_once_and_harmless(void **state) {
    (void)state;
    struct child c = run_child("load", "VARVE_ISA", "avx9000");
    assert_int_equal(c.code, 0);
    assert_int_equal(count_lines(c.text, "varve: VARVE_ISA=avx9000: no such level"), 1);
    c = run_child("load", "VARVE_CLASS", "best");
    assert_int_equal(c.code, 0);
    assert_int_equal(count_lines(c.text, "varve: VARVE_CLASS=best: expected default, exact"), 1);
    c = run_child("load", "VARVE_TRACE", "yes");
    assert_int_equal(c.code, 0);
    assert_int_equal(count_lines(c.text, "varve: VARVE_TRACE=yes: expected 0 or 1"), 1);
    c = run_child("load", "VARVE_ISA", "scalar");
    assert_int_equal(c.code, 0);
    assert_int_equal(count_lines(c.text, "varve:"), 0);
}

/* ---- this process --------------------------------------------------------------------------- */

static void loading_twice_gives_the_same_registry(void **state) {
    (void)state;
    ggml_backend_reg_t reg = load_plugin();
    const size_t n_reg = ggml_backend_reg_count();
    const size_t n_dev = ggml_backend_dev_count();
    assert_ptr_equal(ggml_backend_load(plugin_path()), reg);
    assert_ptr_equal(ggml_backend_reg_by_name(VARVE_GGML_NAME), reg);
    assert_int_equal(ggml_backend_reg_count(), n_reg);
    assert_int_equal(ggml_backend_dev_count(), n_dev);
    ggml_backend_dev_t dev = ggml_backend_dev_by_name(VARVE_GGML_NAME);
    assert_non_null(dev);
    assert_int_equal(ggml_backend_dev_type(dev), GGML_BACKEND_DEVICE_TYPE_ACCEL);
    struct ggml_backend_dev_props props;
    ggml_backend_dev_get_props(dev, &props);
    assert_true(props.caps.buffer_from_host_ptr);
    assert_false(props.caps.async);
    assert_null(ggml_backend_reg_get_proc_address(reg, "nonsense"));
}

/* A valid attention node without data, to be bent. */
static struct ggml_tensor *attention_node(struct ggml_context *ctx) {
    struct ggml_tensor *q = ggml_new_tensor_4d(ctx, GGML_TYPE_F32, 64, 2, 6, 1);
    struct ggml_tensor *k = ggml_new_tensor_4d(ctx, GGML_TYPE_Q8_0, 64, 256, 3, 1);
    struct ggml_tensor *v = ggml_new_tensor_4d(ctx, GGML_TYPE_F16, 64, 256, 3, 1);
    struct ggml_tensor *mask = ggml_new_tensor_4d(ctx, GGML_TYPE_F16, 256, 2, 1, 1);
    return ggml_flash_attn_ext(ctx, q, k, v, mask, 0.125f, 0.0f, 0.0f);
}

static void bend(struct ggml_tensor *n, int how) {
    switch (how) {
    case 0: n->src[1]->type = GGML_TYPE_Q6_K; break;
    case 1: n->src[2]->type = GGML_TYPE_Q2_K; break;
    case 2: n->src[0]->type = GGML_TYPE_F16; break;
    case 3: n->type = GGML_TYPE_F16; break;
    case 4: n->src[1]->nb[0] *= 2; break;
    case 5: n->src[2]->nb[0] = 256; break;
    case 6: n->src[0]->nb[0] = 8; break;
    case 7: n->src[1]->ne[0] = 48; break;
    case 8: n->src[1]->ne[2] = 4; break;
    case 9: n->src[1]->ne[2] = 0; break;
    case 10: n->src[2]->ne[2] = 2; break;
    case 11: n->src[2]->ne[1] = 255; break;
    case 12: n->src[3]->type = GGML_TYPE_F32; break;
    case 13: n->src[3]->ne[0] = 255; break;
    case 14: n->src[3]->ne[1] = 1; break;
    case 15: n->src[3]->ne[2] = 4; break;
    case 16: n->src[3]->ne[3] = 0; break;
    case 17: n->src[0]->ne[3] = 2; break;
    case 18: n->src[1] = NULL; break;
    case 19: n->src[4] = n->src[0]; break;
    case 20: n->ne[1] = 7; break;
    case 21: n->src[0]->ne[1] = -1; break;
    case 22: n->src[1]->ne[1] = INT64_MAX; break;
    case 23: n->src[0]->ne[2] = (int64_t)1 << 40; break;
    case 24: memset(n->op_params, 0xff, sizeof(float)); break;     /* scale is NaN */
    default: memset(n->op_params + 2, 0xff, sizeof(float)); break; /* so is softcap */
    }
}
enum { N_BEND = 26 };

static void odd_attention_is_declined(void **state) {
    (void)state;
    ggml_backend_dev_t dev = ggml_backend_reg_dev_get(load_plugin(), 0);
    for (int how = -1; how < N_BEND; how++) {
        struct ggml_context *ctx = new_graph_context();
        struct ggml_tensor *node = attention_node(ctx);
        if (how >= 0) {
            bend(node, how);
        }
        if (ggml_backend_dev_supports_op(dev, node) != (how < 0)) {
            fail_msg("odd case %d", how);
        }
        ggml_free(ctx);
    }
    assert_true(read_counters().attention_declined >= N_BEND);
}

static struct ggml_tensor *write_node(struct ggml_context *ctx) {
    struct ggml_tensor *cache = ggml_new_tensor_4d(ctx, GGML_TYPE_Q4_0, 64, 256, 1, 1);
    struct ggml_tensor *rows = ggml_new_tensor_4d(ctx, GGML_TYPE_F32, 64, 4, 1, 1);
    struct ggml_tensor *index = ggml_new_tensor_1d(ctx, GGML_TYPE_I64, 4);
    return ggml_set_rows(ctx, cache, rows, index);
}

static void bend_write(struct ggml_tensor *n, int how) {
    switch (how) {
    case 0: n->type = GGML_TYPE_Q6_K; break;
    case 1: n->src[0]->type = GGML_TYPE_BF16; break;
    case 2: n->src[1]->type = GGML_TYPE_F32; break;
    case 3: n->ne[0] = 48; break;
    case 4: n->nb[0] = 36; break;
    case 5: n->src[0]->nb[0] = 8; break;
    case 6: n->src[0]->ne[2] = 2; break;
    case 7: n->src[1]->ne[0] = 5; break;
    case 8: n->src[1]->ne[1] = 0; break;
    case 9: n->src[1]->ne[3] = 2; break;
    case 10: n->src[0] = NULL; break;
    default: n->view_src->op = GGML_OP_FILL; break; /* not a cache, but some node's result */
    }
}
enum { N_BEND_WRITE = 12 };

static void odd_writes_are_declined(void **state) {
    (void)state;
    ggml_backend_dev_t dev = ggml_backend_reg_dev_get(load_plugin(), 0);
    for (int how = -1; how < N_BEND_WRITE; how++) {
        struct ggml_context *ctx = new_graph_context();
        struct ggml_tensor *node = write_node(ctx);
        if (how >= 0) {
            bend_write(node, how);
        }
        if (ggml_backend_dev_supports_op(dev, node) != (how < 0)) {
            fail_msg("odd case %d", how);
        }
        ggml_free(ctx);
    }
}

/* Writes go where the attention goes: a cache that is read by a matrix product is left to ggml from
 * then on, until attention of ours reads it. */
static void writes_follow_attention(void **state) {
    (void)state;
    ggml_backend_dev_t dev = ggml_backend_reg_dev_get(load_plugin(), 0);
    struct ggml_context *ctx = new_graph_context();
    struct ggml_tensor *cache = ggml_new_tensor_2d(ctx, GGML_TYPE_F16, 64, 256);
    struct ggml_tensor *rows = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 64, 4);
    struct ggml_tensor *write =
        ggml_set_rows(ctx, cache, rows, ggml_new_tensor_1d(ctx, GGML_TYPE_I64, 4));
    struct ggml_tensor *k = ggml_view_3d(ctx, cache, 64, 256, 1, cache->nb[1], cache->nb[2], 0);
    struct ggml_tensor *q = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, 64, 4, 1);
    struct ggml_tensor *product = ggml_mul_mat(ctx, k, q);
    struct ggml_tensor *attention = ggml_flash_attn_ext(ctx, q, k, k, NULL, 0.125f, 0.0f, 0.0f);
    ggml_backend_buffer_t buffer =
        ggml_backend_alloc_ctx_tensors_from_buft(ctx, ggml_backend_cpu_buffer_type());
    assert_non_null(buffer);

    assert_true(ggml_backend_dev_supports_op(dev, write));
    assert_false(ggml_backend_dev_supports_op(dev, product));
    assert_false(ggml_backend_dev_supports_op(dev, write));
    assert_true(ggml_backend_dev_supports_op(dev, attention));
    assert_true(ggml_backend_dev_supports_op(dev, write));

    ggml_backend_buffer_free(buffer);
    ggml_free(ctx);
}

/* A graph of llama.cpp's form through ggml's scheduler: write and attention come to us. */
static void the_scheduler_gives_us_our_nodes(void **state) {
    (void)state;
    ggml_backend_t backends[2] = {new_backend(2), ggml_backend_cpu_init()};
    ggml_backend_sched_t sched = ggml_backend_sched_new(backends, NULL, 2, 64, false, true);
    struct ggml_context *cache_ctx = new_graph_context();
    struct ggml_tensor *cache = ggml_new_tensor_2d(cache_ctx, GGML_TYPE_Q8_0, 64, 256);
    ggml_backend_buffer_t buffer =
        ggml_backend_alloc_ctx_tensors_from_buft(cache_ctx, ggml_backend_cpu_buffer_type());
    assert_non_null(buffer);
    ggml_backend_buffer_clear(buffer, 0);

    struct ggml_context *ctx = new_graph_context();
    struct ggml_tensor *rows = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 64, 1);
    struct ggml_tensor *index = ggml_new_tensor_1d(ctx, GGML_TYPE_I64, 1);
    ggml_set_input(rows);
    ggml_set_input(index);
    struct ggml_tensor *twice = ggml_scale(ctx, rows, 2.0f);
    struct ggml_tensor *write = ggml_set_rows(ctx, cache, twice, index);
    struct ggml_tensor *k = ggml_view_3d(ctx, cache, 64, 256, 1, cache->nb[1], cache->nb[2], 0);
    struct ggml_tensor *q = ggml_reshape_3d(ctx, twice, 64, 1, 1);
    struct ggml_tensor *attention = ggml_flash_attn_ext(ctx, q, k, k, NULL, 0.125f, 0.0f, 0.0f);
    struct ggml_tensor *out = ggml_scale(ctx, attention, 0.5f);
    ggml_set_output(out);
    struct ggml_cgraph *graph = ggml_new_graph(ctx);
    ggml_build_forward_expand(graph, write);
    ggml_build_forward_expand(graph, out);

    assert_true(ggml_backend_sched_alloc_graph(sched, graph));
    assert_ptr_equal(ggml_backend_sched_get_tensor_backend(sched, write), backends[0]);
    assert_ptr_equal(ggml_backend_sched_get_tensor_backend(sched, attention), backends[0]);
    assert_ptr_equal(ggml_backend_sched_get_tensor_backend(sched, out), backends[1]);
    fill_random(rows, 1.0f, 1);
    ((int64_t *)index->data)[0] = 3;
    const struct varve_ggml_counters before = read_counters();
    assert_int_equal(ggml_backend_sched_graph_compute(sched, graph), GGML_STATUS_SUCCESS);
    const struct varve_ggml_counters after = read_counters();
    assert_int_equal(after.attention_nodes, before.attention_nodes + 1);
    assert_int_equal(after.attention_rows, before.attention_rows + 256);
    assert_int_equal(after.attention_bytes, before.attention_bytes + 256 * 2 * 68);
    assert_int_equal(after.set_rows_rows, before.set_rows_rows + 1);

    ggml_backend_sched_free(sched);
    ggml_free(ctx);
    ggml_backend_buffer_free(buffer);
    ggml_free(cache_ctx);
    ggml_backend_free(backends[0]);
    ggml_backend_free(backends[1]);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "load") == 0) {
        return child_load();
    }
    if (argc > 1 && strcmp(argv[1], "second-copy") == 0) {
        return child_second_copy();
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loading_twice_gives_the_same_registry),
        cmocka_unit_test(another_version_of_ggml_is_refused),
        cmocka_unit_test(a_second_ggml_base_is_refused),
        cmocka_unit_test(disable_leaves_no_device),
        cmocka_unit_test(bad_values_are_reported_once_and_harmless),
        cmocka_unit_test(odd_attention_is_declined),
        cmocka_unit_test(odd_writes_are_declined),
        cmocka_unit_test(writes_follow_attention),
        cmocka_unit_test(the_scheduler_gives_us_our_nodes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
