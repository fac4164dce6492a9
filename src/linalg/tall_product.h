/* Products with tall matrices, whose rows lie on ranks in any way. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_LINALG_TALL_PRODUCT_H
#define LSP_LINALG_TALL_PRODUCT_H

#include "comm/context.h"

/* Collective. c = a^T b, summed over the rows of all ranks: a [rows][a_cols] and b [rows][b_cols] of this
 * rank, row-major; c [a_cols][b_cols], the same bits on every rank. The bits do not depend on threads.
 * Errors: LSP_ERR_LIMIT (integers of BLAS and MPI, memory), LSP_ERR_RANK. */
lsp_status lsp_tall_inner(lsp_context *ctx, int64_t rows, const double *a, int64_t a_cols, const double *b,
                          int64_t b_cols, double *c);

/* Local. c += alpha a b: a [rows][inner], c [rows][cols] with c_stride elements from row to row, and b
 * [inner][cols] with b_stride. The bits do not depend on threads. Errors: LSP_ERR_LIMIT (integers). */
lsp_status lsp_tall_add_product(lsp_context *ctx, int64_t rows, double alpha, const double *a, int64_t inner,
                                const double *b, int64_t b_stride, int64_t cols, double *c, int64_t c_stride);

#endif
