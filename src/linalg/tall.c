/* Thin QR over ranks: a tree in each rank, ScaLAPACK between them. SPDX-License-Identifier: BSD-3-Clause */
#include "linalg/tall.h"

#include "base/checked.h"
#include "base/memory.h"
#include "linalg/blas.h"
#include "linalg/cyclic.h"
#include "linalg/fortran.h"
#include "linalg/tall_tree.h"

#include <string.h>

enum { COL_BLOCK = 32 };

/* One factorization. rank is how many rows this rank's triangle has, width how many columns Q has. */
typedef struct job {
    lsp_context *ctx;
    const lsp_grid *grid;
    int64_t rows, cols, rank, width;
    int64_t stack_begin, stack_rows; /* the triangles of all ranks, one below the other */
    lsp_tall_tree tree;
    double *triangle; /* [rank][cols] of this rank's rows; then its part of the triangles' Q, [rank][width] */
    double *r;        /* [cols][cols] */
    lsp_cyclic stack;
    double *stacked, *tau, *work;
    int work_size;
} job;

int64_t lsp_tall_qr_bytes(int64_t rows, int64_t cols, int threads)
{
    /* The triangle, R, what ScaLAPACK has of the triangles, as much again to move it, and its work. */
    int64_t square = 5 * cols * cols + COL_BLOCK * (2 * cols + COL_BLOCK);
    return lsp_tall_tree_bytes(lsp_max(rows, 1), cols, threads) + square * (int64_t)sizeof(double);
}

static lsp_status check_job(const job *j)
{
    if (j->rows < 0 || j->cols < 1 || j->cols > LSP_TALL_COLS)
        return lsp_context_fail(j->ctx, LSP_ERR_USAGE,
                                "a QR of %lld rows by %lld columns: rows must be 0 or more, columns 1 to %d",
                                (long long)j->rows, (long long)j->cols, LSP_TALL_COLS);
    if (j->grid->rows != j->ctx->layout.ranks || j->grid->cols != 1)
        return lsp_context_fail(j->ctx, LSP_ERR_USAGE,
                                "a QR of tall matrices needs a grid of %d x 1, not %d x %d",
                                j->ctx->layout.ranks, j->grid->rows, j->grid->cols);
    int64_t bytes = 0;
    if (!lsp_checked_mul(j->rows, j->cols * (int64_t)sizeof(double), &bytes))
        return lsp_context_fail(j->ctx, LSP_ERR_LIMIT,
                                "%lld rows of %lld columns are more than can be counted", (long long)j->rows,
                                (long long)j->cols);
    return LSP_OK;
}

/* Collective. Where this rank's triangle stands among all; the same columns everywhere. */
static lsp_status place_triangles(job *j)
{
    lsp_context *ctx = j->ctx;
    int64_t cols[2] = {j->cols, -j->cols};
    lsp_status status = lsp_context_max_i64(ctx, cols, 2);
    if (status != LSP_OK) return status;
    if (cols[0] != -cols[1])
        return lsp_context_fail(ctx, LSP_ERR_USAGE, "ranks passed %lld to %lld columns of one matrix",
                                (long long)-cols[1], (long long)cols[0]);
    j->rank = lsp_min(j->rows, j->cols);
    int64_t end = j->rank, total = j->rank;
    status = lsp_context_mpi(ctx, MPI_Scan(&j->rank, &end, 1, MPI_INT64_T, MPI_SUM, ctx->comm),
                             "counting the rows of a tall matrix");
    if (status == LSP_OK) status = lsp_context_sum_i64(ctx, &total, 1);
    j->stack_begin = end - j->rank;
    j->stack_rows = total;
    j->width = lsp_min(total, j->cols);
    return status;
}

static lsp_status allocate(job *j)
{
    bool ok = j->rows == 0 || lsp_tall_tree_make(j->rows, j->cols, j->ctx->layout.threads, &j->tree);
    j->triangle = lsp_memory_alloc(j->rank * j->cols, sizeof(double));
    j->r = lsp_memory_zalloc(j->cols * j->cols, sizeof(double));
    ok = ok && j->triangle && j->r;
    if (j->ctx->layout.ranks > 1) {
        lsp_status status = lsp_cyclic_init(j->grid, j->stack_rows, j->cols, j->cols, COL_BLOCK, &j->stack);
        if (status != LSP_OK) return status;
        int64_t work = COL_BLOCK * (j->stack.local_rows + j->stack.local_cols + COL_BLOCK);
        if (!lsp_checked_int(work, &j->work_size))
            return lsp_context_fail(j->ctx, LSP_ERR_LIMIT,
                                    "pdgeqrf needs %lld elements of work, more than %d", (long long)work,
                                    INT_MAX);
        j->stacked = lsp_memory_zalloc(lsp_cyclic_elements(&j->stack), sizeof(double));
        j->tau = lsp_memory_alloc(j->cols, sizeof(double));
        j->work = lsp_memory_alloc(work, sizeof(double));
        ok = ok && j->stacked && j->tau && j->work;
    }
    if (ok) return LSP_OK;
    return lsp_context_fail(j->ctx, LSP_ERR_LIMIT,
                            "not enough memory for the QR of %lld rows by %lld columns: %lld bytes more",
                            (long long)j->rows, (long long)j->cols,
                            (long long)lsp_tall_qr_bytes(j->rows, j->cols, j->ctx->layout.threads));
}

