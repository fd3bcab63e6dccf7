/* Shared by the files of the ggml back end. State of a context lives in struct plugin_backend;
 * what is global here is either constant after loading or a table of facts under a lock. */
#ifndef VARVE_GGML_PLUGIN_H
#define VARVE_GGML_PLUGIN_H

#include "ggml-backend-impl.h"
#include "ggml-backend.h"
#include "ggml.h"
#include "varve/ggml.h"
#include "varve/hot.h"
#include "varve/varve.h"

#include <stdbool.h>
#include <stdint.h>

/* ------------------------------------------------------------------------------------- config */

struct plugin_tiers {
    int32_t window;  /* VARVE_TIERS=f16:W; 0: none */
    int32_t n_sink;  /* VARVE_SINKS */
    int64_t hot_max; /* VARVE_HOT_MAX in bytes; 0: no limit */
};

struct plugin_config {
    bool disable;                     /* VARVE_DISABLE=1 */
    bool trace;                       /* VARVE_TRACE=1 */
    bool decline_attention;           /* VARVE_TEST_DECLINE_ATTENTION=1 */
    const char *isa;                  /* VARVE_ISA, a level that this CPU has; NULL: the best */
    enum varve_arithmetic arithmetic; /* VARVE_CLASS */
    bool launched;                    /* somewhere below `varve exec` */
    bool launched_here;               /* the very process that `varve exec` turned into */
    const char *built_for;            /* version of ggml that we were compiled against */
    bool tiers_given;                 /* VARVE_TIERS is set: the user expects something of it */
    struct plugin_tiers tiers;
};

/* The environment, read once at the first call. */
const struct plugin_config *plugin_config(void);

/* "f16:W" or "none"; false: neither, *window is as before. */
bool plugin_read_tiers(const char *text, int32_t *window);

/* --------------------------------------------------------------------------------------- host */

/* NULL, or why this process must not get a back end from us (a complete line, static storage).
 * caller: an address in the code that asks for the back end. */
const char *host_refusal(const void *caller);

/* ggml-cpu's own quantizer of a type, so that bytes are those of stock on this machine; NULL when
 * the CPU back end is not there (yet). */
typedef void (*host_from_float_fn)(const float *src, void *dst, int64_t n_values);
host_from_float_fn host_from_float(enum ggml_type type);

/* The encoder of varve that writes what host_from_float(type) does, and the format that it writes,
 * once they were found out. */
bool host_encoder(enum ggml_type type, enum varve_format *format, enum varve_encoder *encoder);

/* A CPU back end of ggml's own with one thread, the caller's to free; NULL: it cannot be had. */
ggml_backend_t host_cpu_backend(void);

/* Whether the host's CPU back end runs its threads by OpenMP. */
bool host_has_openmp(void);

/* -------------------------------------------------------------------------------------- types */

/* False when the type is not one of the nine formats. */
bool plugin_format(enum ggml_type type, enum varve_format *format);

/* Checks sizes of blocks against the ggml that is loaded. */
bool plugin_formats_match(void);

/* ------------------------------------------------------------------------------------ threads */

/* Work in phases: all tasks of a phase end before one of the next begins. Tasks of a phase run in
 * any order on any thread; worker is below the number of threads asked for. */
struct plugin_tasks {
    int64_t n_task[VARVE_PHASE_COUNT];
    void (*run)(void *arg, int32_t phase, int64_t task, int32_t worker);
    void *arg;
};

struct plugin_threads;

struct plugin_threads *threads_create(void);
void threads_destroy(struct plugin_threads *threads);
void threads_run(struct plugin_threads *threads, int32_t n_thread,
                 const struct plugin_tasks *tasks);

/* Whether work that takes one thread this long is worth more threads. A matter of speed alone:
 * results do not depend on it. */
bool threads_pay(const struct plugin_threads *threads, double microseconds);

/* Threads for tasks that take one thread this long, where the host has n_thread; and the most that
 * it can be. */
int32_t threads_wanted(const struct plugin_threads *threads, int32_t n_thread, double microseconds);
int32_t threads_most(const struct plugin_threads *threads, int32_t n_thread);

/* ------------------------------------------------------------------------------------ backend */

