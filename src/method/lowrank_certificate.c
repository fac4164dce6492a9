/* What truncated matrices leave out of the output, and the answers about a plan of lowrank.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "base/checked.h"
#include "base/memory.h"
#include "linalg/small_svd.h"
#include "linalg/tall_product.h"
#include "method/lowrank.h"

#include <math.h>

/* An upper limit of ||W - W_r||_F: what the certificate says with an allowance for its rounding, which at the floor is a
 * per cent and falls with the square; its floor where it says nothing. */
static double error_at_most(const lsp_svd_certificate *c)
{
    return c->meaningful ? hypot(c->frobenius_error, c->norm * c->floor / 7) : c->norm * c->floor;
}

lsp_status lsp_lowrank_bound(lsp_context *ctx, int64_t keys, int64_t d_v, const double *left,
                             lsp_lowrank_head *head)
{
    double *gram = lsp_memory_alloc(d_v * d_v, sizeof *gram), *values = lsp_memory_alloc(d_v, sizeof *values),
           check = 0;
    lsp_status status = LSP_OK;
    if (!gram || !values) status = lsp_context_fail(ctx, LSP_ERR_LIMIT, "not enough memory for V^T V");
    status = lsp_context_agree(ctx, status);
    if (status == LSP_OK) status = lsp_tall_inner(ctx, keys, left, d_v, left, d_v, gram);
    for (int64_t i = 0; status == LSP_OK && i < d_v * d_v; i++) check += gram[i] * 0;
    if (status == LSP_OK && check == 0) {
        status = lsp_small_svd(ctx, d_v, d_v, gram, values, NULL, NULL);
        head->values_norm = status == LSP_OK ? sqrt(values[0]) : 0;
        head->out_error_bound = error_at_most(&head->certificate) * head->values_norm;
    } else {
        head->values_norm = head->out_error_bound = INFINITY;
    }
    lsp_memory_free(gram);
    lsp_memory_free(values);
    return status;
}

lsp_lowrank_certificate lsp_lowrank_together(const lsp_lowrank_head *heads, int64_t count)
{
    lsp_lowrank_certificate all = {.heads = count, .whole = {.meaningful = true}};
    double norm = 0, error = 0, bound = 0;
    for (int64_t i = 0; i < count; i++) {
        const lsp_lowrank_head *h = &heads[i];
        norm += h->certificate.norm * h->certificate.norm;
        error += h->certificate.frobenius_error * h->certificate.frobenius_error;
        bound += h->out_error_bound * h->out_error_bound;
        all.rank = lsp_max(all.rank, h->rank);
        all.rank_least = i == 0 ? h->rank : lsp_min(all.rank_least, h->rank);
        all.whole.floor = fmax(all.whole.floor, h->certificate.floor);
        all.unclear += !h->certificate.meaningful;
        all.unmet += !h->tolerance_met;
    }
    all.whole.norm = sqrt(norm);
    all.whole.frobenius_error = sqrt(error);
    all.whole.frobenius_relative = norm > 0 ? sqrt(error / norm) : 0;
    all.whole.meaningful = all.unclear == 0;
    all.out_error_bound = sqrt(bound);
    return all;
}

/* ---- answers ------------------------------------------------------------------------------------ */

static lsp_status executed(const lsp_attention *plan, const lsp_lowrank **lowrank)
{
    *lowrank = plan->problem.desc.method == LSP_METHOD_LOWRANK ? plan->own : NULL;
    if (*lowrank && (*lowrank)->done) return LSP_OK;
    return lsp_context_fail(
        plan->ctx, LSP_ERR_USAGE,
        "the truncated matrices are asked for of a plan whose method is not lowrank, or before "
        "it was executed");
}

lsp_status lsp_lowrank_get_certificate(const lsp_attention *plan, lsp_lowrank_certificate *certificate)
{
    const lsp_lowrank *l = NULL;
    lsp_status status = executed(plan, &l);
    if (status == LSP_OK) *certificate = l->certificate;
    return status;
}

lsp_status lsp_lowrank_get_heads(const lsp_attention *plan, const lsp_lowrank_head **heads, int64_t *count)
{
    const lsp_lowrank *l = NULL;
    lsp_status status = executed(plan, &l);
    if (status != LSP_OK) return status;
    *heads = l->heads;
    *count = plan->matrix_count;
    return LSP_OK;
}

lsp_status lsp_lowrank_get_values(const lsp_attention *plan, const void **values)
{
    const lsp_lowrank *l = NULL;
    lsp_status status = executed(plan, &l);
    if (status == LSP_OK && !l->values)
        status = lsp_context_fail(plan->ctx, LSP_ERR_USAGE,
                                  "the projected values were not kept: set keep_values in the description");
    if (status == LSP_OK) *values = l->values;
    return status;
}
