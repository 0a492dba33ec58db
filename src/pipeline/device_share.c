/* device_share.c: see the header. */
#include "pipeline/device_share.h"

#include <stddef.h>

/* One pass may have been disturbed: a share goes half of the way that it showed. */
static const double STEP = 0.5;

uint32_t pi2_share_size(uint32_t tokens) {
    uint32_t size = 0;
    while (size + 1 < PI2_SHARE_SIZES && (1u << size) < tokens) size++;
    return size;
}

static float bounded(double share) { return share < 0 ? 0.0f : share > 1 ? 1.0f : (float)share; }

void pi2_device_share_init(pi2_device_share *share, const pi2_device_first_shares *first) {
    share->are_fixed = first->are_fixed;
    share->now = NULL;
    for (int by_neuron = 0; by_neuron < 2; by_neuron++) {
        for (int size = 0; size < PI2_SHARE_SIZES; size++) {
            for (int kind = 0; kind < PI2_SHARE_KINDS; kind++) {
                share->shares[by_neuron][size][kind] = bounded(first->of[size]);
            }
        }
    }
}

void pi2_device_share_begin(pi2_device_share *share, uint32_t tokens, bool by_neuron, bool has_devices) {
    share->now = has_devices ? share->shares[by_neuron][pi2_share_size(tokens)] : NULL;
    for (int kind = 0; kind < PI2_SHARE_KINDS; kind++) {
        atomic_store_explicit(&share->all[kind], 0, memory_order_relaxed);
        atomic_store_explicit(&share->taken[kind], 0, memory_order_relaxed);
        atomic_store_explicit(&share->lost[kind], 0, memory_order_relaxed);
    }
}

void pi2_device_share_end(pi2_device_share *share) {
    for (int kind = 0; share->now && !share->are_fixed && kind < PI2_SHARE_KINDS; kind++) {
        const double all = (double)atomic_load_explicit(&share->all[kind], memory_order_relaxed);
        const double taken = (double)atomic_load_explicit(&share->taken[kind], memory_order_relaxed);
        const double lost = (double)atomic_load_explicit(&share->lost[kind], memory_order_relaxed);
        if (all > 0) share->now[kind] = bounded(share->now[kind] + STEP * (taken - lost) / all);
    }
    share->now = NULL;
}

double pi2_device_share_now(const pi2_device_share *share, pi2_share_kind kind) {
    return share->now && kind != PI2_SHARE_NONE ? share->now[kind] : 0;
}

void pi2_device_share_did(pi2_device_share *share, pi2_share_kind kind, bool is_own, bool by_device, uint64_t bytes) {
    if (!share->now || kind == PI2_SHARE_NONE) return;
    atomic_fetch_add_explicit(&share->all[kind], bytes, memory_order_relaxed);
    if (is_own == by_device) return;
    atomic_fetch_add_explicit(is_own ? &share->lost[kind] : &share->taken[kind], bytes, memory_order_relaxed);
}

double pi2_device_share_of(const pi2_device_share *share, uint32_t tokens, bool by_neuron, pi2_share_kind kind) {
    return share->shares[by_neuron][pi2_share_size(tokens)][kind];
}
