/* Verification over ranks: right results pass, and every deliberate fault is caught.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "mpi_case.h"

#include "plain_problem.h"

#include <longspan/study.h>

enum { ALL = 1 << 20 }; /* sample every row */

static lsp_context *ctx;

static lsp_status run_verify(const problem *p, int64_t rows, double tolerance, lsp_verify_result *result)
{
    static share queries, keys;
    const lsp_attention_desc *d = &p->desc;
    deal(p, &queries, &keys);
    share packed = keys;
    if (p->outside_on_last && rank == ranks - 1) packed.count--;
    void *q = pack(&queries, p->q, d->q_type, d->heads, d->n, d->d_k);
    void *k = pack(&packed, p->k, d->k_type, d->kv_heads, d->m, d->d_k);
    void *v = pack(&packed, p->v, d->v_type, d->kv_heads, d->m, d->d_v);
    void *out = pack(&queries, p->out, d->compute, d->heads, d->n, d->d_v);
    void *lse = pack(&queries, p->lse, d->compute, d->heads, d->n, 1);
    lsp_status status = lsp_verify_attention(ctx, d, queries.runs, queries.count, keys.runs, keys.count, q, k,
                                             v, out, p->without_lse ? NULL : lse, rows, 3, tolerance, result);
    free(q);
    free(k);
    free(v);
    free(out);
    free(lse);
    return status;
}

static bool passes(const problem *p, int64_t rows)
{
    lsp_verify_result result;
    assert_int_equal(run_verify(p, rows, 0, &result), LSP_OK);
    return result.passed;
}

/* ---- the shapes and rules --------------------------------------------------------------------------- */

static const int64_t documents_q[] = {0, 4, 4, 21, 37}, documents_k[] = {0, 9, 12, 12, 53},
                     lengths[] = {53, 17};
static const int64_t heads_of[] = {1, 0, 0, 1};
static const double slopes[] = {0.5, 0.25, 0.125, 0.0625};

enum { CASES = 16 };

static lsp_attention_desc make_case(int number)
{
    lsp_attention_desc d = grouped(37, 53, 8, 5);
    switch (number) {
    case 1: d.mask = LSP_MASK_CAUSAL; break;
    case 2:
        d.mask = LSP_MASK_CAUSAL;
        d.align = LSP_ALIGN_TOP_LEFT;
        break;
    case 3:
        d.mask = LSP_MASK_WINDOW;
        d.window_left = 6;
        d.window_right = 2;
        break;
    case 4:
        d.mask = LSP_MASK_WINDOW;
        d.window_left = INT64_MAX;
        d.window_right = 0;
        d.align = LSP_ALIGN_TOP_LEFT;
        break;
    case 5:
        d.documents = documents_q;
        d.documents_k = documents_k;
        d.document_count = 4;
        d.mask = LSP_MASK_CAUSAL;
        break;
    case 6:
        d.m = d.n;
        d.documents = documents_q;
        d.document_count = 4;
        d.mask = LSP_MASK_WINDOW;
        d.window_left = 3;
        break;
    case 7:
        d.key_lengths = lengths;
        d.mask = LSP_MASK_CAUSAL;
        break; /* rows without keys in batch 1 */
    case 8:
        d.key_begin = 10;
        d.key_end = 31;
        d.row_begin = 5;
        d.row_end = 30;
        d.mask = LSP_MASK_CAUSAL;
        break;
    case 9:
        d.softcap = 0.7;
        d.scale = 0.9;
        break;
    case 10:
        d.alibi_slopes = slopes;
        d.mask = LSP_MASK_CAUSAL;
        break;
    case 11: d.kv_head_of = heads_of; break;
    case 12:
        d.q_type = LSP_F16;
        d.k_type = LSP_BF16;
        d.v_type = LSP_F16;
        break;
    case 13: d.q_type = d.k_type = d.v_type = d.compute = LSP_F64; break;
    case 14:
        d.m = 8;
        d.n = 20;
        d.mask = LSP_MASK_CAUSAL;
        break; /* the first rows see no key */
    case 15:
        d.documents = documents_q;
        d.documents_k = documents_k;
        d.document_count = 4;
        d.key_lengths = lengths;
        d.mask = LSP_MASK_CAUSAL; /* positions count from the end of what is left of a document */
        break;
    default: break;
    }
    return d;
}

static void verify_passes_right_results(void **state)
{
    (void)state;
    for (int number = 0; number < CASES; number++) {
        problem p = make_problem(make_case(number), 1);
        const lsp_attention_desc *d = &p.desc;
        lsp_verify_result result = {0};
        assert_int_equal(run_verify(&p, ALL, 0, &result), LSP_OK);
        if (!result.passed)
            fail_msg("case %d: error %g, lse %g", number, result.max_rel_err, result.max_lse_err);
        assert_int_equal(result.rows,
                         d->batch * d->heads * ((d->row_end > 0 ? d->row_end : d->n) - d->row_begin));
        double rounding = d->compute == LSP_F64 ? 1e-14 : 1e-6;
        assert_true(result.max_rel_err >= 0 && result.max_rel_err < rounding);
        assert_true(result.max_lse_err < rounding && result.tolerance > result.max_rel_err);
        assert_true(result.max_abs_score > 0 && result.max_abs_score < 30);
        p.without_lse = true;
        assert_int_equal(run_verify(&p, 16, 0, &result), LSP_OK);
        assert_true(result.passed && result.rows == 16 && result.max_lse_err == 0);
        free_problem(&p);
    }
}

