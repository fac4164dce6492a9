/* The matrix W of one head by definition, and decompositions of it, whole on every rank. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_TEST_OPERATOR_CASE_H
#define LSP_TEST_OPERATOR_CASE_H

#include "attention_case.h"

#include <longspan/svd.h>

/* [n][m] in double, from the operands as make_matrix rounds them; what is no row or key of the part is 0. */
static inline double *dense_from(const lsp_attention_desc *d, const double *q, const double *k)
{
    double *w = case_alloc(d->n * d->m, sizeof *w), *identity = case_alloc(d->m, sizeof *identity), lse,
           weight;
    lsp_attention_desc one = *d;
    one.d_v = 1;
    for (int64_t i = d->row_begin; i < end_of(d->row_end, d->n); i++) {
        /* The row's log-sum-exp by definition; a weight is then the power of its score. */
        if (define_row(&one, 0, 0, i, q, k, identity, &weight, &lse) == 0) continue;
        for (int64_t j = d->key_begin; j < end_of(d->key_end, d->m); j++) {
            double scale = d->scale != 0 ? d->scale : 1 / sqrt((double)d->d_k), s = 0;
            int64_t distance = 0;
            if (!sees(d, 0, i, j, &distance)) continue;
            for (int64_t c = 0; c < d->d_k; c++) s += q[i * d->d_k + c] * k[j * d->d_k + c];
            s *= scale;
            if (d->softcap > 0) s = d->softcap * tanh(s / d->softcap);
            if (d->alibi_slopes) s -= d->alibi_slopes[0] * (double)distance;
            w[i * d->m + j] = exp(s - lse);
        }
    }
    free(identity);
    return w;
}

static inline double *dense_matrix(const lsp_attention_desc *d)
{
    double *q = make_matrix(d, ROLE_Q, 0, 0), *k = make_matrix(d, ROLE_K, 0, 0), *w = dense_from(d, q, k);
    free(q), free(k);
    return w;
}

/* ---- decompositions ---------------------------------------------------------------------------------- */

/* [height][width] of the rows that the ranks have (runs: 0 or 1); other rows are zero. */
static inline double *spread(lsp_context *ctx, const double *mine, const lsp_run *run, int64_t runs,
                             int64_t height, int64_t width)
{
    double *whole = case_alloc(height * width, sizeof *whole);
    if (runs) memcpy(whole + run->begin * width, mine, (size_t)(run->count * width) * sizeof *whole);
    MPI_Allreduce(MPI_IN_PLACE, whole, (int)(height * width), MPI_DOUBLE, MPI_SUM, ctx->comm);
    return whole;
}

/* sigma, u [n][rank] and v [m][rank] of the whole; the rest as this rank had it. */
static inline lsp_svd whole_svd(lsp_context *ctx, lsp_operator *op, const lsp_svd *svd, int64_t n, int64_t m)
{
    const lsp_run *query_run, *key_run;
    int64_t query_runs, key_runs, rows, keys;
    lsp_svd whole = *svd;
    lsp_operator_runs(op, LSP_QUERIES, &query_run, &query_runs, &rows);
    lsp_operator_runs(op, LSP_KEYS, &key_run, &key_runs, &keys);
    assert_true(svd->rows == rows && svd->keys == keys);
    whole.sigma = case_alloc(svd->rank, sizeof(double));
    memcpy(whole.sigma, svd->sigma, (size_t)svd->rank * sizeof(double));
    whole.u = spread(ctx, svd->u, query_run, query_runs, n, svd->rank);
    whole.v = spread(ctx, svd->v, key_run, key_runs, m, svd->rank);
    return whole;
}

static inline void free_svd(lsp_svd *whole)
{
    free(whole->sigma);
    free(whole->u);
    free(whole->v);
}

/* ||W - U diag(sigma) V^T||_F. */
static inline double true_error(const double *w, const lsp_svd *s, int64_t n, int64_t m)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < m; j++) {
            double x = w[i * m + j];
            for (int64_t r = 0; r < s->rank; r++)
                x -= s->u[i * s->rank + r] * s->sigma[r] * s->v[j * s->rank + r];
            sum += x * x;
        }
    return sqrt(sum);
}

#endif
