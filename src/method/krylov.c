/* The truncated SVD from a Krylov basis P: that of W P, which is there already. See krylov_basis.c for P.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "method/krylov.h"

#include "base/checked.h"
#include "base/clock.h"
#include "base/memory.h"
#include "linalg/small_svd.h"
#include "linalg/tall.h"
#include "linalg/tall_product.h"
#include "method/svd.h"

#include <float.h>
#include <stdio.h>
#include <string.h>

enum { FIRST_RANK = 32 };

/* ---- from the basis to the decomposition ------------------------------------------------------- */

/* Collective. All T side by side, and the blocks' own freed. */
static lsp_status join_t(lsp_krylov *j, double **out)
{
    double *t = *out = lsp_memory_alloc(j->rows * j->basis, sizeof *t);
    lsp_status status = lsp_context_agree(j->ctx, t ? LSP_OK : lsp_krylov_no_memory(j, "W P"));
    int64_t column = 0;
    for (lsp_krylov_block *b = j->blocks; status == LSP_OK && b < j->blocks + j->block_count;
         column += b->width, b++) {
        for (int64_t i = 0; i < j->rows; i++)
            memcpy(t + i * j->basis + column, b->t + i * b->width, (size_t)b->width * sizeof *t);
        lsp_memory_free(b->t);
        b->t = NULL;
    }
    return status;
}

/* T = Q R, R = A S C^T: U = Q A and V = P C, of which the first svd->rank columns; a and ct are [basis][basis]. */
static lsp_status expand(lsp_krylov *j, const double *q, const double *a, const double *ct, lsp_svd *svd)
{
    int64_t rank = svd->rank, row = 0;
    double *c = lsp_memory_alloc(j->basis * rank, sizeof *c);
    svd->u = lsp_memory_zalloc(j->rows * rank, sizeof *svd->u);
    svd->v = lsp_memory_zalloc(j->keys * rank, sizeof *svd->v);
    lsp_status status = c && svd->u && svd->v ? LSP_OK : lsp_krylov_no_memory(j, "the singular vectors");
    for (int64_t i = 0; status == LSP_OK && i < j->basis; i++)
        for (int64_t r = 0; r < rank; r++) c[i * rank + r] = ct[r * j->basis + i];
    for (const lsp_krylov_block *b = j->blocks; status == LSP_OK && b < j->blocks + j->block_count;
         row += b->width, b++)
        status = lsp_tall_add_product(j->ctx, j->keys, 1, b->p, b->width, c + row * rank, rank, rank, svd->v,
                                      rank);
    if (status == LSP_OK)
        status = lsp_tall_add_product(j->ctx, j->rows, 1, q, j->basis, a, j->basis, rank, svd->u, rank);
    lsp_memory_free(c);
    return lsp_context_agree(j->ctx, status);
}

static lsp_status decompose(lsp_krylov *j, lsp_svd *svd)
{
    double *t = NULL, *r = lsp_memory_alloc(j->basis * j->basis, sizeof *r);
    double *u = lsp_memory_alloc(j->basis * j->basis, sizeof *u);
    double *vt = lsp_memory_alloc(j->basis * j->basis, sizeof *vt);
    svd->sigma = lsp_memory_alloc(j->basis, sizeof *svd->sigma);
    lsp_status status =
        r && u && vt && svd->sigma ? LSP_OK : lsp_krylov_no_memory(j, "the small decomposition");
    status = lsp_context_agree(j->ctx, status);
    if (status == LSP_OK) status = join_t(j, &t);
    if (status == LSP_OK) status = lsp_tall_qr(&j->grid, j->rows, j->basis, t, r);
    if (status == LSP_OK) status = lsp_small_svd(j->ctx, j->basis, j->basis, r, svd->sigma, u, vt);
    if (status == LSP_OK) {
        svd->rows = j->rows;
        svd->keys = j->keys;
        svd->basis = j->basis;
        svd->rank = lsp_svd_choose(j->options, j->square, svd->sigma, j->rank, &svd->tolerance_met);
        svd->certificate = lsp_svd_certify(j->square, svd->sigma, svd->rank, j->eps);
        if (svd->tolerance_met || j->last) status = expand(j, t, u, vt, svd);
    }
    if (status == LSP_OK && svd->v) status = lsp_svd_fix_signs(j->ctx, svd);
    lsp_memory_free(t);
    lsp_memory_free(r);
    lsp_memory_free(u);
    lsp_memory_free(vt);
    return status;
}

