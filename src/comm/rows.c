/* Counted MPI calls: messages of any size in pieces whose counts fit in int.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "comm/rows.h"

#include "base/checked.h"

#include <limits.h>
#include <stdbool.h>
#include <string.h>

static int64_t count_limit = INT_MAX;

int64_t lsp_rows_set_limit(int64_t limit)
{
    int64_t before = count_limit;
    count_limit = limit > 0 && limit <= INT_MAX ? limit : INT_MAX;
    return before;
}

int lsp_rows_pieces(int64_t bytes)
{
    int pieces = 0;
    return lsp_checked_int(lsp_ceil_div(bytes, count_limit), &pieces) ? pieces : INT_MAX;
}

/* Bytes of piece `piece`: at most count_limit, hence an int. */
static int piece_count(int64_t bytes, int64_t offset)
{
    int count = 0;
    return lsp_checked_int(lsp_min(bytes - offset, count_limit), &count) ? count : 0;
}

int lsp_rows_ibcast(void *data, int64_t bytes, int root, MPI_Comm comm, MPI_Request *requests)
{
    int code = MPI_SUCCESS;
    for (int64_t at = 0; code == MPI_SUCCESS && at < bytes; at += count_limit)
        code = MPI_Ibcast((char *)data + at, piece_count(bytes, at), MPI_BYTE, root, comm, requests++);
    return code;
}

int lsp_rows_isend(const void *data, int64_t bytes, int to, int tag, MPI_Comm comm, MPI_Request *requests)
{
    int code = MPI_SUCCESS;
    for (int64_t at = 0; code == MPI_SUCCESS && at < bytes; at += count_limit)
        code =
            MPI_Isend((const char *)data + at, piece_count(bytes, at), MPI_BYTE, to, tag, comm, requests++);
    return code;
}

int lsp_rows_irecv(void *data, int64_t bytes, int from, int tag, MPI_Comm comm, MPI_Request *requests)
{
    int code = MPI_SUCCESS;
    for (int64_t at = 0; code == MPI_SUCCESS && at < bytes; at += count_limit)
        code = MPI_Irecv((char *)data + at, piece_count(bytes, at), MPI_BYTE, from, tag, comm, requests++);
    return code;
}

int lsp_rows_bcast(void *data, int64_t bytes, int root, MPI_Comm comm)
{
    int code = MPI_SUCCESS;
    for (int64_t at = 0; code == MPI_SUCCESS && at < bytes; at += count_limit)
        code = MPI_Bcast((char *)data + at, piece_count(bytes, at), MPI_BYTE, root, comm);
    return code;
}

/* One MPI_Allgatherv in units of `unit` bytes: counts and displacements are those of rows, of `times` units each. */
static int allgather_counted(const void *mine, void *data, const int64_t *counts, const int64_t *displacement,
                             int times, int unit, int ranks, int rank, int *narrow, MPI_Comm comm)
{
    MPI_Datatype type = MPI_BYTE;
    int code = MPI_SUCCESS;
    if (unit > 1) code = MPI_Type_contiguous(unit, MPI_BYTE, &type);
    if (unit > 1 && code == MPI_SUCCESS) code = MPI_Type_commit(&type);
    for (int r = 0; code == MPI_SUCCESS && r < ranks; r++)
        if (!lsp_checked_int(counts[r] * times, &narrow[r]) ||
            !lsp_checked_int(displacement[r] * times, &narrow[ranks + r]))
            code = MPI_ERR_COUNT;
    const void *from = mine == (char *)data + displacement[rank] * times * unit ? MPI_IN_PLACE : mine;
    if (code == MPI_SUCCESS)
        code = MPI_Allgatherv(from, narrow[rank], type, data, narrow, narrow + ranks, type, comm);
    if (type != MPI_BYTE && type != MPI_DATATYPE_NULL) MPI_Type_free(&type);
    return code;
}

int lsp_rows_allgather(const void *mine, void *data, const int64_t *counts, const int64_t *displacement,
                       int64_t row_bytes, int *room, MPI_Comm comm)
{
    int ranks = 0, rank = 0, bytes = 0;
    if (row_bytes == 0) return MPI_SUCCESS; /* of a gather of K or V alone */
    int code = MPI_Comm_size(comm, &ranks);
    if (code == MPI_SUCCESS) code = MPI_Comm_rank(comm, &rank);
    if (code != MPI_SUCCESS) return code;
    int64_t total = displacement[ranks - 1] + counts[ranks - 1];
    bool rows_fit = total <= count_limit && row_bytes <= count_limit && lsp_checked_int(row_bytes, &bytes);
    if (rows_fit && total * row_bytes <= count_limit)
        return allgather_counted(mine, data, counts, displacement, bytes, 1, ranks, rank, room, comm);
    if (rows_fit)
        return allgather_counted(mine, data, counts, displacement, 1, bytes, ranks, rank, room, comm);
    char *own = (char *)data + displacement[rank] * row_bytes;
    if (own != mine) memcpy(own, mine, (size_t)(counts[rank] * row_bytes));
    for (int r = 0; code == MPI_SUCCESS && r < ranks; r++)
        code = lsp_rows_bcast((char *)data + displacement[r] * row_bytes, counts[r] * row_bytes, r, comm);
    return code;
}

int lsp_rows_adopt(MPI_Comm comm, int *rank, int *ranks)
{
    int code = MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
    if (code == MPI_SUCCESS) code = MPI_Comm_rank(comm, rank);
    return code == MPI_SUCCESS ? MPI_Comm_size(comm, ranks) : code;
}
