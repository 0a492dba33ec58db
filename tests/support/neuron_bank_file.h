/* neuron_bank_file.h: a file of banks of neurons, a layer each, whose every word says where it is. */
#ifndef PI2_TESTS_SUPPORT_NEURON_BANK_FILE_H
#define PI2_TESTS_SUPPORT_NEURON_BANK_FILE_H

#include <stdbool.h>
#include <stdio.h>

#include "clusters/neuron_bank.h"

enum { TEST_BANKS = 5, TEST_BANK_NEURONS = 96, TEST_HEAD_PART = 4096 /* bytes of each of a head's four */ };

/** Banks 0, 1 and 3 have 96 units of one bundle of so many bytes, at most 8192, 2 and 4 have 32 of three bundles in
 *  4 KB. Fills the list. */
void test_banks_write(const char *path, pi2_neuron_bank banks_list[TEST_BANKS], uint32_t bundle_bytes);
/** Whether memory holds this unit of bank number b. */
bool test_is_unit(const pi2_neuron_bank *bank, const uint8_t *memory, uint32_t b, uint32_t unit);

/** Writes bytes at a place. */
void test_put(FILE *file, uint64_t offset, const void *bytes, size_t count);

#endif
