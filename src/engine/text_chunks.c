/* text_chunks.c: reads, tokenizes, cuts. */
#include "engine/text_chunks.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/fail.h"
#include "base/whole_file.h"

typedef struct chunk_run {
    const pi2_text_chunks *chunks;
    const char *path;
    FILE *file;
    int32_t *held;      /* [chunk_tokens] */
    uint32_t held_count;
    uint64_t taken;
    bool is_enough;
} chunk_run;

static pi2_status hand_on(chunk_run *run) {
    const uint32_t count = run->held_count;
    const int32_t begin = pi2_engine_bos(run->chunks->engine);
    run->held_count = 0;
    if (count < 2) return PI2_OK;
    if (begin >= 0) run->held[0] = begin;
    PI2_TRY(run->chunks->take(run->chunks->user, run->held, count));
    run->taken += count;
    run->is_enough = run->chunks->most_tokens && run->taken >= run->chunks->most_tokens;
    return PI2_OK;
}

static pi2_status take_tokens(void *user, const int32_t *tokens, size_t count) {
    chunk_run *run = user;
    for (size_t i = 0; i < count && !run->is_enough; i++) {
        run->held[run->held_count++] = tokens[i];
        if (run->held_count == run->chunks->chunk_tokens) PI2_TRY(hand_on(run));
    }
    return PI2_OK;
}

static pi2_status read_text(void *user, char *bytes, size_t capacity, size_t *length_out) {
    chunk_run *run = user;
    const pi2_callbacks *callbacks = &run->chunks->engine->run.options.callbacks;
    *length_out = 0;
    if (run->is_enough) return PI2_OK;
    if (callbacks->cancelled && callbacks->cancelled(callbacks->user)) {
        return pi2_fail(PI2_ERR_INTERRUPTED, "interrupted");
    }
    *length_out = fread(bytes, 1, capacity, run->file);
    return ferror(run->file) ? pi2_fail(PI2_ERR_IO, "%s: cannot be read", run->path) : PI2_OK;
}

static pi2_status run_text(chunk_run *run, const char *path) {
    uint64_t length;
    run->path = path;
    run->held_count = 0;
    PI2_TRY(pi2_text_file_open(path, "a text", &run->file, &length));
    pi2_status status = pi2_engine_tokenize_parts(run->chunks->engine, read_text, run, true, false, take_tokens, run);
    if (status == PI2_OK && !run->is_enough) status = hand_on(run);
    (void)fclose(run->file);
    return status;
}

pi2_status pi2_text_chunks_run(const pi2_text_chunks *chunks, uint64_t *tokens_out) {
    chunk_run run = { .chunks = chunks };
    *tokens_out = 0;
    if (!chunks->paths || !chunks->paths[0]) return pi2_fail(PI2_ERR_INVALID, "there is no text");
    run.held = malloc(chunks->chunk_tokens * sizeof *run.held);
    if (!run.held) return pi2_fail(PI2_ERR_MEMORY, "no memory for a chunk of %u tokens", chunks->chunk_tokens);
    pi2_status status = PI2_OK;
    for (size_t i = 0; chunks->paths[i] && !run.is_enough && status == PI2_OK; i++) {
        status = run_text(&run, chunks->paths[i]);
    }
    free(run.held);
    *tokens_out = run.taken;
    if (status == PI2_OK && run.taken == 0) {
        return pi2_fail(PI2_ERR_INVALID, "%s: the texts are too short: two tokens are the least", chunks->paths[0]);
    }
    return status;
}
