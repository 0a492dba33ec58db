/*
 * device_worth.h: what a device is worth beside the processor's threads, by what both were measured to do: how much of
 * a matrix should be its own, and how much faster that makes the matrix. Pure arithmetic.
 *
 * A stage of S bytes takes the threads S / alone. With the device they compute (1 - share) S at their speed beside it,
 * which is less where both have the same processors or the same memory, and the device share S at its own, in a few
 * calls that take a while each, however little they compute. The best share is the one with which both are done at
 * once. Where a call alone takes longer than the threads the whole stage, there is none: who asks the device all the
 * same waits for it.
 */
#ifndef PI2_PLANNER_DEVICE_WORTH_H
#define PI2_PLANNER_DEVICE_WORTH_H

/** Bytes of weights a second. */
typedef struct pi2_device_rates {
    double alone, beside;     /* of the threads: without the device, while it computes */
    double device;            /* of the device, while the threads compute; 0: it computes nothing */
    double call_seconds;      /* of a call, beside that */
} pi2_device_rates;

typedef struct pi2_device_worth_of_stage {
    double share;             /* 0 .. 1 */
    double gain;              /* time without the device / time with it; below 1: it does not pay */
} pi2_device_worth_of_stage;

/** stage_bytes: of the matrices of a stage, on average. */
pi2_device_worth_of_stage pi2_device_worth_in(const pi2_device_rates *rates, double stage_bytes);

#endif
