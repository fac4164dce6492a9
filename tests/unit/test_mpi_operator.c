/* W X, W^T Y and ||W||_F^2 over ranks: against the dense matrix by definition, and bit for bit against one rank.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "mpi_case.h"

#include "comm/gather_mode.h"
#include "comm/rows.h"
#include "operator_case.h"

#include <longspan/operator.h>

static lsp_context *one_thread, *two_threads, *alone;

/* ---- a run, put together on every rank ------------------------------------------------------------- */

/* y = W x [n, columns] and x = W^T y [m, columns], in the computing type; what is no row or key holds zero bytes. */
typedef struct products {
    unsigned char *wx, *wty;
    size_t wx_bytes, wty_bytes;
    double square;
} products;

/* Column c of row i of x (stream 7) or y (stream 8), the same for any distribution. */
static void *make_columns(const lsp_attention_desc *d, uint64_t stream, const lsp_run *run, int64_t columns)
{
    int64_t count = run ? run->count * columns : 0;
    void *array = case_alloc(count, 8);
    double *values = case_alloc(count, sizeof *values);
    if (run) lsp_random_normals(21, stream, (uint64_t)(run->begin * columns), count, values);
    lsp_convert_store(d->compute, values, count, array, 0);
    free(values);
    return array;
}

static void join_rows(lsp_context *ctx, const lsp_run *run, const void *rows, int64_t row_bytes,
                      unsigned char *whole, size_t bytes)
{
    if (run) memcpy(whole + run->begin * row_bytes, rows, (size_t)(run->count * row_bytes));
    MPI_Allreduce(MPI_IN_PLACE, whole, (int)bytes, MPI_BYTE, MPI_BOR, ctx->comm);
}

static void expect_ok(lsp_context *ctx, lsp_status status)
{
    if (status != LSP_OK) fail_msg("%s", lsp_context_message(ctx));
}

/* order 0: W X first; 1: W^T Y first; 2: the norm first. */
static products run_operator(lsp_context *ctx, const lsp_attention_desc *d, int64_t columns, int order)
{
    int64_t element = (int64_t)lsp_dtype_size(d->compute), query_count, key_count, query_rows, key_rows;
    products p = {.wx_bytes = (size_t)(d->n * columns * element),
                  .wty_bytes = (size_t)(d->m * columns * element)};
    lsp_operator *op = NULL;
    const lsp_run *query_run, *key_run;
    expect_ok(ctx, lsp_operator_create(ctx, d, &op));
    lsp_operator_runs(op, LSP_QUERIES, &query_run, &query_count, &query_rows);
    lsp_operator_runs(op, LSP_KEYS, &key_run, &key_count, &key_rows);
    assert_true(query_count <= 1 && key_count <= 1);
    if (query_count == 0) query_run = NULL;
    if (key_count == 0) key_run = NULL;
    void *q = make_rows(d, ROLE_Q, query_run, query_count, query_rows, NULL);
    void *k = make_rows(d, ROLE_K, key_run, key_count, key_rows, NULL);
    void *x = make_columns(d, 7, key_run, columns), *y = make_columns(d, 8, query_run, columns);
    void *wx = case_alloc(query_rows * columns, 8), *wty = case_alloc(key_rows * columns, 8);
    memset(wx, 0x7F, (size_t)(query_rows * columns * element));
    memset(wty, 0x7F, (size_t)(key_rows * columns * element));
    expect_ok(ctx, lsp_operator_bind(op, q, k));
    if (order == 2) expect_ok(ctx, lsp_operator_norm(op, &p.square));
    if (order == 0) expect_ok(ctx, lsp_operator_apply(op, x, columns, wx));
    expect_ok(ctx, lsp_operator_apply_transposed(op, y, columns, wty));
    if (order != 0) expect_ok(ctx, lsp_operator_apply(op, x, columns, wx));
    if (order != 2) expect_ok(ctx, lsp_operator_norm(op, &p.square));
    p.wx = case_alloc((int64_t)p.wx_bytes, 1);
    p.wty = case_alloc((int64_t)p.wty_bytes, 1);
    join_rows(ctx, query_run, wx, columns * element, p.wx, p.wx_bytes);
    join_rows(ctx, key_run, wty, columns * element, p.wty, p.wty_bytes);
    expect_ok(ctx, lsp_operator_destroy(&op));
    free(q), free(k), free(x), free(y), free(wx), free(wty);
    return p;
}

