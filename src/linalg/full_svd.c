/* What a full SVD takes, and its life. SPDX-License-Identifier: BSD-3-Clause */
#include "linalg/full_svd.h"

#include "base/checked.h"
#include "base/memory.h"
enum { BLOCK = 32 };

/* ---- sizes --------------------------------------------------------------------------------------- */

static int64_t most(int64_t size, int places)
{
    return lsp_cyclic_count(size, BLOCK, 0, places);
}

/* pdgesvd's formula (its documentation, section LWORK) for the process that needs most. */
static int64_t work_elements(int64_t rows, int64_t cols, int grid_rows, int grid_cols, bool vectors)
{
    const int64_t nb = BLOCK, count = lsp_min(rows, cols);
    int64_t mp = most(rows, grid_rows), nq = most(cols, grid_cols), places = (int64_t)grid_rows * grid_cols;
    int64_t bidiagonalize = lsp_max(nb * (mp + nq + 1) + nq, lsp_max(mp, nq));
    int64_t decompose = lsp_max(1, 4 * count);
    if (vectors) {
        int64_t apply_u = lsp_max(nb * (nb - 1) / 2, (most(count, grid_cols) + mp) * nb) + nb * nb;
        int64_t apply_vt = lsp_max(nb * (nb - 1) / 2, (most(count, grid_rows) + nq) * nb) + nb * nb;
        decompose = lsp_max(decompose, lsp_max(apply_u, apply_vt)) +
                    count * (lsp_ceil_div(rows, places) + lsp_ceil_div(cols, places));
    }
    return 1 + 6 * lsp_max(rows, cols) + lsp_max(bidiagonalize, decompose);
}

/* No more processes than rows and columns: one without a row of U and a column of V^T makes dbdsqr compute the singular
 * values by another algorithm (dqds), and they would differ between processes. */
static void choose_grid(int64_t rows, int64_t cols, int ranks, int *grid_rows, int *grid_cols)
{
    lsp_grid_shape((int)lsp_min(ranks, lsp_max(rows, cols)), grid_rows, grid_cols);
}

lsp_status lsp_full_svd_measure(int64_t rows, int64_t cols, int ranks, bool vectors, lsp_full_svd_size *size,
                                lsp_error *error)
{
    *size = (lsp_full_svd_size){0};
    if (rows < 1 || cols < 1 || ranks < 1)
        return lsp_error_set(error, LSP_ERR_USAGE, "an SVD of %lld x %lld values on %d ranks does not exist",
                             (long long)rows, (long long)cols, ranks);
    int grid_rows = 1, grid_cols = 1;
    choose_grid(rows, cols, ranks, &grid_rows, &grid_cols);
    /* Beyond these sizes the products below could overflow 63 bits; they are far beyond int anyway. */
    const int64_t edge = INT_MAX - BLOCK;
    bool counts = rows <= edge && cols <= edge;
    if (counts) {
        int64_t count = lsp_min(rows, cols);
        size->matrix = most(rows, grid_rows) * most(cols, grid_cols);
        size->u = vectors ? most(rows, grid_rows) * most(count, grid_cols) : 0;
        size->vt = vectors ? most(count, grid_rows) * most(cols, grid_cols) : 0;
        size->work = work_elements(rows, cols, grid_rows, grid_cols, vectors);
        counts = lsp_max(lsp_max(size->matrix, size->work), lsp_max(size->u, size->vt)) <= INT_MAX;
        /* pdgemr2d moves U and V^T, one after the other, out of work into their layout through two buffers
         * of that size. */
        int64_t moved = 2 * lsp_max(size->u, size->vt);
        int64_t elements = size->matrix + size->u + size->vt + size->work + moved + 2 * count;
        if (counts) size->bytes = elements * (int64_t)sizeof(double);
    }
    if (counts) return LSP_OK;
    return lsp_error_set(
        error, LSP_ERR_LIMIT,
        "the full SVD of a %lld x %lld matrix on %d ranks (a grid of %d x %d) needs %lld elements "
        "of the matrix and %lld of work on one rank, more than ScaLAPACK's 32-bit integers can "
        "count (%d): use attention.svd = krylov, or more ranks",
        (long long)rows, (long long)cols, ranks, grid_rows, grid_cols, (long long)size->matrix,
        (long long)size->work, INT_MAX);
}

/* ---- life ---------------------------------------------------------------------------------------- */

static lsp_status check_memory(const lsp_full_svd *svd, int64_t others, int64_t memory_limit)
{
    int64_t ranks = svd->ctx->layout.node_ranks, each = svd->size.bytes + others, node = 0;
    if (memory_limit == 0 || (lsp_checked_mul(each, ranks, &node) && node <= memory_limit)) return LSP_OK;
    return lsp_context_fail(
        svd->ctx, LSP_ERR_LIMIT,
        "the full SVD of a %lld x %lld matrix needs %lld bytes a rank (elements: W %lld, U and "
        "V^T %lld, work %lld; other bytes %lld), and the %lld ranks of this node may use %lld "
        "together: use attention.svd = krylov, or more nodes",
        (long long)svd->rows, (long long)svd->cols, (long long)each, (long long)svd->size.matrix,
        (long long)(svd->size.u + svd->size.vt), (long long)svd->size.work, (long long)others,
        (long long)ranks, (long long)memory_limit);
}

