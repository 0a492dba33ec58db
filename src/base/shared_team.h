/*
 * shared_team.h: engines that are open at once compute with one team of threads for each number of threads: their
 * passes take turns (pi2_team_run()), so that they do not get in each other's way on the same processors. With one
 * thread each they compute at the same time, on the threads that call them. Threads: any.
 */
#ifndef PI2_BASE_SHARED_TEAM_H
#define PI2_BASE_SHARED_TEAM_H

#include "base/team.h"

/** The process's team of so many threads, the last `sleepers` of which never spin (team.h): it starts with the first
 *  who joins; of one thread each has his own.
 *  Errors  as pi2_team_create() */
pi2_status pi2_team_join(unsigned member_count, unsigned sleepers, pi2_team **team_out);
/** The last who leaves ends its threads. Not from inside a run. NULL is fine. */
void pi2_team_leave(pi2_team *team);

#endif
