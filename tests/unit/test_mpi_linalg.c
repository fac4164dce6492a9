/* Process grids, block-cyclic matrices and the SVD of small ones, over ranks.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "mpi_case.h"

#include "base/checked.h"
#include "comm/rows.h"
#include "linalg/cyclic.h"
#include "linalg/fortran.h"
#include "linalg/small_svd.h"
#include "linalg_case.h"

static lsp_context *ctx;

/* ---- grids --------------------------------------------------------------------------------------- */

static void shapes_are_nearly_square(void **state)
{
    (void)state;
    const int expected[][3] = {{1, 1, 1},
                               {2, 1, 2},
                               {3, 1, 3},
                               {4, 2, 2},
                               {5, 2, 2},
                               {6, 2, 3},
                               {7, 2, 3},
                               {8, 2, 4},
                               {9, 3, 3},
                               {1000, 31, 32},
                               {INT32_MAX, 46340, 46341}};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        int rows = 0, cols = 0;
        lsp_grid_shape(expected[i][0], &rows, &cols);
        assert_int_equal(rows, expected[i][1]);
        assert_int_equal(cols, expected[i][2]);
    }
}

static void grids_come_and_go(void **state)
{
    (void)state;
    for (int repeat = 0; repeat < 40;
         repeat++) /* BLACS' tables grow and shrink, MPI's communicators are freed */
        for (int rows = 1; rows <= ranks; rows++) {
            lsp_grid grid;
            int cols = ranks / rows;
            assert_int_equal(lsp_grid_create(ctx, rows, cols, &grid), LSP_OK);
            assert_int_equal(lsp_grid_inside(&grid), rank < rows * cols);
            if (rank < rows * cols) {
                assert_int_equal(grid.row, rank / cols);
                assert_int_equal(grid.col, rank % cols);
                int repeats = 0;
                Cblacs_get(grid.blacs, LSP_BLACS_TOPS_REPEAT, &repeats);
                assert_int_equal(repeats, 1);
            } else {
                assert_int_equal(grid.blacs, -1);
            }
            assert_int_equal(lsp_grid_verdict(&grid, "nothing"), LSP_OK);
            lsp_grid_destroy(&grid);
            assert_int_equal(grid.blacs, -1);
            lsp_grid_destroy(&grid);
        }
}

static void grids_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    const int shapes[][2] = {{0, 1}, {1, 0}, {-1, -1}, {ranks + 1, 1}, {ranks, 2}, {65536, 65536}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        lsp_grid grid;
        assert_int_equal(lsp_grid_create(ctx, shapes[i][0], shapes[i][1], &grid), LSP_ERR_USAGE);
        char text[40];
        (void)snprintf(text, sizeof text, "%d x %d", shapes[i][0], shapes[i][1]);
        assert_non_null(strstr(lsp_context_message(ctx), text));
        assert_false(lsp_grid_inside(&grid));
        lsp_grid_destroy(&grid);
    }
}

/* ---- block-cyclic layout --------------------------------------------------------------------------- */

static void counts_are_those_of_dealing_one_by_one(void **state)
{
    (void)state;
    for (int64_t block = 1; block <= 7; block += 2)
        for (int places = 1; places <= 4; places++)
            for (int place = 0; place < places; place++) {
                int64_t counted = 0;
                for (int64_t size = 0; size < 60; size++) {
                    assert_int_equal(lsp_cyclic_count(size, block, place, places), counted);
                    counted += size / block % places == place;
                }
            }
}

static void what_int_cannot_count_is_refused(void **state)
{
    (void)state;
    lsp_grid grid;
    lsp_cyclic matrix;
    assert_int_equal(lsp_grid_create(ctx, 1, 1, &grid), LSP_OK);
    assert_int_equal(lsp_cyclic_init(&grid, 46340, 46340, 32, 32, &matrix), LSP_OK); /* 2^31 - 88048 */
    assert_int_equal(lsp_cyclic_init(&grid, 46341, 46341, 32, 32, &matrix), LSP_ERR_LIMIT);
    assert_non_null(strstr(lsp_context_message(ctx), "46341 x 46341"));
    assert_non_null(strstr(lsp_context_message(ctx), "2147483647"));
    assert_int_equal(lsp_cyclic_init(&grid, INT64_MAX / 2, 4, 32, 32, &matrix), LSP_ERR_LIMIT);
    assert_int_equal(lsp_cyclic_init(&grid, 1, INT64_C(1) << 32, 32, 32, &matrix), LSP_ERR_LIMIT);
    assert_int_equal(lsp_cyclic_init(&grid, -1, 1, 32, 32, &matrix), LSP_ERR_USAGE);
    assert_int_equal(lsp_cyclic_init(&grid, 1, 1, 0, 32, &matrix), LSP_ERR_USAGE);
    lsp_grid_destroy(&grid);
}

