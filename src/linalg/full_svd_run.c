/* pdgesvd with its input screened first and its answer checked afterwards.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "base/checked.h"
#include "base/memory.h"
#include "linalg/blas.h"
#include "linalg/fortran.h"
#include "linalg/full_svd.h"

#include <math.h>

enum { PIECE = 512 }; /* values a reduction */

/* ---- before and after pdgesvd ---------------------------------------------------------------------- */

/* What one look at the matrix tells. */
typedef struct look {
    int64_t bad, first; /* non-finite values; the first in row-major order, INT64_MAX when none */
    double largest;     /* magnitude */
} look;

/* Collective. Refuses non-finite values. */
static lsp_status screen(const lsp_full_svd *svd, double *largest)
{
    look l = {.first = INT64_MAX};
    for (int64_t c = 0; c < svd->matrix.local_cols; c++)
        for (int64_t r = 0; r < svd->matrix.local_rows; r++) {
            double value = svd->w[c * svd->matrix.lead + r];
            if (isfinite(value)) {
                l.largest = fmax(l.largest, fabs(value));
                continue;
            }
            l.bad++;
            l.first = lsp_min(l.first,
                              lsp_cyclic_row(&svd->matrix, r) * svd->cols + lsp_cyclic_col(&svd->matrix, c));
        }
    lsp_status status = lsp_context_sum_i64(svd->ctx, &l.bad, 1);
    if (status == LSP_OK) status = lsp_context_min_i64(svd->ctx, &l.first, 1);
    if (status == LSP_OK) status = lsp_context_max_f64(svd->ctx, &l.largest, 1);
    if (status != LSP_OK) return status;
    *largest = l.largest;
    if (l.bad == 0) return LSP_OK;
    return lsp_context_fail(
        svd->ctx, LSP_ERR_CONTENT,
        "%lld values of the %lld x %lld matrix are not finite, the first in row %lld, column "
        "%lld: it has no SVD",
        (long long)l.bad, (long long)svd->rows, (long long)svd->cols, (long long)(l.first / svd->cols),
        (long long)(l.first % svd->cols));
}

/* Collective. Scales by a power of two so that squares neither overflow nor vanish (pdgesvd's own scaling
 * goes wrong on more than one process row up to ScaLAPACK 2.2.2), and adds up the squares. */
static lsp_status scale_and_add(const lsp_full_svd *svd, double largest, int *exponent, double *squares)
{
    *exponent = 0;
    if (largest > 0 && (largest < 0x1p-300 || largest > 0x1p200)) {
        (void)frexp(largest, exponent);
        *exponent = -*exponent;
    }
    double sum = 0;
    for (int64_t c = 0; c < svd->matrix.local_cols; c++) {
        double column = 0;
        for (int64_t r = 0; r < svd->matrix.local_rows; r++) {
            double *value = &svd->w[c * svd->matrix.lead + r];
            if (*exponent != 0) *value = ldexp(*value, *exponent);
            column += *value * *value;
        }
        sum += column;
    }
    *squares = sum;
    return lsp_context_sum_f64(svd->ctx, squares, 1);
}

