/* fuzz_next_table.c: any bytes as a table of next tokens, and the same bytes with the checksum that they should have,
 * so that the entries are reached. What is accepted has entries that can be used. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <fcntl.h>
#include <xxhash.h>

#include "base/little_endian.h"
#include "engine/next_table_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { HEADER = 32, TOKENS = 5 };
static const uint64_t header_hash = 0x1122334455667788;
static char path[64];

static void require(bool condition) {
    if (!condition) abort();
}

static void remove_file(void) { (void)unlink(path); }

static void check_row(const uint32_t *row, uint32_t width) {
    for (uint32_t i = 0; i < width; i++) {
        if (row[i] == PI2_NO_NEXT) {
            for (; i < width; i++) require(row[i] == PI2_NO_NEXT);
            return;
        }
        require(pi2_next_id(row[i]) < TOKENS);
        require(i == 0 || pi2_next_unlikeliness(row[i]) >= pi2_next_unlikeliness(row[i - 1]));
    }
}

static void read_it(const uint8_t *data, size_t size) {
    const int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    pi2_next_table *table = NULL;
    require(file >= 0 && write(file, data, size) == (ssize_t)size && close(file) == 0);
    if (pi2_next_table_read(path, header_hash, TOKENS, &table) != PI2_OK) {
        require(table == NULL);
        return;
    }
    require(table->count == TOKENS && table->width > 0);
    for (uint32_t token = 0; token < TOKENS; token++) {
        check_row(table->entries + (size_t)token * table->width, table->width);
    }
    free(table);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!path[0]) {
        (void)snprintf(path, sizeof path, "/tmp/fuzz-next-table-%ld", (long)getpid());
        (void)atexit(remove_file);
    }
    read_it(data, size);
    if (size < HEADER) return 0;
    uint8_t *bytes = malloc(size);
    require(bytes != NULL);
    memcpy(bytes, data, size);
    pi2_store_le64(bytes + 8, header_hash);
    pi2_store_le64(bytes + 16, XXH3_64bits(bytes + HEADER, size - HEADER));
    read_it(bytes, size);
    free(bytes);
    return 0;
}
