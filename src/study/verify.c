/* Verification: sampled rows against what they should be. SPDX-License-Identifier: BSD-3-Clause */
#include "base/checked.h"
#include "study/sample.h"

#include <longspan/study.h>
#include <math.h>
#include <string.h>

/* What keys whose scores cannot be told apart may do to the row, relative to it. */
static double swapped_share(const lsp_sample *s, int64_t i, double divisor, double spread)
{
    const lsp_reference_cut *cut = &s->cuts[i];
    const double *reference = s->sums + i * s->sums_count + LSP_SUM_VALUES;
    if (cut->swaps == 0) return 0;
    double square = 0;
    for (int64_t c = 0; c < s->desc.d_v; c++) square += reference[c] * reference[c];
    double weight = exp(cut->score + cut->near - s->peaks[i * LSP_PEAK_VALUES + LSP_PEAK_TOP]) / divisor;
    return (double)cut->swaps * 2 * weight * cut->length / fmax(sqrt(square), spread / 8);
}

/* Local; every rank has the same numbers and comes to the same result. */
static void compare(lsp_sample *s, double tolerance, lsp_verify_result *result)
{
    int64_t d_v = s->desc.d_v;
    *result = (lsp_verify_result){.rows = s->count, .max_rel_err = -1, .passed = true};
    for (int64_t i = 0; i < s->count; i++) {
        const uint64_t *owned = s->owned + i * s->owned_count;
        double *sums = s->sums + i * s->sums_count, *reference = sums + LSP_SUM_VALUES;
        double weight = sums[LSP_SUM_WEIGHT], *out = s->scratch, lse = 0, error = 0, lse_error = 0;
        lsp_sample_out(s, i, out);
        memcpy(&lse, &owned[LSP_OWNED_LSE], sizeof lse);
        lsp_row_check check = {.d_v = d_v,
                               .compute = s->desc.compute,
                               .kind = lsp_sample_kind(s, i),
                               .out = out,
                               .reference = reference,
                               .has_lse = owned[LSP_OWNED_HAS_LSE] != 0,
                               .lse = lse};
        double size = 0, swapped = 0;
        if (check.kind == LSP_REFERENCE_ORDINARY) {
            double kept = s->desc.renormalize ? weight - sums[LSP_SUM_DROPPED] : weight;
            for (int64_t c = 0; c < d_v; c++) reference[c] /= kept;
            check.spread = sqrt(sums[LSP_SUM_SPREAD]) / kept;
            swapped = swapped_share(s, i, kept, check.spread);
            if (s->cuts[i].swaps > 0) result->near_ties++;
            check.lse_reference = s->peaks[i * LSP_PEAK_VALUES + LSP_PEAK_TOP] + log(weight);
            size = sums[LSP_SUM_SIZE] / weight;
        }
        lsp_check_row(&check, &error, &lse_error);
        double allowed = tolerance > 0 ? tolerance : lsp_check_tolerance(s->desc.compute, s->desc.d_k, size);
        double lse_allowed = allowed + lsp_check_lse_rounding(s->desc.compute, check.lse_reference);
        if (!(error <= allowed + swapped) || !(lse_error <= lse_allowed)) result->passed = false;
        result->tolerance = fmax(result->tolerance, allowed);
        result->max_abs_score =
            fmax(result->max_abs_score, s->peaks[i * LSP_PEAK_VALUES + LSP_PEAK_MAGNITUDE]);
        result->max_lse_err = fmax(result->max_lse_err, lse_error);
        if (error <= result->max_rel_err) continue;
        result->max_rel_err = error;
        result->worst[0] = s->rows[i].batch;
        result->worst[1] = s->rows[i].head;
        result->worst[2] = s->rows[i].row;
    }
}

lsp_status lsp_verify_attention(lsp_context *ctx, const lsp_attention_desc *desc, const lsp_run *query_runs,
                                int64_t query_run_count, const lsp_run *key_runs, int64_t key_run_count,
                                const void *q, const void *k, const void *v, const void *out, const void *lse,
                                int64_t rows, uint64_t seed, double tolerance, lsp_verify_result *result)
{
    lsp_sample_source source = {query_runs, key_runs, query_run_count, key_run_count, q, k, v, out, lse};
    lsp_sample s = {.count = 0};
    lsp_status status = LSP_OK;
    if (!(tolerance >= 0))
        status = lsp_context_fail(ctx, LSP_ERR_USAGE,
                                  "verify: the tolerance %g asked for must not be negative", tolerance);
    status = lsp_context_agree(ctx, status);
    if (status == LSP_OK) status = lsp_sample_make(ctx, desc, &source, rows, seed, &s);
    if (status == LSP_OK) status = lsp_sample_compute(&s);
    if (status == LSP_OK) compare(&s, tolerance, result);
    lsp_sample_free(&s);
    return lsp_context_agree(ctx, status);
}