lsp_status lsp_full_svd_believe(int info, int64_t rows, int64_t cols, const double *sigma,
                                double frobenius_squared, lsp_error *error)
{
    int64_t count = lsp_min(rows, cols);
    if (info < 0)
        return lsp_error_set(error, LSP_ERR_RANK, "ScaLAPACK's pdgesvd refused its argument %d", -info);
    if (info == count + 1)
        return lsp_error_set(
            error, LSP_ERR_VERIFY,
            "pdgesvd found different singular values on different ranks: the processors or the "
            "BLAS of the nodes differ; run on nodes of one kind");
    if (info > 0)
        return lsp_error_set(error, LSP_ERR_VERIFY,
                             "pdgesvd did not converge: %d superdiagonals of a %lld x %lld matrix were left",
                             info, (long long)rows, (long long)cols);
    double squares = 0;
    for (int64_t i = 0; i < count; i++) {
        if (!isfinite(sigma[i]) || sigma[i] < 0 || (i > 0 && sigma[i] > sigma[i - 1]))
            return lsp_error_set(error, LSP_ERR_VERIFY,
                                 "pdgesvd did not converge: singular value %lld is %g, after %g",
                                 (long long)i, sigma[i], i > 0 ? sigma[i - 1] : NAN);
        squares += sigma[i] * sigma[i];
    }
    /* Rounding alone leaves far less than this. */
    if (fabs(squares - frobenius_squared) <= 1e-11 * frobenius_squared) return LSP_OK;
    return lsp_error_set(
        error, LSP_ERR_VERIFY,
        "pdgesvd did not converge: the squares of the singular values add up to %.15g, those of "
        "the %lld x %lld matrix to %.15g",
        squares, (long long)rows, (long long)cols, frobenius_squared);
}

/* ---- signs --------------------------------------------------------------------------------------- */

/* What decides the signs of rows [first, first + count) of V^T: the largest magnitude of each, and twice the
 * first column that has it, plus one when it is negative there. */
static lsp_status find_signs(const lsp_full_svd *svd, int64_t first, int count, int64_t *found)
{
    double largest[PIECE] = {0};
    const lsp_cyclic *vt = &svd->vt;
    int64_t begin = 0, end = 0;
    if (lsp_grid_inside(svd->grid)) {
        begin = lsp_cyclic_count(first, vt->row_block, svd->grid->row, svd->grid->rows);
        end = lsp_cyclic_count(first + count, vt->row_block, svd->grid->row, svd->grid->rows);
    }
    for (int64_t c = 0; c < vt->local_cols; c++)
        for (int64_t r = begin; r < end; r++) {
            int64_t i = lsp_cyclic_row(vt, r) - first;
            largest[i] = fmax(largest[i], fabs(svd->vt_local[c * vt->lead + r]));
        }
    lsp_status status = lsp_context_max_f64(svd->ctx, largest, count);
    if (status != LSP_OK) return status;
    for (int i = 0; i < count; i++) found[i] = INT64_MAX;
    for (int64_t c = vt->local_cols - 1; c >= 0; c--)
        for (int64_t r = begin; r < end; r++) {
            int64_t i = lsp_cyclic_row(vt, r) - first;
            double value = svd->vt_local[c * vt->lead + r];
            if (fabs(value) == largest[i]) found[i] = 2 * lsp_cyclic_col(vt, c) + (value < 0);
        }
    return lsp_context_min_i64(svd->ctx, found, count);
}

static void flip(lsp_full_svd *svd, int64_t first, int count, const int64_t *found)
{
    const lsp_cyclic *vt = &svd->vt, *u = &svd->u;
    for (int64_t r = 0; r < vt->local_rows; r++) {
        int64_t i = lsp_cyclic_row(vt, r) - first;
        if (i < 0 || i >= count || found[i] % 2 == 0) continue;
        for (int64_t c = 0; c < vt->local_cols; c++)
            svd->vt_local[c * vt->lead + r] = -svd->vt_local[c * vt->lead + r];
    }
    for (int64_t c = 0; c < u->local_cols; c++) {
        int64_t i = lsp_cyclic_col(u, c) - first;
        if (i < 0 || i >= count || found[i] % 2 == 0) continue;
        for (int64_t r = 0; r < u->local_rows; r++)
            svd->u_local[c * u->lead + r] = -svd->u_local[c * u->lead + r];
    }
}

static lsp_status fix_signs(lsp_full_svd *svd)
{
    lsp_status status = LSP_OK;
    for (int64_t first = 0; status == LSP_OK && first < svd->count; first += PIECE) {
        int64_t found[PIECE];
        int count = (int)lsp_min(PIECE, svd->count - first);
        status = find_signs(svd, first, count, found);
        if (status == LSP_OK) flip(svd, first, count, found);
    }
    return status;
}

