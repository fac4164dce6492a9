/* SPDX-License-Identifier: BSD-3-Clause */
#include "app/recheck.h"

lsp_status lsp_recheck_rows(lsp_app *app, const lsp_attention_desc *desc, const lsp_attention *plan,
                            const lsp_operands *o, lsp_verify_result *result)
{
    int64_t rows = lsp_options_int(app->options, LSP_KEY_VERIFY_ROWS);
    double tolerance = lsp_options_real(app->options, LSP_KEY_VERIFY_TOLERANCE);
    lsp_attention_desc d = *desc;
    const void *v = o->v;
    lsp_status status = LSP_OK;
    if (d.method == LSP_METHOD_LOWRANK) {
        status = lsp_context_agree(app->ctx, lsp_lowrank_get_values(plan, &v));
        d.v_type = d.compute;
    }
    if (status != LSP_OK) return status;
    return lsp_verify_attention(app->ctx, &d, o->query_runs, o->query_run_count, o->key_runs,
                                o->key_run_count, o->q, o->k, v, o->out, o->lse, rows, 0, tolerance, result);
}
