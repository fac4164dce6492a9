/* What the k largest weights leave out, and the answers about a plan of topk. SPDX-License-Identifier: BSD-3-Clause */
#include "base/checked.h"
#include "base/convert.h"
#include "base/memory.h"
#include "method/topk.h"

#include <math.h>
#include <string.h>

/* ---- the certificate ---------------------------------------------------------------------------- */

/* What a dropped mass may be off by: rounding of the sum and of the kept weights (in bf16 the sum is of rounded
 * weights). */
static double rounding_of(lsp_dtype compute)
{
    return compute == LSP_F64 ? 0x1p-46 : compute == LSP_F32 ? 0x1p-19 : 0x1p-7;
}

static double length_of(lsp_dtype type, const void *v, int64_t row, int64_t d_v)
{
    enum { PIECE = 64 };
    double values[PIECE], square = 0;
    for (int64_t c = 0; c < d_v; c += PIECE) {
        int64_t count = lsp_min(PIECE, d_v - c);
        lsp_convert_load(type, v, row * d_v + c, count, values);
        for (int64_t i = 0; i < count; i++) square += values[i] * values[i];
    }
    return isfinite(square) ? sqrt(square) : INFINITY;
}

/* Of the keys that exist, whether or not a row of the part sees them. */
static lsp_status find_lengths(lsp_attention *plan, lsp_topk *t, const void *v)
{
    const lsp_attention_desc *d = &plan->problem.desc;
    int64_t before = 0;
    memset(t->lengths, 0, (size_t)plan->problem.units * sizeof *t->lengths);
    for (int64_t i = 0; i < plan->key_run_count; i++) {
        lsp_run run = plan->key_runs[i];
        int64_t limit = d->key_lengths ? d->key_lengths[run.batch] : d->m,
                count = lsp_min(run.count, limit - run.begin);
        double longest = t->lengths[run.batch * d->kv_heads + run.head];
#pragma omp parallel for schedule(static) num_threads(plan->ctx->layout.threads) reduction(max : longest)
        for (int64_t row = 0; row < count; row++) {
            double length = length_of(d->v_type, v, before + row, d->d_v);
            if (length > longest) longest = length;
        }
        t->lengths[run.batch * d->kv_heads + run.head] = longest;
        before += run.count;
    }
    const int64_t piece = 512;
    lsp_status status = LSP_OK;
    for (int64_t u = 0; status == LSP_OK && u < plan->problem.units; u += piece)
        status = lsp_context_max_f64(plan->ctx, t->lengths + u, (int)lsp_min(piece, plan->problem.units - u));
    return status;
}

static int bin_of(double dropped)
{
    int bin = 0;
    for (double limit = 1e-6; bin < LSP_TOPK_BINS - 1 && dropped >= limit * (1 - 1e-12); limit *= 10) bin++;
    return bin;
}

lsp_status lsp_topk_certify(lsp_attention *plan, lsp_topk *t, const void *v)
{
    const lsp_attention_desc *d = &plan->problem.desc;
    enum { ROWS = LSP_TOPK_BINS, KEPT, COUNTS };
    int64_t counts[COUNTS] = {0};
    double sum = 0, most[3] = {0}; /* dropped mass, bound, whether some row is not a number */
    lsp_status status = find_lengths(plan, t, v);
    if (status != LSP_OK) return lsp_context_agree(plan->ctx, status);
    for (int64_t i = 0; i < plan->matrix_count; i++) {
        const lsp_query_matrix *m = &plan->matrices[i];
        double length = t->lengths[plan->unit_begin + m->unit] * (d->renormalize ? 2 : 1);
        for (int64_t row = m->first; row < m->first + plan->rows; row++) {
            double dropped = t->dropped[row];
            if (t->candidates.counts[row] == 0) continue;
            counts[ROWS]++;
            counts[KEPT] += t->candidates.counts[row];
            if (isnan(dropped)) {
                most[2] = 1;
                continue;
            }
            counts[bin_of(dropped)]++;
            sum += dropped;
            most[0] = fmax(most[0], dropped);
            if (dropped > 0) most[1] = fmax(most[1], (dropped + rounding_of(d->compute)) * length);
        }
    }
    status = lsp_context_sum_i64(plan->ctx, counts, COUNTS);
    if (status == LSP_OK) status = lsp_context_sum_f64(plan->ctx, &sum, 1);
    if (status == LSP_OK) status = lsp_context_max_f64(plan->ctx, most, 3);
    bool broken = most[2] > 0;
    t->certificate =
        (lsp_topk_certificate){.rows = counts[ROWS],
                               .kept = counts[KEPT],
                               .dropped_mass_mean = broken             ? NAN
                                                    : counts[ROWS] > 0 ? sum / (double)counts[ROWS]
                                                                       : 0,
                               .dropped_mass_max = broken ? NAN : most[0],
                               .out_error_bound = broken ? INFINITY : most[1]};
    memcpy(t->certificate.histogram, counts, sizeof t->certificate.histogram);
    return lsp_context_agree(plan->ctx, status);
}

/* ---- answers ------------------------------------------------------------------------------------ */

static lsp_status executed(const lsp_attention *plan, const lsp_topk **topk)
{
    *topk = plan->problem.desc.method == LSP_METHOD_TOPK ? plan->own : NULL;
    if (*topk && (*topk)->done) return LSP_OK;
    return lsp_context_fail(
        plan->ctx, LSP_ERR_USAGE,
        "the kept weights are asked for of a plan whose method is not topk, or before it was "
        "executed");
}

lsp_status lsp_topk_get_certificate(const lsp_attention *plan, lsp_topk_certificate *certificate)
{
    const lsp_topk *t = NULL;
    lsp_status status = executed(plan, &t);
    if (status == LSP_OK) *certificate = t->certificate;
    return status;
}

lsp_status lsp_topk_get_weights(const lsp_attention *plan, lsp_topk_weights *weights)
{
    const lsp_topk *t = NULL;
    lsp_status status = executed(plan, &t);
    if (status == LSP_OK)
        *weights = (lsp_topk_weights){plan->query_rows, t->candidates.stride, t->candidates.counts,
                                      t->candidates.keys, t->candidates.scores};
    return status;
}

lsp_status lsp_topk_offsets(const lsp_attention_desc *desc, int64_t batch, int64_t *offsets)
{
    lsp_error error;
    lsp_problem problem;
    if (desc->method != LSP_METHOD_TOPK || batch < 0 || batch >= desc->batch) return LSP_ERR_USAGE;
    lsp_status status = lsp_problem_make(desc, &problem, &error);
    if (status != LSP_OK) return status;
    int64_t most = lsp_topk_most(&problem.desc), before = 0;
    for (int64_t row = problem.desc.row_begin; row < problem.desc.row_end; row++) {
        lsp_sight sight = lsp_mask_sight(&problem.mask, batch, row);
        *offsets++ = before;
        before += lsp_min(most, sight.end - sight.begin);
    }
    *offsets = before;
    lsp_problem_free(&problem);
    return LSP_OK;
}