/* ---- an attempt -------------------------------------------------------------------------------- */

int64_t lsp_krylov_first_rank(const lsp_svd_options *options, int64_t most)
{
    return options->tolerance > 0 ? lsp_min(most, FIRST_RANK) : most;
}

int64_t lsp_krylov_columns(int64_t n, int64_t m, int64_t rank, const lsp_svd_options *options)
{
    return lsp_min(rank + lsp_min(options->oversample, m), lsp_min(n, m));
}

/* Columns of all blocks, when no direction is lost on the way. */
static int64_t basis_columns(int64_t n, int64_t m, int64_t rank, const lsp_svd_options *options)
{
    return lsp_min(lsp_krylov_columns(n, m, rank, options) * (options->steps + 1), lsp_min(n, m));
}

/* QR is what takes fewest: the small SVD takes more. */
lsp_status lsp_krylov_limit(int64_t n, int64_t m, const lsp_svd_options *options, int64_t *rank,
                            lsp_error *error)
{
    int64_t basis = basis_columns(n, m, *rank, options);
    if (basis <= LSP_TALL_COLS) return LSP_OK;
    int64_t most = LSP_TALL_COLS / (options->steps + 1) - lsp_min(options->oversample, m);
    if (options->rank == 0 && most > 0) {
        *rank = most;
        return LSP_OK;
    }
    char rank_text[112] = "";
    if (most > 0)
        (void)snprintf(rank_text, sizeof rank_text,
                       "attention.rank (with these steps and this oversample %lld at most), ",
                       (long long)most);
    return lsp_error_set(
        error, LSP_ERR_LIMIT,
        "rank %lld with %lld steps of blocks of rank + %lld columns needs a Krylov basis of %lld "
        "columns, more than the %d that can be had: use a smaller %sattention.steps or attention.oversample, "
        "or for a "
        "small matrix attention.svd = full",
        (long long)*rank, (long long)options->steps, (long long)lsp_min(options->oversample, m),
        (long long)basis, LSP_TALL_COLS, rank_text);
}

/* T is joined then. */
double lsp_krylov_bytes(int64_t n, int64_t m, int64_t own_rows, int64_t own_keys, int64_t rank,
                        const lsp_svd_options *options, lsp_dtype compute, int threads)
{
    double element = (double)lsp_dtype_size(compute), rows = (double)own_rows, keys = (double)own_keys;
    int64_t width = lsp_krylov_columns(n, m, rank, options), basis = basis_columns(n, m, rank, options);
    double joined = (double)lsp_tall_qr_bytes(own_rows, basis, threads) + 8 * (double)rank * (rows + keys);
    return 8 * (double)basis * (2 * rows + keys + 3 * (double)basis) +
           (double)width * (8 * rows + element * (rows + keys)) + joined;
}

/* Collective. */
static lsp_status check_memory(lsp_krylov *j)
{
    const double mib = 1 << 20;
    lsp_context *ctx = j->ctx;
    int64_t limit = j->op->plan->problem.desc.memory_limit;
    double need = (double)j->op->plan->estimate.footprint.total +
                  lsp_krylov_bytes(j->n, j->m, j->rows, j->keys, j->rank, j->options,
                                   j->op->plan->problem.desc.compute, ctx->layout.threads);
    double share = (double)limit / ctx->layout.node_ranks;
    lsp_status status = LSP_OK;
    if (limit > 0 && need > share)
        status = lsp_context_fail(
            ctx, LSP_ERR_LIMIT,
            "not enough memory: rank %lld takes %.1f MiB a rank, and %d ranks share a node with %.1f "
            "MiB: use more nodes, or a smaller attention.rank or attention.steps",
            (long long)j->rank, need / mib, ctx->layout.node_ranks, (double)limit / mib);
    return lsp_context_agree(ctx, status);
}

lsp_status lsp_krylov_prepare(lsp_krylov *j)
{
    const lsp_attention_desc *d = &j->op->plan->problem.desc;
    size_t element = lsp_dtype_size(d->compute);
    j->columns = lsp_krylov_columns(j->n, j->m, j->rank, j->options);
    j->all = 2 * (double)(j->options->steps + 1) + 1;
    lsp_status status = check_memory(j);
    if (status != LSP_OK) return status;
    j->blocks = lsp_memory_zalloc(j->options->steps + 1, sizeof *j->blocks);
    j->q = lsp_memory_alloc(j->rows * j->columns, sizeof *j->q);
    j->x = lsp_memory_alloc(j->keys * j->columns, element);
    j->y = lsp_memory_alloc(j->rows * j->columns, element);
    status = j->blocks && j->q && j->x && j->y ? LSP_OK : lsp_krylov_no_memory(j, "the start block");
    return lsp_context_agree(j->ctx, status);
}

