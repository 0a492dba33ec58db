/* little_endian.h: unaligned little-endian numbers in files; compilers turn each into one move. */
#ifndef PI2_BASE_LITTLE_ENDIAN_H
#define PI2_BASE_LITTLE_ENDIAN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t pi2_load_le(const void *bytes, size_t count) {
    const uint8_t *at = bytes;
    uint64_t value = 0;
    for (size_t i = 0; i < count; i++) value |= (uint64_t)at[i] << (8 * i);
    return value;
}

static inline void pi2_store_le(void *bytes, size_t count, uint64_t value) {
    uint8_t *at = bytes;
    for (size_t i = 0; i < count; i++) at[i] = (uint8_t)(value >> (8 * i));
}

static inline uint16_t pi2_load_le16(const void *bytes) { return (uint16_t)pi2_load_le(bytes, 2); }
static inline uint32_t pi2_load_le32(const void *bytes) { return (uint32_t)pi2_load_le(bytes, 4); }
static inline uint64_t pi2_load_le64(const void *bytes) { return pi2_load_le(bytes, 8); }

static inline float pi2_load_le_f32(const void *bytes) {
    const uint32_t bits = pi2_load_le32(bytes);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline double pi2_load_le_f64(const void *bytes) {
    const uint64_t bits = pi2_load_le64(bytes);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline void pi2_store_le32(void *bytes, uint32_t value) { pi2_store_le(bytes, 4, value); }
static inline void pi2_store_le64(void *bytes, uint64_t value) { pi2_store_le(bytes, 8, value); }

#endif
