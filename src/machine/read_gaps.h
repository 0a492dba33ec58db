/* read_gaps.h: when a longer read costs less than two short ones, by what was measured. */
#ifndef PI2_MACHINE_READ_GAPS_H
#define PI2_MACHINE_READ_GAPS_H

#include "machine/machine_profile.h"

/**
 * As many unwanted units as may lie between two that are wanted for one read of all to be clearly cheaper than two
 * reads, while many are in flight. 0: none, or nothing was measured of small reads. Pure.
 */
uint32_t pi2_read_gap_units(const pi2_machine_profile *profile, const char *read_method, uint32_t disk,
                            uint32_t unit_bytes);

#endif
