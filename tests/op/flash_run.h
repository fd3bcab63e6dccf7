/* Runs a case with varve_ggml_flash_attn_ext_with_state and with stock ggml. */
#ifndef VARVE_TEST_FLASH_RUN_H
#define VARVE_TEST_FLASH_RUN_H

#include "flash_data.h"

enum flash_way {
    FLASH_ONE_CALL,
    FLASH_CHAIN,   /* call by call over one state */
    FLASH_PARTIALS /* each call with a state of its own, merged in random order */
};
enum { FLASH_WAYS = 3 };

struct flash_result {
    int64_t n_output, n_record; /* [n_batch][n_query][n_head] records of DV values */
    float *output;
    float *lse; /* of the state, or with sinks where the merged state was finished; or NULL */
    bool lse_has_sinks;
    float *from_state; /* what the state holds, divided; or NULL */
    float *prefix;     /* the result after the first n_prefix calls; or NULL */
    int n_prefix;
    const char *error; /* NULL, or what went wrong before there was a result */
};

/* Outputs, states and scratch hold NaN before each run. */
void flash_run(const struct flash_data *data, enum flash_way way, int n_thread,
               struct flash_result *result);
void flash_result_free(struct flash_result *result);

/* ggml_flash_attn_ext over all rows. *kind says on which: their own types, or decoded to F32 where
 * those of the parts differ. NULL (with a kind that says why) where stock cannot do it. The caller
 * frees. */
float *flash_run_stock(const struct flash_data *data, int n_thread, const char **kind);

#endif
