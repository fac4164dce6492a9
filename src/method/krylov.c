/* Randomised block Krylov: the blocks W X, W (W^T Q), ... are made orthonormal one after the other, Q is all of
 * them, and the decomposition of Q^T W is that of W within the space of Q. W^T Q of each block, which the next one
 * needs, is Q^T W already.
 *
 * Halko, Martinsson, Tropp: Finding structure with randomness (2011); Musco, Musco: Randomized block Krylov methods
 * for stronger and faster approximate singular value decomposition (2015). SPDX-License-Identifier: BSD-3-Clause */
#include "base/checked.h"
#include "base/clock.h"
#include "base/memory.h"
#include "base/random.h"
#include "linalg/small_svd.h"
#include "linalg/tall.h"
#include "linalg/tall_product.h"
#include "method/operator.h"
#include "method/svd.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { START_STREAM = 0x4B, FIRST_RANK = 32 };

/* Orthonormal columns q [rows][width], and z = W^T q [keys][width]. */
typedef struct block {
    int64_t width;
    double *q, *z;
} block;

/* One attempt with a rank. */
typedef struct job {
    lsp_context *ctx;
    lsp_operator *op;
    lsp_grid grid;
    const lsp_svd_options *options;
    int64_t n, m, rows, keys; /* of W; of this rank */
    int64_t first_key;        /* of this rank */
    int64_t rank, columns;    /* of a block at most */
    bool last;                /* no other attempt will follow */
    int64_t block_count, basis;
    block *blocks;    /* [steps + 1] */
    void *x, *y;      /* [keys][columns], [rows][columns] in the operator's type */
    double eps;       /* of the operator's type */
    double square;    /* ||W||_F^2 */
    double done, all; /* products */
} job;

static lsp_status no_memory(job *j, const char *what)
{
    return lsp_context_fail(
        j->ctx, LSP_ERR_LIMIT,
        "not enough memory for %s (%lld rows and %lld keys of this rank, rank %lld): use more "
        "ranks, or a smaller attention.rank",
        what, (long long)j->rows, (long long)j->keys, (long long)j->rank);
}

/* ---- products ---------------------------------------------------------------------------------- */

static void to_type(const job *j, const double *from, int64_t count, void *to)
{
    if (j->op->plan->problem.desc.compute == LSP_F64)
        memcpy(to, from, (size_t)count * sizeof *from);
    else
        for (int64_t i = 0; i < count; i++) ((float *)to)[i] = (float)from[i];
}

/* Returns whether all numbers are finite. */
static bool from_type(const job *j, const void *from, int64_t count, double *to)
{
    double check = 0;
    if (j->op->plan->problem.desc.compute == LSP_F64)
        memcpy(to, from, (size_t)count * sizeof *to);
    else
        for (int64_t i = 0; i < count; i++) to[i] = (double)((const float *)from)[i];
    for (int64_t i = 0; i < count; i++) check += to[i] * 0;
    return check == 0;
}

static void tell(job *j)
{
    j->done++;
    if (j->options->progress) j->options->progress(j->options->user, j->done / j->all);
}

static lsp_status check_finite(job *j, bool finite)
{
    lsp_status status = LSP_OK;
    if (!finite)
        status = lsp_context_fail(j->ctx, LSP_ERR_CONTENT,
                                  "W is not finite: look for NaN, Inf or very large numbers in q and k");
    tell(j);
    return lsp_context_agree(j->ctx, status);
}

/* Collective. y = W x in double; j->x is filled. */
static lsp_status multiply(job *j, int64_t width, double *y)
{
    lsp_status status = lsp_operator_apply(j->op, j->x, width, j->y);
    if (status != LSP_OK) return status;
    return check_finite(j, from_type(j, j->y, j->rows * width, y));
}

/* Collective. z = W^T q. */
static lsp_status multiply_transposed(job *j, const block *b)
{
    to_type(j, b->q, j->rows * b->width, j->y);
    lsp_status status = lsp_operator_apply_transposed(j->op, j->y, b->width, j->x);
    if (status != LSP_OK) return status;
    return check_finite(j, from_type(j, j->x, j->keys * b->width, b->z));
}

/* ---- blocks ------------------------------------------------------------------------------------ */

