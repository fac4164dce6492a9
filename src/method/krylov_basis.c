/* Randomised block Krylov. From a random block, Q = orth(W X) and then, step by step, P_i = orth(W^T Q) beside all
 * earlier P, T_i = W P_i, Q = orth(T_i). With P all the P_i side by side, W P = T is there already, and its
 * decomposition is that of W within the space of P: a half step better than within the space of the Q.
 *
 * Halko, Martinsson, Tropp: Finding structure with randomness (2011); Musco, Musco: Randomized block Krylov methods
 * for stronger and faster approximate singular value decomposition (2015). SPDX-License-Identifier: BSD-3-Clause */
#include "base/checked.h"
#include "base/memory.h"
#include "base/random.h"
#include "linalg/small_svd.h"
#include "linalg/tall.h"
#include "linalg/tall_product.h"
#include "method/krylov.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { START_STREAM = 0x4B };

lsp_status lsp_krylov_no_memory(lsp_krylov *j, const char *what)
{
    return lsp_context_fail(
        j->ctx, LSP_ERR_LIMIT,
        "not enough memory for %s (%lld rows and %lld keys of this rank, rank %lld): use more "
        "ranks, or a smaller attention.rank",
        what, (long long)j->rows, (long long)j->keys, (long long)j->rank);
}

/* ---- products ---------------------------------------------------------------------------------- */

static void to_type(const lsp_krylov *j, const double *from, int64_t count, void *to)
{
    if (j->op->plan->problem.desc.compute == LSP_F64)
        memcpy(to, from, (size_t)count * sizeof *from);
    else
        for (int64_t i = 0; i < count; i++) ((float *)to)[i] = (float)from[i];
}

/* Returns whether all numbers are finite. */
static bool from_type(const lsp_krylov *j, const void *from, int64_t count, double *to)
{
    double check = 0;
    if (j->op->plan->problem.desc.compute == LSP_F64)
        memcpy(to, from, (size_t)count * sizeof *to);
    else
        for (int64_t i = 0; i < count; i++) to[i] = (double)((const float *)from)[i];
    for (int64_t i = 0; i < count; i++) check += to[i] * 0;
    return check == 0;
}

static void tell(lsp_krylov *j)
{
    j->done++;
    if (j->options->progress) j->options->progress(j->options->user, j->done / j->all);
}

static lsp_status check_finite(lsp_krylov *j, bool finite)
{
    lsp_status status = LSP_OK;
    if (!finite)
        status = lsp_context_fail(j->ctx, LSP_ERR_CONTENT,
                                  "W is not finite: look for NaN, Inf or very large numbers in q and k");
    tell(j);
    return lsp_context_agree(j->ctx, status);
}

/* Collective. y [rows][width] = W x; j->x is filled. */
static lsp_status multiply(lsp_krylov *j, int64_t width, double *y)
{
    lsp_status status = lsp_operator_apply(j->op, j->x, width, j->y);
    if (status != LSP_OK) return status;
    return check_finite(j, from_type(j, j->y, j->rows * width, y));
}

/* Collective. x [keys][width] = W^T q. */
static lsp_status multiply_transposed(lsp_krylov *j, int64_t width, double *x)
{
    to_type(j, j->q, j->rows * width, j->y);
    lsp_status status = lsp_operator_apply_transposed(j->op, j->y, width, j->x);
    if (status != LSP_OK) return status;
    return check_finite(j, from_type(j, j->x, j->keys * width, x));
}

/* ---- blocks ------------------------------------------------------------------------------------ */

/* Normal numbers by global key: the same for any number of ranks. */
static lsp_status fill_start(lsp_krylov *j)
{
    double *row = lsp_memory_alloc(j->columns, sizeof *row);
    if (!row) return lsp_krylov_no_memory(j, "the start block");
    size_t element = lsp_dtype_size(j->op->plan->problem.desc.compute);
    for (int64_t i = 0; i < j->keys; i++) {
        lsp_random_normals(j->options->seed, START_STREAM, (uint64_t)((j->first_key + i) * j->columns),
                           j->columns, row);
        to_type(j, row, j->columns, (char *)j->x + (size_t)(i * j->columns) * element);
    }
    lsp_memory_free(row);
    return LSP_OK;
}

