/* fuzz_neuron_statistics.c: any bytes as statistics of neurons, and the same bytes with the checksum that they
 * should have, so that the numbers are reached. What is accepted keeps the promises of neuron_statistics.h, and comes
 * back when it is written. */
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

#include "base/little_endian.h"
#include "statistics/neuron_statistics.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char path[64], again[72];

static void require(bool condition) {
    if (!condition) abort();
}

static void remove_files(void) {
    (void)unlink(path);
    (void)unlink(again);
}

static void check(const pi2_neuron_statistics *statistics) {
    uint64_t total = 0;
    require(statistics->entry_count > 0 && statistics->column_count > 0);
    for (uint32_t e = 0; e < statistics->entry_count; e++) {
        const pi2_statistics_entry *entry = &statistics->entries[e];
        require(entry->neuron_count > 0 && entry->first == total);
        total += entry->neuron_count;
        require(pi2_neuron_statistics_find(statistics, entry->layer, entry->expert) == entry);
        const uint32_t *fired = pi2_neuron_statistics_column(statistics, PI2_STATISTICS_FIRED, entry);
        const uint32_t *order = pi2_neuron_statistics_column(statistics, PI2_STATISTICS_ORDER, entry);
        for (uint32_t i = 0; i < entry->neuron_count; i++) {
            require(!fired || fired[i] <= entry->token_count);
            require(!order || order[i] < entry->neuron_count);
        }
        const uint64_t *sums = pi2_neuron_statistics_sums(statistics, entry);
        require(sums[PI2_SUM_AGAIN] <= sums[PI2_SUM_AGAIN_POSSIBLE] && entry->token_count <= statistics->token_count);
        for (int i = 0; i < PI2_STATISTICS_SUMS; i++) require(sums[i] <= entry->token_count * entry->neuron_count);
    }
    require(total == statistics->neuron_total && memchr(statistics->activation, 0, sizeof statistics->activation));
    require(statistics->sample_count <= PI2_STATISTICS_SAMPLES && statistics->sample_count <= statistics->token_count);
    for (uint32_t i = 1; i < statistics->sample_count; i++) {
        require(statistics->samples[i - 1] < statistics->samples[i]);
    }
    for (uint32_t w = 0; w < PI2_STATISTICS_SAMPLED_COLUMNS && statistics->sample_count > 0; w++) {
        const uint32_t used = statistics->sample_count > 32 * w ? statistics->sample_count - 32 * w : 0;
        const uint32_t *bits =
            pi2_neuron_statistics_column(statistics, PI2_STATISTICS_SAMPLED + w, &statistics->entries[0]);
        for (uint64_t i = 0; i < total && used < 32; i++) require(!(bits[i] & UINT32_MAX << used));
    }
    for (unsigned batch = 0; batch < PI2_STATISTICS_BATCHES; batch++) {
        require(pi2_neuron_statistics_runs(statistics, batch) <= statistics->token_count);
    }
}

/** What was read is added to itself, which only statistics without a common text allow: refused, or of no text. */
static void check_adding(pi2_neuron_statistics *statistics) {
    const uint64_t tokens = statistics->token_count;
    require(pi2_neuron_statistics_add(statistics, "a", statistics, "b") != PI2_OK);
    require(statistics->token_count == tokens);
}

static void read_back(pi2_neuron_statistics *statistics) {
    pi2_neuron_statistics second;
    require(pi2_neuron_statistics_write(again, statistics) == PI2_OK);
    require(pi2_neuron_statistics_read(again, &second) == PI2_OK);
    require(second.neuron_total == statistics->neuron_total && second.checksum == statistics->checksum);
    for (uint32_t c = 0; c < second.column_count; c++) {
        require(memcmp(second.columns[c], statistics->columns[c], (size_t)second.neuron_total * 4) == 0);
    }
    require(second.text_count == statistics->text_count);
    pi2_neuron_statistics_free(&second);
}

static void try_bytes(int file, const uint8_t *bytes, size_t size) {
    require(ftruncate(file, 0) == 0 && pwrite(file, bytes, size, 0) == (ssize_t)size);
    pi2_neuron_statistics statistics;
    if (pi2_neuron_statistics_read(path, &statistics) == PI2_OK) {
        check(&statistics);
        check_adding(&statistics);
        read_back(&statistics);
    }
    pi2_neuron_statistics_free(&statistics);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static int file = -1;
    if (file < 0) {
        (void)snprintf(path, sizeof path, "/dev/shm/pi2-fuzz-statistics-%ld", (long)getpid());
        (void)snprintf(again, sizeof again, "%s-2", path);
        file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
        require(file >= 0 && atexit(remove_files) == 0);
    }
    try_bytes(file, data, size);
    if (size < 8) return 0;
    uint8_t *right = malloc(size);
    require(right != NULL);
    memcpy(right, data, size);
    pi2_store_le64(right + size - 8, XXH3_64bits(right, size - 8));
    try_bytes(file, right, size);
    free(right);
    return 0;
}
