/* Simulated ranks: base/memory.h, time that passes, and some of MPI's functions as Longspan's comm floor calls them here.
 *
 * Large blocks, whose contents nobody looks at, are the same memory for all ranks; nothing is freed: a run allocates at its
 * start. A waiting rank sleeps until one of its messages is through: in simulated time that is polling without a pause, and
 * it saves the real time of each look. SPDX-License-Identifier: BSD-3-Clause */
#include "base/checked.h"
#include "base/memory.h"
#include "side.h"

#include <mpi.h>
#include <smpi/smpi.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#undef MPI_Irecv
#undef MPI_Isend
#undef MPI_Allgatherv
#undef MPI_Exscan
#undef MPI_Comm_dup
#undef MPI_Comm_split
#undef MPI_Comm_free
#undef MPI_Comm_split_type

/* ---- memory ------------------------------------------------------------------------------------ */

enum { SHARED_LEAST = 1 << 20 };

void *lsp_memory_alloc(int64_t count, size_t size)
{
    size_t bytes = 0;
    if (count < 0 || !lsp_checked_mul_size((size_t)count, size, &bytes)) return NULL;
    if (bytes < SHARED_LEAST) return calloc(1, bytes ? bytes : 1);
    char name[32]; /* SMPI takes blocks of one name for one block, whatever their sizes */
    (void)snprintf(name, sizeof name, "block-%zu", bytes);
    return smpi_shared_malloc(bytes, name, 0);
}

void *lsp_memory_zalloc(int64_t count, size_t size)
{
    return calloc((size_t)(count > 0 ? count : 1), size); /* state of a rank, which is looked at */
}

void lsp_memory_free(void *pointer)
{
    (void)pointer;
}

/* ---- messages on their way ------------------------------------------------------------------------ */

/* Where this rank keeps requests that may not be through; each place once. */
static MPI_Request **places;
static int place_count, place_room;

static void remember(MPI_Request *request)
{
    for (int i = 0; i < place_count; i++)
        if (places[i] == request) return;
    if (place_count == place_room) {
        place_room = place_room ? 2 * place_room : 256;
        places = realloc(places, (size_t)place_room * sizeof *places);
        if (!places) abort();
    }
    places[place_count++] = request;
}

int lsp_simulated_irecv(void *data, int count, MPI_Datatype type, int from, int tag, MPI_Comm comm,
                        MPI_Request *request)
{
    remember(request);
    return MPI_Irecv(data, count, type, from, tag, comm, request);
}

int lsp_simulated_isend(const void *data, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm,
                        MPI_Request *request)
{
    remember(request);
    return MPI_Isend(data, count, type, to, tag, comm, request);
}

lsp_status side_wait(void *user)
{
    (void)user;
    int kept = 0, which = MPI_UNDEFINED;
    for (int i = 0; i < place_count; i++)
        if (*places[i] != MPI_REQUEST_NULL) places[kept++] = places[i];
    place_count = kept;
    if (kept == 0) { /* another rank must come on first */
        usleep(10);
        return LSP_OK;
    }
    MPI_Request *requests = malloc((size_t)kept * sizeof *requests);
    if (!requests) abort();
    for (int i = 0; i < kept; i++) requests[i] = *places[i];
    int code = MPI_Waitany(kept, requests, &which, MPI_STATUS_IGNORE);
    if (code == MPI_SUCCESS && which != MPI_UNDEFINED) *places[which] = MPI_REQUEST_NULL;
    free(requests);
    return code == MPI_SUCCESS ? LSP_OK : LSP_ERR_RANK;
}

void side_compute(double seconds)
{
    /* Nobody else has the node: sleeping is computing, and costs SimGrid far less than an execution does. */
    struct timespec span = {.tv_sec = (time_t)seconds};
    span.tv_nsec = (long)((seconds - (double)span.tv_sec) * 1e9);
    (void)nanosleep(&span, NULL);
}

/* SMPI copies blocks of types that were made, once for each message: 16 bytes at a time do without one. It copies a rank's own
 * rows too, unless they are where they belong: pages that nobody looks at. */
