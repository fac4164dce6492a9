/* The full SVD in block-cyclic layout, over ranks. SPDX-License-Identifier: BSD-3-Clause */
#include "mpi_case.h"

#include "base/checked.h"
#include "linalg/full_svd.h"
#include "linalg_case.h"

static lsp_context *ctx;

static void fill(lsp_full_svd *svd, kind k, double factor)
{
    for (int64_t c = 0; c < svd->matrix.local_cols; c++)
        for (int64_t r = 0; r < svd->matrix.local_rows; r++)
            svd->w[c * svd->matrix.lead + r] =
                factor * entry(k, lsp_cyclic_row(&svd->matrix, r), lsp_cyclic_col(&svd->matrix, c));
}

static lsp_full_svd *make_svd(kind k, int64_t rows, int64_t cols, bool vectors)
{
    lsp_full_svd *svd = NULL;
    assert_int_equal(lsp_full_svd_create(ctx, rows, cols, vectors, 0, 0, &svd), LSP_OK);
    assert_non_null(svd);
    fill(svd, k, 1);
    return svd;
}

/* Singular values within 1e-10 of LAPACK's, and within rounding of the largest. */
static void check_sigma(const double *sigma, const double *expected, int64_t count, double factor)
{
    for (int64_t i = 0; i < count; i++) {
        double off = fabs(sigma[i] / factor - expected[i]);
        assert_true(off <= 1e-13 * expected[0]);
        if (expected[i] > 1e-4 * expected[0]) assert_true(off <= 1e-10 * expected[i]);
        assert_true(i == 0 || sigma[i] <= sigma[i - 1]);
    }
    assert_same_everywhere(ctx, sigma, count);
}

static void check_vectors(const lsp_full_svd *svd, const double *a, double largest)
{
    int64_t rows = svd->rows, cols = svd->cols, count = svd->count;
    double *u = zeros(rows * count), *vt = zeros(count * cols), *v = zeros(cols * count);
    assert_int_equal(lsp_full_svd_u_rows(svd, 0, rows, count, u), LSP_OK);
    assert_int_equal(lsp_full_svd_vt_cols(svd, 0, cols, count, vt), LSP_OK);
    for (int64_t i = 0; i < count; i++)
        for (int64_t c = 0; c < cols; c++) v[c * count + i] = vt[i * cols + c];
    assert_true(departure(u, rows, count, count) < 1e-12);
    assert_true(departure(v, cols, count, count) < 1e-12);
    double worst = 0;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++) {
            double sum = -a[r * cols + c];
            for (int64_t i = 0; i < count; i++) sum += u[r * count + i] * svd->sigma[i] * v[c * count + i];
            worst = fmax(worst, fabs(sum));
        }
    assert_true(worst <= 1e-12 * fmax(largest, 1));
    for (int64_t i = 0; i < count; i++) {
        int64_t top = 0;
        for (int64_t c = 1; c < cols; c++)
            if (fabs(vt[i * cols + c]) > fabs(vt[i * cols + top])) top = c;
        assert_true(vt[i * cols + top] > 0);
    }
    /* A part, other on every rank, and truncated. */
    int64_t keep = lsp_min(count, 5), begin = rows * rank / (ranks + 1), end = lsp_min(rows, begin + rank);
    double *part = zeros((end - begin) * keep);
    assert_int_equal(lsp_full_svd_u_rows(svd, begin, end, keep, part), LSP_OK);
    for (int64_t r = begin; r < end; r++)
        for (int64_t i = 0; i < keep; i++) assert_true(part[(r - begin) * keep + i] == u[r * count + i]);
    free(part);
    int64_t from = cols * rank / ranks, to = cols * (rank + 1) / ranks;
    part = zeros((to - from) * keep);
    assert_int_equal(lsp_full_svd_vt_cols(svd, from, to, keep, part), LSP_OK);
    for (int64_t i = 0; i < keep; i++)
        for (int64_t c = from; c < to; c++) assert_true(part[i * (to - from) + c - from] == vt[i * cols + c]);
    free(part);
    free(u);
    free(vt);
    free(v);
}

static void check_svd(kind k, int64_t rows, int64_t cols)
{
    double *a = make_entries(k, 0, rows, cols), *expected = oracle_sigma(a, rows, cols);
    double norm = norm_of(a, rows * cols);
    for (int vectors = 0; vectors < 2; vectors++) {
        lsp_full_svd *svd = make_svd(k, rows, cols, vectors);
        assert_int_equal(lsp_full_svd_execute(svd), LSP_OK);
        assert_int_equal(svd->count, lsp_min(rows, cols));
        check_sigma(svd->sigma, expected, svd->count, 1);
        assert_true(fabs(svd->frobenius_squared - norm * norm) <= 1e-13 * norm * norm);
        if (vectors) check_vectors(svd, a, expected[0]);
        lsp_full_svd_destroy(&svd);
        assert_null(svd);
    }
    free(a);
    free(expected);
}

