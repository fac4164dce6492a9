/* Few query rows, short sequences and windows: their key tiles are packed one at a time, or a strip at a time, where they are used, and their bits are
 * those that the same rows have among many, with panels packed for all threads. And how often keys are packed.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "mpi_case.h"

#include "attention_case.h"
#include "method/attention.h"

#include <stdatomic.h>

static lsp_context *one_thread, *two_threads, *alone, *alone_two_threads;

/* ---- bits --------------------------------------------------------------------------------------- */

/* Row `row` of every head, computed without the others, against the whole. */
static void expect_row(const lsp_attention_desc *d, const result *whole, const result *part, int64_t row,
                       const char *what)
{
    int64_t element = (int64_t)lsp_dtype_size(lsp_dtype_result(d->compute));
    for (int64_t matrix = 0; matrix < d->batch * d->heads; matrix++) {
        size_t at = (size_t)((matrix * d->n + row) * element), width = (size_t)d->d_v;
        bool same = memcmp(whole->out + at * width, part->out + at * width, width * (size_t)element) == 0 &&
                    memcmp(whole->lse + at, part->lse + at, (size_t)element) == 0;
        if (!same)
            fail_msg("%s, %s, computing in %s: row %d of matrix %d differs alone", what, lsp_isa_name(d->isa),
                     lsp_dtype_name(d->compute), (int)row, (int)matrix);
    }
}

/* A run that takes the way asked for. */
static result run_way(lsp_context *ctx, const lsp_attention_desc *d, const run_options *options,
                      bool unit_tasks)
{
    lsp_attention *plan = NULL;
    assert_int_equal(lsp_attention_create(ctx, d, &plan), LSP_OK);
    assert_int_equal(plan->unit_tasks, unit_tasks);
    lsp_attention_destroy(&plan);
    return run_case(ctx, d, options);
}

/* All rows by packed panels. */
static result run_panels(lsp_attention_desc d, const run_options *options)
{
    d.panel_rows = 1;
    return run_way(alone_two_threads, &d, options, false);
}

static void check_rows_alone(lsp_attention_desc d, const run_options *options, const char *what)
{
    result whole = run_panels(d, options);
    if (d.n * d.heads / d.kv_heads <= LSP_UNIT_ROWS || d.mask == LSP_MASK_WINDOW) {
        result units = run_way(alone, &d, options, true);
        assert_memory_equal(units.out, whole.out, whole.out_bytes);
        assert_memory_equal(units.lse, whole.lse, whole.lse_bytes);
        assert_int_equal(units.empty_rows, whole.empty_rows);
        free_result(&units);
    }
    for (int64_t i = 0; i < 3; i++) {
        d.row_begin = i * (d.n - 1) / 2;
        d.row_end = d.row_begin + 1;
        result part = run_way(i % 2 ? one_thread : two_threads, &d, options, true);
        expect_row(&d, &whole, &part, d.row_begin, what);
        free_result(&part);
    }
    free_result(&whole);
}

/* Widths of whole vectors and others; the last tile is cut. */
static void one_row_on_every_instruction_set(void **state)
{
    (void)state;
    for (int isa = LSP_ISA_PORTABLE; isa <= (int)lsp_isa_best(); isa++)
        for (int type = LSP_BF16; type <= LSP_F64; type++) {
            lsp_attention_desc d = plain(12, 1100, 40, 64);
            d.isa = (lsp_isa)isa;
            d.compute = (lsp_dtype)type;
            d.k_type = d.v_type = d.compute;
            check_rows_alone(d, NULL, "operands in the computing type");
            d.v_type = d.compute == LSP_F64 ? LSP_F32 : LSP_F64;
            check_rows_alone(d, NULL, "V in another type");
            d.k_type = LSP_F16, d.v_type = LSP_BF16;
            d.d_k = 33, d.d_v = 20;
            check_rows_alone(d, NULL, "16-bit operands, odd widths");
        }
}