static void expect_caught(problem *p, fault f, int64_t rows, const char *what, int number)
{
    solve(p, f);
    if (passes(p, rows)) fail_msg("case %d: %s not caught", number, what);
    p->without_lse = true; /* O alone must tell as well */
    if (passes(p, rows)) fail_msg("case %d: %s not caught without lse", number, what);
    p->without_lse = false;
}

static void verify_catches_faults_under_every_rule(void **state)
{
    (void)state;
    for (int number = 0; number < CASES; number++) {
        problem p = make_problem(make_case(number), 1);
        const lsp_attention_desc *d = &p.desc;
        const int64_t lost = d->m > 12 ? 12 : 3;
        expect_caught(&p, (fault){.drop_begin = lost, .drop_end = lost + 1}, ALL, "a lost key", number);
        expect_caught(&p, (fault){.scale = 0.01}, ALL, "a wrong scale", number);
        expect_caught(&p, (fault){.head_shift = 2}, ALL, "a swapped head", number);
        if (d->mask != LSP_MASK_NONE) {
            expect_caught(&p, (fault){.shift = 1}, ALL, "a mask edge one late", number);
            expect_caught(&p, (fault){.shift = -1}, ALL, "a mask edge one early", number);
        }
        free_problem(&p);
    }
}

/* One row wrong in one way must be caught when that row is sampled, and named. */
static void verify_catches_and_names_a_single_row(void **state)
{
    (void)state;
    const int64_t at = (1 * 4 + 2) * 37 + 20; /* batch 1, head 2, row 20 */
    problem p = make_problem(grouped(37, 53, 8, 5), 1);
    lsp_verify_result result;
    const double wrong[] = {(double)NAN, INFINITY, 0, 1.01};
    for (size_t w = 0; w < sizeof wrong / sizeof *wrong; w++) {
        solve(&p, (fault){0});
        p.out[at * 5 + 3] *= wrong[w];
        assert_int_equal(run_verify(&p, ALL, 0, &result), LSP_OK);
        assert_false(result.passed);
        assert_true(result.worst[0] == 1 && result.worst[1] == 2 && result.worst[2] == 20);
        assert_true(w < 2 ? isinf(result.max_rel_err)
                          : result.max_rel_err > 1e-4 && result.max_rel_err < 1.1);
    }
    solve(&p, (fault){0});
    p.lse[at] += 1e-3;
    assert_int_equal(run_verify(&p, ALL, 0, &result), LSP_OK);
    assert_true(!result.passed && result.max_lse_err > 9e-4 && result.max_lse_err < 1.1e-3);
    assert_int_equal(run_verify(&p, ALL, 0.01, &result), LSP_OK);
    assert_true(result.passed && result.tolerance == 0.01);
    free_problem(&p);
}

static void verify_samples_first_and_last_row(void **state)
{
    (void)state;
    lsp_attention_desc d = grouped(37, 53, 8, 5);
    d.row_begin = 3;
    d.row_end = 30;
    problem p = make_problem(d, 1);
    const int64_t first = 3, last = (1 * 4 + 3) * 37 + 29;
    assert_true(passes(&p, 3));
    p.out[first * 5] += 1;
    assert_false(passes(&p, 3));
    p.out[first * 5] -= 1;
    p.lse[last] += 1;
    assert_false(passes(&p, 3));
    free_problem(&p);
}

/* What a lost tile or a wrong edge does to ordinary data at a length where single keys weigh little. */
static void verify_catches_small_faults_of_long_rows(void **state)
{
    (void)state;
    lsp_attention_desc d = grouped(37, 53, 8, 5);
    d.batch = 1;
    d.heads = d.kv_heads = 1;
    d.n = 24;
    d.m = 6000;
    d.d_k = d.d_v = 64;
    d.mask = LSP_MASK_CAUSAL;
    problem p = make_problem(d, 1);
    assert_true(passes(&p, 16));
    expect_caught(&p, (fault){.drop_begin = 512, .drop_end = 1024}, 16, "a lost key tile", 0);
    expect_caught(&p, (fault){.shift = -1}, 16, "a mask edge one early", 0);
    expect_caught(&p, (fault){.drop_begin = 4000, .drop_end = 4001}, 16, "a lost key", 0);
    free_problem(&p);
}

