/* Some cases against PyTorch's scaled_dot_product_attention in float64. */
#ifndef VARVE_TEST_FLASH_TORCH_H
#define VARVE_TEST_FLASH_TORCH_H

#include "flash_table.h"

/* Says "pytorch: skipped (not installed)" where python3 cannot import torch. */
void flash_torch(uint64_t seed, struct flash_totals *totals);

#endif
