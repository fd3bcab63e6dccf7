/* Runs cases in all ways, compares, and prints a row for each. */
#ifndef VARVE_TEST_FLASH_TABLE_H
#define VARVE_TEST_FLASH_TABLE_H

#include "flash_case.h"

struct flash_totals {
    int n_passed, n_failed;
};

void flash_table_head(void);
/* Runs one case. Failures are listed below its row. */
void flash_table_row(const struct flash_case *c, struct flash_totals *totals);

#endif
