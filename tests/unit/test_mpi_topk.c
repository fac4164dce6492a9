/* The library's calls for topk on several ranks: kept weights against the definition, certificate, refusals.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "mpi_case.h"

#include "attention_case.h"

#include <longspan/longspan.h>

static lsp_context *ctx;

static lsp_attention_desc desc_of(int64_t n, int64_t m, int64_t topk)
{
    lsp_attention_desc d = in_double(grouped(n, m, 12, 5));
    d.method = LSP_METHOD_TOPK;
    d.topk = topk;
    return d;
}

/* Scores of one row, -INFINITY where it sees nothing; returns the log of their sum of exponentials. */
static double score_row(const lsp_attention_desc *d, const lsp_run *run, int64_t row, double *scores)
{
    double *q = make_matrix(d, ROLE_Q, run->batch, run->head);
    double *k = make_matrix(d, ROLE_K, run->batch, kv_head(d, run->head)), sum = 0;
    int64_t distance = 0;
    for (int64_t j = 0; j < d->m; j++) {
        scores[j] = -INFINITY;
        if (!sees(d, run->batch, row, j, &distance)) continue;
        double dot = 0;
        for (int64_t c = 0; c < d->d_k; c++) dot += q[row * d->d_k + c] * k[j * d->d_k + c];
        scores[j] = dot / sqrt((double)d->d_k);
        sum += exp(scores[j]);
    }
    free(q);
    free(k);
    return log(sum);
}

/* The entries of one local row are the largest scores, in the order of keys, with their weights. */
static double check_row(const lsp_attention_desc *d, const lsp_topk_weights *w, int64_t local,
                        const lsp_run *run, int64_t row)
{
    double *scores = case_alloc(d->m, sizeof *scores), kept = 0, least = INFINITY, most = -INFINITY;
    double lse = score_row(d, run, row, scores);
    const int32_t *keys = w->keys + local * w->stride;
    const double *weights = (const double *)w->weights + local * w->stride;
    for (int64_t e = 0; e < w->counts[local]; e++) {
        double score = scores[keys[e]];
        assert_true(e == 0 || keys[e] > keys[e - 1]);
        assert_true(fabs(weights[e] - exp(score - lse)) < 1e-13);
        least = fmin(least, score);
        kept += exp(score - lse);
        scores[keys[e]] = -INFINITY;
    }
    int64_t left = 0;
    for (int64_t j = 0; j < d->m; j++) {
        most = fmax(most, scores[j]);
        left += scores[j] > -INFINITY;
    }
    assert_true(left == 0 || w->counts[local] == d->topk);
    assert_true(most <= least);
    free(scores);
    return w->counts[local] > 0 ? 1 - kept : 0;
}

static void kept_weights_are_the_largest(void **state)
{
    (void)state;
    const int64_t topks[] = {1, 7, 300};
    for (int mask = LSP_MASK_NONE; mask <= LSP_MASK_CAUSAL; mask++)
        for (int t = 0; t < 3; t++) {
            lsp_attention_desc d = desc_of(23, 90, topks[t]);
            const int64_t lengths[] = {90, 40};
            d.mask = (lsp_mask_kind)mask;
            d.key_lengths = lengths;
            lsp_attention *plan = NULL;
            assert_int_equal(lsp_attention_create(ctx, &d, &plan), LSP_OK);
            lsp_topk_certificate certificate;
            lsp_topk_weights weights;
            assert_int_equal(lsp_topk_get_certificate(plan, &certificate), LSP_ERR_USAGE);
            assert_int_equal(lsp_topk_get_weights(plan, &weights), LSP_ERR_USAGE);
            const lsp_run *runs, *key_runs;
            int64_t run_count, rows, key_run_count, key_rows, local = 0, kept = 0;
            lsp_attention_runs(plan, LSP_QUERIES, &runs, &run_count, &rows);
            lsp_attention_runs(plan, LSP_KEYS, &key_runs, &key_run_count, &key_rows);
            void *q = make_rows(&d, ROLE_Q, runs, run_count, rows, NULL);
            void *k = make_rows(&d, ROLE_K, key_runs, key_run_count, key_rows, NULL);
            void *v = make_rows(&d, ROLE_V, key_runs, key_run_count, key_rows, NULL);
            double *out = case_alloc(rows * d.d_v, sizeof *out), most = 0;
            for (int twice = 0; twice < 2; twice++)
                assert_int_equal(lsp_attention_execute(plan, q, k, v, out, NULL, NULL), LSP_OK);
            assert_int_equal(lsp_topk_get_weights(plan, &weights), LSP_OK);
            assert_int_equal(weights.rows, rows);
            for (int64_t r = 0; r < run_count; r++)
                for (int64_t row = runs[r].begin; row < runs[r].begin + runs[r].count; row++, local++) {
                    int64_t offsets[24];
                    most = fmax(most, check_row(&d, &weights, local, &runs[r], row));
                    kept += weights.counts[local];
                    assert_int_equal(lsp_topk_offsets(&d, runs[r].batch, offsets), LSP_OK);
                    assert_int_equal(offsets[row + 1] - offsets[row], weights.counts[local]);
                }
            assert_int_equal(lsp_topk_get_certificate(plan, &certificate), LSP_OK);
            lsp_context_sum_i64(ctx, &kept, 1);
            lsp_context_max_f64(ctx, &most, 1);
            assert_int_equal(certificate.kept, kept);
            assert_true(fabs(certificate.dropped_mass_max - most) < 1e-12);
            assert_true(certificate.dropped_mass_mean <= certificate.dropped_mass_max);
            assert_true(certificate.out_error_bound >= 0 && isfinite(certificate.out_error_bound));
            free(q);
            free(k);
            free(v);
            free(out);
            lsp_attention_destroy(&plan);
        }
}