/* Single precision with scores up to 1e4: what plain float arithmetic gives must pass. */
static void verify_allows_what_large_scores_cost(void **state)
{
    (void)state;
    lsp_attention_desc d = grouped(37, 53, 8, 5);
    d.n = 64;
    d.m = 80;
    d.d_k = 64;
    problem p = make_problem(d, 45);
    for (int64_t row = 0; row < d.batch * d.heads * d.n; row++) {
        const int64_t kv = row / (d.heads * d.n) * d.kv_heads + row / d.n % d.heads / 2;
        float s[80], top = -INFINITY, sum = 0, out[5] = {0};
        for (int64_t j = 0; j < d.m; j++) {
            float dot = 0;
            for (int64_t c = 0; c < d.d_k; c++)
                dot += (float)p.q[row * d.d_k + c] * 0.125f * (float)p.k[(kv * d.m + j) * d.d_k + c];
            s[j] = dot;
            top = fmaxf(top, dot);
        }
        for (int64_t j = 0; j < d.m; j++) {
            float w = expf(s[j] - top);
            sum += w;
            for (int64_t c = 0; c < 5; c++) out[c] += w * (float)p.v[(kv * d.m + j) * 5 + c];
        }
        for (int64_t c = 0; c < 5; c++) p.out[row * 5 + c] = (double)(out[c] / sum);
        p.lse[row] = (double)(top + logf(sum));
    }
    lsp_verify_result result;
    assert_int_equal(run_verify(&p, ALL, 0, &result), LSP_OK);
    assert_true(result.max_abs_score > 5e3 && result.tolerance < 0.02);
    assert_true(result.passed);
    free_problem(&p);
}

static void verify_follows_non_finite_operands(void **state)
{
    (void)state;
    for (int number = 0; number < 3; number++) {
        lsp_attention_desc d = grouped(37, 53, 8, 5);
        d.mask = LSP_MASK_CAUSAL;
        problem p = make_problem(d, 1);
        assert_true(passes(&p, ALL));
        if (number == 0) p.v[20 * 5 + 3] = (double)NAN;
        if (number == 1) p.k[20 * 8 + 3] = INFINITY;
        if (number == 2) p.q[20 * 8 + 3] = (double)NAN;
        assert_false(passes(&p, ALL)); /* rows that see it must show it */
        solve(&p, (fault){0});
        assert_true(passes(&p, ALL));
        assert_true(isfinite(p.out[0])); /* and a row before must not */
        p.out[0] = (double)NAN;
        assert_false(passes(&p, ALL));
        free_problem(&p);
    }
}

/* ---- wrong use: the same verdict everywhere ---------------------------------------------------------- */

static void expect_refused(const problem *p, int64_t rows, double tolerance, const char *text)
{
    lsp_verify_result result = {.rows = -7};
    assert_int_equal(run_verify(p, rows, tolerance, &result), LSP_ERR_USAGE);
    assert_int_equal(result.rows, -7);
    if (!strstr(lsp_context_message(ctx), text))
        fail_msg("\"%s\" lacks \"%s\"", lsp_context_message(ctx), text);
}

static void verify_refuses_wrong_use(void **state)
{
    (void)state;
    problem p = make_problem(grouped(37, 53, 8, 5), 1);
    expect_refused(&p, 0, 0, "rows");
    expect_refused(&p, 4, -1, "tolerance");
    p.hide_key = 30;
    expect_refused(&p, ALL, 0, "each must be held once");
    p.hide_key = -1;
    p.double_row = 2;
    expect_refused(&p, ALL, 0, "held 2 times");
    p.double_row = -1;
    p.outside_on_last = true;
    expect_refused(&p, ALL, 0, "outside of");
    p.outside_on_last = false;
    p.desc.q_type = LSP_I64;
    lsp_verify_result result;
    assert_int_equal(
        lsp_verify_attention(ctx, &p.desc, NULL, 0, NULL, 0, NULL, NULL, NULL, NULL, NULL, 4, 0, 0, &result),
        LSP_ERR_USAGE);
    p.desc.q_type = LSP_F32;
    p.desc.heads = 3;
    assert_int_equal(
        lsp_verify_attention(ctx, &p.desc, NULL, 0, NULL, 0, NULL, NULL, NULL, NULL, NULL, 4, 0, 0, &result),
        LSP_ERR_USAGE);
    p.desc.heads = 4;
    assert_true(passes(&p, 8)); /* a failure leaves the context usable */
    free_problem(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(verify_passes_right_results),
        cmocka_unit_test(verify_catches_faults_under_every_rule),
        cmocka_unit_test(verify_catches_and_names_a_single_row),
        cmocka_unit_test(verify_samples_first_and_last_row),
        cmocka_unit_test(verify_catches_small_faults_of_long_rows),
        cmocka_unit_test(verify_allows_what_large_scores_cost),
        cmocka_unit_test(verify_follows_non_finite_operands),
        cmocka_unit_test(verify_refuses_wrong_use),
    };
    const test_context contexts[] = {{&ctx, TWO_IF_ALONE, false}};
    return RUN_OVER_RANKS("verify", tests, contexts, NULL, NULL);
}
