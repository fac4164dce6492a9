/* A matrix W and its decomposition, whole on every rank, and what has to hold for it, by oracles of their own.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_TEST_SVD_CASE_H
#define LSP_TEST_SVD_CASE_H

#include "operator_case.h"

/* ---- a problem and its decomposition, whole on every rank ------------------------------------------- */

typedef struct problem {
    lsp_attention_desc desc;
    double *q, *k; /* whole, rounded to f32 */
} problem;

typedef struct factors {
    lsp_svd svd;             /* sigma, u [n][rank] and v [m][rank] whole; the rest as rank 0 had it */
    lsp_svd_sampled sampled; /* of all rows, where they are 256 or fewer */
} factors;

static inline problem make_problem(int64_t n, int64_t m, int64_t d_k, double factor)
{
    problem p = {.desc = plain(n, m, d_k, 0)};
    p.q = make_matrix(&p.desc, ROLE_Q, 0, 0);
    p.k = make_matrix(&p.desc, ROLE_K, 0, 0);
    for (int64_t i = 0; i < n * d_k; i++) p.q[i] = (double)(float)(p.q[i] * factor);
    return p;
}

static inline void free_problem(problem *p)
{
    free(p->q);
    free(p->k);
}

static inline float *rows_of(const double *whole, const lsp_run *run, int64_t runs, int64_t d_k)
{
    float *rows = case_alloc(runs ? run->count * d_k : 0, sizeof *rows);
    for (int64_t i = 0; runs && i < run->count * d_k; i++) rows[i] = (float)whole[run->begin * d_k + i];
    return rows;
}

static inline lsp_status run_svd(lsp_context *ctx, const problem *p, const lsp_svd_options *options,
                                 factors *f)
{
    lsp_operator *op = NULL;
    lsp_svd *svd = NULL;
    const lsp_run *query_run, *key_run;
    int64_t query_runs, key_runs, rows, keys;
    if (lsp_operator_create(ctx, &p->desc, &op) != LSP_OK) fail_msg("%s", lsp_context_message(ctx));
    lsp_operator_runs(op, LSP_QUERIES, &query_run, &query_runs, &rows);
    lsp_operator_runs(op, LSP_KEYS, &key_run, &key_runs, &keys);
    float *q = rows_of(p->q, query_run, query_runs, p->desc.d_k),
          *k = rows_of(p->k, key_run, key_runs, p->desc.d_k);
    assert_int_equal(lsp_operator_bind(op, q, k), LSP_OK);
    lsp_status status = lsp_svd_krylov(op, options, &svd);
    if (status == LSP_OK) {
        assert_int_equal(lsp_svd_sample(op, svd, p->desc.n, 3, &f->sampled), LSP_OK);
        f->svd = whole_svd(ctx, op, svd, p->desc.n, p->desc.m);
    } else {
        assert_null(svd);
    }
    lsp_svd_destroy(&svd);
    lsp_operator_destroy(&op);
    free(q), free(k);
    return status;
}

static inline factors must_run(lsp_context *ctx, const problem *p, const lsp_svd_options *options)
{
    factors f;
    if (run_svd(ctx, p, options, &f) != LSP_OK) fail_msg("%s", lsp_context_message(ctx));
    return f;
}

/* ---- oracles -------------------------------------------------------------------------------------- */

/* Singular values of w [n][m], descending, by one-sided Jacobi rotations of its rows or columns. */
static inline double *singular_values(const double *w, int64_t n, int64_t m)
{
    int64_t count = n < m ? n : m, length = n < m ? m : n;
    double *a = case_alloc(count * length, sizeof *a), *sigma = case_alloc(count, sizeof *sigma), largest = 1;
    for (int64_t i = 0; i < count; i++)
        for (int64_t c = 0; c < length; c++) a[i * length + c] = n < m ? w[i * m + c] : w[c * m + i];
    for (int sweep = 0; sweep < 60 && largest > 1e-15; sweep++) {
        largest = 0;
        for (int64_t i = 0; i < count; i++)
            for (int64_t j = i + 1; j < count; j++) {
                double *x = a + i * length, *y = a + j * length, xx = 0, yy = 0, xy = 0;
                for (int64_t c = 0; c < length; c++) xx += x[c] * x[c], yy += y[c] * y[c], xy += x[c] * y[c];
                if (fabs(xy) <= 1e-16 * sqrt(xx * yy) || xy == 0) continue;
                largest = fmax(largest, fabs(xy) / sqrt(xx * yy));
                double z = (yy - xx) / (2 * xy), t = (z < 0 ? -1 : 1) / (fabs(z) + sqrt(1 + z * z));
                double cosine = 1 / sqrt(1 + t * t), sine = cosine * t;
                for (int64_t c = 0; c < length; c++) {
                    double x_c = x[c];
                    x[c] = cosine * x_c - sine * y[c];
                    y[c] = sine * x_c + cosine * y[c];
                }
            }
    }
    for (int64_t i = 0; i < count; i++) {
        double square = 0, value;
        for (int64_t c = 0; c < length; c++) square += a[i * length + c] * a[i * length + c];
        value = sqrt(square);
        int64_t at = i;
        for (; at > 0 && sigma[at - 1] < value; at--) sigma[at] = sigma[at - 1];
        sigma[at] = value;
    }
    free(a);
    return sigma;
}

