/* processes.c: Open MPI, or nobody. Processes share files, so that all there is to tell is who and whether. */
#include "processes.h"

#ifdef PI2_MPI
#include <mpi.h>
#include <stdlib.h>

static bool has_joined;

/** mpirun says so by its environment: a process that it did not start needs no MPI, which takes time to start. */
static bool is_started_by_mpirun(void) { return getenv("OMPI_COMM_WORLD_SIZE") != NULL; }

pi2_cli_processes pi2_cli_join_processes(void) {
    int number = 0, count = 1, threads = 0;
    if (is_started_by_mpirun() && MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &threads) == MPI_SUCCESS) {
        has_joined = true;
        (void)MPI_Comm_rank(MPI_COMM_WORLD, &number);
        (void)MPI_Comm_size(MPI_COMM_WORLD, &count);
    }
    return (pi2_cli_processes){(uint32_t)number, (uint32_t)count};
}

bool pi2_cli_all_are_well(bool is_well) {
    int one = is_well ? 1 : 0, all = one;
    if (has_joined) (void)MPI_Allreduce(&one, &all, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
    return all != 0;
}

void pi2_cli_leave_processes(void) {
    if (has_joined) (void)MPI_Finalize();
    has_joined = false;
}

#else

pi2_cli_processes pi2_cli_join_processes(void) { return (pi2_cli_processes){0, 1}; }
bool pi2_cli_all_are_well(bool is_well) { return is_well; }
void pi2_cli_leave_processes(void) {}

#endif
