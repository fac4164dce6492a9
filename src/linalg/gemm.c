/* SPDX-License-Identifier: BSD-3-Clause */
#include "linalg/gemm.h"

#include <cblas.h>

void lsp_gemm(lsp_dtype type, int rows, int cols, int depth, lsp_gemm_matrix a, lsp_gemm_matrix b,
              bool transposed, double beta, void *c, int lead)
{
    CBLAS_TRANSPOSE turn = transposed ? CblasTrans : CblasNoTrans;
    if (type == LSP_F64)
        cblas_dgemm(CblasRowMajor, CblasNoTrans, turn, rows, cols, depth, 1, a.data, a.lead, b.data, b.lead,
                    beta, c, lead);
    else
        cblas_sgemm(CblasRowMajor, CblasNoTrans, turn, rows, cols, depth, 1, a.data, a.lead, b.data, b.lead,
                    (float)beta, c, lead);
}
