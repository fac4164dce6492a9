/* The full SVD of W over ranks: against the matrix by definition and LAPACK's singular values; truncation,
 * certificate, refusals. SPDX-License-Identifier: BSD-3-Clause */
#include "mpi_case.h"

#include "base/checked.h"
#include "linalg/full_svd.h"
#include "linalg_case.h"
#include "operator_case.h"

#include <longspan/svd.h>

static lsp_context *ctx, *two_threads, *alone;

/* ---- a run, put together on every rank ------------------------------------------------------------- */

/* spoil: a row of K that becomes NaN and infinite, or -1. */
static lsp_status run(lsp_context *c, const lsp_attention_desc *d, const lsp_svd_options *options,
                      int64_t spoil, lsp_svd *a)
{
    lsp_operator *op = NULL;
    lsp_svd *svd = NULL;
    const lsp_run *query_run, *key_run;
    int64_t query_runs, key_runs, rows, keys;
    if (lsp_operator_create(c, d, &op) != LSP_OK) fail_msg("%s", lsp_context_message(c));
    lsp_operator_runs(op, LSP_QUERIES, &query_run, &query_runs, &rows);
    lsp_operator_runs(op, LSP_KEYS, &key_run, &key_runs, &keys);
    run_options spoilt = {.spoil = spoil >= 0, .spoilt_key = spoil};
    void *q = make_rows(d, ROLE_Q, query_run, query_runs, rows, NULL);
    void *k = make_rows(d, ROLE_K, key_run, key_runs, keys, &spoilt);
    assert_int_equal(lsp_svd_full(op, options, &svd), LSP_ERR_USAGE); /* nothing is bound */
    assert_null(svd);
    assert_int_equal(lsp_operator_bind(op, q, k), LSP_OK);
    lsp_status status = lsp_svd_full(op, options, &svd);
    if (status == LSP_OK) {
        assert_true(svd->attempts == 1 && svd->seconds > 0);
        *a = whole_svd(c, op, svd, d->n, d->m);
        assert_same_everywhere(c, a->sigma, svd->rank);
    } else {
        assert_null(svd);
    }
    lsp_svd_destroy(&svd);
    lsp_operator_destroy(&op);
    free(q), free(k);
    return status;
}

static lsp_svd must_run(lsp_context *c, const lsp_attention_desc *d, const lsp_svd_options *options)
{
    lsp_svd a;
    if (run(c, d, options, -1, &a) != LSP_OK) fail_msg("%s", lsp_context_message(c));
    return a;
}

/* ---- what holds for any W ---------------------------------------------------------------------------- */

static void check_answer(const lsp_attention_desc *d, const lsp_svd *s, const char *what)
{
    double *w = dense_matrix(d), *expected = oracle_sigma(w, d->n, d->m), norm = norm_of(w, d->n * d->m);
    for (int64_t r = 0; r < s->rank; r++) {
        double off = fabs(s->sigma[r] - expected[r]);
        if (!(off <= 1e-13 * expected[0]))
            fail_msg("%s: sigma %d is %g, not %g", what, (int)r, s->sigma[r], expected[r]);
        if (expected[r] > 1e-4 * expected[0]) assert_true(off <= 1e-10 * expected[r]);
    }
    assert_true(departure(s->u, d->n, s->rank, s->rank) < 1e-12);
    assert_true(departure(s->v, d->m, s->rank, s->rank) < 1e-12);
    double error = true_error(w, s, d->n, d->m);
    assert_true(fabs(s->certificate.norm - norm) <= 1e-13 * norm);
    assert_true(fabs(error - s->certificate.frobenius_error) <= 1e-12 * norm);
    assert_true(fabs(s->certificate.frobenius_relative * norm - s->certificate.frobenius_error) <=
                1e-13 * norm);
    if (s->certificate.meaningful && !(fabs(error - s->certificate.frobenius_error) <= 0.01 * error))
        fail_msg("%s: the error is %g, its certificate %g", what, error, s->certificate.frobenius_error);
    free(w);
    free(expected);
}

static void check_case(const lsp_attention_desc *d, int64_t keep, const char *what)
{
    lsp_svd_options options = lsp_svd_defaults();
    options.rank = keep;
    lsp_svd a = must_run(ctx, d, &options);
    assert_true(a.rank <= keep && a.tolerance_met);
    check_answer(d, &a, what);
    free_svd(&a);
}

static void shapes_are_decomposed(void **state)
{
    (void)state;
    const int64_t shapes[][4] = {{1, 1, 1, 1},    {5, 1, 3, 2},      {1, 40, 8, 7},
                                 {70, 70, 16, 9}, {130, 45, 12, 45}, {33, 101, 20, 200}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        lsp_attention_desc d = plain(shapes[i][0], shapes[i][1], shapes[i][2], 0);
        check_case(&d, shapes[i][3], "a shape");
    }
}