/* Collective. A block of so many columns; its q is not filled yet. */
static lsp_status add_block(job *j, int64_t width, block **out)
{
    block *b = &j->blocks[j->block_count];
    b->width = width;
    b->q = lsp_memory_alloc(j->rows * width, sizeof *b->q);
    b->z = lsp_memory_alloc(j->keys * width, sizeof *b->z);
    j->block_count++;
    *out = b;
    return lsp_context_agree(j->ctx, b->q && b->z ? LSP_OK : no_memory(j, "a block of the Krylov basis"));
}

/* Normal numbers by global key: the same for any number of ranks. */
static lsp_status fill_start(job *j)
{
    double *row = lsp_memory_alloc(j->columns, sizeof *row);
    if (!row) return no_memory(j, "the start block");
    size_t element = lsp_dtype_size(j->op->plan->problem.desc.compute);
    for (int64_t i = 0; i < j->keys; i++) {
        lsp_random_normals(j->options->seed, START_STREAM, (uint64_t)((j->first_key + i) * j->columns),
                           j->columns, row);
        to_type(j, row, j->columns, (char *)j->x + (size_t)(i * j->columns) * element);
    }
    lsp_memory_free(row);
    return LSP_OK;
}

static lsp_status first_block(job *j)
{
    block *b;
    lsp_status status = lsp_context_agree(j->ctx, fill_start(j));
    if (status == LSP_OK) status = add_block(j, j->columns, &b);
    if (status == LSP_OK) status = multiply(j, b->width, b->q);
    /* Orthonormal also where W has a lower rank: there are `rank` columns in any case. */
    if (status == LSP_OK) status = lsp_tall_qr(&j->grid, j->rows, b->width, b->q, NULL);
    if (status == LSP_OK) status = multiply_transposed(j, b);
    if (status == LSP_OK) status = lsp_operator_norm(j->op, &j->square);
    j->basis = j->columns;
    return status;
}

/* Collective. y -= Q (Q^T y) over the blocks before b. */
static lsp_status project(job *j, block *b)
{
    double *c = lsp_memory_alloc(j->columns * b->width, sizeof *c);
    lsp_status status = lsp_context_agree(j->ctx, c ? LSP_OK : no_memory(j, "a projection"));
    for (const block *old = j->blocks; status == LSP_OK && old < b; old++) {
        status = lsp_tall_inner(j->ctx, j->rows, old->q, old->width, b->q, b->width, c);
        if (status == LSP_OK)
            status = lsp_tall_add_product(j->ctx, j->rows, -1, old->q, old->width, c, b->width, b->width,
                                          b->q, b->width);
    }
    lsp_memory_free(c);
    return status;
}

/* Collective. Keeps the directions of b->q (orthonormal, times r) that are above the rounding of the products. */
static lsp_status keep_directions(job *j, block *b, const double *r)
{
    int64_t width = b->width, kept = 0;
    double least = j->eps * sqrt(j->square);
    double *sigma = lsp_memory_alloc(width, sizeof *sigma), *u = lsp_memory_alloc(width * width, sizeof *u);
    double *vt = lsp_memory_alloc(width * width, sizeof *vt), *q = NULL;
    lsp_status status = sigma && u && vt ? LSP_OK : no_memory(j, "the directions of a block");
    status = lsp_context_agree(j->ctx, status);
    if (status == LSP_OK) status = lsp_small_svd(j->ctx, width, width, r, sigma, u, vt);
    while (status == LSP_OK && kept < width && sigma[kept] > least) kept++;
    if (status == LSP_OK && kept < width) {
        q = lsp_memory_zalloc(j->rows * kept, sizeof *q);
        status = lsp_context_agree(j->ctx, q ? LSP_OK : no_memory(j, "the directions of a block"));
        if (status == LSP_OK)
            status = lsp_tall_add_product(j->ctx, j->rows, 1, b->q, width, u, width, kept, q, kept);
        if (status == LSP_OK) {
            lsp_memory_free(b->q);
            b->q = q;
            b->width = kept;
            q = NULL;
        }
    }
    lsp_memory_free(q);
    lsp_memory_free(sigma);
    lsp_memory_free(u);
    lsp_memory_free(vt);
    return status;
}

/* Collective. Makes b->q = W x orthonormal, and orthogonal to all blocks before it; b->width shrinks, down to 0, where
 * the Krylov space has no more directions. */