/* A plan and what it was made for. */
struct plugin_plan {
    struct plugin_plan_key {
        struct varve_attention attention;
        int64_t n_row;
        uint32_t k_formats, v_formats; /* a bit for each */
        int32_t n_worker;
    } key;
    struct varve_plan *plan;
    uint64_t node; /* that used it last */
};

struct plugin_hot;

struct plugin_backend {
    struct varve_context *varve; /* borrowed from the device, immutable */
    struct plugin_threads *threads;
    int32_t n_thread;
    struct plugin_plan *plan; /* of the latest nodes: layers repeat them */
    int32_t n_plan;
    uint64_t n_node;
    void *scratch; /* grows only, aligned to 64 */
    size_t scratch_bytes;
    struct plugin_hot *hot;
    ggml_backend_t neighbours; /* one thread of ggml's CPU back end; NULL before it is needed */
};

/* Context shared by all back ends of the process; NULL when it could not be made. */
struct varve_context *plugin_varve(void);

/* Memory of at least this size, or NULL. Contents are lost. */
void *plugin_scratch(struct plugin_backend *backend, size_t bytes);

/* -------------------------------------------------------------------------------------- plans */

/* The plan for segments, made once and kept while nodes repeat it. */
enum varve_status plans_get(struct plugin_backend *backend, const struct varve_attention *attention,
                            const struct varve_segment *segments, int64_t n_segment,
                            const struct varve_plan **plan);
void plans_free(struct plugin_backend *backend);

/* ---------------------------------------------------------------------------------------- hot */

/* The hot tier of one back end; settings are those of the moment. NULL: no memory. */
struct plugin_hot *hot_create(void);
void hot_destroy(struct plugin_hot *hot);

/* Room for n cell numbers; NULL: tiers are off, or no memory. */
int64_t *hot_cells(struct plugin_backend *backend, int64_t n);

/* Announces a write of rows to these cells of the tensor `op`. NULL: no twins for it. */
struct varve_twins *hot_write(struct plugin_backend *backend, const struct ggml_tensor *op,
                              const int64_t *cells, int64_t n);

/* One batch entry of a node, ready to run. Stays valid until the next node. */
struct hot_part {
    struct varve_attention attention;
    struct varve_io io;
    struct varve_hot_view *view; /* its checks run beside the attention; NULL: there are none */
};

/* Splits a node by batch entry into parts that read recent rows hot. Returns their number; 0: there
 * is nothing hot in it, run it as it is. */
int64_t hot_parts(struct plugin_backend *backend, const struct ggml_tensor *op,
                  const struct varve_attention *attention, const struct varve_io *io,
                  const struct hot_part **parts);

/* After part b has run, with its checks: whether the result stands. If not, the part is made anew,
 * without checks, and must run again. */
bool hot_settle(struct plugin_backend *backend, int64_t b);

/* After the last part of a node: brings the account up to date. */
void hot_finish(struct plugin_backend *backend);

/* Text about the tiers for the line that says that varve took hold. */
void hot_describe(const struct plugin_backend *backend, const struct ggml_tensor *op, char *text,
                  size_t text_bytes);

/* Settings of contexts that are made now. */
struct plugin_tiers hot_settings(void);

/* The twins of a cache tensor, one of n_tensor. False: it cannot have any. */
struct learn_facts;
bool hot_twins_params(const struct plugin_tiers *tiers, const struct ggml_tensor *root,
                      const struct learn_facts *facts, int64_t n_tensor,
                      struct varve_twins_params *params);

/* For get_proc_address, and for the report at the end. */
bool hot_account(int32_t context, struct varve_ggml_account *account, size_t account_bytes);
bool hot_set_tiers(const char *tiers, int32_t n_sink, int64_t hot_max);

/* ---------------------------------------------------------------------------------------- ops */

/* Nodes that compute nothing: another view of what is there. */
static inline bool node_only_renames(const struct ggml_tensor *node) {
    return node->op == GGML_OP_NONE || node->op == GGML_OP_RESHAPE || node->op == GGML_OP_VIEW ||
           node->op == GGML_OP_PERMUTE || node->op == GGML_OP_TRANSPOSE;
}

/* NULL when the node can be computed, else the reason (static storage). */
const char *attention_decline(const struct ggml_tensor *op);
enum ggml_status attention_compute(struct plugin_backend *backend, const struct ggml_tensor *op);