/* Rank r's rows, in any sizes: 0 of some. */
static int64_t cut(int64_t rows, int at)
{
    int64_t weight = 0, total = 0;
    for (int r = 0; r < ranks; r++) {
        total += (r * 5 + 2) % 7;
        if (r < at) weight += (r * 5 + 2) % 7;
    }
    return rows * weight / total;
}

static void check_moves(const lsp_grid *grid, int64_t rows, int64_t cols, int64_t row_block,
                        int64_t col_block)
{
    lsp_cyclic m;
    assert_int_equal(lsp_cyclic_init(grid, rows, cols, row_block, col_block, &m), LSP_OK);
    double *local = zeros(lsp_cyclic_elements(&m));
    lsp_block mine = {cut(rows, rank), cut(rows, rank + 1), 0, cols};
    double *rows_in = make_entries(RANDOM, mine.row_begin, mine.row_end, cols);
    assert_int_equal(lsp_cyclic_deal(&m, &mine, rows_in, local), LSP_OK);
    for (int64_t c = 0; c < m.local_cols; c++)
        for (int64_t r = 0; r < m.local_rows; r++)
            assert_true(local[c * m.lead + r] == entry(RANDOM, lsp_cyclic_row(&m, r), lsp_cyclic_col(&m, c)));
    /* Blocks that overlap between ranks. */
    lsp_block wanted = {rows / 3, lsp_max(rows / 3, rows - rank), rank % (cols + 1), cols};
    int64_t width = wanted.col_end - wanted.col_begin, height = wanted.row_end - wanted.row_begin;
    double *block = zeros(width * height);
    assert_int_equal(lsp_cyclic_collect(&m, local, &wanted, block), LSP_OK);
    for (int64_t r = 0; r < height; r++)
        for (int64_t c = 0; c < width; c++)
            assert_true(block[r * width + c] == entry(RANDOM, wanted.row_begin + r, wanted.col_begin + c));
    free(local);
    free(rows_in);
    free(block);
}

static void blocks_go_to_the_grid_and_back(void **state)
{
    (void)state;
    const int64_t limits[] = {0, 50};
    for (int l = 0; l < 2; l++)
        for (int rows = 1; rows <= ranks; rows++) {
            lsp_rows_set_limit(limits[l]);
            lsp_grid grid;
            assert_int_equal(lsp_grid_create(ctx, rows, ranks / rows, &grid), LSP_OK);
            check_moves(&grid, 37, 23, 4, 3);
            check_moves(&grid, 1, 1, 32, 32);
            check_moves(&grid, 5, 64, 1, 1);
            check_moves(&grid, 70, 2, 32, 32);
            lsp_grid_destroy(&grid);
        }
    lsp_rows_set_limit(0);
}

static void blocks_outside_are_refused_on_all_ranks(void **state)
{
    (void)state;
    lsp_grid grid;
    lsp_cyclic m;
    double values[100] = {0}, local[100] = {0};
    assert_int_equal(lsp_grid_create(ctx, ranks, 1, &grid), LSP_OK);
    assert_int_equal(lsp_cyclic_init(&grid, 9, 9, 2, 2, &m), LSP_OK);
    lsp_block mine = {0, rank == ranks - 1 ? 10 : 9, 0, 9};
    assert_int_equal(lsp_cyclic_collect(&m, local, &mine, values), LSP_ERR_USAGE);
    assert_non_null(strstr(lsp_context_message(ctx), "rows 0:10"));
    lsp_grid_destroy(&grid);
}

