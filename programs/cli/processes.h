/*
 * processes.h: the processes that mpirun started together. With Open MPI (-DPI2_MPI=ON) they know of each other;
 * without it, and without mpirun, each is alone.
 */
#ifndef PI2_CLI_PROCESSES_H
#define PI2_CLI_PROCESSES_H

#include <stdbool.h>
#include <stdint.h>

typedef struct pi2_cli_processes {
    uint32_t number, count; /* number: from 0 */
} pi2_cli_processes;

/** Joins the processes of this run, once. */
pi2_cli_processes pi2_cli_join_processes(void);
/** Waits for all of them: whether every one of them is well. */
bool pi2_cli_all_are_well(bool is_well);
/** Leaves them, before the program ends. */
void pi2_cli_leave_processes(void);

#endif