static void free_products(products *p)
{
    free(p->wx);
    free(p->wty);
}

/* ---- against the dense matrix ---------------------------------------------------------------------- */

typedef struct distance {
    double error, size; /* sums of squares */
} distance;

static void add_distance(distance *sum, const lsp_attention_desc *d, const void *got, int64_t index,
                         double expected)
{
    double value;
    lsp_convert_load(d->compute, got, index, 1, &value);
    sum->error += (value - expected) * (value - expected);
    sum->size += expected * expected;
}

static void check_dense(lsp_attention_desc d, int64_t columns, const char *what)
{
    double *w = dense_matrix(&d), square = 0;
    lsp_run all_rows = {0, 0, 0, d.n}, all_keys = {0, 0, 0, d.m};
    for (int64_t i = 0; i < d.n; i++) {
        double of_row = 0; /* or this sum would have the larger error */
        for (int64_t j = 0; j < d.m; j++) of_row += w[i * d.m + j] * w[i * d.m + j];
        square += of_row;
    }
    for (int type = LSP_F32; type <= LSP_F64; type++) {
        d.compute = (lsp_dtype)type;
        double tolerance = type == LSP_F32 ? 2e-6 : 1e-14, x_value, y_value;
        products p = run_operator(one_thread, &d, columns, type == LSP_F32 ? 0 : 1);
        void *x = make_columns(&d, 7, &all_keys, columns), *y = make_columns(&d, 8, &all_rows, columns);
        distance forward = {0, 0}, transposed = {0, 0};
        for (int64_t c = rank; c < columns; c += ranks) { /* the ranks share the columns */
            double *column = case_alloc(d.m, sizeof *column);
            for (int64_t i = 0; i < d.n; i++) {
                double sum = 0;
                lsp_convert_load(d.compute, y, i * columns + c, 1, &y_value);
                for (int64_t j = 0; j < d.m; j++) {
                    lsp_convert_load(d.compute, x, j * columns + c, 1, &x_value);
                    sum += w[i * d.m + j] * x_value;
                    column[j] += w[i * d.m + j] * y_value;
                }
                add_distance(&forward, &d, p.wx, i * columns + c, sum);
            }
            for (int64_t j = 0; j < d.m; j++)
                add_distance(&transposed, &d, p.wty, j * columns + c, column[j]);
            free(column);
        }
        if (!(forward.error <= tolerance * tolerance * forward.size) ||
            !(transposed.error <= tolerance * tolerance * transposed.size) ||
            !(fabs(p.square - square) <= tolerance * square))
            fail_msg("%s, %s: relative errors %.2g of W X, %.2g of W^T Y, %.2g of the norm", what,
                     lsp_dtype_name(d.compute), sqrt(forward.error / forward.size),
                     sqrt(transposed.error / transposed.size), fabs(p.square - square) / square);
        free(x), free(y);
        free_products(&p);
    }
    free(w);
}

static void products_without_a_mask(void **state)
{
    (void)state;
    check_dense(plain(331, 700, 16, 0), 5, "no mask");
    check_dense(plain(1100, 97, 33, 0), 3, "more rows than keys");
    check_dense(plain(3, 1500, 5, 0), 1, "three rows");
    check_dense(plain(1, 1, 1, 0), 2, "one of each");
    lsp_attention_desc d = plain(300, 211, 8, 0);
    d.d_v = 6;
    check_dense(d, 13, "columns in turns");
    d.q_type = LSP_F16;
    d.k_type = LSP_BF16;
    d.scale = -0.7;
    check_dense(d, 4, "f16 and bf16, a negative scale");
}

static void products_under_every_rule(void **state)
{
    (void)state;
    const int64_t of_rows[] = {0, 13, 13, 300, 610}, of_keys[] = {0, 40, 90, 90, 530}, length = 400;
    double slope = 0.25;
    lsp_attention_desc d = plain(610, 530, 9, 0);
    d.mask = LSP_MASK_CAUSAL;
    check_dense(d, 3, "causal, rows without keys");
    d.align = LSP_ALIGN_TOP_LEFT;
    d.alibi_slopes = &slope;
    d.softcap = 2;
    check_dense(d, 3, "causal from the top left, ALiBi, softcap");
    d.mask = LSP_MASK_WINDOW;
    d.window_left = 50;
    d.window_right = 9;
    d.align = LSP_ALIGN_BOTTOM_RIGHT;
    check_dense(d, 3, "window");
    d.documents = of_rows;
    d.documents_k = of_keys;
    d.document_count = 4;
    check_dense(d, 3, "window and documents");
    d.mask = LSP_MASK_NONE;
    d.key_lengths = &length;
    check_dense(d, 3, "documents and key length");
    d.row_begin = 7;
    d.row_end = 580;
    d.key_begin = 20;
    d.key_end = 500;
    check_dense(d, 3, "a part");
}

