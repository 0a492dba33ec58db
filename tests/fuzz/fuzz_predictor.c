/* fuzz_predictor.c: any bytes as a predictor, and the same bytes with the checksums that they should have, so that the
 * numbers are reached. What is accepted has layers that lie in the file, and scores that can be computed. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <fcntl.h>
#include <xxhash.h>

#include "base/little_endian.h"
#include "predictor/predictor_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { HEADER = 128, LAYER = 64, CHECKSUM = 72, MOST_SCORED = 4096 };
static char path[64];

static void require(bool condition) {
    if (!condition) abort();
}

static void remove_file(void) { (void)unlink(path); }

/* Scores of every layer: of whatever the file says, but not more of it than a moment's work. */
static void score(const pi2_predictor *predictor) {
    int16_t *values = calloc(predictor->width, sizeof *values);
    for (uint32_t i = 0; i < predictor->layer_count; i++) {
        const pi2_predictor_layer *layer = &predictor->layers[i];
        if (layer->size == 0) continue;
        const pi2_predictor_query query = { .predictor = predictor, .layer = layer, .kernel = &pi2_small_kernels[0],
                                            .vector = pi2_vector_kernel_sets[0], .score = (pi2_score_kind)(i % 2) };
        const pi2_predictor_vector input = { .values = values, .scale = 1, .norm = 1 };
        const uint32_t count = predictor->neuron_count < MOST_SCORED ? predictor->neuron_count : MOST_SCORED;
        const uint32_t rows = predictor->kind->code_rows(layer);
        float *scores = calloc(count, sizeof *scores), *code = calloc(rows + 1u, sizeof *code);
        int16_t *coded = calloc(rows + 1u, sizeof *coded);
        require(values && scores && code && coded);
        if (rows) predictor->kind->code(&query, &input, 0, rows, code);
        const pi2_predictor_vector from = rows ? pi2_predictor_quantize(code, rows, coded) : input;
        predictor->kind->scores(&query, &from, 0, count, scores);
        pi2_predictor_choose_largest(scores, count, count / 2);
        free(scores);
        free(code);
        free(coded);
    }
    free(values);
}

static void read_it(const uint8_t *data, size_t size) {
    pi2_predictor predictor;
    void *memory = NULL;
    const int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    require(file >= 0 && write(file, data, size) == (ssize_t)size && close(file) == 0);
    if (pi2_predictor_read(path, &predictor) != PI2_OK) {
        require(predictor.layers == NULL);
        return;
    }
    uint64_t next = predictor.data_begin;
    for (uint32_t i = 0; i < predictor.layer_count; i++) {
        require(predictor.layers[i].offset == next && predictor.layers[i].bytes <= size - next);
        next += predictor.layers[i].bytes;
    }
    require(next == size && pi2_predictor_data_bytes(&predictor) <= size);
    const size_t bytes = (size_t)pi2_predictor_data_bytes(&predictor);
    require(posix_memalign(&memory, PI2_PREDICTOR_ALIGNMENT, bytes + PI2_PREDICTOR_ALIGNMENT) == 0);
    if (pi2_predictor_load(path, &predictor, memory) == PI2_OK) score(&predictor);
    pi2_predictor_free(&predictor);
    free(memory);
}

/* Every checksum right: of each layer that lies in the file, then of the header. */
static void make_right(uint8_t *bytes, size_t size) {
    const uint64_t layers = pi2_load_le32(bytes + 32), table = HEADER + layers * LAYER;
    if (table > size) return;
    pi2_store_le64(bytes + 64, size);
    for (uint64_t i = 0; i < layers; i++) {
        uint8_t *line = bytes + HEADER + i * LAYER;
        const uint64_t offset = pi2_load_le64(line + 24), count = pi2_load_le64(line + 32);
        if (offset <= size && count <= size - offset) pi2_store_le64(line + 40, XXH3_64bits(bytes + offset, count));
    }
    uint8_t header[HEADER];
    memcpy(header, bytes, sizeof header);
    memset(header + CHECKSUM, 0, 8);
    pi2_store_le64(bytes + CHECKSUM, XXH3_64bits_withSeed(bytes + HEADER, (size_t)(table - HEADER),
                                                          XXH3_64bits(header, sizeof header)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!path[0]) {
        (void)snprintf(path, sizeof path, "/tmp/fuzz-predictor-%ld", (long)getpid());
        (void)atexit(remove_file);
    }
    read_it(data, size);
    if (size < HEADER) return 0;
    uint8_t *bytes = malloc(size);
    require(bytes != NULL);
    memcpy(bytes, data, size);
    make_right(bytes, size);
    read_it(bytes, size);
    free(bytes);
    return 0;
}