/* Collective. The start: q = orth(W X). Orthonormal also where W has a lower rank: there are `rank` columns in any
 * case. */
static lsp_status start(lsp_krylov *j)
{
    lsp_status status = lsp_context_agree(j->ctx, fill_start(j));
    if (status == LSP_OK) status = multiply(j, j->columns, j->q);
    return status == LSP_OK ? lsp_tall_qr(&j->grid, j->rows, j->columns, j->q, NULL) : status;
}

/* Collective. p -= P (P^T p) over the blocks before b. */
static lsp_status project(lsp_krylov *j, lsp_krylov_block *b)
{
    double *c = lsp_memory_alloc(j->columns * b->width, sizeof *c);
    lsp_status status = lsp_context_agree(j->ctx, c ? LSP_OK : lsp_krylov_no_memory(j, "a projection"));
    for (const lsp_krylov_block *old = j->blocks; status == LSP_OK && old < b; old++) {
        status = lsp_tall_inner(j->ctx, j->keys, old->p, old->width, b->p, b->width, c);
        if (status == LSP_OK)
            status = lsp_tall_add_product(j->ctx, j->keys, -1, old->p, old->width, c, b->width, b->width,
                                          b->p, b->width);
    }
    lsp_memory_free(c);
    return status;
}

/* What is left of W^T q beside P is rounding when it is below: of the products, or of the projection, which in f64 is
 * as large and, along P, would not go away. */
static double least_direction(const lsp_krylov *j)
{
    return fmax(j->eps, 64 * DBL_EPSILON) * sqrt(j->square);
}

/* Collective. Keeps the directions of b->p (orthonormal, times r) that are more than rounding. */
static lsp_status keep_directions(lsp_krylov *j, lsp_krylov_block *b, const double *r)
{
    int64_t width = b->width, kept = 0;
    double least = least_direction(j);
    double *sigma = lsp_memory_alloc(width, sizeof *sigma), *u = lsp_memory_alloc(width * width, sizeof *u);
    double *vt = lsp_memory_alloc(width * width, sizeof *vt), *p = NULL;
    lsp_status status = sigma && u && vt ? LSP_OK : lsp_krylov_no_memory(j, "the directions of a block");
    status = lsp_context_agree(j->ctx, status);
    if (status == LSP_OK) status = lsp_small_svd(j->ctx, width, width, r, sigma, u, vt);
    while (status == LSP_OK && kept < width && sigma[kept] > least) kept++;
    if (status == LSP_OK && kept < width) {
        p = lsp_memory_zalloc(j->keys * kept, sizeof *p);
        status = lsp_context_agree(j->ctx, p ? LSP_OK : lsp_krylov_no_memory(j, "the directions of a block"));
        if (status == LSP_OK)
            status = lsp_tall_add_product(j->ctx, j->keys, 1, b->p, width, u, width, kept, p, kept);
        if (status == LSP_OK) {
            lsp_memory_free(b->p);
            b->p = p;
            b->width = kept;
            p = NULL;
        }
    }
    lsp_memory_free(p);
    lsp_memory_free(sigma);
    lsp_memory_free(u);
    lsp_memory_free(vt);
    return status;
}

/* Collective. Makes b->p = W^T q orthonormal, and orthogonal to all blocks before it. The first keeps its width
 * whatever its rank; later ones shrink, down to 0, where the Krylov space has no more directions. */
