/* machine_rounds.c: see machine_rounds.h. */
#include "machine/machine_rounds.h"

#include <string.h>

#include "base/clock.h"

/* Member 0 books a round, and says whether there is another. */
static void end_round(pi2_rounds *r, uint64_t *counted_ns, uint64_t *last_ns) {
    const uint64_t end_ns = pi2_clock_ns();
    if (r->done++ < r->skipped) {
        *counted_ns = end_ns;
    } else if (r->samples.count < PI2_SAMPLES_MOST) {
        r->samples.values[r->samples.count++] = (double)(end_ns - *last_ns) * 1e-9;
    }
    const bool enough = r->samples.count >= r->least && (double)(end_ns - *counted_ns) * 1e-9 > r->seconds;
    if (r->next) r->next(r->user);
    *last_ns = r->next ? pi2_clock_ns() : end_ns;
    atomic_store(&r->claimed, 0);
    atomic_store(&r->go_on, !enough && r->samples.count < PI2_SAMPLES_MOST);
}

static void round_member(void *argument, unsigned member, unsigned member_count) {
    pi2_rounds *r = argument;
    (void)member_count;
    uint64_t counted_ns = pi2_clock_ns();
    /* A round lasts from the end of the one before: had member 0 to wait for a processor, the
       others' work meanwhile must not come for free. */
    uint64_t last_ns = counted_ns;
    while (atomic_load(&r->go_on)) {
        pi2_team_barrier(r->team, member);
        for (size_t chunk; (chunk = atomic_fetch_add(&r->claimed, 1)) < r->chunk_count;) {
            r->chunk(r->user, member, chunk);
            r->busy[member] += 1;
        }
        pi2_team_barrier(r->team, member);
        if (member == 0) end_round(r, &counted_ns, &last_ns);
        pi2_team_barrier(r->team, member);
    }
}

double pi2_rounds_run(pi2_rounds *rounds, double amount, double *spread) {
    rounds->samples.count = rounds->done = 0;
    atomic_store(&rounds->claimed, 0);
    atomic_store(&rounds->go_on, true);
    memset(rounds->busy, 0, sizeof rounds->busy);
    pi2_team_run(rounds->team, round_member, rounds);
    const double seconds = pi2_samples_typical(&rounds->samples, spread);
    return seconds > 0 ? amount / seconds : 0;
}
