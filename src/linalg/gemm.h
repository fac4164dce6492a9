/* Matrix products on one thread. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_LINALG_GEMM_H
#define LSP_LINALG_GEMM_H

#include <longspan/tensor.h>
#include <stdbool.h>

/* A row-major matrix; `lead` elements from one row to the next. */
typedef struct lsp_gemm_matrix {
    const void *data;
    int lead;
} lsp_gemm_matrix;

/* Local. C [rows, cols] = A [rows, depth] B + beta C, all of type f32 or f64; B is [depth, cols], or [cols, depth] when
 * transposed. The bits depend on rows, cols and depth, which choose the kernel, and not on the leading dimensions or
 * on other rows' values. Any thread may call it between lsp_blas_single and lsp_blas_restore. */
void lsp_gemm(lsp_dtype type, int rows, int cols, int depth, lsp_gemm_matrix a, lsp_gemm_matrix b,
              bool transposed, double beta, void *c, int lead);

#endif
