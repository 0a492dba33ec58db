/*
 * device_share.h: which part of a pass's work is the devices' own.
 *
 * Of every matrix, and of a layer's neurons, a leading part is what devices claim first; the rest is what the threads
 * claim first (stage.h). How large it is hangs on the kind of pass (by neuron or by all neurons, and how many tokens)
 * and on the kind of work, for a device that is slow with one token may be fast with sixty. It begins with what was
 * measured when the run was planned, and follows what the passes show: what one side had to take of the other's part
 * says by how much the part was wrong. So when sequences come or end the next pass has another share already.
 *
 * No result depends on it.
 */
#ifndef PI2_PIPELINE_DEVICE_SHARE_H
#define PI2_PIPELINE_DEVICE_SHARE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum pi2_share_kind {
    PI2_SHARE_FFN, PI2_SHARE_ATTENTION, PI2_SHARE_HEAD, PI2_SHARE_KINDS,
    PI2_SHARE_NONE = PI2_SHARE_KINDS /* work that is not parted, since its weights stream: nothing follows from it */
} pi2_share_kind;

enum { PI2_SHARE_SIZES = 8 }; /* passes of 1, 2, 3-4, 5-8, ..., 33-64, and more tokens */

/** What a share begins with: of passes of each size, between 0 and 1. */
typedef struct pi2_device_first_shares {
    float of[PI2_SHARE_SIZES];
    bool are_fixed;              /* they stay: for measuring, and tests */
} pi2_device_first_shares;

/** Which size passes of so many tokens, at least one, have. */
uint32_t pi2_share_size(uint32_t tokens);

typedef struct pi2_device_share {
    float shares[2][PI2_SHARE_SIZES][PI2_SHARE_KINDS]; /* of passes by all neurons, by neuron */
    bool are_fixed;
    /* The pass under way. */
    float *now;                  /* [PI2_SHARE_KINDS]; NULL: no device computes */
    /* Of the work that was parted, in bytes of weights: all, what devices took of the rest, and threads of the own. */
    _Atomic uint64_t all[PI2_SHARE_KINDS], taken[PI2_SHARE_KINDS], lost[PI2_SHARE_KINDS];
} pi2_device_share;

void pi2_device_share_init(pi2_device_share *share, const pi2_device_first_shares *first);

/** A pass begins. has_devices: some device has a part in it. One thread, as the next. */
void pi2_device_share_begin(pi2_device_share *share, uint32_t tokens, bool by_neuron, bool has_devices);
/** It has ended, without failing: its kind's share follows it. */
void pi2_device_share_end(pi2_device_share *share);

/** The share of this pass; 0: no device computes, or of PI2_SHARE_NONE. Threads: any. */
double pi2_device_share_now(const pi2_device_share *share, pi2_share_kind kind);
/** A chunk was computed: of the own part or of the rest, by a device's member or by a thread. Threads: any. */
void pi2_device_share_did(pi2_device_share *share, pi2_share_kind kind, bool is_own, bool by_device, uint64_t bytes);

/** The share of the last pass of such a kind. */
double pi2_device_share_of(const pi2_device_share *share, uint32_t tokens, bool by_neuron, pi2_share_kind kind);

#endif
