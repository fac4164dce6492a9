/* SPDX-License-Identifier: BSD-3-Clause */
#include "study/compare_certificate.h"

#include <math.h>

lsp_status lsp_compare_verify(lsp_context *ctx, const lsp_attention *plan, const lsp_attention_desc *desc,
                              const lsp_compare_options *options, const void *q, const void *k, const void *v,
                              const void *out, const void *lse, lsp_compare_result *result)
{
    lsp_attention_desc d = *desc;
    const lsp_run *queries = NULL, *keys = NULL;
    int64_t query_count = 0, key_count = 0, rows = 0;
    lsp_status status = LSP_OK;
    if (options->verify_rows == 0) return LSP_OK;
    (void)lsp_attention_runs(plan, LSP_QUERIES, &queries, &query_count, &rows);
    (void)lsp_attention_runs(plan, LSP_KEYS, &keys, &key_count, &rows);
    if (d.method == LSP_METHOD_LOWRANK) {
        status = lsp_context_agree(ctx, lsp_lowrank_get_values(plan, &v));
        d.v_type = d.compute;
    }
    if (status == LSP_OK)
        status = lsp_verify_attention(ctx, &d, queries, query_count, keys, key_count, q, k, v, out, lse,
                                      options->verify_rows, 0, options->verify_tolerance, &result->verify);
    result->verified = status == LSP_OK;
    return status;
}

static void take_topk(lsp_compare_result *result)
{
    result->retained = LSP_RETAINED_CERTIFICATE;
    result->retained_mean = 1 - result->topk.dropped_mass_mean;
    result->retained_least = 1 - result->topk.dropped_mass_max;
    result->out_error_bound = result->topk.out_error_bound;
}

static double energy(const lsp_svd_certificate *c)
{
    return 1 - c->frobenius_relative * c->frobenius_relative;
}

static lsp_status take_lowrank(const lsp_attention *plan, const lsp_attention_desc *desc,
                               lsp_compare_result *result, lsp_compare_head *heads)
{
    const lsp_lowrank_head *list = NULL;
    int64_t count = 0;
    lsp_status status = lsp_lowrank_get_certificate(plan, &result->lowrank);
    if (status == LSP_OK) status = lsp_lowrank_get_heads(plan, &list, &count);
    if (status != LSP_OK) return status;
    result->retained = LSP_RETAINED_ENERGY;
    result->retained_mean = result->retained_least = energy(&result->lowrank.whole);
    result->out_error_bound = result->lowrank.out_error_bound;
    for (int64_t i = 0; i < count; i++) {
        double own = energy(&list[i].certificate);
        result->retained_least = fmin(result->retained_least, own);
        if (!heads) continue;
        lsp_compare_head *head = &heads[list[i].batch * desc->heads + list[i].head];
        head->lowrank = list[i];
        head->retained = own;
    }
    return LSP_OK;
}

lsp_status lsp_compare_certify(lsp_context *ctx, const lsp_attention *plan, const lsp_attention_desc *desc,
                               lsp_compare_result *result, lsp_compare_head *heads)
{
    lsp_status status = LSP_OK;
    switch (desc->method) {
    case LSP_METHOD_EXACT:
        result->retained = LSP_RETAINED_ALL;
        result->retained_mean = result->retained_least = 1;
        for (int64_t i = 0; heads && i < desc->batch * desc->heads; i++) heads[i].retained = 1;
        break;
    case LSP_METHOD_BLOCK: result->retained = LSP_RETAINED_LSE; break;
    case LSP_METHOD_TOPK:
        status = lsp_topk_get_certificate(plan, &result->topk);
        if (status == LSP_OK) take_topk(result);
        break;
    case LSP_METHOD_LOWRANK: status = take_lowrank(plan, desc, result, heads); break;
    }
    return lsp_context_agree(ctx, status);
}