static lsp_status orthonormalise(job *j, block *b)
{
    double *r = lsp_memory_alloc(b->width * b->width, sizeof *r);
    lsp_status status = lsp_context_agree(j->ctx, r ? LSP_OK : no_memory(j, "a triangle"));
    if (status == LSP_OK) status = project(j, b);
    if (status == LSP_OK) status = lsp_tall_qr(&j->grid, j->rows, b->width, b->q, r);
    bool exhausted = false;
    for (int64_t i = 0; status == LSP_OK && i < b->width; i++)
        if (!(r[i * b->width + i] > j->eps * sqrt(j->square))) exhausted = true;
    if (exhausted) status = keep_directions(j, b, r);
    /* Once more: what was small before the QR had large parts along Q by comparison. */
    if (status == LSP_OK && b->width > 0) status = project(j, b);
    if (status == LSP_OK && b->width > 0) status = lsp_tall_qr(&j->grid, j->rows, b->width, b->q, NULL);
    lsp_memory_free(r);
    return status;
}

/* Collective. One Krylov step; *more is false when nothing was added. */
static lsp_status next_block(job *j, bool *more)
{
    const block *last = &j->blocks[j->block_count - 1];
    block *b;
    int64_t width = lsp_min(last->width, lsp_min(j->n, j->m) - j->basis);
    *more = false;
    if (width <= 0) return LSP_OK;
    double *p = lsp_memory_alloc(j->keys * last->width, sizeof *p);
    lsp_status status = lsp_context_agree(j->ctx, p ? LSP_OK : no_memory(j, "a block of the Krylov basis"));
    if (status == LSP_OK) {
        /* Orthonormal columns: else, in f32, the leading singular vectors would drown the others. */
        memcpy(p, last->z, (size_t)(j->keys * last->width) * sizeof *p);
        status = lsp_tall_qr(&j->grid, j->keys, last->width, p, NULL);
    }
    if (status == LSP_OK) {
        for (int64_t i = 1; i < j->keys && width < last->width; i++)
            memmove(p + i * width, p + i * last->width, (size_t)width * sizeof *p);
        to_type(j, p, j->keys * width, j->x);
    }
    lsp_memory_free(p);
    if (status == LSP_OK) status = add_block(j, width, &b);
    if (status == LSP_OK) status = multiply(j, width, b->q);
    if (status == LSP_OK) status = orthonormalise(j, b);
    if (status == LSP_OK && b->width > 0) {
        status = multiply_transposed(j, b);
        j->basis += b->width;
        *more = true;
    }
    return status;
}

/* ---- from the basis to the decomposition ------------------------------------------------------- */

/* Collective. All z side by side, and the blocks' own freed. */
static lsp_status join_z(job *j, double **out)
{
    double *z = *out = lsp_memory_alloc(j->keys * j->basis, sizeof *z);
    lsp_status status = lsp_context_agree(j->ctx, z ? LSP_OK : no_memory(j, "Q^T W"));
    int64_t column = 0;
    for (block *b = j->blocks; status == LSP_OK && b < j->blocks + j->block_count; column += b->width, b++) {
        for (int64_t i = 0; i < j->keys; i++)
            memcpy(z + i * j->basis + column, b->z + i * b->width, (size_t)b->width * sizeof *z);
        lsp_memory_free(b->z);
        b->z = NULL;
    }
    return status;
}

/* U = Q C and V = P A, of which the first svd->rank columns: u [basis][basis] = A, vt = C^T. */
static lsp_status expand(job *j, const double *p, const double *u, const double *vt, lsp_svd *svd)
{
    int64_t rank = svd->rank, row = 0;
    double *c = lsp_memory_alloc(j->basis * rank, sizeof *c);
    svd->u = lsp_memory_zalloc(j->rows * rank, sizeof *svd->u);
    svd->v = lsp_memory_zalloc(j->keys * rank, sizeof *svd->v);
    lsp_status status = c && svd->u && svd->v ? LSP_OK : no_memory(j, "the singular vectors");
    for (int64_t i = 0; status == LSP_OK && i < j->basis; i++)
        for (int64_t r = 0; r < rank; r++) c[i * rank + r] = vt[r * j->basis + i];
    for (const block *b = j->blocks; status == LSP_OK && b < j->blocks + j->block_count; row += b->width, b++)
        status = lsp_tall_add_product(j->ctx, j->rows, 1, b->q, b->width, c + row * rank, rank, rank, svd->u,
                                      rank);
    if (status == LSP_OK)
        status = lsp_tall_add_product(j->ctx, j->keys, 1, p, j->basis, u, j->basis, rank, svd->v, rank);
    lsp_memory_free(c);
    return lsp_context_agree(j->ctx, status);
}

