/* Products in blocks of fixed size, which threads share. SPDX-License-Identifier: BSD-3-Clause */
#include "linalg/tall_product.h"

#include "base/checked.h"
#include "base/memory.h"
#include "linalg/blas.h"

#include <cblas.h>
#include <string.h>

enum { ROW_BLOCK = 512, COL_BLOCK = 48, INNER_BLOCK = 1 << 16, MOST = 1 << 15 };

static lsp_status check(lsp_context *ctx, int64_t a, int64_t b)
{
    if (a >= 0 && a <= MOST && b >= 0 && b <= MOST) return LSP_OK;
    return lsp_context_fail(ctx, LSP_ERR_LIMIT, "a product of %lld and %lld columns: the most is %d",
                            (long long)a, (long long)b, MOST);
}

/* Columns [first, first + width) of this rank's part. */
static void inner_columns(int64_t rows, const double *a, int a_cols, const double *b, int b_cols, int first,
                          double *c)
{
    int width = b_cols - first < COL_BLOCK ? b_cols - first : COL_BLOCK;
    for (int64_t row = 0; row < rows; row += INNER_BLOCK) {
        int count = (int)lsp_min(INNER_BLOCK, rows - row);
        cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, a_cols, width, count, 1, a + row * a_cols,
                    a_cols, b + row * b_cols + first, b_cols, row == 0 ? 0 : 1, c + first, b_cols);
    }
}

/* Collective. Sums on one rank in the order of MPI's choice, then the same to all: equal bits everywhere. */
static lsp_status sum_over_ranks(lsp_context *ctx, double *values, int64_t count)
{
    if (ctx->layout.ranks == 1) return LSP_OK;
    int number;
    if (!lsp_checked_int(count, &number))
        return lsp_context_fail(ctx, LSP_ERR_LIMIT, "a sum of %lld numbers is more than MPI counts",
                                (long long)count);
    int code = ctx->layout.rank == 0
                   ? MPI_Reduce(MPI_IN_PLACE, values, number, MPI_DOUBLE, MPI_SUM, 0, ctx->comm)
                   : MPI_Reduce(values, NULL, number, MPI_DOUBLE, MPI_SUM, 0, ctx->comm);
    lsp_status status = lsp_context_mpi(ctx, code, "summing a product of tall matrices");
    if (status != LSP_OK) return status;
    return lsp_context_broadcast(ctx, 0, values, count * (int64_t)sizeof *values);
}

lsp_status lsp_tall_inner(lsp_context *ctx, int64_t rows, const double *a, int64_t a_cols, const double *b,
                          int64_t b_cols, double *c)
{
    lsp_status status = check(ctx, a_cols, b_cols);
    if (status != LSP_OK || a_cols == 0 || b_cols == 0) return status;
    int before = lsp_blas_single(), wide = (int)a_cols, columns = (int)b_cols;
    memset(c, 0, (size_t)(a_cols * b_cols) * sizeof *c);
#pragma omp parallel for schedule(static) num_threads(ctx->layout.threads)
    for (int first = 0; first < columns; first += COL_BLOCK)
        inner_columns(rows, a, wide, b, columns, first, c);
    lsp_blas_restore(before);
    return sum_over_ranks(ctx, c, a_cols * b_cols);
}

lsp_status lsp_tall_add_product(lsp_context *ctx, int64_t rows, double alpha, const double *a, int64_t inner,
                                const double *b, int64_t b_stride, int64_t cols, double *c, int64_t c_stride)
{
    lsp_status status = check(ctx, lsp_max(inner, b_stride), lsp_max(cols, c_stride));
    if (status != LSP_OK || inner == 0 || cols == 0) return status;
    int before = lsp_blas_single();
#pragma omp parallel for schedule(static) num_threads(ctx->layout.threads)
    for (int64_t row = 0; row < rows; row += ROW_BLOCK) {
        int count = (int)lsp_min(ROW_BLOCK, rows - row);
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, count, (int)cols, (int)inner, alpha,
                    a + row * inner, (int)inner, b, (int)b_stride, 1, c + row * c_stride, (int)c_stride);
    }
    lsp_blas_restore(before);
    return LSP_OK;
}
