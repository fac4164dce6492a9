/* SVD of a whole matrix in block-cyclic layout by ScaLAPACK's pdgesvd: the reference, for small matrices
 * (the time grows with the cube of the size). SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_LINALG_FULL_SVD_H
#define LSP_LINALG_FULL_SVD_H

#include "linalg/cyclic.h"

/* What pdgesvd takes, in 64-bit numbers. */
typedef struct lsp_full_svd_size {
    int64_t matrix, u, vt; /* elements of the rank that has most */
    int64_t work;          /* elements of pdgesvd's work, 6 max(n, m) among them */
    int64_t bytes;         /* of that rank: all of these, and what pdgesvd takes to move U and V^T */
} lsp_full_svd_size;

/* One decomposition: made, filled (w), executed, asked, destroyed. */
typedef struct lsp_full_svd {
    lsp_context *ctx;
    lsp_grid *grid;
    int64_t rows, cols, count; /* count = min(rows, cols) */
    bool vectors;
    lsp_full_svd_size size;
    lsp_cyclic matrix, u, vt;       /* [rows, cols], [rows, count], [count, cols] */
    double *w, *u_local, *vt_local; /* this rank's parts; u_local and vt_local NULL without vectors */
    double *sigma;                  /* [count] descending, on every rank, after execute */
    double frobenius_squared;       /* of the matrix, after execute */
} lsp_full_svd;

/* Local. What a [rows, cols] matrix takes on `ranks` ranks. Errors: LSP_ERR_USAGE (sizes below 1),
 * LSP_ERR_LIMIT with the numbers when ScaLAPACK's 32-bit integers cannot hold it; the text in *error. */
lsp_status lsp_full_svd_measure(int64_t rows, int64_t cols, int ranks, bool vectors, lsp_full_svd_size *size,
                                lsp_error *error);

/* Collective. Makes grid and layout and allocates the matrix, zeroed. memory_limit: bytes that the ranks of
 * a node may use together, `others` those that the caller takes on each rank besides; 0: not checked.
 * Errors: as lsp_full_svd_measure; LSP_ERR_LIMIT with the numbers when memory_limit or the machine's memory
 * does not allow. *out is NULL then. */
lsp_status lsp_full_svd_create(lsp_context *ctx, int64_t rows, int64_t cols, bool vectors, int64_t others,
                               int64_t memory_limit, lsp_full_svd **out);

/* Collective. Decomposes w, which the caller has filled: local row r and column c of w[c * matrix.lead + r]
 * is entry (lsp_cyclic_row, lsp_cyclic_col) of the whole. w is destroyed. Signs: the entry of largest
 * magnitude in each row of V^T, the first of equals, is positive. Bits repeat on the same grid.
 * Errors: LSP_ERR_CONTENT (non-finite values, with their count and the first one's place: pdgesvd could run
 * for ever), LSP_ERR_VERIFY (no convergence, or singular values that differ between ranks or do not add up
 * to the matrix' Frobenius norm), LSP_ERR_RANK. */
lsp_status lsp_full_svd_execute(lsp_full_svd *svd);

/* Collective. After execute, with vectors: rows [begin, end) of the first `count` columns of U, row-major
 * [end - begin][count]; and columns [begin, end) of the first `count` rows of V^T, row-major
 * [count][end - begin]. Each rank asks for what it wants; count is the same on all. */
lsp_status lsp_full_svd_u_rows(const lsp_full_svd *svd, int64_t begin, int64_t end, int64_t count, double *u);
lsp_status lsp_full_svd_vt_cols(const lsp_full_svd *svd, int64_t begin, int64_t end, int64_t count,
                                double *vt);

/* Local. Whether what pdgesvd returned can be believed: its info, and singular values that are finite, not
 * negative, descending, with a sum of squares equal to frobenius_squared (pdgesvd forgets that its inner
 * iteration has failed when vectors are asked for). LSP_ERR_VERIFY with text in *error. */
lsp_status lsp_full_svd_believe(int info, int64_t rows, int64_t cols, const double *sigma,
                                double frobenius_squared, lsp_error *error);

/* Collective. Frees and sets *svd to NULL. NULL is allowed. */
void lsp_full_svd_destroy(lsp_full_svd **svd);

#endif
