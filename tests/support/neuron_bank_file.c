/* neuron_bank_file.c: banks of two sizes of units. */
#include "support/neuron_bank_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <xxhash.h>

/* The word at byte `at` of a unit: zeros behind its bundles. */
static uint32_t word_at(const pi2_neuron_bank *bank, uint32_t b, uint32_t unit, uint32_t at) {
    return at < bank->unit_neurons * bank->bundle_bytes ? b << 24 | unit << 14 | at / 4 : 0;
}

void test_put(FILE *file, uint64_t offset, const void *bytes, size_t count) {
    assert_int_equal(fseek(file, (long)offset, SEEK_SET), 0);
    assert_int_equal(fwrite(bytes, 1, count, file), count);
}

static void write_bank(FILE *file, pi2_neuron_bank *bank, uint32_t b) {
    static uint32_t head[4 * TEST_HEAD_PART / 4], unit[8192 / 4];
    memset(head, 0, sizeof head);
    for (uint32_t i = 0; i < TEST_BANK_NEURONS; i++) head[i] = (i * 7 + b) % TEST_BANK_NEURONS; /* no common divisor */
    for (uint32_t u = 0; u < bank->unit_count; u++) {
        for (uint32_t at = 0; at < bank->unit_bytes; at += 4) unit[at / 4] = word_at(bank, b, u, at);
        test_put(file, bank->file_offset + (uint64_t)u * bank->unit_bytes, unit, bank->unit_bytes);
        head[TEST_HEAD_PART / 4 + u] = (uint32_t)XXH3_64bits(unit, bank->unit_bytes);
    }
    for (uint32_t i = 0; i < TEST_HEAD_PART / 4; i++) {
        head[2 * TEST_HEAD_PART / 4 + i] = b * 100 + i;
        head[3 * TEST_HEAD_PART / 4 + i] = b * 200 + i;
    }
    bank->head_checksum = XXH3_64bits(head, sizeof head);
    test_put(file, bank->head_offset, head, sizeof head);
}

void test_banks_write(const char *path, pi2_neuron_bank banks_list[TEST_BANKS], uint32_t bundle_bytes) {
    uint64_t at = 4096;
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    for (uint32_t b = 0; b < TEST_BANKS; b++) {
        const bool small = b == 2 || b == 4;
        banks_list[b] = (pi2_neuron_bank){
            .layer = b, .expert = UINT32_MAX, .neuron_count = TEST_BANK_NEURONS, .width = 64,
            .bundle_bytes = small ? 1344 : bundle_bytes, .unit_neurons = small ? 3 : 1,
            .unit_bytes = small ? 4096 : bundle_bytes, .unit_count = small ? 32 : 96,
            .head_offset = at, .head_bytes = 4 * TEST_HEAD_PART, .checksums_at = TEST_HEAD_PART,
            .up_scales_at = 2 * TEST_HEAD_PART, .down_scales_at = 3 * TEST_HEAD_PART };
        at += banks_list[b].head_bytes;
        banks_list[b].file_offset = at;
        at += ((uint64_t)banks_list[b].unit_count * banks_list[b].unit_bytes + 4095) / 4096 * 4096;
        write_bank(file, &banks_list[b], b);
    }
    assert_int_equal(fclose(file), 0);
}

bool test_is_unit(const pi2_neuron_bank *bank, const uint8_t *memory, uint32_t b, uint32_t unit) {
    const uint32_t *words = (const uint32_t *)(const void *)memory;
    for (uint32_t at = 0; at < bank->unit_bytes; at += 4) {
        if (words[at / 4] != word_at(bank, b, unit, at)) return false;
    }
    return true;
}
