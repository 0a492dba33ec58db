/* read_gaps.c: see read_gaps.h */
#include "machine/read_gaps.h"

#include "storage/read_sizes.h"

/* What is read for nothing also takes the disk from others, and disks vary: it must gain a tenth. */
static const double clearly_less = 0.9;

/* Seconds of the disk's time for a read among many; 0: not measured. */
static double read_seconds(const pi2_machine_profile *profile, const char *read_method, uint32_t disk, uint64_t bytes) {
    const double rate = pi2_profile_value(profile, PI2_MEASURED_SMALL_READ, read_method, bytes, PI2_SMALL_READ_DEPTH,
                                          disk, NULL);
    return rate > 0 ? (double)bytes / rate : 0;
}

uint32_t pi2_read_gap_units(const pi2_machine_profile *profile, const char *read_method, uint32_t disk,
                            uint32_t unit_bytes) {
    const double two = 2 * read_seconds(profile, read_method, disk, unit_bytes);
    uint32_t units = 0;
    for (;; units++) {
        const uint64_t bytes = (uint64_t)(units + 3) * unit_bytes; /* with one more */
        if (bytes > PI2_SMALL_READ_BYTES || units + 3 > PI2_READ_PIECES) return units;
        if (read_seconds(profile, read_method, disk, bytes) >= clearly_less * two) return units;
    }
}
