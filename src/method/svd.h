/* Inside of the decompositions: what they share. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_METHOD_SVD_H
#define LSP_METHOD_SVD_H

#include "comm/context.h"

#include <longspan/svd.h>

/* Local. Checks options against a matrix [n, m] and settles the rank that is asked for at most. */
lsp_status lsp_svd_check(lsp_context *ctx, const lsp_svd_options *options, int64_t n, int64_t m,
                         int64_t *rank);

/* Local. The certificate of the first `rank` of sigma; square is ||W||_F^2, eps the rounding of its sums. */
lsp_svd_certificate lsp_svd_certify(double square, const double *sigma, int64_t rank, double eps);

/* Local. The rank to keep of `count` singular values: the least that meets the tolerance, else count. *met: whether
 * it does (true without a tolerance). */
int64_t lsp_svd_choose(const lsp_svd_options *options, double square, const double *sigma, int64_t count,
                       bool *met);

/* Local. Rows that the full decomposition forms and deals at a time, when a rank has up to `rows` of length m. */
int64_t lsp_svd_full_stripe(int64_t rows, int64_t m);

/* Collective. Signs: the entry of largest magnitude of each column of V is positive. */
lsp_status lsp_svd_fix_signs(lsp_context *ctx, lsp_svd *svd);

#endif
