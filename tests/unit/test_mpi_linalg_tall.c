/* QR of tall matrices cut over ranks in any way. SPDX-License-Identifier: BSD-3-Clause */
#include "mpi_case.h"

#include "base/checked.h"
#include "comm/rows.h"
#include "linalg/tall.h"
#include "linalg_case.h"

void dgeqrf_(const int *m, const int *n, double *a, const int *lda, double *tau, double *work,
             const int *lwork, int *info);

static lsp_context *ctx;
static lsp_grid grid;

/* How rows are cut over ranks. */
typedef enum cutting { EVEN, LAST_HAS_ALL, FIRST_HAS_FEW, UNEVEN, CUTTINGS } cutting;

static void cut_rows(cutting how, int64_t rows, int64_t *counts, int64_t *first)
{
    int64_t left = rows;
    for (int r = 0; r < ranks; r++) {
        int64_t share = rows / ranks;
        if (how == LAST_HAS_ALL) share = 0;
        if (how == FIRST_HAS_FEW) share = r == 0 ? 2 : rows / ranks;
        if (how == UNEVEN) share = rows * (r % 3) / (2 * ranks) + r % 2;
        counts[r] = r == ranks - 1 ? left : lsp_min(share, left);
        first[r] = rows - left;
        left -= counts[r];
    }
}

/* All of a matrix whose rows are cut, on every rank. */
static double *whole(const double *mine, int64_t rows, int64_t cols, const int64_t *counts,
                     const int64_t *first)
{
    double *all = zeros(rows * cols);
    int room[128];
    assert_true(ranks <= 64);
    assert_int_equal(
        lsp_rows_allgather(mine, all, counts, first, cols * (int64_t)sizeof *all, room, ctx->comm),
        MPI_SUCCESS);
    return all;
}

/* |R| by LAPACK: unique when A has full rank. */
static void compare_with_lapack(const double *a, int64_t rows, int64_t cols, const double *r)
{
    int m = (int)rows, n = (int)cols, info = 0, size = 64 * n;
    double *copy = zeros(rows * cols), *tau = zeros(cols), *work = zeros(size),
           norm = norm_of(a, rows * cols);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < cols; c++) copy[c * rows + i] = a[i * cols + c];
    dgeqrf_(&m, &n, copy, &m, tau, work, &size, &info);
    assert_int_equal(info, 0);
    for (int64_t i = 0; i < lsp_min(rows, cols); i++) {
        double sign = copy[i * rows + i] < 0 ? -1 : 1;
        for (int64_t c = i; c < cols; c++)
            assert_true(fabs(sign * copy[c * rows + i] - r[i * cols + c]) <= 1e-11 * norm);
    }
    free(copy);
    free(tau);
    free(work);
}

static void check_product(const double *a, const double *q, const double *r, int64_t rows, int64_t cols)
{
    double error = 0;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < cols; c++) {
            double sum = -a[i * cols + c];
            for (int64_t k = 0; k <= c; k++) sum += q[i * cols + k] * r[k * cols + c];
            error += sum * sum;
        }
    assert_true(sqrt(error) <= 1e-13 * norm_of(a, rows * cols));
}

static void check_qr(kind k, cutting how, int64_t rows, int64_t cols)
{
    int64_t counts[64], first[64], width = lsp_min(rows, cols);
    assert_true(ranks <= 64);
    cut_rows(how, rows, counts, first);
    double *a = make_entries(k, 0, rows, cols), *r = zeros(cols * cols);
    double *mine = make_entries(k, first[rank], first[rank] + counts[rank], cols);
    assert_int_equal(lsp_tall_qr(&grid, counts[rank], cols, mine, r), LSP_OK);
    assert_same_everywhere(ctx, r, cols * cols);
    for (int64_t i = 0; i < cols; i++)
        for (int64_t c = 0; c < cols; c++)
            if (c < i || i >= width)
                assert_true(r[i * cols + c] == 0);
            else if (c == i)
                assert_true(r[i * cols + c] >= 0);
    double *q = whole(mine, rows, cols, counts, first);
    double off = departure(q, rows, cols, width);
    if (!(off <= 1e-13))
        fail_msg("kind %d, cutting %d, %d x %d: Q departs by %g", (int)k, (int)how, (int)rows, (int)cols,
                 off);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = width; c < cols; c++) assert_true(q[i * cols + c] == 0);
    if (k != ZERO) check_product(a, q, r, rows, cols);
    if (k == RANDOM) compare_with_lapack(a, rows, cols, r);
    free(a);
    free(r);
    free(mine);
    free(q);
}

/* All kinds of matrices, cut in all ways; each with one size when ranks are many and cores are few. */
static void check_all(const int64_t sizes[][2], int count)
{
    for (int k = 0; k < KINDS; k++)
        for (int how = 0; how < CUTTINGS; how++)
            for (int s = 0; s < count; s++)
                if (ranks <= 3 || s == (k + how) % count)
                    check_qr((kind)k, (cutting)how, sizes[s][0], sizes[s][1]);
}

static void q_is_orthonormal_and_qr_is_a(void **state)
{
    (void)state;
    const int64_t sizes[][2] = {{200, 1}, {97, 5}, {300, 33}, {150, 64}, {131, 70}};
    check_all(sizes, (int)(sizeof sizes / sizeof *sizes));
}

