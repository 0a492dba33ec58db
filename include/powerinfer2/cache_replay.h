/*
 * cache_replay.h: what a cache of experts, or of single neurons, would have found, for any policy and
 * size, and the best that any could: a recorded run (pi2_engine_options.record_trace) played again without the model.
 */
#ifndef POWERINFER2_CACHE_REPLAY_H
#define POWERINFER2_CACHE_REPLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "powerinfer2/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pi2_replay pi2_replay;

typedef struct pi2_replay_info {
    uint32_t layer_count, expert_count, used_count; /* experts of a layer, and those that a token uses */
    uint64_t expert_bytes;      /* of one slot */
    uint32_t pass_count;        /* prompts' batches and single tokens */
    uint64_t token_count;
    uint64_t use_count;         /* visits of a pass to an expert */
    uint64_t distinct_count;    /* experts that were used at all */
    double repeat_share;        /* of a single token's experts, those that the pass before used too */
    bool of_neurons;            /* "layers" are banks of single neurons, "experts" units of them; used_count is 0 */
} pi2_replay_info;

/** Reads a trace. Errors  IO, FORMAT (what is wrong, at which byte; no passes), UNSUPPORTED (version), MEMORY */
PI2_API pi2_status pi2_replay_open(const char *path, pi2_replay **replay_out);
/** NULL is fine. */
PI2_API void pi2_replay_close(pi2_replay *replay);
PI2_API const pi2_replay_info *pi2_replay_get_info(const pi2_replay *replay);

/** The policies by name, NULL-terminated; "belady", which knows the future, is not among them. */
PI2_API const char *const *pi2_replay_policy_names(void);

/** Why a policy is not worth playing with this trace, as what follows "it": "looks at every slot ..."; NULL: it is.
 *  pi2_replay_run() plays it all the same. */
PI2_API const char *pi2_replay_leaves_out(const pi2_replay *replay, const char *policy);

typedef struct pi2_replay_result {
    uint64_t uses, hits;        /* of the passes that count */
    uint64_t passes;
} pi2_replay_result;

/**
 * Plays the trace with a cache of so many slots, empty at first. Passes before number first_pass
 * warm it up and do not count.
 * policy  a name of the list, "auto", or "belady": the least misses that are possible when every
 *         expert used must have a slot
 * Errors  INVALID (policy, no slots, no pass that counts), MEMORY
 */
PI2_API pi2_status pi2_replay_run(const pi2_replay *replay, const char *policy, uint32_t slot_count,
                                  uint32_t first_pass, pi2_replay_result *result_out);

/**
 * The same with hot experts: those that the passes which do not count used most (all passes, where all count) have
 * the share hot_share (0 .. 0.75) of the slots, are there from the start, and change places with others as in a
 * run. Nothing changes for "belady".
 */
PI2_API pi2_status pi2_replay_run_hot(const pi2_replay *replay, const char *policy, uint32_t slot_count,
                                      double hot_share, uint32_t first_pass, pi2_replay_result *result_out);

#ifdef __cplusplus
}
#endif
#endif
