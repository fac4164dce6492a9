/* An execution of method lowrank with all that its plan answers, and what has to hold of it, by LAPACK's decomposition
 * of the matrix by definition. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_TEST_LOWRANK_CASE_H
#define LSP_TEST_LOWRANK_CASE_H

#include "linalg_case.h"
#include "operator_case.h"

#include <longspan/longspan.h>

/* ---- one run ------------------------------------------------------------------------------------- */

/* A plan executed, and its answers. */
typedef struct answer {
    result whole;
    lsp_lowrank_certificate certificate;
    lsp_lowrank_head *heads;
    double *values; /* [batch][heads][m][d_v], put together on every rank */
    lsp_verify_result verify;
    lsp_attention_stats stats;
} answer;

/* The blocks of values of this rank's runs, each in its place. */
static inline double *spread_values(lsp_context *c, const lsp_attention_desc *d, const lsp_attention *plan)
{
    const void *values = NULL;
    const lsp_run *runs;
    int64_t run_count, rows, block = 0;
    double *all = case_alloc(d->batch * d->heads * d->m * d->d_v, sizeof *all);
    assert_int_equal(lsp_lowrank_get_values(plan, &values), LSP_OK);
    lsp_attention_runs(plan, LSP_KEYS, &runs, &run_count, &rows);
    for (int64_t r = 0; r < run_count; r++)
        for (int64_t h = 0; h < d->heads; h++) {
            if (kv_head(d, h) != runs[r].head) continue;
            int64_t to = (runs[r].batch * d->heads + h) * d->m + runs[r].begin;
            lsp_convert_load(d->compute, values, block * d->d_v, runs[r].count * d->d_v, all + to * d->d_v);
            block += runs[r].count;
        }
    MPI_Allreduce(MPI_IN_PLACE, all, (int)(d->batch * d->heads * d->m * d->d_v), MPI_DOUBLE, MPI_SUM,
                  c->comm);
    return all;
}

/* Verification of the plan's own rows; damage is added to the first row of each rank. */
static inline lsp_verify_result verify(lsp_context *c, const lsp_attention_desc *d, const lsp_attention *plan,
                                       const void *q, const void *k, void *out, const void *lse,
                                       double damage)
{
    lsp_attention_desc checked = *d;
    lsp_verify_result verdict;
    const lsp_run *query_runs, *key_runs;
    int64_t query_run_count, key_run_count, rows, keys;
    const void *values;
    assert_int_equal(lsp_lowrank_get_values(plan, &values), LSP_OK);
    lsp_attention_runs(plan, LSP_QUERIES, &query_runs, &query_run_count, &rows);
    lsp_attention_runs(plan, LSP_KEYS, &key_runs, &key_run_count, &keys);
    checked.v_type = d->compute;
    if (d->compute == LSP_F64 && rows > 0) ((double *)out)[0] += damage;
    if (d->compute == LSP_F32 && rows > 0) ((float *)out)[0] += (float)damage;
    if (lsp_verify_attention(c, &checked, query_runs, query_run_count, key_runs, key_run_count, q, k, values,
                             out, lse, d->batch * d->heads * d->n, 0, 0, &verdict) != LSP_OK)
        fail_msg("%s", lsp_context_message(c));
    return verdict;
}

