/* SPDX-License-Identifier: BSD-3-Clause */
#include "linalg/small_svd.h"

#include "base/checked.h"
#include "base/memory.h"
#include "linalg/blas.h"
#include "linalg/fortran.h"

#include <math.h>
#include <string.h>

enum { MOST = 32768 };

/* A row-major matrix is LAPACK's transpose, and the SVD of the transpose is V diag(sigma) U^T: so LAPACK's
 * "U" is our V^T row-major, and its "V^T" our U. */
typedef struct job {
    lsp_context *ctx;
    int64_t rows, cols, rank;
    double *copy, *work;
    int *iwork;
} job;

static lsp_status check(const job *j, const double *u, const double *vt)
{
    if (j->rows < 1 || j->cols < 1 || j->rows > MOST || j->cols > MOST)
        return lsp_context_fail(j->ctx, LSP_ERR_USAGE,
                                "a small SVD takes 1 to %d rows and columns, not %lld x %lld", MOST,
                                (long long)j->rows, (long long)j->cols);
    if (!u != !vt)
        return lsp_context_fail(j->ctx, LSP_ERR_USAGE, "a small SVD gives U and V^T together or neither");
    return LSP_OK;
}

static lsp_status screen(const job *j, const double *a)
{
    int64_t bad = 0, first = 0;
    for (int64_t i = j->rows * j->cols - 1; i >= 0; i--)
        if (!isfinite(a[i])) {
            bad++;
            first = i;
        }
    if (bad == 0) return LSP_OK;
    return lsp_context_fail(
        j->ctx, LSP_ERR_CONTENT,
        "%lld values of a %lld x %lld matrix are not finite, the first in row %lld, column "
        "%lld: it has no SVD",
        (long long)bad, (long long)j->rows, (long long)j->cols, (long long)(first / j->cols),
        (long long)(first % j->cols));
}

static int gesdd(const job *j, double *sigma, double *u, double *vt, double *work, int work_size)
{
    int m = (int)j->cols, n = (int)j->rows, k = (int)j->rank, info = 0;
    double none = 0;
    dgesdd_(u ? "S" : "N", &m, &n, j->copy, &m, sigma, vt ? vt : &none, &m, u ? u : &none, &k, work,
            &work_size, j->iwork, &info, 1);
    return info;
}

static void fix_signs(const job *j, double *u, double *vt)
{
    for (int64_t i = 0; i < j->rank; i++) {
        double *row = vt + i * j->cols;
        int64_t largest = 0;
        for (int64_t c = 1; c < j->cols; c++)
            if (fabs(row[c]) > fabs(row[largest])) largest = c;
        if (!(row[largest] < 0)) continue;
        for (int64_t c = 0; c < j->cols; c++) row[c] = -row[c];
        for (int64_t r = 0; r < j->rows; r++) u[r * j->rank + i] = -u[r * j->rank + i];
    }
}

/* Local, on the first rank. */
static lsp_status solve(job *j, const double *a, double *sigma, double *u, double *vt)
{
    lsp_status status = screen(j, a);
    if (status != LSP_OK) return status;
    int64_t elements = j->rows * j->cols;
    double asked = 0;
    j->copy = lsp_memory_alloc(elements, sizeof(double));
    j->iwork = lsp_memory_alloc(8 * j->rank, sizeof(int));
    if (!j->copy || !j->iwork)
        return lsp_context_fail(j->ctx, LSP_ERR_LIMIT,
                                "not enough memory for the SVD of a %lld x %lld matrix", (long long)j->rows,
                                (long long)j->cols);
    int info = gesdd(j, sigma, u, vt, &asked, -1), size = 0;
    if (info == 0 && (!(asked >= 1) || asked > INT_MAX || !lsp_checked_int((int64_t)asked, &size)))
        return lsp_context_fail(j->ctx, LSP_ERR_LIMIT,
                                "dgesdd needs %g elements of work for a %lld x %lld matrix, more than %d",
                                asked, (long long)j->rows, (long long)j->cols, INT_MAX);
    j->work = lsp_memory_alloc(size, sizeof(double));
    if (!j->work)
        return lsp_context_fail(j->ctx, LSP_ERR_LIMIT, "not enough memory for %d elements of dgesdd's work",
                                size);
    memcpy(j->copy, a, (size_t)elements * sizeof *a);
    if (info == 0) info = gesdd(j, sigma, u, vt, j->work, size);
    if (info < 0)
        return lsp_context_fail(j->ctx, LSP_ERR_RANK, "LAPACK's dgesdd refused its argument %d", -info);
    if (info > 0)
        return lsp_context_fail(j->ctx, LSP_ERR_VERIFY,
                                "LAPACK's dgesdd did not converge on a %lld x %lld matrix (info %d)",
                                (long long)j->rows, (long long)j->cols, info);
    if (u) fix_signs(j, u, vt);
    return LSP_OK;
}

/* Outputs are filled on the first rank alone until all agree that it has succeeded. */
static lsp_status share(job *j, const double *result, double *sigma, double *u, double *vt)
{
    const int64_t size = sizeof(double);
    if (j->ctx->layout.rank == 0) {
        memcpy(sigma, result, (size_t)(j->rank * size));
        if (u) {
            memcpy(u, result + j->rank, (size_t)(j->rows * j->rank * size));
            memcpy(vt, result + j->rank + j->rows * j->rank, (size_t)(j->rank * j->cols * size));
        }
    }
    lsp_status status = lsp_context_broadcast(j->ctx, 0, sigma, j->rank * size);
    if (status == LSP_OK && u) status = lsp_context_broadcast(j->ctx, 0, u, j->rows * j->rank * size);
    if (status == LSP_OK && u) status = lsp_context_broadcast(j->ctx, 0, vt, j->rank * j->cols * size);
    return status;
}

lsp_status lsp_small_svd(lsp_context *ctx, int64_t rows, int64_t cols, const double *a, double *sigma,
                         double *u, double *vt)
{
    job j = {.ctx = ctx, .rows = rows, .cols = cols, .rank = lsp_min(rows, cols)};
    lsp_status status = lsp_context_agree(ctx, check(&j, u, vt));
    if (status != LSP_OK) return status;
    double *result = NULL;
    if (ctx->layout.rank == 0) {
        int64_t vectors = u ? j.rank * (rows + cols) : 0;
        result = lsp_memory_alloc(j.rank + vectors, sizeof(double));
        int threads = lsp_blas_single();
        if (result)
            status =
                solve(&j, a, result, u ? result + j.rank : NULL, u ? result + j.rank + rows * j.rank : NULL);
        else
            status =
                lsp_context_fail(ctx, LSP_ERR_LIMIT, "not enough memory for the SVD of a %lld x %lld matrix",
                                 (long long)rows, (long long)cols);
        lsp_blas_restore(threads);
    }
    status = lsp_context_agree(ctx, status);
    if (status == LSP_OK) status = share(&j, result, sigma, u, vt);
    lsp_memory_free(result);
    lsp_memory_free(j.copy);
    lsp_memory_free(j.work);
    lsp_memory_free(j.iwork);
    return status;
}