void lsp_krylov_release(lsp_krylov *j)
{
    for (lsp_krylov_block *b = j->blocks; b && b < j->blocks + j->block_count; b++) {
        lsp_memory_free(b->p);
        lsp_memory_free(b->t);
    }
    lsp_memory_free(j->blocks);
    lsp_memory_free(j->q);
    lsp_memory_free(j->x);
    lsp_memory_free(j->y);
    j->blocks = NULL;
    j->q = j->x = j->y = NULL;
    j->block_count = j->basis = 0;
    j->done = 0;
    j->stage = LSP_KRYLOV_NOTHING;
}

/* Where nothing was gone on from, all is prepared here. */
static lsp_status attempt(lsp_krylov *j, lsp_svd *svd)
{
    lsp_status status = j->blocks ? LSP_OK : lsp_krylov_prepare(j);
    if (status == LSP_OK) status = lsp_krylov_grow(j);
    if (status == LSP_OK) status = decompose(j, svd);
    lsp_krylov_release(j);
    return status;
}

static lsp_krylov describe(lsp_operator *op, const lsp_svd_options *options)
{
    const lsp_attention *plan = op->plan;
    const lsp_attention_desc *d = &plan->problem.desc;
    return (lsp_krylov){.ctx = op->ctx,
                        .op = op,
                        .options = options,
                        .n = d->row_end - d->row_begin,
                        .m = d->key_end - d->key_begin,
                        .rows = plan->query_rows,
                        .keys = plan->key_rows,
                        .first_key = plan->key_rows > 0 ? plan->key_runs[0].begin : 0,
                        .eps = d->compute == LSP_F64 ? DBL_EPSILON : (double)FLT_EPSILON};
}

static void forget(lsp_svd *svd)
{
    lsp_memory_free(svd->sigma);
    lsp_memory_free(svd->u);
    lsp_memory_free(svd->v);
    svd->sigma = svd->u = svd->v = NULL;
}

lsp_status lsp_svd_krylov(lsp_operator *op, const lsp_svd_options *options, lsp_svd **out)
{
    double begin = lsp_clock(), before = op->stats.seconds_apply + op->stats.seconds_transposed;
    lsp_context *ctx = op->ctx;
    lsp_krylov j = describe(op, options);
    lsp_error error;
    int64_t most = 0;
    *out = NULL;
    lsp_svd *svd = lsp_memory_zalloc(1, sizeof *svd);
    lsp_status status =
        svd ? lsp_svd_check(ctx, options, j.n, j.m, &most) : lsp_krylov_no_memory(&j, "a decomposition");
    if (status == LSP_OK && lsp_krylov_limit(j.n, j.m, options, &most, &error) != LSP_OK)
        status = lsp_context_fail(ctx, error.status, "%s", error.text);
    status = lsp_context_agree(ctx, status);
    if (status == LSP_OK) status = lsp_grid_create(ctx, ctx->layout.ranks, 1, &j.grid);
    /* With a tolerance the rank is found from below: all attempts but the last cost together as much as it. */
    j.rank = lsp_krylov_first_rank(options, most);
    j.svd = svd;
    if (status == LSP_OK && options->pause && options->pause->resume) status = lsp_krylov_resume(&j);
    bool again = status == LSP_OK && j.stage != LSP_KRYLOV_FINISHED;
    if (again) svd->attempts = j.attempts;
    for (; again; j.rank = lsp_min(most, 2 * j.rank)) {
        forget(svd);
        j.last = j.rank == most;
        j.attempts = svd->attempts;
        status = attempt(&j, svd);
        svd->attempts++;
        again = status == LSP_OK && !svd->tolerance_met && !j.last;
    }
    lsp_krylov_release(&j);
    if (status == LSP_OK && options->pause) {
        j.stage = LSP_KRYLOV_FINISHED;
        status = lsp_krylov_rest(&j);
    }
    lsp_grid_destroy(&j.grid);
    if (status == LSP_OK) {
        svd->seconds = lsp_clock() - begin;
        svd->seconds_products = op->stats.seconds_apply + op->stats.seconds_transposed - before;
        *out = svd;
    } else {
        lsp_svd_destroy(&svd);
    }
    return status;
}
