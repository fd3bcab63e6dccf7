/* Shared by the files of the ggml back end. State of a context lives in struct plugin_backend;
 * what is global here is either constant after loading or a table of facts under a lock. */
#ifndef VARVE_GGML_PLUGIN_H
#define VARVE_GGML_PLUGIN_H

#include "ggml-backend-impl.h"
#include "ggml-backend.h"
#include "ggml.h"
#include "varve/ggml.h"
#include "varve/varve.h"

#include <stdbool.h>
#include <stdint.h>

/* ------------------------------------------------------------------------------------- config */

struct plugin_config {
    bool disable;           /* VARVE_DISABLE=1 */
    bool trace;             /* VARVE_TRACE=1 */
    bool decline_attention; /* VARVE_TEST_DECLINE_ATTENTION=1 */
    const char *isa;        /* VARVE_ISA, a level that this CPU has; NULL: the best */
    bool launched;          /* somewhere below `varve exec` */
    bool launched_here;     /* the very process that `varve exec` turned into */
    const char *built_for;  /* version of ggml that we were compiled against */
};

/* The environment, read once at the first call. */
const struct plugin_config *plugin_config(void);

/* --------------------------------------------------------------------------------------- host */

/* NULL, or why this process must not get a back end from us (a complete line, static storage).
 * caller: an address in the code that asks for the back end. */
const char *host_refusal(const void *caller);

/* ggml-cpu's own quantizer of a type, so that bytes are those of stock on this machine; NULL when
 * the CPU back end is not there (yet). */
typedef void (*host_from_float_fn)(const float *src, void *dst, int64_t n_values);
host_from_float_fn host_from_float(enum ggml_type type);

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

/* ------------------------------------------------------------------------------------ backend */

/* A plan and what it was made for. */
struct plugin_plan {
    struct varve_attention attention;
    struct varve_segment segment; /* pointers are zero */
    int32_t n_worker;
    struct varve_plan *plan;
};

struct plugin_backend {
    struct varve_context *varve; /* borrowed from the device, immutable */
    struct plugin_threads *threads;
    int32_t n_thread;
    struct plugin_plan plan; /* of the last attention node: layers repeat it */
    void *scratch;           /* grows only, aligned to 64 */
    size_t scratch_bytes;
};

/* Context shared by all back ends of the process; NULL when it could not be made. */
struct varve_context *plugin_varve(void);

/* Memory of at least this size, or NULL. Contents are lost. */
void *plugin_scratch(struct plugin_backend *backend, size_t bytes);

/* ---------------------------------------------------------------------------------------- ops */

/* NULL when the node can be computed, else the reason (static storage). */
const char *attention_decline(const struct ggml_tensor *op);
enum ggml_status attention_compute(struct plugin_backend *backend, const struct ggml_tensor *op);

const char *set_rows_decline(const struct ggml_tensor *op);
enum ggml_status set_rows_compute(struct plugin_backend *backend, const struct ggml_tensor *op);

/* -------------------------------------------------------------------------------------- learn */

/* Which cache tensors are attended by us. A tensor is known by its root: the end of its chain of
 * views. All three do nothing for tensors without data, as in reservations. */
const struct ggml_tensor *learn_root(const struct ggml_tensor *tensor);
bool learn_written(const struct ggml_tensor *root); /* false: attended by others, leave it */
void learn_attended_by_stock(const struct ggml_tensor *tensor);
void learn_attended_by_us(const struct ggml_tensor *tensor);

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
