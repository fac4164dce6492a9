/* Included before everything else in a simulated program: four of MPI's functions are those of smpi_side.c.
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

#undef MPI_Irecv
#undef MPI_Isend
#undef MPI_Allgatherv
#undef MPI_Exscan
#define MPI_Irecv      lsp_simulated_irecv
#define MPI_Isend      lsp_simulated_isend
#define MPI_Allgatherv lsp_simulated_allgatherv
#define MPI_Exscan     lsp_simulated_exscan

#endif
