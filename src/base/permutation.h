/* permutation.h: whether a list from a file names every number once. */
#ifndef PI2_BASE_PERMUTATION_H
#define PI2_BASE_PERMUTATION_H

#include <stdbool.h>
#include <stdint.h>

#include "powerinfer2/status.h"

/**
 * order  in   shape [count]
 * *is_permutation_out: the numbers are 0 .. count - 1, each once
 * Errors  MEMORY (it takes count / 8 bytes)
 */
pi2_status pi2_permutation_check(const uint32_t *order, uint32_t count, bool *is_permutation_out);

#endif
