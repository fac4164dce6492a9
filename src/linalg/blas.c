/* SPDX-License-Identifier: BSD-3-Clause */
#include "linalg/blas.h"

#include <cblas.h>

int lsp_blas_single(void)
{
    int threads = openblas_get_num_threads();
    if (threads != 1) openblas_set_num_threads(1);
    return threads;
}

void lsp_blas_restore(int threads)
{
    if (threads != 1) openblas_set_num_threads(threads);
}