static void masks_and_scores_are_kept(void **state)
{
    (void)state;
    const int64_t offsets[] = {0, 20, 20, 61, 90}, offsets_k[] = {0, 31, 33, 40, 70}, length = 52;
    const double slope = 0.3;
    lsp_attention_desc d = plain(90, 70, 16, 0);
    d.mask = LSP_MASK_CAUSAL; /* the first 20 rows see no key */
    check_case(&d, 12, "causal");
    d.align = LSP_ALIGN_TOP_LEFT;
    d.alibi_slopes = &slope;
    check_case(&d, 12, "causal top-left, ALiBi");
    d.mask = LSP_MASK_WINDOW;
    d.window_left = 9;
    d.window_right = 4;
    d.softcap = 1.5;
    check_case(&d, 30, "window, softcap");
    d = plain(90, 70, 16, 0);
    d.documents = offsets;
    d.documents_k = offsets_k;
    d.document_count = 4;
    d.key_lengths = &length;
    d.scale = 0.9;
    check_case(&d, 40, "documents, key length");
    d = plain(90, 70, 16, 0);
    d.row_begin = 13;
    d.row_end = 77;
    d.key_begin = 5;
    d.key_end = 66;
    d.mask = LSP_MASK_CAUSAL;
    check_case(&d, 20, "a part");
}

static void types_are_read(void **state)
{
    (void)state;
    const lsp_dtype types[] = {LSP_F16, LSP_BF16, LSP_F64};
    for (int t = 0; t < 3; t++) {
        lsp_attention_desc d = plain(40, 50, 8, 0);
        d.q_type = types[t];
        d.k_type = types[(t + 1) % 3];
        d.compute = t == 0 ? LSP_F64 : LSP_F32;
        check_case(&d, 10, lsp_dtype_name(types[t]));
    }
}

/* All scores equal: W has rank 1, and nothing is left out. */
static void rank_one_is_found(void **state)
{
    (void)state;
    lsp_attention_desc d = plain(50, 40, 4, 0);
    d.scale = 1e-300;
    lsp_svd_options options = lsp_svd_defaults();
    options.tolerance = 1e-6;
    lsp_svd a = must_run(ctx, &d, &options);
    assert_int_equal(a.rank, 1);
    assert_true(a.tolerance_met);
    assert_true(fabs(a.sigma[0] - sqrt(50.0 / 40)) < 1e-13);
    assert_false(a.certificate.meaningful);
    assert_true(a.certificate.frobenius_relative < 1e-13);
    check_answer(&d, &a, "rank 1");
    free_svd(&a);
}

static void tolerance_takes_the_least_rank(void **state)
{
    (void)state;
    lsp_attention_desc d = plain(80, 60, 24, 0);
    double *w = dense_matrix(&d), *sigma = oracle_sigma(w, 80, 60), norm = norm_of(w, 80 * 60);
    const double tolerances[] = {0.5, 0.1, 1e-2, 1e-9};
    for (int t = 0; t < 4; t++) {
        double left = 0;
        int64_t expected = 60;
        while (expected > 1 &&
               sqrt(left + sigma[expected - 1] * sigma[expected - 1]) <= tolerances[t] * norm) {
            left += sigma[expected - 1] * sigma[expected - 1];
            expected--;
        }
        lsp_svd_options options = lsp_svd_defaults();
        options.tolerance = tolerances[t];
        lsp_svd a = must_run(ctx, &d, &options);
        assert_int_equal(a.rank, expected);
        assert_true(a.tolerance_met);
        assert_true(a.certificate.frobenius_relative <= tolerances[t]);
        check_answer(&d, &a, "a tolerance");
        free_svd(&a);
        if (expected == 1) continue;
        options.rank = expected - 1;
        a = must_run(ctx, &d, &options);
        assert_int_equal(a.rank, expected - 1);
        assert_false(a.tolerance_met);
        assert_true(a.certificate.frobenius_relative > tolerances[t]);
        free_svd(&a);
    }
    free(w);
    free(sigma);
}

static void told(void *user, double done)
{
    double *last = user;
    assert_true(done > *last && done <= 1);
    *last = done;
}

