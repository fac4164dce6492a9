/* The method lowrank over ranks: outputs against truncated matrices from LAPACK, certificates against true errors,
 * verification, refusals. SPDX-License-Identifier: BSD-3-Clause */
#include "mpi_case.h"

#include "lowrank_case.h"

static lsp_context *ctx, *two_threads, *alone;

static lsp_attention_desc desc_of(int64_t n, int64_t m, int64_t kept)
{
    lsp_attention_desc d = in_double(plain(n, m, 12, 5));
    d.method = LSP_METHOD_LOWRANK;
    d.rank = kept;
    d.keep_values = true;
    return d;
}

/* krylov in the type of d, and the full decomposition. */
static void check_case(lsp_attention_desc d, const char *what)
{
    for (int full = 0; full < 2; full++) {
        d.svd = (lsp_svd_kind)full;
        answer a = must_run(ctx, &d, 1);
        check_answer(&d, &a, full ? 1 : 1.01, what);
        free_answer(&a);
    }
}

/* ---- tests ---------------------------------------------------------------------------------------- */

static void shapes(void **state)
{
    (void)state;
    const int64_t sizes[][3] = {{61, 37, 6}, {23, 97, 5}, {1, 40, 2},   {31, 1, 3},
                                {1, 1, 1},   {3, 5, 2},   {47, 53, 100}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        lsp_attention_desc d = desc_of(sizes[i][0], sizes[i][1], sizes[i][2]);
        d.compute = i % 2 == 0 ? LSP_F64 : LSP_F32;
        check_case(d, "a shape");
    }
    lsp_attention_desc d = desc_of(40, 60, 4);
    d.d_k = 1;
    d.d_v = 19;
    check_case(d, "d_k 1, d_v 19");
    d = desc_of(600, 700, 3); /* several key tiles, so that every rank has keys */
    d.d_k = 4;
    d.q_type = LSP_F16;
    d.k_type = LSP_BF16;
    d.v_type = LSP_F16;
    d.svd = LSP_SVD_KRYLOV;
    d.oversample = -1;
    d.compute = LSP_F32;
    answer a = must_run(ctx, &d, 1);
    check_answer(&d, &a, 1.5, "several tiles");
    free_answer(&a);
}

static void heads_batches_and_masks(void **state)
{
    (void)state;
    const int64_t lengths[] = {44, 29}, heads_of[] = {1, 0, 1}, offsets[] = {0, 9, 9, 40},
                  offsets_k[] = {0, 20, 24, 50};
    const double slopes[] = {0.5, 0.1, 0.02, 0.01};
    lsp_attention_desc d = desc_of(40, 50, 5);
    d.batch = 2;
    d.heads = 2;
    d.compute = LSP_F32;
    d.key_lengths = lengths;
    d.alibi_slopes = slopes;
    check_case(d, "grouped heads, key lengths, ALiBi");
    d = desc_of(40, 50, 5);
    d.heads = 3;
    d.kv_heads = 2;
    d.kv_head_of = heads_of;
    d.mask = LSP_MASK_CAUSAL;
    d.allow_leak = true;
    check_case(d, "heads by a list, causal");
    d.mask = LSP_MASK_WINDOW;
    d.window_left = 9;
    d.window_right = 2;
    d.partition = LSP_PARTITION_CYCLIC;
    d.gather = LSP_GATHER_NODE;
    d.softcap = 2;
    check_case(d, "a window, softcap");
    d = desc_of(40, 50, 7);
    d.documents = offsets;
    d.documents_k = offsets_k;
    d.document_count = 3;
    d.batch = 2;
    check_case(d, "documents");
    d.row_begin = 4;
    d.row_end = 33;
    d.key_begin = 3;
    d.key_end = 48;
    d.gather = LSP_GATHER_CHAIN;
    check_case(d, "a part of documents");
}

/* Rows without keys, and keys without rows whose values are not numbers. */
static void what_nobody_sees_does_not_count(void **state)
{
    (void)state;
    lsp_attention_desc d = desc_of(30, 12, 4);
    d.mask = LSP_MASK_CAUSAL; /* the first 18 rows see nothing */
    d.allow_leak = true;
    answer a = must_run(ctx, &d, 1);
    check_answer(&d, &a, 1.01, "rows without keys");
    int64_t empty = a.stats.empty_rows;
    lsp_context_sum_i64(ctx, &empty, 1);
    assert_int_equal(empty, 18);
    for (int i = 0; i < 18 * 5; i++) assert_true(((const double *)(const void *)a.whole.out)[i] == 0);
    free_answer(&a);
    const int64_t none = 0, some = 20;
    d = desc_of(30, 12, 4);
    d.key_lengths = &none;
    a = must_run(ctx, &d, 1);
    check_answer(&d, &a, 1, "no keys");
    assert_true(a.certificate.out_error_bound == 0 && a.certificate.whole.norm == 0);
    free_answer(&a);
    d = desc_of(30, 25, 4);
    d.key_lengths = &some;
    result clean = run_case(ctx, &d, NULL);
    run_options spoilt = {.spoil = true, .spoilt_key = 22};
    result dirty = run_case(ctx, &d, &spoilt);
    assert_memory_equal(clean.out, dirty.out, clean.out_bytes);
    assert_memory_equal(clean.lse, dirty.lse, clean.lse_bytes);
    free_result(&clean);
    free_result(&dirty);
}