/* The largest entry of |A^T A - 1|. */
static inline double not_orthonormal(const double *a, int64_t rows, int64_t cols)
{
    double worst = 0;
    for (int64_t x = 0; x < cols; x++)
        for (int64_t y = x; y < cols; y++) {
            double sum = 0;
            for (int64_t i = 0; i < rows; i++) sum += a[i * cols + x] * a[i * cols + y];
            worst = fmax(worst, fabs(sum - (x == y)));
        }
    return worst;
}

static inline void check_signs(const lsp_svd *s, int64_t m)
{
    for (int64_t r = 0; r < s->rank; r++) {
        double most = 0;
        for (int64_t j = 0; j < m; j++)
            if (fabs(s->v[j * s->rank + r]) > fabs(most)) most = s->v[j * s->rank + r];
        assert_true(most > 0);
    }
}

/* Everything that holds for any W: `ratio` is how much worse than the best error of that rank it may be. */
static inline void check_factors(const problem *p, const factors *f, double ratio, const char *what)
{
    const lsp_svd *s = &f->svd;
    int64_t n = p->desc.n, m = p->desc.m, count = n < m ? n : m;
    double eps = p->desc.compute == LSP_F64 ? 2e-13 : 4e-6, best = 0, norm = 0;
    double *w = dense_from(&p->desc, p->q, p->k), *sigma = singular_values(w, n, m);
    for (int64_t r = 0; r < count; r++) norm += sigma[r] * sigma[r];
    norm = sqrt(norm);
    for (int64_t r = count - 1; r >= s->rank; r--) best += sigma[r] * sigma[r];
    best = sqrt(best);
    double error = true_error(w, s, n, m),
           off = fmax(not_orthonormal(s->u, n, s->rank), not_orthonormal(s->v, m, s->rank));
    if (!(off < 1e-12)) fail_msg("%s: the vectors are off orthonormal by %.2g", what, off);
    if (!(error <= ratio * best + eps * norm))
        fail_msg("%s: error %.6g at rank %d, the best is %.6g", what, error, (int)s->rank, best);
    if (!(fabs(s->certificate.norm - norm) <= eps * norm))
        fail_msg("%s: norm %.10g, it is %.10g", what, s->certificate.norm, norm);
    if (s->certificate.meaningful && !(fabs(s->certificate.frobenius_error - error) <= 0.01 * error))
        fail_msg("%s: the certificate says %.6g, the error is %.6g", what, s->certificate.frobenius_error,
                 error);
    if (!s->certificate.meaningful && !(error <= s->certificate.floor * norm))
        fail_msg("%s: the error %.3g is above the floor %.3g", what, error / norm, s->certificate.floor);
    if (f->sampled.rows == n && !(fabs(f->sampled.frobenius_error - error) <= 1e-3 * error + eps * norm))
        fail_msg("%s: all rows sampled give %.6g, the error is %.6g", what, f->sampled.frobenius_error,
                 error);
    for (int64_t r = 0; r < s->rank; r++) {
        assert_true(s->sigma[r] >= 0 && (r == 0 || s->sigma[r] <= s->sigma[r - 1]));
        if (!(s->sigma[r] <= sigma[r] + eps * norm)) /* a projection has no larger ones */
            fail_msg("%s: sigma %d is %.10g, that of W %.10g", what, (int)r, s->sigma[r], sigma[r]);
    }
    check_signs(s, m);
    free(w), free(sigma);
}

#endif
