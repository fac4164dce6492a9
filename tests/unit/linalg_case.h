/* For tests of dense linear algebra: matrices that any rank can make entry by entry, and LAPACK on one rank
 * for an oracle. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_TEST_LINALG_CASE_H
#define LSP_TEST_LINALG_CASE_H

#include "mpi_case.h"

void dgesvd_(const char *job_u, const char *job_vt, const int *m, const int *n, double *a, const int *lda,
             double *s, double *u, const int *ldu, double *vt, const int *ldvt, double *work,
             const int *lwork, int *info, size_t job_u_length, size_t job_vt_length);

typedef enum kind { RANDOM, LOW_RANK, GRADED, TWINS, ZERO, SOFTMAX, KINDS } kind;

/* Uniform in [-1, 1), from the mixing steps of splitmix64: any entry at once, and cheap. */
static inline double number(uint64_t stream, int64_t i, int64_t j)
{
    uint64_t x = (stream << 56) ^ ((uint64_t)i << 24) ^ (uint64_t)j;
    x = (x + 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    x = (x ^ (x >> 31)) * 0xbf58476d1ce4e5b9u;
    return (double)(int64_t)(x ^ (x >> 30)) * 0x1p-63;
}

/* Entry (i, j). LOW_RANK: rank 3. GRADED: columns from 1 down to 1e-14. TWINS: equal columns, and rows of
 * zeros. SOFTMAX: positive, not normalised. */
static inline double entry(kind k, int64_t i, int64_t j)
{
    switch (k) {
    case RANDOM: return number(1, i, j);
    case LOW_RANK: {
        double sum = 0;
        for (int64_t r = 0; r < 3; r++) sum += number(2, i, r) * number(3, j, r);
        return sum;
    }
    case GRADED: return number(1, i, j) * pow(10, -(double)(j % 15));
    case TWINS: return i % 3 == 0 ? 0 : number(1, i, j / 2);
    case SOFTMAX: return exp(number(1, i, j));
    default: return 0;
    }
}

static inline double *zeros(int64_t count)
{
    return case_alloc(count, sizeof(double));
}

/* Rows [begin, end), row-major. */
static inline double *make_entries(kind k, int64_t begin, int64_t end, int64_t cols)
{
    double *a = zeros((end - begin) * cols);
    for (int64_t i = begin; i < end; i++)
        for (int64_t j = 0; j < cols; j++) a[(i - begin) * cols + j] = entry(k, i, j);
    return a;
}

/* Singular values by LAPACK's dgesvd, descending. */
static inline double *oracle_sigma(const double *a, int64_t rows, int64_t cols)
{
    int m = (int)cols, n = (int)rows, one = 1, info = 0, size = 20 * (m + n) + 100;
    double *copy = zeros(rows * cols), *sigma = zeros(m + n), *work = zeros(size), none = 0;
    memcpy(copy, a, (size_t)(rows * cols) * sizeof *a);
    dgesvd_("N", "N", &m, &n, copy, &m, sigma, &none, &one, &none, &one, work, &size, &info, 1, 1);
    assert_int_equal(info, 0);
    free(copy);
    free(work);
    return sigma;
}

/* Largest |A^T A - I| over the first `count` columns of a row-major matrix. */
static inline double departure(const double *a, int64_t rows, int64_t cols, int64_t count)
{
    double worst = 0;
    for (int64_t i = 0; i < count; i++)
        for (int64_t j = 0; j <= i; j++) {
            double sum = i == j ? -1 : 0;
            for (int64_t r = 0; r < rows; r++) sum += a[r * cols + i] * a[r * cols + j];
            worst = fmax(worst, fabs(sum));
        }
    return worst;
}

/* The same bits on every rank. */
static inline void assert_same_everywhere(lsp_context *ctx, const double *values, int64_t count)
{
    double *first = zeros(count);
    memcpy(first, values, (size_t)count * sizeof *values);
    assert_int_equal(lsp_context_broadcast(ctx, 0, first, count * (int64_t)sizeof *first), LSP_OK);
    assert_memory_equal(first, values, (size_t)count * sizeof *values);
    free(first);
}

static inline double norm_of(const double *a, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++) sum += a[i] * a[i];
    return sqrt(sum);
}

#endif