/* All scores equal: rank 1 is all there is. */
static void rank_one(void **state)
{
    (void)state;
    lsp_attention_desc d = desc_of(33, 41, 1);
    d.scale = 1e-300;
    for (int full = 0; full < 2; full++) {
        d.svd = (lsp_svd_kind)full;
        answer a = must_run(ctx, &d, 1);
        check_answer(&d, &a, 1, "all equal");
        assert_false(a.certificate.whole.meaningful);
        assert_int_equal(a.certificate.unclear, 1);
        assert_true(a.certificate.out_error_bound < 1e-5);
        free_answer(&a);
    }
}

static void rank_from_a_tolerance(void **state)
{
    (void)state;
    lsp_attention_desc d = desc_of(90, 80, 0);
    d.heads = d.kv_heads = 2;
    d.tolerance = 0.3;
    answer a = must_run(ctx, &d, 1);
    check_answer(&d, &a, 1.01, "a tolerance");
    assert_true(a.certificate.unmet == 0 && a.certificate.whole.frobenius_relative <= 0.3);
    assert_true(a.certificate.rank < 80);
    d.rank = a.certificate.rank_least - 1;
    free_answer(&a);
    a = must_run(ctx, &d, 1);
    assert_int_equal(a.certificate.unmet, 2);
    assert_int_equal(a.certificate.rank, d.rank);
    free_answer(&a);
}

static void results_repeat(void **state)
{
    (void)state;
    lsp_attention_desc d = desc_of(700, 1100, 6);
    d.heads = 2;
    d.d_k = 8;
    answer once = must_run(ctx, &d, 2), threads = must_run(two_threads, &d, 1),
           single = must_run(alone, &d, 1);
    result again = run_case(ctx, &d, NULL);
    assert_memory_equal(once.whole.out, again.out, again.out_bytes);
    assert_memory_equal(once.whole.out, threads.whole.out, again.out_bytes);
    /* lse comes from the kernels: the same bits for any number of ranks. */
    assert_memory_equal(once.whole.lse, single.whole.lse, again.lse_bytes);
    double *x = out_of(&d, &once, 0), *y = out_of(&d, &single, 0), size = norm_of(x, d.n * d.d_v);
    double off = distance(x, y, d.n * d.d_v);
    if (!(off <= 1e-8 * size)) fail_msg("one rank gives another output: %.3g", off / size);
    d.seed = 5;
    result other = run_case(ctx, &d, NULL);
    assert_memory_not_equal(once.whole.out, other.out, again.out_bytes);
    free(x), free(y);
    free_answer(&once), free_answer(&threads), free_answer(&single);
    free_result(&again), free_result(&other);
}

static void keep_progress(void *user, double done)
{
    double *last = user;
    assert_true(done >= *last && done <= 1);
    *last = done;
}

static void progress_goes_to_the_end(void **state)
{
    (void)state;
    lsp_attention_desc d = desc_of(20, 20, 2);
    d.heads = 3;
    double last = 0;
    run_options options = {.progress = keep_progress, .user = &last};
    result r = run_case(ctx, &d, &options);
    assert_true(last == 1);
    free_result(&r);
}

/* ---- refusals --------------------------------------------------------------------------------------- */

static void expect_refusal(const lsp_attention_desc *d, lsp_status code, const char *text)
{
    lsp_attention *plan = NULL;
    assert_int_equal(lsp_attention_create(ctx, d, &plan), code);
    assert_null(plan);
    if (!strstr(lsp_context_message(ctx), text))
        fail_msg("'%s' does not name '%s'", lsp_context_message(ctx), text);
}