/* Scratch for a node that attention_decline accepts, when it finds n_k and n_v rows of each batch
 * entry in F16, and `n_twice` rows in both formats. 0: no plan. */
size_t attention_scratch(const struct ggml_tensor *op, int64_t n_k, int64_t n_v, int64_t n_twice,
                         int32_t n_thread);

const char *set_rows_decline(const struct ggml_tensor *op);
enum ggml_status set_rows_compute(struct plugin_backend *backend, const struct ggml_tensor *op);

/* --------------------------------------------------------------------------------- neighbours */

/* Questions of the scheduler: about a node of others; about a write that we take; and the answer
 * for a node that may stand beside ours. */
void neighbours_asked(const struct ggml_tensor *op);
void neighbours_written(const struct ggml_tensor *set_rows);
bool neighbours_take(const struct ggml_tensor *op);

/* Whether a node of our part of the graph is a neighbour, and the computation of all that follow
 * each other from `first`; *end is the node behind them. */
bool neighbours_is_one(const struct ggml_tensor *node);
enum ggml_status neighbours_compute(struct plugin_backend *backend, struct ggml_cgraph *cgraph,
                                    int first, int *end);

/* -------------------------------------------------------------------------------------- learn */

/* Which cache tensors are attended by us. A tensor is known by its root: the end of its chain of
 * views. Tensors without data are not learned about. */
struct learn_facts {
    bool attended;      /* by us, when last asked */
    bool reread;        /* by several nodes of a graph */
    int64_t n_sequence; /* of the context; 0: unknown */
    bool settled;       /* n_sequence is what llama.cpp reserved for, whatever is asked later */
};

const struct ggml_tensor *learn_root(const struct ggml_tensor *tensor);
/* The context that used the tensor has gone; the address may come again with another one. */
void learn_forget(const void *data, size_t bytes);
bool learn_written(const struct ggml_tensor *root); /* false: attended by others, leave it */
void learn_attended_by_stock(const struct ggml_tensor *tensor);
void learn_attended_by_us(const struct ggml_tensor *op);
struct learn_facts learn_about(const struct ggml_tensor *root);
int64_t learn_n_attended(void); /* tensors of all contexts */

/* --------------------------------------------------------------------------------------- need */

/* For get_proc_address. */
bool need_of(const struct ggml_tensor *attention, const struct varve_ggml_need_params *params,
             struct varve_ggml_need *need, size_t need_bytes);

/* ----------------------------------------------------------------------------------- counters */

enum plugin_counter {
    COUNT_ATTENTION_NODES,
    COUNT_ATTENTION_ROWS,
    COUNT_ATTENTION_BYTES,
    COUNT_SET_ROWS_NODES,
    COUNT_SET_ROWS_ROWS,
    COUNT_SET_ROWS_BYTES,
    COUNT_ATTENTION_ACCEPTED,
    COUNT_ATTENTION_DECLINED,
    COUNT_SET_ROWS_ACCEPTED,
    COUNT_SET_ROWS_DECLINED,
    COUNT_STOCK_ATTENTION,
    COUNT_FAILED_NODES,
    COUNT_COUNT,
};

void counters_add(enum plugin_counter counter, uint64_t n);
uint64_t counters_get(enum plugin_counter counter);
void counters_declined(const char *reason);

/* For get_proc_address. */
void counters_read(struct varve_ggml_counters *counters, size_t counters_bytes);
const char *counters_reason(int i, uint64_t *n_question);

/* The account of the hot tier in a few lines, under VARVE_TRACE=1. */
void counters_report_account(const char *whose, const struct varve_ggml_account *account);

/* From now on the process reports at its end. */
void counters_report_at_exit(void);

/* ---------------------------------------------------------------------------------------- log */

/* One line to ggml's log, or to stderr with VARVE_TRACE=1; never to stdout. */
void plugin_log(enum ggml_log_level level, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* One line to stderr, for what a user must see even where ggml's log is switched off. */
void plugin_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Says once per process why the plug-in stays out. */
void plugin_refuse(const char *reason);

/* True the first time that a process asks for this key. The table is bounded: when it is full, the
 * answer is false. */
bool plugin_first_time(uint64_t key);
uint64_t plugin_hash(uint64_t seed, const void *data, size_t bytes);

#endif