static void bits_repeat_and_ranks_agree(void **state)
{
    (void)state;
    lsp_attention_desc d = plain(120, 90, 32, 0);
    d.mask = LSP_MASK_CAUSAL;
    lsp_svd_options options = lsp_svd_defaults();
    double done = 0;
    options.rank = 90;
    lsp_svd b = must_run(two_threads, &d, &options), c = must_run(alone, &d, &options);
    options.progress = told;
    options.user = &done;
    lsp_svd a = must_run(ctx, &d, &options);
    assert_true(done == 1);
    assert_memory_equal(a.sigma, b.sigma, 90 * sizeof(double));
    assert_memory_equal(a.u, b.u, 120 * 90 * sizeof(double));
    assert_memory_equal(a.v, b.v, 90 * 90 * sizeof(double));
    for (int64_t r = 0; r < 90; r++) assert_true(fabs(a.sigma[r] - c.sigma[r]) <= 1e-13 * a.sigma[0]);
    /* The first singular value stands apart, so its vectors agree, and their signs. */
    for (int64_t i = 0; i < 120; i++) assert_true(fabs(a.u[i * 90] - c.u[i * 90]) <= 1e-11);
    for (int64_t i = 0; i < 90; i++) assert_true(fabs(a.v[i * 90] - c.v[i * 90]) <= 1e-11);
    free_svd(&a);
    free_svd(&b);
    free_svd(&c);
}

/* ---- refusals --------------------------------------------------------------------------------------- */

static void what_cannot_be_done_is_refused(void **state)
{
    (void)state;
    lsp_svd_options options = lsp_svd_defaults();
    lsp_svd a;
    lsp_attention_desc d = plain(60, 50, 8, 0);
    assert_int_equal(run(ctx, &d, &options, -1, &a), LSP_ERR_USAGE); /* rank 0 without a tolerance */
    assert_non_null(strstr(lsp_context_message(ctx), "rank is 0"));
    options.rank = 5;
    assert_int_equal(run(ctx, &d, &options, 17, &a), LSP_ERR_CONTENT);
    assert_non_null(strstr(lsp_context_message(ctx), "3000 values of the 60 x 50"));
    d.mask = LSP_MASK_CAUSAL; /* key 17 is seen from row 27 on, and spoils what those rows see */
    assert_int_equal(run(ctx, &d, &options, 17, &a), LSP_ERR_CONTENT);
    assert_non_null(strstr(lsp_context_message(ctx), "row 27, column 0"));
}

static void memory_is_counted(void **state)
{
    (void)state;
    enum { N = 200, M = 300, D = 8 };
    lsp_svd_options options = lsp_svd_defaults();
    options.rank = 5;
    lsp_attention_desc d = plain(N, M, D, 0);
    lsp_full_svd_size size;
    assert_int_equal(lsp_full_svd_measure(N, M, ranks, true, &size, NULL), LSP_OK);
    /* pdgesvd's, the operator's, all keys, and three times the rows of a rank while they are formed and dealt. */
    lsp_operator *op = NULL;
    const lsp_run *runs;
    int64_t run_count, rows;
    assert_int_equal(lsp_operator_create(ctx, &d, &op), LSP_OK);
    lsp_operator_runs(op, LSP_QUERIES, &runs, &run_count, &rows);
    lsp_context_max_i64(ctx, &rows, 1);
    int64_t forming = (M * D + rows * (3 * M + D)) * (int64_t)sizeof(double);
    int64_t needed = size.bytes + forming + lsp_operator_get_estimate(op).footprint.total;
    lsp_operator_destroy(&op);
    lsp_svd a;
    d.memory_limit = needed * ctx->layout.node_ranks - 1;
    int64_t before = lsp_memory_now();
    assert_int_equal(run(ctx, &d, &options, -1, &a), LSP_ERR_LIMIT);
    assert_int_equal(lsp_memory_now(), before);
    char text[40];
    (void)snprintf(text, sizeof text, "may use %lld together", (long long)d.memory_limit);
    assert_non_null(strstr(lsp_context_message(ctx), text));
    (void)snprintf(text, sizeof text, "needs %lld bytes a rank", (long long)needed);
    assert_non_null(strstr(lsp_context_message(ctx), text));
    assert_non_null(strstr(lsp_context_message(ctx), "200 x 300"));
    d.memory_limit++;
    a = must_run(ctx, &d, &options);
    free_svd(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes_are_decomposed),
        cmocka_unit_test(masks_and_scores_are_kept),
        cmocka_unit_test(types_are_read),
        cmocka_unit_test(rank_one_is_found),
        cmocka_unit_test(tolerance_takes_the_least_rank),
        cmocka_unit_test(bits_repeat_and_ranks_agree),
        cmocka_unit_test(what_cannot_be_done_is_refused),
        cmocka_unit_test(memory_is_counted),
    };
    const test_context contexts[] = {{&ctx, 1, false}, {&two_threads, 2, false}, {&alone, 1, true}};
    return RUN_OVER_RANKS("full svd of W", tests, contexts, NULL, NULL);
}