/* times: executions, of which the last counts. */
static inline answer must_run(lsp_context *c, const lsp_attention_desc *d, int times)
{
    answer a = {.certificate = {.heads = 0}};
    lsp_attention *plan = NULL;
    const lsp_run *runs, *key_runs;
    const lsp_lowrank_head *heads;
    int64_t run_count, rows, key_run_count, key_rows, count, element = (int64_t)lsp_dtype_size(d->compute);
    if (lsp_attention_create(c, d, &plan) != LSP_OK) fail_msg("%s", lsp_context_message(c));
    check_runs(c, d, plan, LSP_QUERIES);
    check_runs(c, d, plan, LSP_KEYS);
    assert_int_equal(lsp_lowrank_get_certificate(plan, &a.certificate), LSP_ERR_USAGE); /* not executed yet */
    lsp_attention_runs(plan, LSP_QUERIES, &runs, &run_count, &rows);
    lsp_attention_runs(plan, LSP_KEYS, &key_runs, &key_run_count, &key_rows);
    void *q = make_rows(d, ROLE_Q, runs, run_count, rows, NULL);
    void *k = make_rows(d, ROLE_K, key_runs, key_run_count, key_rows, NULL);
    void *v = make_rows(d, ROLE_V, key_runs, key_run_count, key_rows, NULL);
    void *out = case_alloc(rows * d->d_v, 8), *lse = case_alloc(rows, 8);
    for (int i = 0; i < times; i++)
        if (lsp_attention_execute(plan, q, k, v, out, lse, &a.stats) != LSP_OK)
            fail_msg("%s", lsp_context_message(c));
    a.whole = (result){.out_bytes = (size_t)(d->batch * d->heads * d->n * d->d_v * element),
                       .lse_bytes = (size_t)(d->batch * d->heads * d->n * element)};
    a.whole.out = case_alloc((int64_t)a.whole.out_bytes, 1);
    a.whole.lse = case_alloc((int64_t)a.whole.lse_bytes, 1);
    copy_runs(d, runs, run_count, out, d->d_v * element, a.whole.out);
    copy_runs(d, runs, run_count, lse, element, a.whole.lse);
    MPI_Allreduce(MPI_IN_PLACE, a.whole.out, (int)a.whole.out_bytes, MPI_BYTE, MPI_BOR, c->comm);
    MPI_Allreduce(MPI_IN_PLACE, a.whole.lse, (int)a.whole.lse_bytes, MPI_BYTE, MPI_BOR, c->comm);
    assert_int_equal(lsp_lowrank_get_certificate(plan, &a.certificate), LSP_OK);
    assert_int_equal(lsp_lowrank_get_heads(plan, &heads, &count), LSP_OK);
    assert_true(count == d->batch * d->heads && a.certificate.heads == count);
    a.heads = case_alloc(count, sizeof *a.heads);
    memcpy(a.heads, heads, (size_t)count * sizeof *a.heads);
    a.values = spread_values(c, d, plan);
    a.verify = verify(c, d, plan, q, k, out, lse, 0);
    assert_false(verify(c, d, plan, q, k, out, lse, 0.1).passed);
    free(q), free(k), free(v), free(out), free(lse);
    lsp_attention_destroy(&plan);
    return a;
}

static inline void free_answer(answer *a)
{
    free_result(&a->whole);
    free(a->heads);
    free(a->values);
}

/* ---- what holds for any matrix -------------------------------------------------------------------- */

/* w [n][m] times v [m][d_v]. */
static inline double *multiply(const double *w, const double *v, int64_t n, int64_t m, int64_t d_v)
{
    double *out = case_alloc(n * d_v, sizeof *out);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < m; j++)
            for (int64_t c = 0; w[i * m + j] != 0 && c < d_v; c++)
                out[i * d_v + c] += w[i * m + j] * v[j * d_v + c];
    return out;
}

/* Singular values of w [n][m], and with v, U_r S_r V_r^T v in *truncated. */
static inline double *decompose(const double *w, const double *v, int64_t n, int64_t m, int64_t d_v,
                                int64_t kept, double **truncated)
{
    int rows = (int)m, cols = (int)n, count = rows < cols ? rows : cols, work_size = 10 * (rows + cols) + 64,
        info;
    double *a = case_alloc(n * m, sizeof *a), *sigma = case_alloc(count, sizeof *sigma);
    double *u = case_alloc(m * count, sizeof *u), *vt = case_alloc(n * count, sizeof *vt);
    double *work = case_alloc(work_size, sizeof *work);
    memcpy(a, w,
           (size_t)(n * m) * sizeof *a); /* row-major W is column-major W^T = U S V^T: U are W's right ones */
    dgesvd_("S", "S", &rows, &cols, a, &rows, sigma, u, &rows, vt, &count, work, &work_size, &info, 1, 1);
    assert_int_equal(info, 0);
    *truncated = case_alloc(n * d_v, sizeof **truncated);
    for (int64_t r = 0; r < kept && r < count; r++)
        for (int64_t c = 0; c < d_v; c++) {
            double z = 0;
            for (int64_t j = 0; j < m; j++) z += u[r * m + j] * v[j * d_v + c];
            for (int64_t i = 0; i < n; i++) (*truncated)[i * d_v + c] += vt[i * count + r] * sigma[r] * z;
        }
    free(a), free(u), free(vt), free(work);
    return sigma;
}

static inline double *out_of(const lsp_attention_desc *d, const answer *a, int64_t matrix)
{
    double *out = case_alloc(d->n * d->d_v, sizeof *out);
    lsp_convert_load(d->compute, a->whole.out, matrix * d->n * d->d_v, d->n * d->d_v, out);
    return out;
}

static inline double distance(const double *a, const double *b, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++) sum += (a[i] - b[i]) * (a[i] - b[i]);
    return sqrt(sum);
}