static lsp_status lay_out(lsp_full_svd *svd)
{
    lsp_status status = lsp_cyclic_init(svd->grid, svd->rows, svd->cols, BLOCK, BLOCK, &svd->matrix);
    if (status == LSP_OK) status = lsp_cyclic_init(svd->grid, svd->rows, svd->count, BLOCK, BLOCK, &svd->u);
    if (status == LSP_OK) status = lsp_cyclic_init(svd->grid, svd->count, svd->cols, BLOCK, BLOCK, &svd->vt);
    if (status != LSP_OK) return status;
    svd->w = lsp_memory_zalloc(lsp_cyclic_elements(&svd->matrix), sizeof(double));
    svd->sigma = lsp_memory_zalloc(svd->count, sizeof(double));
    bool ok = svd->w && svd->sigma;
    if (svd->vectors) {
        svd->u_local = lsp_memory_zalloc(lsp_cyclic_elements(&svd->u), sizeof(double));
        svd->vt_local = lsp_memory_zalloc(lsp_cyclic_elements(&svd->vt), sizeof(double));
        ok = ok && svd->u_local && svd->vt_local;
    }
    if (ok) return LSP_OK;
    return lsp_context_fail(
        svd->ctx, LSP_ERR_LIMIT,
        "not enough memory for the full SVD of a %lld x %lld matrix: it needs %lld bytes a rank",
        (long long)svd->rows, (long long)svd->cols, (long long)svd->size.bytes);
}

lsp_status lsp_full_svd_create(lsp_context *ctx, int64_t rows, int64_t cols, bool vectors, int64_t others,
                               int64_t memory_limit, lsp_full_svd **out)
{
    *out = NULL;
    lsp_full_svd *svd = lsp_memory_zalloc(1, sizeof *svd);
    lsp_grid *grid = lsp_memory_zalloc(1, sizeof *grid);
    lsp_status status = LSP_OK;
    if (svd && grid) {
        *svd = (lsp_full_svd){.ctx = ctx, .grid = grid, .rows = rows, .cols = cols, .vectors = vectors};
        svd->count = lsp_min(rows, cols);
        lsp_error error = {0};
        status = lsp_full_svd_measure(rows, cols, ctx->layout.ranks, vectors, &svd->size, &error);
        if (status != LSP_OK) lsp_context_fail(ctx, status, "%s", error.text);
        if (status == LSP_OK) status = check_memory(svd, others, memory_limit);
    } else {
        status = lsp_context_fail(ctx, LSP_ERR_LIMIT, "not enough memory for the plan of a full SVD");
    }
    status = lsp_context_agree(ctx, status);
    if (status == LSP_OK) {
        int grid_rows = 1, grid_cols = 1;
        choose_grid(rows, cols, ctx->layout.ranks, &grid_rows, &grid_cols);
        status = lsp_grid_create(ctx, grid_rows, grid_cols, grid);
        if (status == LSP_OK) status = lsp_context_agree(ctx, lay_out(svd));
    }
    if (status == LSP_OK) {
        *out = svd;
        return LSP_OK;
    }
    if (svd) svd->grid = grid;
    if (svd)
        lsp_full_svd_destroy(&svd);
    else
        lsp_memory_free(grid);
    return status;
}

void lsp_full_svd_destroy(lsp_full_svd **svd)
{
    if (!svd || !*svd) return;
    if ((*svd)->grid) lsp_grid_destroy((*svd)->grid);
    lsp_memory_free((*svd)->grid);
    lsp_memory_free((*svd)->w);
    lsp_memory_free((*svd)->u_local);
    lsp_memory_free((*svd)->vt_local);
    lsp_memory_free((*svd)->sigma);
    lsp_memory_free(*svd);
    *svd = NULL;
}

/* ---- answers ------------------------------------------------------------------------------------- */

lsp_status lsp_full_svd_u_rows(const lsp_full_svd *svd, int64_t begin, int64_t end, int64_t count, double *u)
{
    lsp_block mine = {begin, end, 0, count};
    return lsp_cyclic_collect(&svd->u, svd->u_local, &mine, u);
}

lsp_status lsp_full_svd_vt_cols(const lsp_full_svd *svd, int64_t begin, int64_t end, int64_t count,
                                double *vt)
{
    lsp_block mine = {0, count, begin, end};
    return lsp_cyclic_collect(&svd->vt, svd->vt_local, &mine, vt);
}
