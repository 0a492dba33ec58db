/* text_chunks.h: texts as chunks of tokens, each of which is run from an empty timeline. */
#ifndef PI2_ENGINE_TEXT_CHUNKS_H
#define PI2_ENGINE_TEXT_CHUNKS_H

#include "engine/engine_internal.h"

typedef struct pi2_text_chunks {
    pi2_engine *engine;
    const char *const *paths;    /* regular files, NULL at the end */
    uint64_t most_tokens;        /* of all together, rounded up to whole chunks; 0: all */
    uint32_t chunk_tokens;
    /** Takes a chunk: its first token is BOS where the model's texts begin with one. */
    pi2_status (*take)(void *user, const int32_t *tokens, size_t count);
    void *user;
} pi2_text_chunks;

/**
 * Reads the texts one after the other, and hands on their chunks; a last one of fewer than two tokens is left out.
 * tokens_out: of all chunks together.
 * Errors  INVALID (no text), IO, MEMORY, INTERRUPTED, what `take` returned
 */
pi2_status pi2_text_chunks_run(const pi2_text_chunks *chunks, uint64_t *tokens_out);

#endif
