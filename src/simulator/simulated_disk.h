/*
 * simulated_disk.h: a clock that is counted, and a disk that serves the store's reads by it.
 *
 * The store asks as in a run, and takes every read for ended as soon as it is asked for (storage/described_reader.h).
 * When its bytes would have been there is kept here, for each extent and each unit of single neurons: whoever computes
 * with one waits until then. The disk serves reads in the order in which they come: each as long as the machine's
 * profile has it for its bytes and as many in flight, none sooner than one by itself.
 */
#ifndef PI2_SIMULATOR_SIMULATED_DISK_H
#define PI2_SIMULATOR_SIMULATED_DISK_H

#include "clusters/neuron_bank.h"
#include "planner/prediction.h"
#include "storage/described_reader.h"

typedef struct pi2_extent_place {
    uint64_t offset;
    uint32_t extent;
} pi2_extent_place;

typedef struct pi2_simulated_disk {
    double now;                    /* seconds; set by whoever computes */
    double lost;                   /* processor time that reads took from those who compute, and nobody has booked */
    double busy;                   /* the disk's, since it was made */
    uint64_t bytes, reads;
    double *extent_there, *unit_there; /* [extents], [units of all banks]: when each was there last */
    uint32_t *first_unit;          /* [banks] */
    /* the rest is its own */
    const pi2_extent_layout *layout;
    const pi2_neuron_banks *banks; /* NULL: there are none */
    const pi2_workload *workload;
    const pi2_machine_profile *profile;
    pi2_extent_place *by_offset;   /* extents in the file's order */
    float *speeds;                 /* by pages of a read and reads in flight; 0: not asked yet */
    uint32_t depth, together;
    uint64_t most_bytes;           /* in flight; 0: no limit */
    double last_end, *ends;        /* of reads in flight, ascending, in a circle */
    uint32_t first_end, end_count;
    pi2_described_disk described;
} pi2_simulated_disk;

/** What it points to outlives it. Extents have their places in the file. Errors  MEMORY */
pi2_status pi2_simulated_disk_make(const pi2_extent_layout *layout, const pi2_neuron_banks *banks,
                                   const pi2_workload *workload, const pi2_machine_profile *profile, uint32_t depth,
                                   pi2_simulated_disk *disk);
void pi2_simulated_disk_free(pi2_simulated_disk *disk);
/** A reader of it. path: for messages. Errors  MEMORY */
pi2_status pi2_simulated_disk_open(pi2_simulated_disk *disk, const char *path, struct pi2_reader **reader_out);
/** Whatever was read is there now, and cost no time. */
void pi2_simulated_disk_forgive(pi2_simulated_disk *disk);

#endif
