/* train/ranks.c - collective calls of MPI in the order of the program: a process that fails leaves
 * without MPI_Finalize, and mpirun ends the others, who wait in the next call.
 */
#include "train/ranks.h"

#include <errno.h>

#if RANKS_MPI

#include <limits.h>
#include <mpi.h>

/* Processes that can share memory are those of one machine: they are counted among themselves, as
 * each gets one of its devices. */
int ranks_open(struct ranks *r)
{
    MPI_Comm machine;
    int rank, n, local, n_local;

    /* Products run on OpenMP's threads, which call nothing of MPI's. */
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &n) != MPI_SUCCESS ||
        MPI_Comm_rank(MPI_COMM_WORLD, &rank) != MPI_SUCCESS ||
        MPI_Comm_size(MPI_COMM_WORLD, &n) != MPI_SUCCESS ||
        MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &machine) !=
            MPI_SUCCESS)
        return -EIO;
    if (MPI_Comm_rank(machine, &local) != MPI_SUCCESS ||
        MPI_Comm_size(machine, &n_local) != MPI_SUCCESS || MPI_Comm_free(&machine) != MPI_SUCCESS)
        return -EIO;
    *r = (struct ranks){ (uint32_t)rank, (uint32_t)n, (uint32_t)local, (uint32_t)n_local };
    return 0;
}

void ranks_close(struct ranks *r)
{
    /* Zeros: it was never opened, or is closed. */
    if (r->n)
        MPI_Finalize();
    *r = (struct ranks){ 0 };
}

void ranks_sum(const struct ranks *r, float *x, size_t n)
{
    /* MPI counts in int: an 8B's gradients are more values than that. */
    for (size_t at = 0; r->n > 1 && at < n; at += INT_MAX / 2) {
        size_t m = n - at < INT_MAX / 2 ? n - at : INT_MAX / 2;

        MPI_Allreduce(MPI_IN_PLACE, x + at, (int)m, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    }
}

/* A handful of numbers a step. */
void ranks_sum_double(const struct ranks *r, double *x, size_t n)
{
    if (r->n > 1)
        MPI_Allreduce(MPI_IN_PLACE, x, (int)n, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
}

void ranks_share(const struct ranks *r, void *x, size_t n)
{
    for (size_t at = 0; r->n > 1 && at < n; at += INT_MAX / 2) {
        size_t m = n - at < INT_MAX / 2 ? n - at : INT_MAX / 2;

        MPI_Bcast((char *)x + at, (int)m, MPI_BYTE, 0, MPI_COMM_WORLD);
    }
}

#else

/* Built without MPI: one process, alone on its machine. */
int ranks_open(struct ranks *r)
{
    *r = (struct ranks){ 0, 1, 0, 1 };
    return 0;
}

void ranks_close(struct ranks *r)
{
    *r = (struct ranks){ 0 };
}

void ranks_sum(const struct ranks *r, float *x, size_t n)
{
    (void)r;
    (void)x;
    (void)n;
}

void ranks_sum_double(const struct ranks *r, double *x, size_t n)
{
    (void)r;
    (void)x;
    (void)n;
}

void ranks_share(const struct ranks *r, void *x, size_t n)
{
    (void)r;
    (void)x;
    (void)n;
}

#endif
