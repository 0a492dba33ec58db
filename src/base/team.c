/* team.c: threads that meet at one barrier; a run starts with a wake-up and ends with a barrier. */
#include "base/team.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/fail.h"
#include "base/sleepers.h"
#include "base/thread_start.h"

enum { CACHE_LINE_BYTES = 64 };

typedef struct team_thread {
    pi2_team *team;
    unsigned member_index;
    pthread_t thread;
} team_thread;

/*
 * Words that different threads write lie on lines of their own:
 *   run_number      counted up by pi2_team_run and pi2_team_destroy: members wait for it to change
 *   arrived         members at the present barrier; set back by the last before it opens it
 *   barrier_number  counted up when the last member arrives: the others wait for it to change
 */
struct pi2_team {
    unsigned member_count, spin_us, sleeping; /* sleeping: the last members, which never spin */
    unsigned started; /* threads that run, for destroy after a failed create */
    pi2_team_function *function; /* NULL ends the threads */
    void *argument;
    pthread_mutex_t turn; /* of the run under way */
    pi2_sleepers sleepers;
    _Alignas(CACHE_LINE_BYTES) _Atomic int run_number;
    _Alignas(CACHE_LINE_BYTES) _Atomic unsigned arrived;
    _Alignas(CACHE_LINE_BYTES) _Atomic int barrier_number;
    _Alignas(CACHE_LINE_BYTES) team_thread threads[]; /* of members 1 and up */
};

/* Unsigned arithmetic, so that the numbers may wrap. */
static void count_up(_Atomic int *number) {
    const unsigned next = (unsigned)atomic_load_explicit(number, memory_order_relaxed) + 1u;
    atomic_store(number, (int)next);
}

static unsigned spin_of(const pi2_team *team, unsigned member) {
    return member + team->sleeping < team->member_count ? team->spin_us : 0;
}

void pi2_team_barrier(pi2_team *team, unsigned member_index) {
    assert(member_index < team->member_count);
    if (team->member_count == 1) return;
    const int number = atomic_load_explicit(&team->barrier_number, memory_order_relaxed);
    const unsigned before = atomic_fetch_add_explicit(&team->arrived, 1, memory_order_acq_rel);
    assert(before < team->member_count);
    if (before + 1 == team->member_count) {
        atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
        count_up(&team->barrier_number);
        pi2_wake_sleepers(&team->sleepers, &team->barrier_number);
    } else {
        (void)pi2_wait_for_change(&team->sleepers, &team->barrier_number, number, spin_of(team, member_index),
                                  0);
    }
}

static void *thread_main(void *pointer) {
    team_thread *self = pointer;
    pi2_team *team = self->team;
    int number = 0; /* run_number starts at 0, before any thread does */
    for (;;) {
        (void)pi2_wait_for_change(&team->sleepers, &team->run_number, number, spin_of(team, self->member_index), 0);
        number = atomic_load_explicit(&team->run_number, memory_order_acquire);
        if (!team->function) return NULL;
        team->function(team->argument, self->member_index, team->member_count);
        pi2_team_barrier(team, self->member_index);
    }
}

static void start_run(pi2_team *team, pi2_team_function *function, void *argument) {
    team->function = function;
    team->argument = argument;
    count_up(&team->run_number);
    pi2_wake_sleepers(&team->sleepers, &team->run_number);
}

void pi2_team_run(pi2_team *team, pi2_team_function *function, void *argument) {
    assert(function);
    (void)pthread_mutex_lock(&team->turn);
    if (team->member_count > 1) start_run(team, function, argument);
    function(argument, 0, team->member_count);
    pi2_team_barrier(team, 0);
    (void)pthread_mutex_unlock(&team->turn);
}

unsigned pi2_team_member_count(const pi2_team *team) { return team->member_count; }

static pi2_status start_threads(pi2_team *team, size_t stack_bytes) {
    for (unsigned i = 1; i < team->member_count; i++) {
        team_thread *thread = &team->threads[i - 1];
        thread->team = team;
        thread->member_index = i;
        const int error = pi2_thread_start(&thread->thread, stack_bytes, thread_main, thread);
        if (error) {
            return pi2_fail(PI2_ERR_MEMORY,
                            "cannot start compute thread %u of %u: %s; use fewer threads", i + 1,
                            team->member_count, strerror(error));
        }
        team->started++;
    }
    return PI2_OK;
}

unsigned pi2_team_spin_us(unsigned member_count) {
    return pi2_allowed_cpus() >= member_count ? PI2_TEAM_SPIN_US : 0;
}

pi2_status pi2_team_create(unsigned member_count, const pi2_team_options *options,
                           pi2_team **team_out) {
    *team_out = NULL;
    if (member_count == 0 || member_count > PI2_TEAM_MAX_MEMBERS) {
        return pi2_fail(PI2_ERR_INVALID, "%u compute threads: use 1 to %d", member_count,
                        PI2_TEAM_MAX_MEMBERS);
    }
    static const pi2_team_options defaults;
    if (!options) options = &defaults;
    const size_t bytes = sizeof(pi2_team) + (member_count - 1) * sizeof(team_thread);
    pi2_team *team = NULL;
    if (posix_memalign((void **)&team, CACHE_LINE_BYTES, bytes) != 0) {
        return pi2_fail(PI2_ERR_MEMORY, "no memory for %u compute threads", member_count);
    }
    memset(team, 0, bytes);
    team->member_count = member_count;
    team->sleeping = options->sleepers < member_count ? options->sleepers : member_count - 1;
    const unsigned spin_us = options->never_spin ? 0 : pi2_team_spin_us(member_count - team->sleeping);
    team->spin_us = spin_us && options->spin_us ? options->spin_us : spin_us;
    atomic_init(&team->run_number, 0);
    atomic_init(&team->arrived, 0);
    atomic_init(&team->barrier_number, 0);
    const pi2_status sleepers_status = pi2_sleepers_init(&team->sleepers, options->portable_sleep);
    if (sleepers_status != PI2_OK) {
        free(team);
        return sleepers_status;
    }
    (void)pthread_mutex_init(&team->turn, NULL); /* a default one: nothing can fail */
    const size_t stack_bytes = options->stack_bytes ? options->stack_bytes : PI2_TEAM_STACK_BYTES;
    const pi2_status status = start_threads(team, stack_bytes);
    if (status != PI2_OK) {
        pi2_team_destroy(team);
        return status;
    }
    *team_out = team;
    return PI2_OK;
}

void pi2_team_destroy(pi2_team *team) {
    if (!team) return;
    start_run(team, NULL, NULL);
    for (unsigned i = 0; i < team->started; i++) (void)pthread_join(team->threads[i].thread, NULL);
    pi2_sleepers_destroy(&team->sleepers);
    (void)pthread_mutex_destroy(&team->turn);
    free(team);
}
