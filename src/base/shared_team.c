/* shared_team.c: the process's teams, by their number of threads. */
#include "base/shared_team.h"

#include <assert.h>
#include <pthread.h>

typedef struct shared_team {
    pi2_team *team;
    unsigned users;
} shared_team;

enum { MOST_SLEEPERS = 4 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
/* By member count, and how many of them never spin; nobody uses one: it is not there. */
static shared_team teams[PI2_TEAM_MAX_MEMBERS + 1][MOST_SLEEPERS + 1];

/* A team of one has no threads of its own: who runs it computes himself, and has no reason to wait for others. */
static bool is_shared(unsigned member_count) { return member_count > 1; }

pi2_status pi2_team_join(unsigned member_count, unsigned sleepers, pi2_team **team_out) {
    *team_out = NULL;
    if (!is_shared(member_count) || member_count > PI2_TEAM_MAX_MEMBERS) { /* more are refused there */
        return pi2_team_create(member_count, NULL, team_out);
    }
    const pi2_team_options options = { .sleepers = sleepers < MOST_SLEEPERS ? sleepers : MOST_SLEEPERS };
    (void)pthread_mutex_lock(&mutex);
    shared_team *shared = &teams[member_count][options.sleepers];
    const pi2_status status = shared->users ? PI2_OK : pi2_team_create(member_count, &options, &shared->team);
    if (status == PI2_OK) {
        shared->users++;
        *team_out = shared->team;
    }
    (void)pthread_mutex_unlock(&mutex);
    return status;
}

void pi2_team_leave(pi2_team *team) {
    if (!team) return;
    if (!is_shared(pi2_team_member_count(team))) {
        pi2_team_destroy(team);
        return;
    }
    (void)pthread_mutex_lock(&mutex);
    shared_team *shared = teams[pi2_team_member_count(team)];
    while (shared->team != team) shared++;
    assert(shared->users > 0);
    if (--shared->users == 0) {
        pi2_team_destroy(team);
        shared->team = NULL;
    }
    (void)pthread_mutex_unlock(&mutex);
}
