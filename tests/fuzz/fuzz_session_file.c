/* fuzz_session_file.c: any bytes at all as a saved session, with a header whose checksum is made right; what is
 * accepted has numbers that fit each other, and its sections end where the file does. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

#include "base/little_endian.h"
#include "engine/state_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char path[64];

static void remove_file(void) { (void)unlink(path); }

static void require(int condition) {
    if (!condition) abort();
}

static void write_bytes(const uint8_t *data, size_t size) {
    static int descriptor = -1;
    uint8_t header[PI2_STATE_HEADER_BYTES];
    const size_t begin = size < sizeof header ? size : sizeof header;
    if (descriptor < 0) {
        (void)snprintf(path, sizeof path, "/dev/shm/pi2-fuzz-session-%ld", (long)getpid());
        descriptor = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
        if (descriptor < 0 || atexit(remove_file) != 0) abort();
    }
    if (begin) memcpy(header, data, begin);
    if (begin == sizeof header) pi2_store_le64(header + begin - 8, XXH3_64bits(header, begin - 8));
    if (ftruncate(descriptor, 0) != 0 || pwrite(descriptor, header, begin, 0) != (ssize_t)begin) abort();
    const size_t rest = size - begin;
    if (rest && pwrite(descriptor, data + begin, rest, (off_t)begin) != (ssize_t)rest) abort();
}

static void check_header(const pi2_state_header *header, size_t size) {
    require(header->position > 0 && header->position <= INT32_MAX && header->first < header->position);
    require(header->first % 16 == 0 && header->vocabulary_size > 0);
    require(header->state_position == PI2_NO_POSITION || header->state_position <= header->position);
    require(header->saved_position == PI2_NO_POSITION || header->saved_position <= header->position);
    require(memchr(header->arithmetic, 0, sizeof header->arithmetic) != NULL);
    require(header->body_bytes == size - PI2_STATE_HEADER_BYTES);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    pi2_state_reader reader;
    write_bytes(data, size);
    if (pi2_state_reader_open(&reader, path) == PI2_OK) {
        uint8_t piece[300];
        check_header(&reader.header, size);
        for (size_t length = 1; pi2_state_reader_get(&reader, piece, length) == PI2_OK; length = length % 300 + 1) {
            if (length % 7 == 0) (void)pi2_state_reader_end(&reader, "a section");
        }
        require(reader.at <= size && reader.at >= PI2_STATE_HEADER_BYTES);
    }
    pi2_state_reader_close(&reader);
    return 0;
}
