/* Counted MPI calls: every count goes through here, in units of rows, and is cut into pieces that fit
 * in int (Open MPI 4.1 takes int counts). SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_COMM_ROWS_H
#define LSP_COMM_ROWS_H

#include <mpi.h>
#include <stdint.h>

/* Local. Largest count handed to one MPI call (default INT_MAX; tests lower it). Returns the limit
 * before. 0 restores the default. */
int64_t lsp_rows_set_limit(int64_t limit);

/* Local. MPI calls that a message of `bytes` bytes takes. */
int lsp_rows_pieces(int64_t bytes);

/* Nonblocking: starts lsp_rows_pieces(bytes) requests in requests[]; returns an MPI code. */
int lsp_rows_ibcast(void *data, int64_t bytes, int root, MPI_Comm comm, MPI_Request *requests);
int lsp_rows_isend(const void *data, int64_t bytes, int to, int tag, MPI_Comm comm, MPI_Request *requests);
int lsp_rows_irecv(void *data, int64_t bytes, int from, int tag, MPI_Comm comm, MPI_Request *requests);

/* Blocking. */
int lsp_rows_bcast(void *data, int64_t bytes, int root, MPI_Comm comm);

/* Collective. Rank r's rows (counts[r] rows of row_bytes) to all, at rows displacement[r] of data; own
 * rows are in `mine`, which may be their place in data. room: for 2 ints a rank (a rank that has no memory must say so
 * before). */
int lsp_rows_allgather(const void *mine, void *data, const int64_t *counts, const int64_t *displacement,
                       int64_t row_bytes, int *room, MPI_Comm comm);

/* Local. Makes a new communicator return its errors; where this rank stands in it. Returns an MPI code. */
int lsp_rows_adopt(MPI_Comm comm, int *rank, int *ranks);

#endif
