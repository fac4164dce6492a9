/* SVD of a small matrix that every rank has. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_LINALG_SMALL_SVD_H
#define LSP_LINALG_SMALL_SVD_H

#include "comm/context.h"

/* Collective. A = U diag(sigma) V^T of a [rows, cols] matrix in double; k = min(rows, cols). a: row-major,
 * the same on every rank (the first rank's is used; it stays as it is). sigma [k] descending, u [rows][k],
 * vt [k][cols], row-major; u and vt may both be NULL. Every rank gets the same bits. Signs: the entry of
 * largest magnitude in each row of V^T, the first of equals, is positive. By LAPACK's dgesdd on the first
 * rank. Errors: LSP_ERR_USAGE (sizes), LSP_ERR_CONTENT (non-finite values, counted), LSP_ERR_LIMIT
 * (memory, integers), LSP_ERR_VERIFY (dgesdd did not converge), LSP_ERR_RANK. */
lsp_status lsp_small_svd(lsp_context *ctx, int64_t rows, int64_t cols, const double *a, double *sigma,
                         double *u, double *vt);

#endif