static void full_svd_agrees_with_lapack(void **state)
{
    (void)state;
    const int64_t sizes[][2] = {{1, 1},   {1, 9},    {3, 3},   {3, 5}, {40, 3},
                                {64, 64}, {131, 77}, {70, 140}}; /* fewer rows and columns than ranks too */
    for (int k = 0; k < KINDS; k++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
            check_svd((kind)k, sizes[s][0], sizes[s][1]);
    check_svd(SOFTMAX, 233, 210);
}

static void bits_repeat_on_one_grid(void **state)
{
    (void)state;
    enum { N = 150, M = 121 };
    double first_sigma[M], *u[2] = {zeros(N * M), zeros(N * M)}, *vt[2] = {zeros(M * M), zeros(M * M)};
    for (int run = 0; run < 5; run++) {
        lsp_full_svd *svd = make_svd(SOFTMAX, N, M, true);
        assert_int_equal(lsp_full_svd_execute(svd), LSP_OK);
        int at = run > 0;
        assert_int_equal(lsp_full_svd_u_rows(svd, 0, N, M, u[at]), LSP_OK);
        assert_int_equal(lsp_full_svd_vt_cols(svd, 0, M, M, vt[at]), LSP_OK);
        if (run == 0) memcpy(first_sigma, svd->sigma, sizeof first_sigma);
        assert_memory_equal(svd->sigma, first_sigma, sizeof first_sigma);
        if (run > 0) {
            assert_memory_equal(u[0], u[1], N * M * sizeof(double));
            assert_memory_equal(vt[0], vt[1], M * M * sizeof(double));
        }
        lsp_full_svd_destroy(&svd);
    }
    for (int i = 0; i < 2; i++) {
        free(u[i]);
        free(vt[i]);
    }
}

/* Far from 1: squares would overflow or vanish. */
static void scales_do_not_matter(void **state)
{
    (void)state;
    const double factors[] = {0x1p-1000, 0x1p-400, 0x1p300, 0x1p900};
    double *a = make_entries(RANDOM, 0, 45, 38), *expected = oracle_sigma(a, 45, 38);
    for (int f = 0; f < 4; f++) {
        lsp_full_svd *svd = make_svd(RANDOM, 45, 38, true);
        fill(svd, RANDOM, factors[f]);
        assert_int_equal(lsp_full_svd_execute(svd), LSP_OK);
        check_sigma(svd->sigma, expected, 38, factors[f]);
        lsp_full_svd_destroy(&svd);
    }
    free(a);
    free(expected);
}

static void non_finite_values_are_counted(void **state)
{
    (void)state;
    const double bad[] = {NAN, INFINITY, -INFINITY};
    for (int b = 0; b < 3; b++) {
        lsp_full_svd *svd = make_svd(RANDOM, 80, 70, true);
        for (int64_t c = 0; c < svd->matrix.local_cols; c++)
            for (int64_t r = 0; r < svd->matrix.local_rows; r++) {
                int64_t i = lsp_cyclic_row(&svd->matrix, r), j = lsp_cyclic_col(&svd->matrix, c);
                if ((i == 35 && j > 66) || (i == 60 && j == 2)) svd->w[c * svd->matrix.lead + r] = bad[b];
            }
        assert_int_equal(lsp_full_svd_execute(svd), LSP_ERR_CONTENT);
        assert_non_null(strstr(lsp_context_message(ctx), "4 values of the 80 x 70"));
        assert_non_null(strstr(lsp_context_message(ctx), "row 35, column 67"));
        lsp_full_svd_destroy(&svd);
    }
}

/* ---- limits -------------------------------------------------------------------------------------- */

static void sizes_are_counted_in_64_bits(void **state)
{
    (void)state;
    lsp_full_svd_size size;
    lsp_error error = {0};
    /* One rank: everything whole. 6 max(n, m) is within work. */
    assert_int_equal(lsp_full_svd_measure(1000, 400, 1, true, &size, &error), LSP_OK);
    assert_int_equal(size.matrix, 400000);
    assert_int_equal(size.u, 400000);
    assert_int_equal(size.vt, 160000);
    assert_true(size.work >= 6 * 1000 + 400 * 1400);
    assert_true(size.bytes >= 8 * (960000 + size.work));
    /* 2 x 2 grid: blocks of 32 dealt in turn, 512 rows and 208 columns on the first. */
    assert_int_equal(lsp_full_svd_measure(1000, 400, 4, false, &size, &error), LSP_OK);
    assert_int_equal(size.matrix, 512 * 208);
    assert_int_equal(size.u, 0);
    /* The matrix fits in int, the work for both kinds of vectors does not. */
    assert_int_equal(lsp_full_svd_measure(40000, 40000, 1, false, &size, &error), LSP_OK);
    assert_int_equal(lsp_full_svd_measure(40000, 40000, 1, true, &size, &error), LSP_ERR_LIMIT);
    assert_non_null(strstr(error.text, "40000 x 40000"));
    assert_non_null(strstr(error.text, "1600000000 elements"));
    assert_int_equal(lsp_full_svd_measure(40000, 40000, 16, true, &size, &error), LSP_OK);
    assert_int_equal(lsp_full_svd_measure(INT64_C(1) << 40, INT64_C(1) << 40, 4, true, &size, &error),
                     LSP_ERR_LIMIT);
    assert_int_equal(lsp_full_svd_measure(10000000, 10000000, 64, false, &size, &error), LSP_ERR_LIMIT);
    assert_int_equal(lsp_full_svd_measure(0, 5, 4, true, &size, &error), LSP_ERR_USAGE);
}

static void memory_is_checked_before_it_is_taken(void **state)
{
    (void)state;
    lsp_full_svd *svd = NULL;
    lsp_full_svd_size size;
    assert_int_equal(lsp_full_svd_measure(300, 200, ranks, true, &size, NULL), LSP_OK);
    int64_t before = lsp_memory_now(), limit = size.bytes * ctx->layout.node_ranks;
    assert_int_equal(lsp_full_svd_create(ctx, 300, 200, true, 0, limit - 1, &svd), LSP_ERR_LIMIT);
    assert_null(svd);
    char text[40];
    (void)snprintf(text, sizeof text, "may use %lld together", (long long)limit - 1);
    assert_non_null(strstr(lsp_context_message(ctx), text));
    (void)snprintf(text, sizeof text, "needs %lld bytes", (long long)size.bytes);
    assert_non_null(strstr(lsp_context_message(ctx), text));
    assert_int_equal(lsp_full_svd_create(ctx, 300, 200, true, 1, limit, &svd), LSP_ERR_LIMIT);
    assert_true(lsp_memory_now() == before);
    assert_int_equal(lsp_full_svd_create(ctx, 300, 200, true, 0, limit, &svd), LSP_OK);
    assert_true(lsp_memory_now() - before <= size.bytes + 2000);
    lsp_full_svd_destroy(&svd);
    assert_int_equal(lsp_full_svd_create(ctx, INT64_C(1) << 32, 5, true, 0, 0, &svd), LSP_ERR_LIMIT);
    assert_null(svd);
    assert_int_equal(lsp_full_svd_create(ctx, 0, 5, true, 0, 0, &svd), LSP_ERR_USAGE);
    assert_true(lsp_memory_now() == before);
    lsp_full_svd_destroy(&svd);
}

/* ---- what is believed ------------------------------------------------------------------------------ */

static void failures_of_pdgesvd_are_told(void **state)
{
    (void)state;
    const double good[3] = {3, 2, 1}, order[3] = {3, 1, 2}, negative[3] = {3, 2, -1}, nan[3] = {NAN, 2, 1};
    lsp_error error = {0};
    assert_int_equal(lsp_full_svd_believe(0, 5, 3, good, 14, &error), LSP_OK);
    assert_int_equal(lsp_full_svd_believe(0, 3, 5, good, 14 * (1 + 1e-13), &error), LSP_OK);
    assert_int_equal(lsp_full_svd_believe(-8, 5, 3, good, 14, &error), LSP_ERR_RANK);
    assert_non_null(strstr(error.text, "argument 8"));
    assert_int_equal(lsp_full_svd_believe(2, 5, 3, good, 14, &error), LSP_ERR_VERIFY);
    assert_non_null(strstr(error.text, "did not converge: 2 superdiagonals"));
    assert_int_equal(lsp_full_svd_believe(4, 5, 3, good, 14, &error), LSP_ERR_VERIFY);
    assert_non_null(strstr(error.text, "different singular values"));
    assert_int_equal(lsp_full_svd_believe(0, 5, 3, order, 14, &error), LSP_ERR_VERIFY);
    assert_int_equal(lsp_full_svd_believe(0, 5, 3, negative, 14, &error), LSP_ERR_VERIFY);
    assert_int_equal(lsp_full_svd_believe(0, 5, 3, nan, 14, &error), LSP_ERR_VERIFY);
    assert_int_equal(lsp_full_svd_believe(0, 5, 3, good, 14.0001, &error), LSP_ERR_VERIFY);
    assert_non_null(strstr(error.text, "add up to 14,"));
    assert_non_null(strstr(error.text, "14.0001"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(full_svd_agrees_with_lapack),
        cmocka_unit_test(bits_repeat_on_one_grid),
        cmocka_unit_test(scales_do_not_matter),
        cmocka_unit_test(non_finite_values_are_counted),
        cmocka_unit_test(sizes_are_counted_in_64_bits),
        cmocka_unit_test(memory_is_checked_before_it_is_taken),
        cmocka_unit_test(failures_of_pdgesvd_are_told),
    };
    const test_context contexts[] = {{&ctx, 0, false}};
    return RUN_OVER_RANKS("full svd", tests, contexts, NULL, NULL);
}
