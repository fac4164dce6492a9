/* QR of tall matrices whose rows lie on ranks in any way. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_LINALG_TALL_H
#define LSP_LINALG_TALL_H

#include "linalg/grid.h"

enum { LSP_TALL_COLS = 8192 }; /* that a matrix may have */

/* Local. Bytes that lsp_tall_qr takes on a rank with `rows` rows besides its arguments. */
int64_t lsp_tall_qr_bytes(int64_t rows, int64_t cols, int threads);

/* Collective over the context of the grid, which is ranks x 1 (all ranks of the context). Thin QR in place:
 * A = Q R of a matrix A [N, cols] in double, N the sum of rows. a: this rank's `rows` rows (0 or more, any
 * number, also fewer than cols), row-major and contiguous, [rows][cols]; becomes its rows of Q. r: NULL, or
 * [cols][cols] row-major, the same bits on every rank: upper triangular, its diagonal not negative.
 *
 * The first min(N, cols) columns of Q are orthonormal to rounding whatever the rank of A; when N < cols the
 * columns of Q and the rows of R from N on are zero. Non-finite numbers spread. The bits depend on the rows
 * of each rank and on the grid, not on threads.
 *
 * Each rank reduces its rows to a triangle by a tree of block QRs (linalg/tall_tree.h), the triangles are
 * factored by ScaLAPACK's pdgeqrf and pdorgqr in one block of cols rows a rank, and the tree applies the
 * result. Errors: LSP_ERR_USAGE (sizes, grid), LSP_ERR_LIMIT (memory; more than ScaLAPACK's integers count,
 * with the numbers), LSP_ERR_RANK. */
lsp_status lsp_tall_qr(const lsp_grid *grid, int64_t rows, int64_t cols, double *a, double *r);

#endif
