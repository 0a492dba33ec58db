/* profile.h: counts how often a model's neurons fire over texts, into a file of statistics (docs/sparsity.md). */
#ifndef POWERINFER2_PROFILE_H
#define POWERINFER2_PROFILE_H

#include "powerinfer2/engine.h"
#include "powerinfer2/sparsity.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pi2_profile_options {
    const char *const *text_paths; /* regular files, each of another text; NULL at the end */
    uint64_t text_tokens;          /* of each text at most, rounded up to whole chunks; 0: all */
    const char *output_path;       /* the statistics: the file has its name only once it is whole */
    uint32_t part, part_count;     /* of each text, chunks part, part + part_count, ...: so that several processes, at
                                      most 64, share a text; part_count 0: all chunks */
    bool resume;                   /* go on with the statistics at output_path, where there are some: what they counted
                                      of these texts is passed over, and the result is that of one run */
} pi2_profile_options;

/**
 * Runs the texts through the model in chunks of the engine's context, each from an empty timeline (and with the
 * beginning-of-sequence token in its first place, where the model's text begins with one). The counts are the same
 * whatever the budget, threads and batch.
 * engine        in   opened with counts_neurons; without a session
 * sparsity_out  out  what all of the file's counts say; pi2_sparsity_free() it; NULL on any error
 * Errors  INVALID (no text, one twice, an empty one, what may not be replaced), IO, FORMAT, UNSUPPORTED, MEMORY,
 *         INTERRUPTED. After a failed or interrupted count what whole chunks gave is written, where there is any, and
 *         a line of the log says so.
 */
PI2_API pi2_status pi2_profile_texts(pi2_engine *engine, const pi2_profile_options *options,
                                     pi2_sparsity **sparsity_out);

/** Looks whether statistics may be written there, ahead of work that takes long. inputs: files that are read, NULL at
 *  the end. Errors  INVALID, IO (its folder cannot be written) */
PI2_API pi2_status pi2_profile_check_place(const char *output_path, const char *const *inputs);

/**
 * Adds statistics of one model, counted over different texts or different parts of one, exactly: in any order they give
 * the same file, which is that of one run over all texts once all parts of each are in it.
 * paths  in  two files or more, NULL at the end; none of them is output_path
 * Errors  INVALID (they were counted differently, or both counted one text or part of one), FORMAT, IO,
 *         UNSUPPORTED, MEMORY: nothing is written
 */
PI2_API pi2_status pi2_profile_merge(const char *const *paths, const char *output_path, pi2_sparsity **sparsity_out);

#ifdef __cplusplus
}
#endif
#endif
