/* machine_measure.h: the parts of a measurement, each adding its lines to a profile. */
#ifndef PI2_MACHINE_MACHINE_MEASURE_H
#define PI2_MACHINE_MACHINE_MEASURE_H

#include "base/team.h"
#include "machine/machine_profile.h"

enum { PI2_SAMPLES_MOST = 64 };

/** Repeated timings of one thing. */
typedef struct pi2_samples {
    double values[PI2_SAMPLES_MOST];
    size_t count;
} pi2_samples;

/** The mean of all but the largest tenth: what other programs take at the time counts, as it will when a
 *  model runs; a single hiccup does not.
 *  spread_out: half the width of the middle three fifths over the median, at most 1. 0 without samples. */
double pi2_samples_typical(pi2_samples *samples, double *spread_out);

/** A part of the memory that is gone through, place by place, before its first bytes come again. */
typedef struct pi2_reach {
    size_t begin, bytes, at;
    size_t told_bytes;          /* as the profile has it */
    size_t round_bytes;         /* of it, in one round */
    size_t skipped;             /* rounds until what a cache holds of it is there */
} pi2_reach;

typedef struct pi2_measuring {
    pi2_machine_profile *profile;
    const pi2_machine_options *options;
    double seconds;             /* for one value */
    uint8_t *memory;            /* filled: near, then far */
    pi2_reach near, far;        /* a cache holds the first one; the second is larger than all, where there is room */
    uint64_t cache_bytes;       /* of the last level; 0: the system does not tell */
    unsigned most_threads;      /* one for each processor, as far as a run may have so many */
    unsigned step, step_count;  /* of the progress */
} pi2_measuring;

/** Tells progress. Errors  INTERRUPTED when the caller's callback asks for it */
pi2_status pi2_measuring_step(pi2_measuring *measuring);

/** Where the next `bytes`, at most the reach's, lie: never in two pieces, aligned to 64. */
const uint8_t *pi2_measuring_place(const pi2_measuring *measuring, pi2_reach *reach, size_t bytes);

/** Memory bandwidth, kernels, attention, vectors and stages with the team's threads.
 *  batches: also the kernels with several tokens. Errors  MEMORY, INTERRUPTED */
pi2_status pi2_measure_compute(pi2_measuring *measuring, pi2_team *team, bool batches);
/** Rows and columns of single neurons, and the rows of predictors. Errors  MEMORY, INTERRUPTED */
pi2_status pi2_measure_neurons(pi2_measuring *measuring, pi2_team *team);
/** What the store of single neurons takes beside reading and computing. Errors  MEMORY, INTERRUPTED */
pi2_status pi2_measure_store(pi2_measuring *measuring, pi2_team *team);
/** What depends on one thread only: attention, vectors. Errors  MEMORY */
pi2_status pi2_measure_serial(pi2_measuring *measuring);
/** Storage. folder: where a file is made when options->disk_path is none. Errors  IO, MEMORY, INTERRUPTED */
pi2_status pi2_measure_disk(pi2_measuring *measuring, const char *folder);
/** Like that, with what the engine uses most only. profile has no figures of the disk. */
pi2_status pi2_measure_disk_briefly(pi2_measuring *measuring);
/** Values that each of them will step through. */
unsigned pi2_measure_compute_steps(bool batches);
unsigned pi2_measure_neuron_steps(void);
unsigned pi2_measure_store_steps(void);
unsigned pi2_measure_disk_steps(void);

#endif