/* ---- bits ------------------------------------------------------------------------------------------ */

static void expect_same(const lsp_attention_desc *d, const products *got, const products *expected,
                        const char *what)
{
    if (memcmp(got->wx, expected->wx, got->wx_bytes) != 0 ||
        memcmp(got->wty, expected->wty, got->wty_bytes) != 0 || got->square != expected->square)
        fail_msg("%s, %s, gather %s, partition %s: %s differs", what, lsp_isa_name(d->isa),
                 lsp_gather_mode_name(d->gather), lsp_partition_kind_name(d->partition),
                 memcmp(got->wx, expected->wx, got->wx_bytes) != 0      ? "W X"
                 : memcmp(got->wty, expected->wty, got->wty_bytes) != 0 ? "W^T Y"
                                                                        : "the norm");
}

static void check_bits(lsp_attention_desc d, int64_t columns, const char *what)
{
    products avx2 = {NULL, NULL, 0, 0, 0};
    for (int isa = LSP_ISA_PORTABLE; isa <= (int)lsp_isa_best(); isa++) {
        d.isa = (lsp_isa)isa;
        d.gather = LSP_GATHER_AUTO;
        d.partition = LSP_PARTITION_AUTO;
        d.panel_rows = 0;
        products expected = run_operator(alone, &d, columns, 0);
        for (int mode = LSP_GATHER_AUTO; mode <= LSP_GATHER_CHAIN; mode++) {
            d.gather = (lsp_gather_mode)mode;
            d.partition = mode % 2 ? LSP_PARTITION_CONTIGUOUS : LSP_PARTITION_BALANCED;
            d.panel_rows = mode % 2;
            products got = run_operator(mode % 3 ? one_thread : two_threads, &d, columns, 0);
            expect_same(&d, &got, &expected, what);
            free_products(&got);
        }
        if (isa == LSP_ISA_AVX512) expect_same(&d, &expected, &avx2, "AVX2 and AVX-512");
        free_products(&avx2);
        avx2 = expected;
    }
    free_products(&avx2);
}

static void bits_of_the_products(void **state)
{
    (void)state;
    check_bits(plain(1331, 1409, 16, 0), 11, "no mask");
    check_bits(plain(5, 1300, 7, 0), 3, "five rows");
    lsp_attention_desc d = plain(1331, 1409, 16, 0);
    d.mask = LSP_MASK_CAUSAL;
    check_bits(d, 4, "causal");
    d.mask = LSP_MASK_WINDOW;
    d.window_left = 100;
    d.compute = LSP_F64;
    check_bits(d, 4, "window, f64");
}

/* More tiles of rows than are kept apart: sums are folded. */
static void bits_of_folded_sums(void **state)
{
    (void)state;
    lsp_attention_desc d = plain(17000, 300, 2, 0);
    products expected = run_operator(alone, &d, 2, 0);
    products got = run_operator(one_thread, &d, 2, 0);
    expect_same(&d, &got, &expected, "folded");
    free_products(&got);
    got = run_operator(two_threads, &d, 2, 1);
    expect_same(&d, &got, &expected, "folded, W^T Y first");
    free_products(&got);
    free_products(&expected);
    d = plain(200, 170, 3, 0);
    expected = run_operator(alone, &d, 1, 0);
    got = run_operator(one_thread, &d, 1, 2);
    expect_same(&d, &got, &expected, "the norm first");
    free_products(&got);
    lsp_rows_set_limit(1000);
    for (int mode = LSP_GATHER_PANELS; mode <= LSP_GATHER_CHAIN; mode++) {
        lsp_gather_node_set_ranks(mode % 2 ? 2 : 1);
        d.gather = (lsp_gather_mode)mode;
        got = run_operator(one_thread, &d, 1, 0);
        expect_same(&d, &got, &expected, "counts above the limit");
        free_products(&got);
    }
    lsp_gather_node_set_ranks(0);
    lsp_rows_set_limit(0);
    free_products(&expected);
}

