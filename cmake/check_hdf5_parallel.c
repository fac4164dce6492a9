/* Compiles when HDF5 was built with MPI. SPDX-License-Identifier: BSD-3-Clause */
#include <H5pubconf.h>
#ifndef H5_HAVE_PARALLEL
#    error "serial HDF5"
#endif

int main(void)
{
    return 0;
}
