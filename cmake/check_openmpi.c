/* Compiles on Open MPI 4 or later alone. SPDX-License-Identifier: BSD-3-Clause */
#include <mpi.h>
#ifndef OPEN_MPI
#    error "not Open MPI"
#elif OMPI_MAJOR_VERSION < 4
#    error "Open MPI is older than 4"
#endif

int main(int argc, char **argv)
{
    return MPI_Init(&argc, &argv);
}
