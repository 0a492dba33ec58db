/*
 * device_trial.h: whether passes are faster with devices than without. It is tried: passes by turns with and without,
 * in pairs of changing order so that a drift hurts neither, then the way with the lower median for HOLD passes; then
 * again. Passes of one token and those of many are tried apart, by the time of a token. No result depends on it.
 */
#ifndef PI2_PIPELINE_DEVICE_TRIAL_H
#define PI2_PIPELINE_DEVICE_TRIAL_H

#include <stdbool.h>
#include <stdint.h>

enum { PI2_DEVICE_TRIAL = 6, PI2_DEVICE_HOLD = 500 };

/** Of one kind of passes. All 0 is a good beginning. */
typedef struct pi2_device_trial {
    bool is_off;              /* what the last trial said */
    uint32_t pass;            /* since the beginning, or since the last trial began */
    uint64_t times[2][PI2_DEVICE_TRIAL]; /* without, with: nanoseconds of a token */
    uint32_t counts[2];
    uint64_t medians[2];      /* of the last trial that is over; 0: none is */
} pi2_device_trial;

/** Whether the next pass computes with devices. */
bool pi2_device_trial_wanted(const pi2_device_trial *trial);
/** A pass took so long for each of its tokens. A failed pass is not noted. True: a trial is over. */
bool pi2_device_trial_note(pi2_device_trial *trial, uint64_t token_ns);

#endif
