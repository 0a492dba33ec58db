/* expert_file.h: a file of experts whose words say where they are, and demands on a cache over it. */
#ifndef PI2_TESTS_SUPPORT_EXPERT_FILE_H
#define PI2_TESTS_SUPPORT_EXPERT_FILE_H

#include "neuron_cache/expert_cache.h"

enum { LAYERS = 4, EXPERTS = 8, KEYS = LAYERS * EXPERTS, EXTENTS = 3, BLOCK = 4096 };
enum { FILE_BLOCKS = 1 + KEYS * 8 };

extern pi2_extent expert_extents[KEYS * EXTENTS];
/** Experts of extents that are neighbours in the file, and of some that are not. Made by the next function. */
extern pi2_extent_layout expert_layout;
void expert_layout_make(void);
/** Of an expert's extents the first so many are its Gate, and used by expert_run_demand(): EXTENTS - 1, and EXTENTS
 *  unless a test says otherwise. */
extern uint32_t expert_used_extents;

/** Every 8 bytes of the file hold their own offset; one bit of the word at flipped_at (0: none) does not. */
void expert_file_write(const char *path, uint64_t flipped_at);

/** The demand of a layer: 1 .. most experts; returns how many. */
uint32_t expert_choose(uint64_t *random, uint32_t layer, uint32_t most, uint32_t *chosen);

/** Opens an extent and compares every word. */
pi2_status expert_use_extent(pi2_expert_cache *cache, uint32_t key, uint32_t index);

/**
 * Demands, looks ahead (where ahead is not NULL), uses what arrives as it arrives, releases each expert
 * when its last extent was used.
 */
pi2_status expert_run_demand(pi2_expert_cache *cache, const uint32_t *chosen, const pi2_batch_use *uses, uint32_t count,
                             const uint32_t *ahead, uint32_t ahead_count);

#endif
