/* fuzz_logits_file.c: any bytes at all as a file of logits; what is accepted holds tokens and probabilities. */
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "powerinfer2/logits_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char path[64];

static void remove_file(void) { (void)unlink(path); }

static void require(int condition) {
    if (!condition) abort();
}

/* The file's length bounds all of them: chunks by their tokens, logits by their levels. */
static void read_chunk(pi2_logits_file *file, uint32_t chunk, int32_t *tokens, float *logs) {
    const pi2_logits_file_info *info = pi2_logits_file_get_info(file);
    if (pi2_logits_file_tokens(file, chunk, tokens) == PI2_OK) {
        for (uint32_t i = 0; i < info->chunk_tokens; i++) {
            require(tokens[i] >= 0 && (uint32_t)tokens[i] < info->vocabulary_size);
        }
    }
    for (uint32_t i = 0; i < info->scored / info->chunk_count; i++) {
        if (pi2_logits_file_read(file, chunk, i, logs) != PI2_OK) continue;
        for (uint32_t v = 0; v < info->vocabulary_size; v++) require(isfinite(logs[v]) && logs[v] < 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static int descriptor = -1;
    if (descriptor < 0) {
        (void)snprintf(path, sizeof path, "/dev/shm/pi2-fuzz-logits-%ld", (long)getpid());
        descriptor = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
        if (descriptor < 0 || atexit(remove_file) != 0) abort();
    }
    if (ftruncate(descriptor, 0) != 0 || pwrite(descriptor, data, size, 0) != (ssize_t)size) abort();
    pi2_logits_file *file = NULL;
    if (pi2_logits_file_open(path, &file) != PI2_OK) return 0;
    const pi2_logits_file_info *info = pi2_logits_file_get_info(file);
    int32_t *tokens = malloc(info->chunk_tokens * sizeof *tokens);
    float *logs = malloc(info->vocabulary_size * sizeof *logs);
    require(tokens && logs);
    for (uint32_t chunk = 0; chunk < info->chunk_count; chunk++) read_chunk(file, chunk, tokens, logs);
    free(tokens);
    free(logs);
    pi2_logits_file_close(file);
    return 0;
}
