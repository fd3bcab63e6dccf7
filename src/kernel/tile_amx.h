/* Tile registers (AMX). A kernel configures them when it begins and releases them before it
 * returns: no thread keeps tile state while other code runs, and nothing is taken to survive
 * between two kernels. With VARVE_AMX_EMULATED, a build for tests, functions in plain C take the
 * place of the instructions (tests/amx/emulate.c). */
#ifndef VARVE_KERNEL_TILE_AMX_H
#define VARVE_KERNEL_TILE_AMX_H

#include <stdint.h>

#define AMX_ROWS 16      /* rows of a tile */
#define AMX_ROW_BYTES 64 /* bytes of each */

/* What LDTILECFG reads, for palette 1. */
struct amx_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

/* Tiles 0 .. 3 are sums of n queries and 16 columns, tiles 4 and 6 hold `bytes` of each query, tile
 * 5 as many rows of 16 columns as meet them, four bytes each. */
static inline struct amx_config amx_config_of(int32_t n, int32_t bytes) {
    struct amx_config config = {.palette = 1};
    for (int32_t t = 0; t < 7; t++) {
        config.rows[t] = (uint8_t)(t != 5 ? n : bytes / 4);
        config.row_bytes[t] = (uint16_t)(t == 4 || t == 6 ? bytes : AMX_ROW_BYTES);
    }
    return config;
}

#ifdef VARVE_AMX_EMULATED
void varve_amx_begin(const struct amx_config *config);
void varve_amx_configure(const struct amx_config *config);
void varve_amx_release(void);
void varve_amx_zero(int tile);
void varve_amx_load(int tile, const void *from, int64_t stride);
void varve_amx_store(int tile, void *to, int64_t stride);
void varve_amx_dot_bf16(int sum, int a, int b);
void varve_amx_dot_i8_u8(int sum, int a, int b);
void varve_amx_dot_i8_i8(int sum, int a, int b);
void varve_amx_dot_u8_i8(int sum, int a, int b);
#define AMX_BEGIN(config) varve_amx_begin(config)
#define AMX_CONFIGURE(config) varve_amx_configure(config)
#define AMX_RELEASE() varve_amx_release()
#define AMX_ZERO(tile) varve_amx_zero(tile)
#define AMX_LOAD(tile, from, stride) varve_amx_load(tile, from, stride)
#define AMX_STORE(tile, to, stride) varve_amx_store(tile, to, stride)
#define AMX_DOT_BF16(sum, a, b) varve_amx_dot_bf16(sum, a, b)
#define AMX_DOT_I8_U8(sum, a, b) varve_amx_dot_i8_u8(sum, a, b)
#define AMX_DOT_I8_I8(sum, a, b) varve_amx_dot_i8_i8(sum, a, b)
#define AMX_DOT_U8_I8(sum, a, b) varve_amx_dot_u8_i8(sum, a, b)
#else
#include <immintrin.h>
/* Compilers do not know what a tile load reads: what was stored before must be in memory. */
#define AMX_STORES_DONE() __asm__ volatile("" : : : "memory")
#define AMX_BEGIN(config) AMX_CONFIGURE(config)
#define AMX_CONFIGURE(config) \
    AMX_STORES_DONE();        \
    _tile_loadconfig(config)
#define AMX_RELEASE() _tile_release()
#define AMX_ZERO(tile) _tile_zero(tile)
#define AMX_LOAD(tile, from, stride) \
    AMX_STORES_DONE();               \
    _tile_loadd(tile, from, stride)
#define AMX_STORE(tile, to, stride) \
    _tile_stored(tile, to, stride); \
    AMX_STORES_DONE()
#define AMX_DOT_BF16(sum, a, b) _tile_dpbf16ps(sum, a, b)
#define AMX_DOT_I8_U8(sum, a, b) _tile_dpbsud(sum, a, b)
#define AMX_DOT_I8_I8(sum, a, b) _tile_dpbssd(sum, a, b)
#define AMX_DOT_U8_I8(sum, a, b) _tile_dpbusd(sum, a, b)
#endif

/* The configuration for n queries, if another one stands. It clears all tiles. */
static inline void amx_fit(struct amx_config *config, int32_t n, int32_t bytes) {
    if (n == config->rows[0]) return;
    *config = amx_config_of(n, bytes);
    AMX_CONFIGURE(config);
}

/* One tile of columns against the queries in tile 4. */
#define AMX_COLUMNS(dot, sum, b, ldb) \
    AMX_LOAD(5, b, ldb);              \
    dot(sum, 4, 5)

#endif