static void one_row_under_every_mask(void **state)
{
    (void)state;
    const int64_t of_rows[] = {0, 13, 13, 700, 1600}, lengths[] = {1600, 1111};
    lsp_attention_desc d = plain(1600, 1600, 8, 16);
    d.mask = LSP_MASK_CAUSAL;
    check_rows_alone(d, NULL, "causal");
    d.mask = LSP_MASK_WINDOW, d.window_left = 700, d.window_right = 30;
    check_rows_alone(d, NULL, "window");
    d.key_begin = 77, d.key_end = 1550;
    check_rows_alone(d, NULL, "window over some keys");
    d.documents = of_rows, d.document_count = 4;
    check_rows_alone(d, NULL, "window in documents over some keys");
    d = plain(900, 900, 8, 16);
    d.heads = 4, d.batch = 2, d.mask = LSP_MASK_WINDOW, d.window_left = 100, d.window_right = 20;
    check_rows_alone(d, NULL, "short window, grouped heads");
    d = plain(1600, 1600, 8, 16);
    d.batch = 2, d.key_lengths = lengths, d.softcap = 3;
    check_rows_alone(d, NULL, "key lengths, softcap");
}

/* An unseen infinity, inside a tile that the row sees in part, must not show. */
static void one_row_beside_numbers_that_are_not_finite(void **state)
{
    (void)state;
    for (int isa = LSP_ISA_PORTABLE; isa <= (int)lsp_isa_best(); isa++)
        for (int type = LSP_BF16; type <= LSP_F64; type++)
            for (int64_t key = 1399; key <= 1400; key++) { /* in a whole tile; rows before it do not see it */
                run_options options = {.spoil = true, .spoilt_key = key};
                lsp_attention_desc d = plain(1600, 1600, 4, 16);
                d.isa = (lsp_isa)isa;
                d.compute = (lsp_dtype)type;
                d.v_type = d.compute;
                d.mask = LSP_MASK_CAUSAL;
                result whole = run_panels(d, &options);
                for (d.row_begin = 1398; d.row_begin < 1401; d.row_begin++) {
                    d.row_end = d.row_begin + 1;
                    result part = run_case(one_thread, &d, &options);
                    expect_row(&d, &whole, &part, d.row_begin, "spoilt");
                    free_result(&part);
                }
                /* Rows with different sights go through a tile together. */
                d.row_begin = 1396, d.row_end = 1401;
                result few = run_way(alone, &d, &options, true);
                for (int64_t i = 1396; i < 1401; i++) expect_row(&d, &whole, &few, i, "spoilt, five rows");
                free_result(&few);
                free_result(&whole);
            }
}

/* Grouped heads: the rows of a group go through a tile one matrix after the other. Sums over many tiles are folded. */
static void one_row_of_grouped_heads(void **state)
{
    (void)state;
    const int64_t heads_of[] = {2, 0, 2, 2, 0, 2};
    double slopes[6];
    for (int h = 0; h < 6; h++) slopes[h] = lsp_alibi_slope(h, 6) / 100;
    lsp_attention_desc d = plain(20, 1100, 12, 16);
    d.batch = 2, d.heads = 6, d.kv_heads = 3, d.kv_head_of = heads_of, d.alibi_slopes = slopes;
    check_rows_alone(d, NULL, "grouped heads");
    d = plain(10, (LSP_FOLD_TILES + 2) * 512 + 3, 3, 16);
    check_rows_alone(d, NULL, "folded sums");
}

