/* median.c: by insertion, since there are few. */
#include "base/median.h"

uint64_t pi2_median(uint64_t *numbers, uint32_t count) {
    for (uint32_t i = 1; i < count; i++) {
        const uint64_t number = numbers[i];
        uint32_t at = i;
        for (; at > 0 && numbers[at - 1] > number; at--) numbers[at] = numbers[at - 1];
        numbers[at] = number;
    }
    return numbers[count / 2];
}
