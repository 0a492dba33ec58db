/* machine_rounds.h: one thing that the threads of a team do again and again, as the stages of a pass are done. */
#ifndef PI2_MACHINE_MACHINE_ROUNDS_H
#define PI2_MACHINE_MACHINE_ROUNDS_H

#include <stdatomic.h>

#include "machine/machine_measure.h"

/** Its chunks are claimed by whoever is free; when all are done the threads meet, and the next round begins. */
typedef struct pi2_rounds {
    pi2_team *team;
    void (*chunk)(void *user, unsigned member, size_t chunk);
    void (*next)(void *user);          /* after each round, while nobody works; NULL: nothing is to be done */
    void *user;
    size_t chunk_count;
    double seconds;                    /* to go on for */
    size_t least, skipped;             /* rounds that count at least; and that come before those that count */
    /* What it counts: */
    double busy[PI2_TEAM_MAX_MEMBERS]; /* chunks that each member took, for the speeds of cores */
    /* The rest is its own. */
    _Atomic uint32_t claimed;
    _Atomic bool go_on;
    size_t done;
    pi2_samples samples;               /* seconds of a round */
} pi2_rounds;

/** Rounds until the time is over. Returns amount / seconds of a typical round. */
double pi2_rounds_run(pi2_rounds *rounds, double amount, double *spread_out);

#endif
