/* described_machine.h: a device that is described, as if it had been measured. */
#ifndef PI2_SIMULATOR_DESCRIBED_MACHINE_H
#define PI2_SIMULATOR_DESCRIBED_MACHINE_H

#include "machine/machine_profile.h"
#include "powerinfer2/simulate.h"

/** The only read method of such a profile. */
#define PI2_DESCRIBED_READ_METHOD "io_uring"

/** Errors  INVALID (a value that no device has, by name) */
pi2_status pi2_simulated_device_check(const pi2_simulated_device *device);

/**
 * The profile of a device: its processors' speed for every weight type, and its disk, number 0. The accelerator,
 * layer_seconds, sparse_efficiency and watts are in no profile. Errors  INVALID
 */
pi2_status pi2_described_machine(const pi2_simulated_device *device, pi2_machine_profile *profile_out);

#endif
