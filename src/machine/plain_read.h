/* plain_read.h: the reading loop that measured speeds of memory and of kernels are held against. */
#ifndef PI2_MACHINE_PLAIN_READ_H
#define PI2_MACHINE_PLAIN_READ_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/** Reads the bytes, but for a rest of fewer than 256: 32 sums of 64-bit words, which vectorise. Returns their sum. */
static inline uint64_t pi2_plain_read(const uint8_t *bytes, size_t count) {
    uint64_t sums[32] = {0};
    for (size_t i = 0; i + sizeof sums <= count; i += sizeof sums) {
        uint64_t words[32];
        memcpy(words, bytes + i, sizeof words);
        for (size_t w = 0; w < 32; w++) sums[w] += words[w];
    }
    uint64_t sum = 0;
    for (size_t w = 0; w < 32; w++) sum += sums[w];
    return sum;
}

#endif