/* Of the entries of a row's log-sum-exp, against the definition. */
static inline void check_lse(const lsp_attention_desc *one, const answer *a, int64_t matrix, const double *q,
                             const double *k)
{
    double *lse = case_alloc(one->n, sizeof *lse), *ones = case_alloc(one->m, sizeof *ones);
    lsp_attention_desc narrow = *one;
    narrow.d_v = 1;
    lsp_convert_load(one->compute, a->whole.lse, matrix * one->n, one->n, lse);
    for (int64_t i = one->row_begin; i < end_of(one->row_end, one->n); i++) {
        double out, expected;
        int64_t seen = define_row(&narrow, 0, 0, i, q, k, ones, &out, &expected);
        if (seen == 0)
            assert_true(isinf(lse[i]) && lse[i] < 0);
        else
            assert_true(fabs(lse[i] - expected) < (one->compute == LSP_F64 ? 1e-12 : 1e-5));
    }
    free(lse), free(ones);
}

/* ratio: how much worse than the best of that rank the matrix may be; 1: the output is that of LAPACK's. */
static inline void check_matrix(const lsp_attention_desc *d, const answer *a, const lsp_lowrank_head *h,
                                double ratio, const char *what)
{
    lsp_attention_desc one = *d;
    int64_t n = d->n, m = d->m, d_v = d->d_v, matrix = h->batch * d->heads + h->head, count = n < m ? n : m;
    double eps = d->compute == LSP_F64 ? 1e-12 : 5e-6, best = 0, *truncated;
    one.batch = one.heads = one.kv_heads = 1;
    one.kv_head_of = NULL;
    if (d->key_lengths) one.key_lengths = d->key_lengths + h->batch;
    if (d->alibi_slopes) one.alibi_slopes = d->alibi_slopes + h->head;
    double *q = make_matrix(d, ROLE_Q, h->batch, h->head),
           *k = make_matrix(d, ROLE_K, h->batch, kv_head(d, h->head));
    double *v = make_matrix(d, ROLE_V, h->batch, kv_head(d, h->head)), *w = dense_from(&one, q, k);
    double *exact = multiply(w, v, n, m, d_v), *out = out_of(d, a, matrix), norm = norm_of(w, n * m);
    double *by_values = multiply(w, a->values + matrix * m * d_v, n, m, d_v),
           size = norm_of(v, m * d_v) + 1e-300;
    double *sigma = decompose(w, v, n, m, d_v, h->rank, &truncated);
    for (int64_t r = h->rank; r < count; r++) best += sigma[r] * sigma[r];
    best = sqrt(best);
    const lsp_svd_certificate *c = &h->certificate;
    double error = distance(exact, out, n * d_v);
    if (!(error <= h->out_error_bound + eps * norm * size))
        fail_msg("%s: the output is off by %.6g, the bound is %.6g", what, error, h->out_error_bound);
    if (!(distance(out, by_values, n * d_v) <= eps * norm * size))
        fail_msg("%s: out is not W values: %.3g", what, distance(out, by_values, n * d_v) / norm / size);
    if (ratio == 1 && !(distance(out, truncated, n * d_v) <= 300 * eps * norm * size))
        fail_msg("%s: %.3g from LAPACK's output", what, distance(out, truncated, n * d_v) / norm / size);
    if (!(fabs(c->norm - norm) <= eps * norm)) fail_msg("%s: norm %.9g, it is %.9g", what, c->norm, norm);
    if (c->meaningful && !(c->frobenius_error <= 1.01 * ratio * best && c->frobenius_error >= 0.99 * best))
        fail_msg("%s: the certificate says %.6g, the best is %.6g", what, c->frobenius_error, best);
    if (!c->meaningful && !(best <= c->floor * norm))
        fail_msg("%s: the best error %.3g is above the floor %.3g", what, best / norm, c->floor);
    check_lse(&one, a, matrix, q, k);
    free(q), free(k), free(v), free(w), free(exact), free(out), free(by_values), free(truncated), free(sigma);
}

static inline void check_answer(const lsp_attention_desc *d, const answer *a, double ratio, const char *what)
{
    double error = 0, norm = 0, bound = 0;
    for (int64_t i = 0; i < a->certificate.heads; i++) {
        const lsp_lowrank_head *h = &a->heads[i];
        check_matrix(d, a, h, ratio, what);
        error += h->certificate.frobenius_error * h->certificate.frobenius_error;
        norm += h->certificate.norm * h->certificate.norm;
        bound += h->out_error_bound * h->out_error_bound;
        assert_true(h->rank <= a->certificate.rank && h->rank >= a->certificate.rank_least);
    }
    assert_true(fabs(a->certificate.whole.frobenius_error - sqrt(error)) <= 1e-12 * sqrt(norm));
    assert_true(fabs(a->certificate.whole.norm - sqrt(norm)) <= 1e-12 * sqrt(norm));
    assert_true(fabs(a->certificate.out_error_bound - sqrt(bound)) <= 1e-12 * sqrt(bound));
    if (!a->verify.passed)
        fail_msg("%s: verification: error %.3g of %.3g, lse %.3g", what, a->verify.max_rel_err,
                 a->verify.tolerance, a->verify.max_lse_err);
}

#endif
