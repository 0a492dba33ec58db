/* permutation.c: a bit for each number. */
#include "base/permutation.h"

#include <stdlib.h>

#include "base/fail.h"

pi2_status pi2_permutation_check(const uint32_t *order, uint32_t count, bool *is_permutation_out) {
    uint8_t *is_named = calloc(count / 8 + (size_t)1, 1);
    if (!is_named) return pi2_fail(PI2_ERR_MEMORY, "no memory to check an order of neurons");
    bool is_good = true;
    for (uint32_t i = 0; i < count && is_good; i++) {
        const uint32_t number = order[i];
        is_good = number < count && !(is_named[number / 8] >> number % 8 & 1);
        if (is_good) is_named[number / 8] |= (uint8_t)(1u << number % 8);
    }
    free(is_named);
    *is_permutation_out = is_good;
    return PI2_OK;
}
