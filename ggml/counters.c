/* What was served and what was declined, readable at any time and reported at the end. */
#include "plugin.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

static _Atomic uint64_t counts[COUNT_COUNT];

/* Reasons are string literals, so their number is bounded by the code. */
enum { n_reason_max = 48 };
static const char *reason_text[n_reason_max];
static uint64_t reason_count[n_reason_max];
static pthread_mutex_t reason_lock = PTHREAD_MUTEX_INITIALIZER;

static atomic_bool report;

void counters_add(enum plugin_counter counter, uint64_t n) {
    atomic_fetch_add_explicit(&counts[counter], n, memory_order_relaxed);
}

uint64_t counters_get(enum plugin_counter counter) {
    return atomic_load_explicit(&counts[counter], memory_order_relaxed);
}

void counters_declined(const char *reason) {
    pthread_mutex_lock(&reason_lock);
    for (int i = 0; i < n_reason_max; i++) {
        if (reason_text[i] == NULL) {
            reason_text[i] = reason;
        }
        if (strcmp(reason_text[i], reason) == 0) {
            reason_count[i]++;
            break;
        }
    }
    pthread_mutex_unlock(&reason_lock);
}

const char *counters_reason(int i, uint64_t *n_question) {
    if (i < 0 || i >= n_reason_max) {
        return NULL;
    }
    pthread_mutex_lock(&reason_lock);
    const char *text = reason_text[i];
    if (text != NULL && n_question != NULL) {
        *n_question = reason_count[i];
    }
    pthread_mutex_unlock(&reason_lock);
    return text;
}

void counters_read(struct varve_ggml_counters *counters, size_t counters_bytes) {
    if (counters == NULL) {
        return;
    }
    const struct varve_ggml_counters now = {
        .attention_nodes = counters_get(COUNT_ATTENTION_NODES),
        .attention_rows = counters_get(COUNT_ATTENTION_ROWS),
        .attention_bytes = counters_get(COUNT_ATTENTION_BYTES),
        .set_rows_nodes = counters_get(COUNT_SET_ROWS_NODES),
        .set_rows_rows = counters_get(COUNT_SET_ROWS_ROWS),
        .set_rows_bytes = counters_get(COUNT_SET_ROWS_BYTES),
        .attention_accepted = counters_get(COUNT_ATTENTION_ACCEPTED),
        .attention_declined = counters_get(COUNT_ATTENTION_DECLINED),
        .set_rows_accepted = counters_get(COUNT_SET_ROWS_ACCEPTED),
        .set_rows_declined = counters_get(COUNT_SET_ROWS_DECLINED),
        .stock_attention = counters_get(COUNT_STOCK_ATTENTION),
        .failed_nodes = counters_get(COUNT_FAILED_NODES),
    };
    memcpy(counters, &now, counters_bytes < sizeof(now) ? counters_bytes : sizeof(now));
}

/* ---- the end of the process ----------------------------------------------------------------- */

void counters_report_at_exit(void) { atomic_store(&report, true); }

static void report_side(const char *whose, const char *side, const struct varve_ggml_side *a) {
    plugin_say("%s: rows of %s: %" PRIu64 " hot, %" PRIu64 " sink, %" PRIu64 " cold (%" PRIu64
               " missed); twins: %" PRIu64 " written, %" PRIu64 " stale, %" PRIu64 " evicted",
               whose, side, a->rows_hot, a->rows_sink, a->rows_cold, a->rows_missed,
               a->twins_written, a->twins_stale, a->twins_evicted);
}

void counters_report_account(const char *whose, const struct varve_ggml_account *account) {
    report_side(whose, "K", &account->k);
    report_side(whose, "V", &account->v);
    plugin_say("%s: bytes: %" PRIu64 " cold, %" PRIu64 " hot, %" PRIu64 " staging, %" PRIu64
               " hot and staging at most; limit %" PRIu64,
               whose, account->bytes_cold, account->bytes_hot, account->bytes_staging,
               account->bytes_hot_peak, account->bytes_limit);
}

static void report_trace(void) {
    plugin_say("attention: %" PRIu64 " nodes, %" PRIu64 " rows, %" PRIu64 " bytes of K and V",
               counters_get(COUNT_ATTENTION_NODES), counters_get(COUNT_ATTENTION_ROWS),
               counters_get(COUNT_ATTENTION_BYTES));
    plugin_say("cache writes: %" PRIu64 " nodes, %" PRIu64 " rows, %" PRIu64 " bytes",
               counters_get(COUNT_SET_ROWS_NODES), counters_get(COUNT_SET_ROWS_ROWS),
               counters_get(COUNT_SET_ROWS_BYTES));
    plugin_say("questions: attention %" PRIu64 " yes, %" PRIu64 " no; cache writes %" PRIu64
               " yes, %" PRIu64 " no; nodes that failed: %" PRIu64,
               counters_get(COUNT_ATTENTION_ACCEPTED), counters_get(COUNT_ATTENTION_DECLINED),
               counters_get(COUNT_SET_ROWS_ACCEPTED), counters_get(COUNT_SET_ROWS_DECLINED),
               counters_get(COUNT_FAILED_NODES));
    struct varve_ggml_account account;
    if (hot_account(-1, &account, sizeof(account))) {
        counters_report_account("all contexts", &account);
    }
    uint64_t n = 0;
    const char *text = NULL;
    for (int i = 0; (text = counters_reason(i, &n)) != NULL; i++) {
        plugin_say("declined %" PRIu64 " times: %s", n, text);
    }
}

/* Why no attention came, as far as it can be told from what was asked. */
static void report_idle(void) {
    if (plugin_config()->decline_attention) {
        plugin_say("attention was left to ggml: VARVE_TEST_DECLINE_ATTENTION is set");
    } else if (counters_get(COUNT_ATTENTION_DECLINED) > 0) {
        const char *reason = counters_reason(0, NULL);
        plugin_say("attention never ran on varve: it was declined (%s); VARVE_TRACE=1 says more",
                   reason != NULL ? reason : "unknown reason");
    } else if (counters_get(COUNT_STOCK_ATTENTION) > 0) {
        plugin_say("attention never ran on varve, because flash attention is off; %s",
                   plugin_config()->launched
                       ? "leave out -fa off"
                       : "pass -fa on, or start the program with `varve exec --`");
    } else {
        plugin_say("loaded, but no attention was computed; if the program did compute some, pass "
                   "-fa on and check that its layers are on the CPU (-ngl 0)");
    }
}

__attribute__((destructor)) static void at_exit(void) {
    if (!atomic_load(&report)) {
        return;
    }
    const bool saw_a_cache = counters_get(COUNT_STOCK_ATTENTION) > 0 ||
                             counters_get(COUNT_ATTENTION_DECLINED) > 0 ||
                             counters_get(COUNT_SET_ROWS_NODES) > 0;
    if (counters_get(COUNT_ATTENTION_NODES) == 0 &&
        (saw_a_cache || plugin_config()->launched_here)) {
        report_idle();
    }
    if (plugin_config()->trace) {
        report_trace();
    }
}