static lsp_status orthonormalise(lsp_krylov *j, lsp_krylov_block *b)
{
    if (b == j->blocks) return lsp_tall_qr(&j->grid, j->keys, b->width, b->p, NULL);
    double *r = lsp_memory_alloc(b->width * b->width, sizeof *r);
    lsp_status status = lsp_context_agree(j->ctx, r ? LSP_OK : lsp_krylov_no_memory(j, "a triangle"));
    if (status == LSP_OK) status = project(j, b);
    if (status == LSP_OK) status = lsp_tall_qr(&j->grid, j->keys, b->width, b->p, r);
    bool exhausted = false;
    for (int64_t i = 0; status == LSP_OK && i < b->width; i++)
        if (!(r[i * b->width + i] > least_direction(j))) exhausted = true;
    if (exhausted) status = keep_directions(j, b, r);
    /* Once more: what was small before the QR had large parts along P by comparison. */
    if (status == LSP_OK && b->width > 0) status = project(j, b);
    if (status == LSP_OK && b->width > 0) status = lsp_tall_qr(&j->grid, j->keys, b->width, b->p, NULL);
    lsp_memory_free(r);
    return status;
}

/* Collective. The next block begins, from the first `width` columns of q. */
static lsp_status begin_block(lsp_krylov *j, int64_t width)
{
    lsp_krylov_block *b = &j->blocks[j->block_count++];
    b->width = width;
    b->p = lsp_memory_alloc(j->keys * width, sizeof *b->p);
    b->t = lsp_memory_alloc(j->rows * width, sizeof *b->t);
    lsp_status status = lsp_context_agree(
        j->ctx, b->p && b->t ? LSP_OK : lsp_krylov_no_memory(j, "a block of the Krylov basis"));
    if (status == LSP_OK) status = multiply_transposed(j, width, b->p);
    if (status == LSP_OK) status = lsp_operator_norm(j->op, &j->square);
    j->stage = LSP_KRYLOV_RAW;
    return status;
}

/* Collective. Its width is 0 when nothing was added. */
static lsp_status end_block(lsp_krylov *j)
{
    lsp_krylov_block *b = &j->blocks[j->block_count - 1];
    lsp_status status = orthonormalise(j, b);
    j->stage = LSP_KRYLOV_BLOCK;
    if (status != LSP_OK || b->width == 0) return status;
    to_type(j, b->p, j->keys * b->width, j->x);
    j->basis += b->width;
    return multiply(j, b->width, b->t);
}

/* Collective. q = orth(T) of the last block, of which the next one takes *width columns (0: none). Orthonormal, since
 * the leading singular vectors would drown the others in f32. */
static lsp_status next_start(lsp_krylov *j, int64_t *width)
{
    const lsp_krylov_block *last = &j->blocks[j->block_count - 1];
    *width = lsp_min(last->width, lsp_min(j->n, j->m) - j->basis);
    if (*width <= 0) return LSP_OK;
    memcpy(j->q, last->t, (size_t)(j->rows * last->width) * sizeof *j->q);
    lsp_status status = lsp_tall_qr(&j->grid, j->rows, last->width, j->q, NULL);
    for (int64_t i = 1; i < j->rows && *width < last->width; i++)
        memmove(j->q + i * *width, j->q + i * last->width, (size_t)*width * sizeof *j->q);
    return status;
}

lsp_status lsp_krylov_grow(lsp_krylov *j)
{
    int64_t width = j->columns;
    lsp_status status = LSP_OK;
    if (j->stage == LSP_KRYLOV_NOTHING) {
        status = start(j);
        j->stage = LSP_KRYLOV_START;
        if (status == LSP_OK) status = lsp_krylov_rest(j);
    }
    while (status == LSP_OK) {
        if (j->stage == LSP_KRYLOV_BLOCK) {
            if (j->block_count > j->options->steps) break;
            status = next_start(j, &width);
            if (status != LSP_OK || width <= 0) break;
            j->stage = LSP_KRYLOV_START;
        }
        status = j->stage == LSP_KRYLOV_START ? begin_block(j, width) : end_block(j);
        if (status == LSP_OK) status = lsp_krylov_rest(j);
    }
    return status;
}
