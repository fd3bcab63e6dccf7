#include "report.h"

#include "json_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- the report ----------------------------------------------------------------------------- */

static json_t *real_or_null(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *speed(int32_t n_token, double seconds) {
    return real_or_null(n_token > 0 ? n_token / seconds : NAN);
}

static json_t *side_json(const struct varve_ggml_side *side) {
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "hot", (json_int_t)side->rows_hot,
                     "sink", (json_int_t)side->rows_sink, "cold", (json_int_t)side->rows_cold,
                     "missed", (json_int_t)side->rows_missed, "stale",
                     (json_int_t)side->twins_stale, "evicted", (json_int_t)side->twins_evicted,
                     "written", (json_int_t)side->twins_written);
}

static json_t *account_json(const struct run_result *r) {
    if (!r->has_account) {
        return json_null();
    }
    return json_pack("{s:i, s:i, s:o, s:o}", "window", r->account.window, "sinks",
                     r->account.n_sink, "k", side_json(&r->account.k), "v",
                     side_json(&r->account.v));
}

static json_t *bytes_or_null(bool known, uint64_t bytes) {
    return known ? json_integer((json_int_t)bytes) : json_null();
}

/* The hot tier's bytes only where there is one, nothing where the run ended before its first graph.
 */
static json_t *kv_json(const struct run_result *r) {
    const bool seen = r->bytes_cold > 0;
    const struct varve_ggml_account *a = &r->account;
    return json_pack("{s:i, s:o, s:o, s:o, s:o, s:o}", "context", (int)r->n_ctx, "bytes_cold",
                     bytes_or_null(seen, r->bytes_cold), "bytes_hot",
                     bytes_or_null(r->has_account, a->bytes_hot), "bytes_staging",
                     bytes_or_null(r->has_account, a->bytes_staging), "bytes_hot_peak",
                     bytes_or_null(r->has_account, a->bytes_hot_peak), "bytes_f16",
                     bytes_or_null(seen, r->bytes_f16));
}

static json_t *divergence_json(const struct divergence *d) {
    if (d->n_position == 0) {
        return json_null();
    }
    const double n = d->n_position;
    return json_pack("{s:i, s:o, s:o, s:f}", "positions", d->n_position, "mean",
                     real_or_null(d->sum / n), "max", real_or_null(d->max), "same_top",
                     d->n_same_top / n);
}

json_t *report_json(const struct run_job *job, const struct run_result *r) {
    return json_pack(
        "{s:s, s:s, s:s, s:b, s:I, s:{s:i, s:i, s:f, s:o}, s:{s:i, s:i, s:f, s:o, s:o}, s:o, s:o, "
        "s:o, "
        "s:s?}",
        "name", job->name, "type_k", job->type_k, "type_v", job->type_v, "random_weights",
        r->random_weights, "attention_nodes", (json_int_t)r->counters.attention_nodes, "prompt",
        "tokens", r->n_prompt, "read", r->n_read, "seconds", r->prompt_seconds, "tokens_per_second",
        speed(r->n_read, r->prompt_seconds), "generated", "tokens", r->n_token, "steps", r->n_step,
        "seconds", r->step_seconds, "tokens_per_second", speed(r->n_step, r->step_seconds), "text",
        json_file_string(r->text.bytes, r->text.n), "kv", kv_json(r), "rows", account_json(r),
        "divergence", divergence_json(&r->divergence), "stopped", r->stopped);
}
