/* MPI's functions that Longspan calls (tests/fault/sweep.py checks that none is missing).
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef _GNU_SOURCE
#    define _GNU_SOURCE
#endif
#include "fault.h"

#include <mpi.h>
#include <sys/syscall.h>
#include <unistd.h>

#define M_CALL(name, parameters, arguments)                                                                  \
    FAULT_CALL(FAULT_MPI, int, MPI_ERR_OTHER, name, parameters, arguments)
#define M_POLL(name, parameters, arguments)                                                                  \
    FAULT_CALL(FAULT_POLL, int, MPI_ERR_OTHER, name, parameters, arguments)
#define M_FREE(name, parameters, arguments)                                                                  \
    FAULT_FREE(FAULT_MPI, int, MPI_ERR_OTHER, name, parameters, arguments)

M_CALL(MPI_Allgather,
       (const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, int recvcount,
        MPI_Datatype recvtype, MPI_Comm comm),
       (sendbuf, sendcount, sendtype, recvbuf, recvcount, recvtype, comm))
M_CALL(MPI_Allgatherv,
       (const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, const int recvcounts[],
        const int displs[], MPI_Datatype recvtype, MPI_Comm comm),
       (sendbuf, sendcount, sendtype, recvbuf, recvcounts, displs, recvtype, comm))
M_CALL(MPI_Allreduce,
       (const void *sendbuf, void *recvbuf, int count, MPI_Datatype datatype, MPI_Op op, MPI_Comm comm),
       (sendbuf, recvbuf, count, datatype, op, comm))
M_CALL(MPI_Barrier, (MPI_Comm comm), (comm))
M_CALL(MPI_Bcast, (void *buffer, int count, MPI_Datatype datatype, int root, MPI_Comm comm),
       (buffer, count, datatype, root, comm))
M_CALL(MPI_Comm_create_errhandler, (MPI_Comm_errhandler_function * function, MPI_Errhandler *errhandler),
       (function, errhandler))
M_CALL(MPI_Comm_rank, (MPI_Comm comm, int *rank), (comm, rank))
M_CALL(MPI_Comm_set_errhandler, (MPI_Comm comm, MPI_Errhandler errhandler), (comm, errhandler))
M_CALL(MPI_Comm_size, (MPI_Comm comm, int *size), (comm, size))
M_FREE(MPI_Errhandler_free, (MPI_Errhandler * errhandler), (errhandler))
M_CALL(MPI_Exscan,
       (const void *sendbuf, void *recvbuf, int count, MPI_Datatype datatype, MPI_Op op, MPI_Comm comm),
       (sendbuf, recvbuf, count, datatype, op, comm))
M_CALL(MPI_Gatherv,
       (const void *sendbuf, int sendcount, MPI_Datatype sendtype, void *recvbuf, const int recvcounts[],
        const int displs[], MPI_Datatype recvtype, int root, MPI_Comm comm),
       (sendbuf, sendcount, sendtype, recvbuf, recvcounts, displs, recvtype, root, comm))
M_CALL(MPI_Iallreduce,
       (const void *sendbuf, void *recvbuf, int count, MPI_Datatype datatype, MPI_Op op, MPI_Comm comm,
        MPI_Request *request),
       (sendbuf, recvbuf, count, datatype, op, comm, request))
M_CALL(MPI_Ibcast,
       (void *buffer, int count, MPI_Datatype datatype, int root, MPI_Comm comm, MPI_Request *request),
       (buffer, count, datatype, root, comm, request))
/* It fails after a while, as it would: Open MPI's launcher may miss that a rank ends which it is still starting others
 * beside, and wait for ever. */
int MPI_Init_thread(int *argc, char ***argv, int required, int *provided)
{
    const unsigned while_us = 500000;
    __typeof__(MPI_Init_thread) *real = fault_real("MPI_Init_thread");
    if (!fault_now(FAULT_MPI, "MPI_Init_thread", FAULT_CALLER)) return real(argc, argv, required, provided);
    (void)usleep(while_us);
    return MPI_ERR_OTHER;
}
M_CALL(MPI_Irecv,
       (void *buf, int count, MPI_Datatype datatype, int source, int tag, MPI_Comm comm,
        MPI_Request *request),
       (buf, count, datatype, source, tag, comm, request))
M_CALL(MPI_Isend,
       (const void *buf, int count, MPI_Datatype datatype, int dest, int tag, MPI_Comm comm,
        MPI_Request *request),
       (buf, count, datatype, dest, tag, comm, request))