/* One rank: its triangle is R, and Q is the tree's times the identity. */
static void finish_alone(job *j)
{
    memcpy(j->r, j->triangle, (size_t)(j->rank * j->cols) * sizeof(double));
    memset(j->triangle, 0, (size_t)(j->rank * j->width) * sizeof(double));
    for (int64_t i = 0; i < j->width; i++) j->triangle[i * j->width + i] = 1;
}

/* Local but for ScaLAPACK's own messages. */
static lsp_status factor_stack(job *j)
{
    const lsp_cyclic *s = &j->stack;
    int rows = s->desc[2], cols = s->desc[3], width = rows < cols ? rows : cols, one = 1, info = 0;
    pdgeqrf_(&rows, &cols, j->stacked, &one, &one, s->desc, j->tau, j->work, &j->work_size, &info);
    if (info != 0)
        return lsp_context_fail(j->ctx, LSP_ERR_RANK, "ScaLAPACK's pdgeqrf refused its argument %d", -info);
    /* The first block of cols rows, and with it all of R, is on the first rank. */
    if (j->grid->row == 0)
        for (int64_t i = 0; i < j->width; i++)
            for (int64_t c = i; c < j->cols; c++) j->r[i * j->cols + c] = j->stacked[c * s->lead + i];
    pdorgqr_(&rows, &width, &width, j->stacked, &one, &one, s->desc, j->tau, j->work, &j->work_size, &info);
    if (info != 0)
        return lsp_context_fail(j->ctx, LSP_ERR_RANK, "ScaLAPACK's pdorgqr refused its argument %d", -info);
    return lsp_grid_verdict(j->grid, "the QR of a tall matrix");
}

/* Collective. */
static lsp_status finish_together(job *j)
{
    lsp_block mine = {j->stack_begin, j->stack_begin + j->rank, 0, j->cols};
    lsp_status status = lsp_cyclic_deal(&j->stack, &mine, j->triangle, j->stacked);
    if (status == LSP_OK) status = lsp_context_agree(j->ctx, factor_stack(j));
    mine.col_end = j->width;
    if (status == LSP_OK) status = lsp_cyclic_collect(&j->stack, j->stacked, &mine, j->triangle);
    if (status == LSP_OK)
        status = lsp_context_broadcast(j->ctx, 0, j->r, j->cols * j->cols * (int64_t)sizeof(double));
    return status;
}

/* Signs are LAPACK's choice; a diagonal that is not negative makes the answer unique. */
static void fix_signs(job *j)
{
    for (int64_t i = 0; i < j->width; i++) {
        if (!(j->r[i * j->cols + i] < 0)) continue;
        for (int64_t c = i; c < j->cols; c++) j->r[i * j->cols + c] = -j->r[i * j->cols + c];
        for (int64_t k = 0; k < j->rank; k++) j->triangle[k * j->width + i] = -j->triangle[k * j->width + i];
    }
}

static lsp_status run(job *j, double *a)
{
    lsp_status status = place_triangles(j);
    if (status == LSP_OK) status = lsp_context_agree(j->ctx, allocate(j));
    if (status != LSP_OK || j->width == 0) return status;
    if (j->rows > 0) lsp_tall_tree_factor(&j->tree, a, j->triangle);
    if (j->ctx->layout.ranks > 1)
        status = finish_together(j);
    else
        finish_alone(j);
    if (status != LSP_OK) return status;
    fix_signs(j);
    if (j->rows > 0) lsp_tall_tree_expand(&j->tree, j->triangle, j->width);
    return LSP_OK;
}

lsp_status lsp_tall_qr(const lsp_grid *grid, int64_t rows, int64_t cols, double *a, double *r)
{
    job j = {.ctx = grid->ctx, .grid = grid, .rows = rows, .cols = cols};
    lsp_status status = lsp_context_agree(grid->ctx, check_job(&j));
    if (status != LSP_OK) return status;
    int threads = lsp_blas_single();
    status = run(&j, a);
    lsp_blas_restore(threads);
    if (status == LSP_OK && r) memcpy(r, j.r, (size_t)(cols * cols) * sizeof *r);
    lsp_tall_tree_free(&j.tree);
    lsp_memory_free(j.triangle);
    lsp_memory_free(j.r);
    lsp_memory_free(j.stacked);
    lsp_memory_free(j.tau);
    lsp_memory_free(j.work);
    return status;
}
