/*
 * guard.h: what approximate modes of a model were measured to cost, kept beside its weights (docs/evaluation.md).
 */
#ifndef POWERINFER2_GUARD_H
#define POWERINFER2_GUARD_H

#include "powerinfer2/divergence.h"
#include "powerinfer2/identity.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { PI2_GUARD_TEXT_BYTES = 128, PI2_GUARD_MOST = 64 };

/** One mode over one text. */
typedef struct pi2_guard_entry {
    char arithmetic[PI2_GUARD_TEXT_BYTES]; /* pi2_engine_arithmetic() of the mode */
    char text[PI2_GUARD_TEXT_BYTES];       /* its name, for people: its end where it is longer */
    uint64_t text_hash;                    /* XXH3 64 of its bytes */
    uint32_t chunk_tokens, chunk_count;
    uint64_t tokens;                       /* that were compared */
    pi2_estimate divergence, same_top, perplexity_ratio; /* as in pi2_divergence_summary */
} pi2_guard_entry;

typedef struct pi2_guard pi2_guard;

/** An empty one of these weights (pi2_engine_weights_hash()). Errors  MEMORY */
PI2_API pi2_status pi2_guard_create(uint64_t weights_hash, pi2_guard **guard_out);
/** Errors  FORMAT (what is wrong), IO, UNSUPPORTED (too large), MEMORY */
PI2_API pi2_status pi2_guard_read(const char *path, pi2_guard **guard_out);
PI2_API void pi2_guard_free(pi2_guard *guard);
PI2_API uint64_t pi2_guard_weights_hash(const pi2_guard *guard);
/** The entry `index`, from the oldest to the newest; NULL behind the last. */
PI2_API const pi2_guard_entry *pi2_guard_entry_at(const pi2_guard *guard, size_t index);
/** The newest entry of a mode; NULL: it was not measured. */
PI2_API const pi2_guard_entry *pi2_guard_find(const pi2_guard *guard, const char *arithmetic);
/** Adds an entry, in place of one of the same mode and text; the oldest gives way where there are PI2_GUARD_MOST. */
PI2_API void pi2_guard_put(pi2_guard *guard, const pi2_guard_entry *entry);
/** Looks whether a guard may be written there: nothing but a guard gives way. inputs: files that are read, NULL at the
 *  end. Errors  INVALID, IO (the folder cannot be written) */
PI2_API pi2_status pi2_guard_check_place(const char *path, const char *const *inputs);
/** Errors  INVALID, IO, MEMORY */
PI2_API pi2_status pi2_guard_write(const pi2_guard *guard, const char *path);
/** Where the guard of weights lies that come from this file: beside it, "model.guard" of model.gguf and of model.pi2.
 *  path_out: malloc'd. Errors  MEMORY */
PI2_API pi2_status pi2_guard_default_path(const char *weights_path, char **path_out);

/** XXH3 64 of a regular file's bytes. Errors  IO, MEMORY */
PI2_API pi2_status pi2_text_hash(const char *path, uint64_t *hash_out);

#ifdef __cplusplus
}
#endif
#endif