M_CALL(MPI_Query_thread, (int *provided), (provided))
M_CALL(MPI_Reduce,
       (const void *sendbuf, void *recvbuf, int count, MPI_Datatype datatype, MPI_Op op, int root,
        MPI_Comm comm),
       (sendbuf, recvbuf, count, datatype, op, root, comm))
M_CALL(MPI_Scan,
       (const void *sendbuf, void *recvbuf, int count, MPI_Datatype datatype, MPI_Op op, MPI_Comm comm),
       (sendbuf, recvbuf, count, datatype, op, comm))
M_POLL(MPI_Test, (MPI_Request * request, int *flag, MPI_Status *status), (request, flag, status))
M_POLL(MPI_Testall, (int count, MPI_Request array_of_requests[], int *flag, MPI_Status array_of_statuses[]),
       (count, array_of_requests, flag, array_of_statuses))
M_CALL(MPI_Type_commit, (MPI_Datatype * type), (type))
M_CALL(MPI_Type_contiguous, (int count, MPI_Datatype oldtype, MPI_Datatype *newtype),
       (count, oldtype, newtype))
M_FREE(MPI_Type_free, (MPI_Datatype * type), (type))
M_CALL(MPI_Waitall, (int count, MPI_Request array_of_requests[], MPI_Status *array_of_statuses),
       (count, array_of_requests, array_of_statuses))
M_CALL(MPI_Win_allocate_shared,
       (MPI_Aint size, int disp_unit, MPI_Info info, MPI_Comm comm, void *baseptr, MPI_Win *win),
       (size, disp_unit, info, comm, baseptr, win))
M_FREE(MPI_Win_free, (MPI_Win * win), (win))
M_CALL(MPI_Win_shared_query, (MPI_Win win, int rank, MPI_Aint *size, int *disp_unit, void *baseptr),
       (win, rank, size, disp_unit, baseptr))

/* ---- communicators, which are counted -------------------------------------------------------------- */

int MPI_Comm_dup(MPI_Comm comm, MPI_Comm *made)
{
    __typeof__(MPI_Comm_dup) *real = fault_real("MPI_Comm_dup");
    if (fault_now(FAULT_MPI, "MPI_Comm_dup", FAULT_CALLER)) return MPI_ERR_OTHER;
    fault_note(FAULT_COMMS, FAULT_CALLER, 1);
    return real(comm, made);
}

int MPI_Comm_split(MPI_Comm comm, int color, int key, MPI_Comm *made)
{
    __typeof__(MPI_Comm_split) *real = fault_real("MPI_Comm_split");
    if (fault_now(FAULT_MPI, "MPI_Comm_split", FAULT_CALLER)) return MPI_ERR_OTHER;
    fault_note(FAULT_COMMS, FAULT_CALLER, color == MPI_UNDEFINED ? 0 : 1);
    return real(comm, color, key, made);
}

int MPI_Comm_split_type(MPI_Comm comm, int type, int key, MPI_Info info, MPI_Comm *made)
{
    __typeof__(MPI_Comm_split_type) *real = fault_real("MPI_Comm_split_type");
    if (fault_now(FAULT_MPI, "MPI_Comm_split_type", FAULT_CALLER)) return MPI_ERR_OTHER;
    fault_note(FAULT_COMMS, FAULT_CALLER, 1);
    return real(comm, type, key, info, made);
}

int MPI_Comm_free(MPI_Comm *comm)
{
    __typeof__(MPI_Comm_free) *real = fault_real("MPI_Comm_free");
    bool fails = fault_now(FAULT_MPI, "MPI_Comm_free", FAULT_CALLER);
    fault_note(FAULT_COMMS, FAULT_CALLER, -1);
    int code = real(comm);
    return fails ? MPI_ERR_OTHER : code;
}

int MPI_Finalize(void)
{
    __typeof__(MPI_Finalize) *real = fault_real("MPI_Finalize");
    bool fails = fault_now(FAULT_MPI, "MPI_Finalize", FAULT_CALLER);
    fault_end();
    int code = real();
    return fails ? MPI_ERR_OTHER : code;
}

/* Instead of MPI_Finalize, after HDF5 could not close a file. */
void _exit(int code)
{
    if (fault_is_ours(FAULT_CALLER, false)) fault_end();
    for (;;) (void)syscall(SYS_exit_group, code);
}