static void refusals(void **state)
{
    (void)state;
    lsp_attention_desc good = desc_of(20, 30, 4), d = good;
    d.rank = 0;
    expect_refusal(&d, LSP_ERR_USAGE, "rank is 0");
    d.rank = -2;
    expect_refusal(&d, LSP_ERR_USAGE, "rank is -2");
    d = good;
    d.tolerance = -0.5;
    expect_refusal(&d, LSP_ERR_USAGE, "tolerance is -0.5");
    d.tolerance = NAN;
    expect_refusal(&d, LSP_ERR_USAGE, "tolerance is");
    d = good;
    d.steps = 101;
    expect_refusal(&d, LSP_ERR_USAGE, "steps (101)");
    d = good;
    d.oversample = -7;
    expect_refusal(&d, LSP_ERR_USAGE, "oversample (-7)");
    d = good;
    d.svd = (lsp_svd_kind)2;
    expect_refusal(&d, LSP_ERR_USAGE, "svd 2");
    d = good;
    d.compute = LSP_BF16;
    expect_refusal(&d, LSP_ERR_USAGE, "bf16");
    d = good;
    d.mask = LSP_MASK_CAUSAL;
    expect_refusal(&d, LSP_ERR_USAGE, "allow_leak");
    d.mask = LSP_MASK_WINDOW;
    d.window_left = 3;
    expect_refusal(&d, LSP_ERR_USAGE, "allow_leak");
    d = good;
    d.head_groups = 2;
    expect_refusal(&d, LSP_ERR_USAGE, "head_groups");
    d = good;
    d.n = d.m = 400000;
    d.svd = LSP_SVD_FULL;
    expect_refusal(&d, LSP_ERR_LIMIT, "32-bit");
    d.svd = LSP_SVD_KRYLOV;
    d.rank = 1000;
    d.memory_limit = (int64_t)1 << 30;
    expect_refusal(&d, LSP_ERR_LIMIT, "attention.rank");
    d.memory_limit = 0;
    d.rank = 2715;
    expect_refusal(&d, LSP_ERR_LIMIT, "8193 columns, more than the 8192");
    lsp_attention *plan = NULL;
    d.rank = 2714;
    assert_int_equal(lsp_attention_create(ctx, &d, &plan), LSP_OK);
    lsp_attention_destroy(&plan);
    lsp_lowrank_certificate certificate;
    const void *values;
    d = good;
    d.method = LSP_METHOD_EXACT;
    assert_int_equal(lsp_attention_create(ctx, &d, &plan), LSP_OK);
    assert_int_equal(lsp_lowrank_get_certificate(plan, &certificate), LSP_ERR_USAGE);
    lsp_attention_destroy(&plan);
    d = good;
    d.keep_values = false;
    result r = run_case(ctx, &d, NULL);
    free_result(&r);
    assert_int_equal(lsp_attention_create(ctx, &d, &plan), LSP_OK);
    assert_int_equal(lsp_lowrank_get_values(plan, &values), LSP_ERR_USAGE);
    lsp_attention_destroy(&plan);
    lsp_operator *op = NULL;
    d = good; /* an operator is not truncated */
    assert_int_equal(lsp_operator_create(ctx, &d, &op), LSP_ERR_USAGE);
    assert_null(op);
}

/* The footprint holds what the rank that needs most allocates, and no more than twice that; of the full decomposition, besides
 * the stages of W^T Y, which it has none of, a little more: pdgesvd moves data in memory of its own. Runs first: the most that was
 * allocated is that of the process. */
static void memory_is_counted(void **state)
{
    (void)state;
    const int64_t stages = 8 << 20;
    lsp_attention_desc d = desc_of(2000, 2400, 100);
    d.d_k = d.d_v = 16;
    d.heads = 2;
    for (int full = 1; full >= 0; full--) { /* the smaller one first */
        d.svd = (lsp_svd_kind)full;
        d.n = full ? 300 : 2000;
        d.m = full ? 340 : 2400;
        int64_t before = lsp_memory_now(), most_before = lsp_memory_most();
        result r = run_case(ctx, &d, NULL);
        assert_int_equal(lsp_memory_now(), before);
        assert_true(lsp_memory_most() > most_before);
        int64_t used = lsp_memory_most() - before;
        lsp_context_max_i64(ctx, &used, 1);
        lsp_footprint f = r.estimate.footprint;
        int64_t counted = f.panels + f.packed + f.work; /* the rest is the caller's */
        if (used > counted || (full ? counted - stages > used * 9 / 4 : counted > used * 2))
            fail_msg("svd %d: %lld bytes are counted, %lld are allocated", full, (long long)counted,
                     (long long)used);
        assert_true(r.estimate.work > r.estimate.flops);
        free_result(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_counted),
        cmocka_unit_test(shapes),
        cmocka_unit_test(heads_batches_and_masks),
        cmocka_unit_test(what_nobody_sees_does_not_count),
        cmocka_unit_test(rank_one),
        cmocka_unit_test(rank_from_a_tolerance),
        cmocka_unit_test(results_repeat),
        cmocka_unit_test(progress_goes_to_the_end),
        cmocka_unit_test(refusals),
    };
    const test_context contexts[] = {{&ctx, 1, false}, {&two_threads, 2, false}, {&alone, 1, true}};
    return RUN_OVER_RANKS("lowrank", tests, contexts, NULL, NULL);
}