/* Keys that no row sees and NaN in the keys: only rows and keys that meet them are touched. */
static void not_a_number_stays_where_it_is(void **state)
{
    (void)state;
    lsp_attention_desc d = plain(90, 120, 4, 0);
    d.mask = LSP_MASK_CAUSAL;
    d.align = LSP_ALIGN_TOP_LEFT; /* keys from 90 on are seen by no row */
    lsp_operator *op = NULL;
    const lsp_run *run;
    int64_t count, rows, keys;
    expect_ok(one_thread, lsp_operator_create(one_thread, &d, &op));
    lsp_operator_runs(op, LSP_QUERIES, &run, &count, &rows);
    float *q = make_rows(&d, ROLE_Q, run, count, rows, NULL), *y = make_columns(&d, 8, count ? run : NULL, 1);
    int64_t first_row = count ? run->begin : 0;
    lsp_operator_runs(op, LSP_KEYS, &run, &count, &keys);
    float *k = make_rows(&d, ROLE_K, run, count, keys, NULL), *x = case_alloc(keys, sizeof *x);
    int64_t first_key = count ? run->begin : 0;
    for (int64_t i = 0; i < rows; i++)
        if (first_row + i == 60) y[i] = NAN;
    for (int64_t j = 0; j < keys; j++)
        if (first_key + j == 100) k[j * d.d_k] = NAN;
    expect_ok(one_thread, lsp_operator_bind(op, q, k));
    expect_ok(one_thread, lsp_operator_apply_transposed(op, y, 1, x));
    for (int64_t j = 0; j < keys; j++) {
        bool seen_from_60 = first_key + j <= 60;
        if (!isnan(x[j]) == seen_from_60) fail_msg("key %d is %g", (int)(first_key + j), (double)x[j]);
        if (first_key + j >= 90) assert_true(x[j] == 0.0F);
    }
    expect_ok(one_thread, lsp_operator_destroy(&op));
    free(q), free(k), free(x), free(y);
}

/* ---- refusals -------------------------------------------------------------------------------------- */

static void refusals(void **state)
{
    (void)state;
    lsp_operator *op = NULL;
    lsp_attention_desc d = plain(10, 12, 4, 0);
    float number = 0;
    d.heads = 2;
    assert_int_equal(lsp_operator_create(one_thread, &d, &op), LSP_ERR_USAGE);
    assert_non_null(strstr(lsp_context_message(one_thread), "heads (2)"));
    d.heads = 1;
    d.compute = LSP_BF16;
    assert_int_equal(lsp_operator_create(one_thread, &d, &op), LSP_ERR_USAGE);
    assert_non_null(strstr(lsp_context_message(one_thread), "bf16"));
    assert_null(op);
    d.compute = LSP_F32;
    expect_ok(one_thread, lsp_operator_create(one_thread, &d, &op));
    assert_int_equal(lsp_operator_apply(op, &number, 1, &number), LSP_ERR_USAGE);
    assert_non_null(strstr(lsp_context_message(one_thread), "lsp_operator_bind"));
    float q[40] = {0}, k[48] = {0};
    expect_ok(one_thread, lsp_operator_bind(op, q, k));
    assert_int_equal(lsp_operator_apply_transposed(op, q, 0, k), LSP_ERR_USAGE);
    if (ranks > 1) {
        assert_int_equal(lsp_operator_apply(op, k, rank == 0 ? 1 : 2, q), LSP_ERR_USAGE);
        assert_non_null(strstr(lsp_context_message(one_thread), "different numbers of columns"));
    }
    expect_ok(one_thread, lsp_operator_destroy(&op));
    assert_null(op);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_without_a_mask),        cmocka_unit_test(products_under_every_rule),
        cmocka_unit_test(bits_of_the_products),           cmocka_unit_test(bits_of_folded_sums),
        cmocka_unit_test(not_a_number_stays_where_it_is), cmocka_unit_test(refusals),
    };
    const test_context contexts[] = {{&one_thread, 1, false}, {&two_threads, 2, false}, {&alone, 1, true}};
    return RUN_OVER_RANKS("operator", tests, contexts, NULL, NULL);
}