/* ---- pdgesvd ------------------------------------------------------------------------------------- */

static int call(lsp_full_svd *svd, double *work, int work_size)
{
    int rows = svd->matrix.desc[2], cols = svd->matrix.desc[3], one = 1, info = 0;
    const char *vectors = svd->vectors ? "V" : "N";
    double none = 0;
    pdgesvd_(vectors, vectors, &rows, &cols, svd->w, &one, &one, svd->matrix.desc, svd->sigma,
             svd->vectors ? svd->u_local : &none, &one, &one, svd->u.desc,
             svd->vectors ? svd->vt_local : &none, &one, &one, svd->vt.desc, work, &work_size, &info, 1, 1);
    return info;
}

/* Asks pdgesvd for its work and allocates it; on ranks of the grid. */
static lsp_status prepare(lsp_full_svd *svd, double **work, int *size)
{
    double asked = 0;
    int info = call(svd, &asked, -1);
    if (info != 0)
        return lsp_context_fail(svd->ctx, LSP_ERR_RANK, "ScaLAPACK's pdgesvd refused its argument %d", -info);
    /* Inside pdgesvd the answer is an int, which could have wrapped around: our own 64-bit count, which was
     * found to fit, must hold it. */
    if (!(asked >= 1) || asked > (double)svd->size.work || !lsp_checked_int(svd->size.work, size))
        return lsp_context_fail(
            svd->ctx, LSP_ERR_LIMIT,
            "pdgesvd asks for %g elements of work for a %lld x %lld matrix, where %lld should do", asked,
            (long long)svd->rows, (long long)svd->cols, (long long)svd->size.work);
    *work = lsp_memory_alloc(svd->size.work, sizeof(double));
    if (*work) return LSP_OK;
    return lsp_context_fail(svd->ctx, LSP_ERR_LIMIT, "not enough memory for %lld elements of pdgesvd's work",
                            (long long)svd->size.work);
}

/* On ranks of the grid, all of which are prepared. */
static lsp_status decompose(lsp_full_svd *svd, double *work, int size)
{
    int info = call(svd, work, size);
    lsp_status status = lsp_grid_verdict(svd->grid, "the full SVD");
    if (status != LSP_OK) return status;
    lsp_error error = {0};
    status = lsp_full_svd_believe(info, svd->rows, svd->cols, svd->sigma, svd->frobenius_squared, &error);
    return status == LSP_OK ? LSP_OK : lsp_context_fail(svd->ctx, status, "%s", error.text);
}

lsp_status lsp_full_svd_execute(lsp_full_svd *svd)
{
    double largest = 0, *work = NULL;
    int exponent = 0, size = 0;
    bool inside = lsp_grid_inside(svd->grid);
    lsp_status status = screen(svd, &largest);
    if (status == LSP_OK) status = scale_and_add(svd, largest, &exponent, &svd->frobenius_squared);
    if (status != LSP_OK) return status;
    int threads = lsp_blas_single();
    status = lsp_context_agree(svd->ctx, inside ? prepare(svd, &work, &size) : LSP_OK);
    if (status == LSP_OK && inside) status = decompose(svd, work, size);
    lsp_blas_restore(threads);
    lsp_memory_free(work);
    status = lsp_context_agree(svd->ctx, status);
    if (status == LSP_OK && svd->vectors) status = fix_signs(svd);
    if (status == LSP_OK)
        status = lsp_context_broadcast(svd->ctx, 0, svd->sigma, svd->count * (int64_t)sizeof(double));
    if (status != LSP_OK || exponent == 0) return status;
    for (int64_t i = 0; i < svd->count; i++) svd->sigma[i] = ldexp(svd->sigma[i], -exponent);
    svd->frobenius_squared = ldexp(svd->frobenius_squared, -2 * exponent);
    return LSP_OK;
}
