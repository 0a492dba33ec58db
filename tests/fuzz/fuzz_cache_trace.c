/* fuzz_cache_trace.c: any bytes at all as a trace of experts' uses, replayed where it is accepted.
 *
 * Whatever is read must be whole and in order; no policy hits more often than there are uses, nor,
 * where every demand fits, more often than the optimum.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "neuron_cache/cache_trace.h"
#include "powerinfer2/cache_replay.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { KEYS_MOST = 4096, USES_MOST = 2048 }; /* what is replayed: a replay's work grows with both */

static char path[64];

static void remove_file(void) { (void)unlink(path); }

static void require(bool condition) {
    if (!condition) abort();
}

/* Returns the keys of the largest demand. */
static uint32_t check_trace(const pi2_trace *trace) {
    const uint32_t experts = trace->header.expert_count, all = experts * trace->header.layer_count;
    uint32_t most = 0;
    require(trace->demands[trace->demand_count].begin == trace->key_count);
    for (uint32_t d = 0; d < trace->demand_count; d++) {
        const uint32_t begin = trace->demands[d].begin, end = trace->demands[d + 1].begin;
        require(begin < end && end <= trace->key_count && trace->demands[d].pass_tokens > 0);
        for (uint32_t k = begin; k < end; k++) {
            require(trace->keys[k] < all && trace->keys[k] / experts == trace->keys[begin] / experts);
            require(k == begin || trace->keys[k - 1] < trace->keys[k]);
        }
        if (end - begin > most) most = end - begin;
        if (!trace->near_of) continue;
        uint64_t sum = 0;
        for (uint32_t i = 0; i < trace->near_of[d].count; i++) sum += trace->near[trace->near_of[d].begin + i];
        require(trace->near_of[d].count <= experts && sum <= 255 * (uint64_t)experts);
    }
    return most;
}

static void replay(uint32_t largest_demand) {
    pi2_replay *open_replay = NULL;
    require(pi2_replay_open(path, &open_replay) == PI2_OK);
    const pi2_replay_info *info = pi2_replay_get_info(open_replay);
    require(info->repeat_share >= 0 && info->repeat_share <= 1 && info->distinct_count <= info->use_count);
    static const uint32_t slots[] = { 1, 3, 16, 200 };
    for (size_t s = 0; s < sizeof slots / sizeof slots[0]; s++) {
        pi2_replay_result best, result;
        require(pi2_replay_run(open_replay, "belady", slots[s], 0, &best) == PI2_OK && best.hits <= best.uses);
        for (const char *const *name = pi2_replay_policy_names(); *name; name++) {
            require(pi2_replay_run(open_replay, *name, slots[s], 0, &result) == PI2_OK);
            require(result.uses == info->use_count && result.hits <= result.uses);
            require(slots[s] < largest_demand || result.hits <= best.hits);
            const pi2_status later = pi2_replay_run(open_replay, *name, slots[s], 1, &result);
            require(later == (info->pass_count > 1 ? PI2_OK : PI2_ERR_INVALID));
            require(later != PI2_OK || (result.uses && result.passes && result.hits <= result.uses));
        }
    }
    pi2_replay_close(open_replay);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static int file = -1;
    if (file < 0) {
        (void)snprintf(path, sizeof path, "/dev/shm/pi2-fuzz-trace-%ld", (long)getpid());
        file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
        if (file < 0 || atexit(remove_file) != 0) abort();
    }
    if (ftruncate(file, 0) != 0 || pwrite(file, data, size, 0) != (ssize_t)size) abort();
    pi2_trace trace;
    if (pi2_trace_read(path, &trace) != PI2_OK) return 0;
    const uint32_t largest_demand = check_trace(&trace);
    const bool is_small = trace.key_count && trace.key_count <= USES_MOST &&
                          trace.header.expert_count * trace.header.layer_count <= KEYS_MOST;
    pi2_trace_free(&trace);
    if (is_small) replay(largest_demand);
    return 0;
}
