/* Included before everything else in a simulated program: some of MPI's functions are those of smpi_side.c.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef SIMULATE_SMPI_CALLS_H
#define SIMULATE_SMPI_CALLS_H

#include <mpi.h>

int lsp_simulated_irecv(void *data, int count, MPI_Datatype type, int from, int tag, MPI_Comm comm,
                        MPI_Request *request);
int lsp_simulated_isend(const void *data, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm,
                        MPI_Request *request);
int lsp_simulated_allgatherv(const void *mine, int count, MPI_Datatype type, void *data, const int *counts,
                             const int *displacements, MPI_Datatype type_of_data, MPI_Comm comm);
int lsp_simulated_exscan(const void *mine, void *before, int count, MPI_Datatype type, MPI_Op op,
                         MPI_Comm comm);
int lsp_simulated_split_type(MPI_Comm comm, int kind, int key, MPI_Info info, MPI_Comm *part);
int lsp_simulated_dup(MPI_Comm comm, MPI_Comm *copy);
int lsp_simulated_split(MPI_Comm comm, int color, int key, MPI_Comm *part);
int lsp_simulated_free(MPI_Comm *comm);

#undef MPI_Irecv
#undef MPI_Isend
#undef MPI_Allgatherv
#undef MPI_Exscan
#undef MPI_Comm_dup
#undef MPI_Comm_split
#undef MPI_Comm_free
#undef MPI_Comm_split_type
#define MPI_Irecv           lsp_simulated_irecv
#define MPI_Isend           lsp_simulated_isend
#define MPI_Allgatherv      lsp_simulated_allgatherv
#define MPI_Exscan          lsp_simulated_exscan
#define MPI_Comm_dup        lsp_simulated_dup
#define MPI_Comm_split      lsp_simulated_split
#define MPI_Comm_free       lsp_simulated_free
#define MPI_Comm_split_type lsp_simulated_split_type

#endif