static void bad_descriptions_are_refused(void **state)
{
    (void)state;
    lsp_attention *plan = NULL;
    lsp_attention_desc d = desc_of(5, 6, 0);
    int64_t offsets[6];
    assert_int_equal(lsp_attention_create(ctx, &d, &plan), LSP_ERR_USAGE);
    assert_non_null(strstr(lsp_context_message(ctx), "topk is 0"));
    assert_int_equal(lsp_topk_offsets(&d, 0, offsets), LSP_ERR_USAGE);
    d.topk = 3;
    assert_int_equal(lsp_topk_offsets(&d, 2, offsets), LSP_ERR_USAGE);
    d.m = (int64_t)1 << 31;
    assert_int_equal(lsp_attention_create(ctx, &d, &plan), LSP_ERR_LIMIT);
    d = desc_of(5, 6, 3);
    d.method = (lsp_method)17;
    assert_int_equal(lsp_attention_create(ctx, &d, &plan), LSP_ERR_USAGE);
    d.method = LSP_METHOD_EXACT;
    assert_int_equal(lsp_topk_offsets(&d, 0, offsets), LSP_ERR_USAGE);
    assert_null(plan);
    lsp_topk_certificate certificate;
    assert_int_equal(lsp_attention_create(ctx, &d, &plan), LSP_OK);
    assert_int_equal(lsp_topk_get_certificate(plan, &certificate), LSP_ERR_USAGE);
    lsp_attention_destroy(&plan);
}

/* k changes what is allocated, and the refusal names it before anything large is. */
static void memory_counts_candidates(void **state)
{
    (void)state;
    lsp_attention *plan = NULL;
    lsp_attention_desc d = desc_of(50000, 100000, 64);
    assert_int_equal(lsp_attention_create(ctx, &d, &plan), LSP_OK);
    lsp_estimate few = lsp_attention_get_estimate(plan), many;
    lsp_attention_destroy(&plan);
    d.topk = 20000;
    assert_int_equal(lsp_attention_estimate(&d, ctx->layout.ranks, ctx->layout.ranks, 1, &many, NULL, 0),
                     LSP_OK);
    double rows = 2.0 * 4 * 50000 / ctx->layout.ranks;
    assert_true((double)(many.footprint.work - few.footprint.work) > 0.9 * rows * 12 * 20000);
    d.memory_limit = (int64_t)1 << 30;
    assert_int_equal(lsp_attention_create(ctx, &d, &plan), LSP_ERR_LIMIT);
    assert_null(plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kept_weights_are_the_largest),
        cmocka_unit_test(bad_descriptions_are_refused),
        cmocka_unit_test(memory_counts_candidates),
    };
    const test_context contexts[] = {{&ctx, 2, false}};
    return RUN_OVER_RANKS("topk", tests, contexts, NULL, NULL);
}