/* ---- the SVD of small matrices ----------------------------------------------------------------------- */

static void check_small(kind k, int64_t rows, int64_t cols)
{
    int64_t count = lsp_min(rows, cols);
    double *a = make_entries(k, 0, rows, cols), *expected = oracle_sigma(a, rows, cols);
    double *sigma = zeros(count), *u = zeros(rows * count), *vt = zeros(count * cols), *alone = zeros(count);
    if (rank > 0) a[0] += 1; /* the first rank's is meant */
    assert_int_equal(lsp_small_svd(ctx, rows, cols, a, sigma, u, vt), LSP_OK);
    if (rank > 0) a[0] = entry(k, 0, 0);
    assert_same_everywhere(ctx, sigma, count);
    assert_same_everywhere(ctx, u, rows * count);
    assert_same_everywhere(ctx, vt, count * cols);
    for (int64_t i = 0; i < count; i++) {
        assert_true(fabs(sigma[i] - expected[i]) <= 1e-13 * expected[0]);
        assert_true(i == 0 || sigma[i] <= sigma[i - 1]);
        int64_t largest = 0;
        for (int64_t c = 1; c < cols; c++)
            if (fabs(vt[i * cols + c]) > fabs(vt[i * cols + largest])) largest = c;
        assert_true(vt[i * cols + largest] > 0);
    }
    assert_true(departure(u, rows, count, count) < 1e-13);
    double error = 0;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++) {
            double sum = 0;
            for (int64_t i = 0; i < count; i++) sum += u[r * count + i] * sigma[i] * vt[i * cols + c];
            error = fmax(error, fabs(sum - a[r * cols + c]));
        }
    assert_true(error <= 1e-13 * fmax(1, expected[0]));
    assert_int_equal(lsp_small_svd(ctx, rows, cols, a, alone, NULL, NULL), LSP_OK);
    for (int64_t i = 0; i < count; i++) assert_true(fabs(alone[i] - sigma[i]) <= 1e-13 * expected[0]);
    free(a);
    free(expected);
    free(sigma);
    free(u);
    free(vt);
    free(alone);
}

static void small_svd_agrees_with_lapack(void **state)
{
    (void)state;
    for (int k = 0; k < KINDS; k++) {
        check_small((kind)k, 1, 1);
        check_small((kind)k, 40, 40);
        check_small((kind)k, 57, 20);
        check_small((kind)k, 9, 61);
    }
}

static void small_svd_refuses(void **state)
{
    (void)state;
    double a[12] = {0}, sigma[3] = {-1, -1, -1}, u[12];
    a[5] = NAN;
    a[7] = -INFINITY;
    assert_int_equal(lsp_small_svd(ctx, 4, 3, a, sigma, NULL, NULL), LSP_ERR_CONTENT);
    assert_non_null(strstr(lsp_context_message(ctx), "2 values of a 4 x 3"));
    assert_non_null(strstr(lsp_context_message(ctx), "row 1, column 2"));
    assert_int_equal(lsp_small_svd(ctx, 0, 3, a, sigma, NULL, NULL), LSP_ERR_USAGE);
    assert_int_equal(lsp_small_svd(ctx, 3, INT64_C(1) << 40, a, sigma, NULL, NULL), LSP_ERR_USAGE);
    assert_int_equal(lsp_small_svd(ctx, 4, 3, a, sigma, u, NULL), LSP_ERR_USAGE);
    for (int i = 0; i < 3; i++) assert_true(sigma[i] == -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes_are_nearly_square),
        cmocka_unit_test(grids_come_and_go),
        cmocka_unit_test(grids_that_do_not_fit_are_refused),
        cmocka_unit_test(counts_are_those_of_dealing_one_by_one),
        cmocka_unit_test(what_int_cannot_count_is_refused),
        cmocka_unit_test(blocks_go_to_the_grid_and_back),
        cmocka_unit_test(blocks_outside_are_refused_on_all_ranks),
        cmocka_unit_test(small_svd_agrees_with_lapack),
        cmocka_unit_test(small_svd_refuses),
    };
    const test_context contexts[] = {{&ctx, 0, false}};
    return RUN_OVER_RANKS("linalg", tests, contexts, NULL, NULL);
}