int lsp_simulated_allgatherv(const void *mine, int count, MPI_Datatype type, void *data, const int *counts,
                             const int *displacements, MPI_Datatype type_of_data, MPI_Comm comm)
{
    enum { UNIT = 16 };
    int ranks = 0, bytes = 0, code = MPI_SUCCESS;
    (void)mine;
    MPI_Type_size(type, &bytes);
    if (bytes % UNIT != 0)
        return MPI_Allgatherv(MPI_IN_PLACE, count, type, data, counts, displacements, type_of_data, comm);
    MPI_Comm_size(comm, &ranks);
    int *wide = malloc(2 * (size_t)ranks * sizeof *wide), own = 0;
    if (!wide) abort();
    for (int r = 0; code == MPI_SUCCESS && r < ranks; r++)
        if (!lsp_checked_int((int64_t)counts[r] * (bytes / UNIT), &wide[r]) ||
            !lsp_checked_int((int64_t)displacements[r] * (bytes / UNIT), &wide[ranks + r]))
            code = MPI_ERR_COUNT;
    if (code == MPI_SUCCESS && !lsp_checked_int((int64_t)count * (bytes / UNIT), &own)) code = MPI_ERR_COUNT;
    if (code == MPI_SUCCESS)
        code = MPI_Allgatherv(MPI_IN_PLACE, own, MPI_C_DOUBLE_COMPLEX, data, wide, wide + ranks,
                              MPI_C_DOUBLE_COMPLEX, comm);
    free(wide);
    return code;
}

/* Of one int, summed, in log2(ranks) steps: SMPI's sends a message for each pair of ranks. */
int lsp_simulated_exscan(const void *mine, void *before, int count, MPI_Datatype type, MPI_Op op,
                         MPI_Comm comm)
{
    int rank = 0, ranks = 0, sum = 0, code = MPI_SUCCESS;
    if (count != 1 || type != MPI_INT || op != MPI_SUM)
        return MPI_Exscan(mine, before, count, type, op, comm);
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &ranks);
    memcpy(&sum, mine, sizeof sum);
    const int own = sum;
    for (int step = 1; code == MPI_SUCCESS && step < ranks; step *= 2) {
        int to = rank + step < ranks ? rank + step : MPI_PROC_NULL,
            from = rank >= step ? rank - step : MPI_PROC_NULL;
        int got = 0;
        code = MPI_Sendrecv(&sum, 1, MPI_INT, to, 0, &got, 1, MPI_INT, from, 0, comm, MPI_STATUS_IGNORE);
        sum += got;
    }
    sum -= own;
    memcpy(before, &sum, sizeof sum);
    return code;
}

/* ---- communicators -------------------------------------------------------------------------------- */

/* SMPI's new communicators cost a message for each pair of ranks. Here the first stands for all of the same ranks: messages of
 * the gather have tags of their own, and collectives wait for each other. */

int lsp_simulated_dup(MPI_Comm comm, MPI_Comm *copy)
{
    *copy = comm;
    return MPI_SUCCESS;
}

int lsp_simulated_split(MPI_Comm comm, int color, int key, MPI_Comm *part)
{
    int mine[2] = {color, -color}, most[2] = {0, 0};
    int code = MPI_Allreduce(mine, most, 2, MPI_INT, MPI_MAX, comm);
    if (code != MPI_SUCCESS || most[0] != -most[1]) return MPI_Comm_split(comm, color, key, part);
    *part = comm;
    return MPI_SUCCESS;
}

int lsp_simulated_split_type(MPI_Comm comm, int kind, int key, MPI_Info info, MPI_Comm *part)
{
    (void)comm, (void)kind, (void)key, (void)info;
    *part = MPI_COMM_SELF; /* one rank a node */
    return MPI_SUCCESS;
}

int lsp_simulated_free(MPI_Comm *comm)
{
    *comm = MPI_COMM_NULL;
    return MPI_SUCCESS;
}