/* A plan runs on other arrays: tiles packed before must not be taken for theirs. */
static void packed_tiles_do_not_outlive_an_execution(void **state)
{
    (void)state;
    enum {
        KEYS = 500,
        WIDTH = 8,
        ROWS = 8
    }; /* one tile; more rows than a register tile, which alone leaves it stored */
    lsp_attention_desc d = plain(ROWS, KEYS, WIDTH, WIDTH);
    float *q = case_alloc(ROWS * WIDTH, sizeof *q), *k = case_alloc(KEYS * WIDTH, sizeof *k);
    float first[ROWS * WIDTH], second[ROWS * WIDTH], expected[ROWS * WIDTH];
    for (int i = 0; i < ROWS * WIDTH; i++) q[i] = (float)(1 + i / WIDTH);
    for (int i = 0; i < KEYS * WIDTH; i++) k[i] = (float)lsp_random_normal(5, 1, (uint64_t)i);
    lsp_attention *plan = NULL, *fresh = NULL;
    assert_int_equal(lsp_attention_create(alone, &d, &plan), LSP_OK);
    assert_int_equal(lsp_attention_create(alone, &d, &fresh), LSP_OK);
    assert_int_equal(lsp_attention_execute(plan, q, k, k, first, NULL, NULL), LSP_OK);
    for (int i = 0; i < KEYS * WIDTH; i++) k[i] = -k[i];
    assert_int_equal(lsp_attention_execute(plan, q, k, k, second, NULL, NULL), LSP_OK);
    assert_int_equal(lsp_attention_execute(fresh, q, k, k, expected, NULL, NULL), LSP_OK);
    assert_memory_equal(second, expected, sizeof expected);
    assert_memory_not_equal(second, first, sizeof first);
    lsp_attention_destroy(&plan);
    lsp_attention_destroy(&fresh);
    free(q);
    free(k);
}

/* ---- how often keys are packed -------------------------------------------------------------------- */

static atomic_llong packed_keys, packed_values;
static const lsp_kernel *counted;

static double count_k(const lsp_tile_shape *shape, const void *src, lsp_dtype type, int64_t offset,
                      int64_t count, void *tile_k)
{
    atomic_fetch_add(&packed_keys, count);
    return counted->pack_k(shape, src, type, offset, count, tile_k);
}

static double count_v(const lsp_tile_shape *shape, const void *src, lsp_dtype type, int64_t offset,
                      int64_t count, void *tile_v)
{
    atomic_fetch_add(&packed_values, count);
    return counted->pack_v(shape, src, type, offset, count, tile_v);
}

static void check_packing(lsp_context *ctx, int64_t rows)
{
    const int64_t d_v = 24;
    lsp_attention_desc d = plain(rows, 1536, 8, d_v);
    d.heads = 8, d.kv_heads = 2;
    lsp_attention *plan = NULL;
    assert_int_equal(lsp_attention_create(ctx, &d, &plan), LSP_OK);
    counted = plan->kernel;
    lsp_kernel counting = *counted;
    counting.pack_k = count_k, counting.pack_v = count_v;
    plan->kernel = &counting;
    atomic_store(&packed_keys, 0), atomic_store(&packed_values, 0);
    result whole = {.out_bytes = (size_t)(8 * rows * d_v) * sizeof(float),
                    .lse_bytes = (size_t)(8 * rows) * sizeof(float)};
    whole.out = case_alloc((int64_t)whole.out_bytes, 1);
    whole.lse = case_alloc((int64_t)whole.lse_bytes, 1);
    execute_plan(ctx, &d, plan, NULL, &whole);
    assert_int_equal(packed_keys, 2 * d.m); /* each K/V head once, though 4 query heads use it */
    assert_int_equal(packed_values, 2 * d.m);
    plan->kernel = counted;
    lsp_attention_destroy(&plan);
    free_result(&whole);
}

static void grouped_heads_pack_keys_once(void **state)
{
    (void)state;
    if (rank > 0) return; /* each rank would pack what its rows need */
    const int64_t rows[] = {2, 100, 300};
    for (int i = 0; i < 3; i++) {
        check_packing(alone, rows[i]);
        check_packing(alone_two_threads, rows[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_row_on_every_instruction_set),
        cmocka_unit_test(one_row_under_every_mask),
        cmocka_unit_test(one_row_beside_numbers_that_are_not_finite),
        cmocka_unit_test(one_row_of_grouped_heads),
        cmocka_unit_test(packed_tiles_do_not_outlive_an_execution),
        cmocka_unit_test(grouped_heads_pack_keys_once),
    };
    const test_context contexts[] = {
        {&one_thread, 1, false}, {&two_threads, 2, false}, {&alone, 1, true}, {&alone_two_threads, 2, true}};
    return RUN_OVER_RANKS("few rows", tests, contexts, NULL, NULL);
}
