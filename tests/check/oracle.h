/* Attention as mathematics: double, two passes, no tiles, for any problem that varve.h can state.
 * What the library is compared with, and independent of it but for the meaning of stored bytes.
 */
#ifndef CHECK_ORACLE_H
#define CHECK_ORACLE_H

#include "varve/varve.h"

/* The result for io's query, segments, mask and sinks; io->state and io->output are ignored.
 *   output  [n_batch][n_query][n_head][DV], or NULL
 *   lse     [n_batch][n_query][n_head], natural log, sink included, or NULL
 * Rows that a query does not see are not read, neither K nor V. A query that sees nothing gives
 * zeros and -inf (with a sink: zeros and the sink). Rows in quantized formats meet queries in 8
 * bits unless the arithmetic is EXACT, as the library promises; that loss is in the result,
 * rounding is not. Without a mask, ALiBi's bias is -slope * |query position - row position|. */
void oracle_attention(const struct varve_attention *attention, const struct varve_io *io,
                      double *output, double *lse);

/* The same, and for each number how far F32 arithmetic of the promised class may be from it
 * (tol.h: "attention"). Same shapes; any pointer may be NULL. */
void oracle_attention_bounds(const struct varve_attention *attention, const struct varve_io *io,
                             double *output, double *lse, double *output_bound, double *lse_bound,
                             double *rounding);

/* ALiBi slope of a head; 1 without ALiBi. */
double oracle_slope(const struct varve_attention *attention, int32_t head);

#endif