static lsp_status decompose(job *j, lsp_svd *svd)
{
    double *z = NULL, *r = lsp_memory_alloc(j->basis * j->basis, sizeof *r);
    double *u = lsp_memory_alloc(j->basis * j->basis, sizeof *u);
    double *vt = lsp_memory_alloc(j->basis * j->basis, sizeof *vt);
    svd->sigma = lsp_memory_alloc(j->basis, sizeof *svd->sigma);
    lsp_status status = r && u && vt && svd->sigma ? LSP_OK : no_memory(j, "the small decomposition");
    status = lsp_context_agree(j->ctx, status);
    if (status == LSP_OK) status = join_z(j, &z);
    if (status == LSP_OK) status = lsp_tall_qr(&j->grid, j->keys, j->basis, z, r);
    if (status == LSP_OK) status = lsp_small_svd(j->ctx, j->basis, j->basis, r, svd->sigma, u, vt);
    if (status == LSP_OK) {
        svd->rows = j->rows;
        svd->keys = j->keys;
        svd->basis = j->basis;
        svd->rank = lsp_svd_choose(j->options, j->square, svd->sigma, j->rank, &svd->tolerance_met);
        svd->certificate = lsp_svd_certify(j->square, svd->sigma, svd->rank, j->eps);
        if (svd->tolerance_met || j->last) status = expand(j, z, u, vt, svd);
    }
    if (status == LSP_OK && svd->v) status = lsp_svd_fix_signs(j->ctx, svd);
    lsp_memory_free(z);
    lsp_memory_free(r);
    lsp_memory_free(u);
    lsp_memory_free(vt);
    return status;
}

/* ---- an attempt -------------------------------------------------------------------------------- */

static lsp_status prepare(job *j)
{
    const lsp_attention_desc *d = &j->op->plan->problem.desc;
    size_t element = lsp_dtype_size(d->compute);
    j->columns = lsp_min(j->rank + lsp_min(j->options->oversample, j->m), lsp_min(j->n, j->m));
    j->all = 2 * (double)(j->options->steps + 1);
    j->blocks = lsp_memory_zalloc(j->options->steps + 1, sizeof *j->blocks);
    j->x = lsp_memory_alloc(j->keys * j->columns, element);
    j->y = lsp_memory_alloc(j->rows * j->columns, element);
    lsp_status status = j->blocks && j->x && j->y ? LSP_OK : no_memory(j, "the start block");
    return lsp_context_agree(j->ctx, status);
}

static void release(job *j)
{
    for (block *b = j->blocks; b && b < j->blocks + j->block_count; b++) {
        lsp_memory_free(b->q);
        lsp_memory_free(b->z);
    }
    lsp_memory_free(j->blocks);
    lsp_memory_free(j->x);
    lsp_memory_free(j->y);
}

static lsp_status attempt(job j, lsp_svd *svd)
{
    lsp_status status = prepare(&j);
    bool more = true;
    if (status == LSP_OK) status = first_block(&j);
    for (int64_t s = 0; status == LSP_OK && more && s < j.options->steps; s++) status = next_block(&j, &more);
    if (status == LSP_OK) status = decompose(&j, svd);
    release(&j);
    return status;
}

static job describe(lsp_operator *op, const lsp_svd_options *options)
{
    const lsp_attention *plan = op->plan;
    const lsp_attention_desc *d = &plan->problem.desc;
    return (job){.ctx = op->ctx,
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
    job j = describe(op, options);
    int64_t most = 0;
    *out = NULL;
    lsp_svd *svd = lsp_memory_zalloc(1, sizeof *svd);
    lsp_status status = svd ? lsp_svd_check(ctx, options, j.n, j.m, &most) : no_memory(&j, "a decomposition");
    status = lsp_context_agree(ctx, status);
    if (status == LSP_OK) status = lsp_grid_create(ctx, ctx->layout.ranks, 1, &j.grid);
    /* With a tolerance the rank is found from below: all attempts but the last cost together as much as it. */
    j.rank = options->tolerance > 0 ? lsp_min(most, FIRST_RANK) : most;
    for (bool again = status == LSP_OK; again; j.rank = lsp_min(most, 2 * j.rank)) {
        forget(svd);
        j.last = j.rank == most;
        status = attempt(j, svd);
        svd->attempts++;
        again = status == LSP_OK && !svd->tolerance_met && !j.last;
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