static void fewer_rows_than_columns(void **state)
{
    (void)state;
    const int64_t sizes[][2] = {{1, 1}, {1, 8}, {2, 40}, {13, 14}, {39, 40}, {20, 70}};
    check_all(sizes, (int)(sizeof sizes / sizeof *sizes));
}

/* Several blocks of rows in a rank, and several levels of them. */
static void trees_of_blocks(void **state)
{
    (void)state;
    check_qr(RANDOM, EVEN, 512 * (int64_t)ranks * 3 + 11, 9);
    check_qr(RANDOM, UNEVEN, 5000, 20);
    check_qr(TWINS, LAST_HAS_ALL, 5003, 20);
    check_qr(LOW_RANK, LAST_HAS_ALL, 27001, 20); /* 52 blocks, whose triangles are 2, then 1 */
}

static void no_rows_at_all(void **state)
{
    (void)state;
    double r[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
    assert_int_equal(lsp_tall_qr(&grid, 0, 3, NULL, r), LSP_OK);
    for (int i = 0; i < 9; i++) assert_true(r[i] == 0);
}

static void bits_repeat_whatever_the_threads(void **state)
{
    (void)state;
    enum { COLS = 24 };
    int64_t rows = 3000 + 7 * rank;
    double *expected = make_entries(RANDOM, rank * 5000, rank * 5000 + rows, COLS),
           *again = zeros(rows * COLS);
    double r[COLS * COLS], r_again[COLS * COLS];
    memcpy(again, expected, (size_t)(rows * COLS) * sizeof *again);
    double *kept = zeros(rows * COLS);
    memcpy(kept, expected, (size_t)(rows * COLS) * sizeof *kept);
    assert_int_equal(lsp_tall_qr(&grid, rows, COLS, expected, r), LSP_OK);
    for (int threads = 1; threads <= 3; threads++) {
        lsp_context *other = NULL;
        lsp_grid other_grid;
        lsp_context_options options = {.threads = threads};
        assert_int_equal(lsp_context_create(MPI_COMM_WORLD, &options, &other, NULL, 0), LSP_OK);
        assert_int_equal(lsp_grid_create(other, ranks, 1, &other_grid), LSP_OK);
        memcpy(again, kept, (size_t)(rows * COLS) * sizeof *again);
        assert_int_equal(lsp_tall_qr(&other_grid, rows, COLS, again, r_again), LSP_OK);
        assert_memory_equal(again, expected, (size_t)(rows * COLS) * sizeof *again);
        assert_memory_equal(r_again, r, sizeof r);
        lsp_grid_destroy(&other_grid);
        lsp_context_destroy(&other);
    }
    free(expected);
    free(again);
    free(kept);
}

static void bad_sizes_are_refused_on_all_ranks(void **state)
{
    (void)state;
    double a[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    lsp_grid other;
    assert_int_equal(lsp_tall_qr(&grid, rank == ranks - 1 ? -1 : 1, 2, a, NULL), LSP_ERR_USAGE);
    assert_non_null(strstr(lsp_context_message(ctx), "-1 rows"));
    assert_int_equal(lsp_tall_qr(&grid, 1, 0, a, NULL), LSP_ERR_USAGE);
    assert_int_equal(lsp_tall_qr(&grid, 1, INT64_C(1) << 40, a, NULL), LSP_ERR_USAGE);
    if (ranks > 1) {
        assert_int_equal(lsp_tall_qr(&grid, 1, rank == 0 ? 2 : 3, a, NULL), LSP_ERR_USAGE);
        assert_non_null(strstr(lsp_context_message(ctx), "2 to 3 columns"));
        assert_int_equal(lsp_grid_create(ctx, 1, ranks, &other), LSP_OK);
        assert_int_equal(lsp_tall_qr(&other, 1, 2, a, NULL), LSP_ERR_USAGE);
        lsp_grid_destroy(&other);
    }
    for (int i = 0; i < 8; i++) assert_true(a[i] == i + 1);
}

static void bytes_are_what_is_allocated(void **state)
{
    (void)state;
    const int64_t rows = 4000, cols = 40;
    double *a = make_entries(RANDOM, 0, rows, cols);
    int64_t before = lsp_memory_now(), most_before = lsp_memory_most();
    assert_int_equal(lsp_tall_qr(&grid, rows, cols, a, NULL), LSP_OK);
    assert_int_equal(lsp_memory_now(), before);
    int64_t used = lsp_memory_most() - before;
    if (lsp_memory_most() > most_before) /* small rounding of each block, and tables by rank */
        assert_true(used <= lsp_tall_qr_bytes(rows, cols, ctx->layout.threads) + 20000 + 300 * ranks);
    free(a);
}

static int set_up(void **state)
{
    (void)state;
    return lsp_grid_create(ctx, ranks, 1, &grid) == LSP_OK ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    lsp_grid_destroy(&grid);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_what_is_allocated),
        cmocka_unit_test(q_is_orthonormal_and_qr_is_a),
        cmocka_unit_test(fewer_rows_than_columns),
        cmocka_unit_test(trees_of_blocks),
        cmocka_unit_test(no_rows_at_all),
        cmocka_unit_test(bits_repeat_whatever_the_threads),
        cmocka_unit_test(bad_sizes_are_refused_on_all_ranks),
    };
    const test_context contexts[] = {{&ctx, 1, false}};
    return RUN_OVER_RANKS("tall", tests, contexts, set_up, tear_down);
}
