/* expert_file.c */
#include "support/expert_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <xxhash.h>

#include "support/temporary_files.h"
#include "support/tiny_model.h"

static pi2_layout_tensor tensor = { .name = "blk.0.ffn_gate_exps.weight" };
static pi2_piece piece;
static pi2_group groups[KEYS + 1];
uint32_t expert_used_extents = EXTENTS;
pi2_extent expert_extents[KEYS * EXTENTS];
pi2_extent_layout expert_layout = { .tensors = &tensor, .tensor_count = 1, .pieces = &piece, .piece_count = 1,
                                    .extents = expert_extents, .extent_count = KEYS * EXTENTS,
                                    .groups = groups, .group_count = KEYS + 1 };

void expert_file_write(const char *path, uint64_t flipped_at) {
    const size_t words = (size_t)FILE_BLOCKS * BLOCK / 8;
    uint64_t *bytes = malloc(words * 8);
    assert_non_null(bytes);
    for (size_t i = 0; i < words; i++) bytes[i] = i * 8;
    for (uint32_t e = 0; e < KEYS * EXTENTS; e++) {
        expert_extents[e].checksum = XXH3_64bits(bytes + expert_extents[e].file_offset / 8, expert_extents[e].bytes);
    }
    if (flipped_at) bytes[flipped_at / 8] ^= 1;
    test_file_write(path, bytes, words * 8);
    free(bytes);
}

void expert_layout_make(void) {
    uint64_t random = 11, offset = BLOCK;
    groups[0] = (pi2_group){ .kind = PI2_GROUP_HEAD };
    for (uint32_t key = 0; key < KEYS; key++) {
        groups[key + 1] = (pi2_group){ .kind = PI2_GROUP_EXPERT, .layer = key / EXPERTS, .expert = key % EXPERTS,
                                       .first_extent = key * EXTENTS, .extent_count = EXTENTS,
                                       .gate_extents = EXTENTS - 1 };
        for (uint32_t i = 0; i < EXTENTS; i++) {
            const uint32_t blocks = 1 + (uint32_t)(pi2_tiny_random(&random) % 2);
            const uint32_t bytes = blocks * BLOCK - 64 * (i + key % 3);
            expert_extents[key * EXTENTS + i] = (pi2_extent){ .file_offset = offset, .bytes = bytes, .piece_count = 1,
                                                       .group = key + 1 };
            offset += (blocks + pi2_tiny_random(&random) % 2) * BLOCK;
        }
    }
    assert_true(offset <= (uint64_t)FILE_BLOCKS * BLOCK);
}

uint32_t expert_choose(uint64_t *random, uint32_t layer, uint32_t most, uint32_t *chosen) {
    const uint32_t wanted = 1 + (uint32_t)(pi2_tiny_random(random) % most);
    uint32_t count = 0;
    for (uint32_t e = 0; e < EXPERTS; e++) {
        const uint32_t left = EXPERTS - e, need = wanted - count;
        if (pi2_tiny_random(random) % left < need) chosen[count++] = layer * EXPERTS + e;
    }
    return count;
}

pi2_status expert_use_extent(pi2_expert_cache *cache, uint32_t key, uint32_t index) {
    const uint8_t *memory = NULL;
    const pi2_status status = pi2_expert_cache_open(cache, key, index, &memory);
    if (status != PI2_OK) return status;
    const pi2_extent *place = &expert_extents[key * EXTENTS + index];
    for (uint32_t b = 0; b < place->bytes; b += 8) {
        uint64_t word;
        memcpy(&word, memory + b, sizeof word);
        assert_int_equal(word, place->file_offset + b);
    }
    return PI2_OK;
}

pi2_status expert_run_demand(pi2_expert_cache *cache, const uint32_t *chosen, const pi2_batch_use *uses, uint32_t count,
                             const uint32_t *ahead, uint32_t ahead_count) {
    uint8_t used[EXPERTS][EXTENTS] = { { 0 } };
    uint32_t left[EXPERTS], open = count;
    for (uint32_t i = 0; i < count; i++) left[i] = expert_used_extents;
    pi2_expert_cache_demand(cache, chosen, uses, count);
    if (ahead) pi2_expert_cache_look_ahead(cache, ahead, ahead_count);
    while (open > 0) {
        bool some = false;
        int mark = 0;
        const pi2_status polled = pi2_expert_cache_poll(cache, &mark);
        if (polled != PI2_OK) return polled;
        for (uint32_t i = 0; i < count; i++) {
            for (uint32_t x = 0; x < expert_used_extents; x++) {
                if (used[i][x] || !pi2_expert_cache_arrived(cache, chosen[i], x)) continue;
                const pi2_status status = expert_use_extent(cache, chosen[i], x);
                if (status != PI2_OK) return status;
                used[i][x] = 1;
                some = true;
                if (--left[i] > 0) continue;
                pi2_expert_cache_release(cache, chosen[i]);
                open--;
            }
        }
        if (!some && !pi2_expert_cache_populate(cache)) pi2_expert_cache_wait(cache, mark);
    }
    return PI2_OK;
}
