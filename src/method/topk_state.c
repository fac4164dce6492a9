/* The state of the method topk, as it is saved. SPDX-License-Identifier: BSD-3-Clause */
#include "method/topk.h"

#include <string.h>

int lsp_topk_state(lsp_attention *plan, lsp_state_rows *arrays)
{
    const lsp_topk *t = plan->own;
    const lsp_candidates *c = &t->candidates;
    lsp_dtype type = lsp_dtype_result(plan->problem.desc.compute);
    /* Integers of 32 bits go as f32: nothing converts them on their way. */
    const lsp_state_rows keys[] = {{"/met", LSP_I64, 1, plan->met},
                                   {"/max", type, 1, plan->max},
                                   {"/sum", type, 1, plan->sum},
                                   {"/scores", type, c->stride, c->scores},
                                   {"/keys", LSP_F32, c->stride, c->keys},
                                   {"/counts", LSP_F32, 1, c->counts},
                                   {"/recent_max", type, 1, t->recent.max},
                                   {"/recent_sum", type, 1, t->recent.sum},
                                   {"/least", type, 1, c->least}};
    const lsp_state_rows values[] = {
        {"/met", LSP_I64, 1, plan->met},        {"/max", type, 1, plan->max},
        {"/sum", type, 1, plan->sum},           {"/scores", type, c->stride, c->scores},
        {"/keys", LSP_F32, c->stride, c->keys}, {"/counts", LSP_F32, 1, c->counts},
        {"/dropped", LSP_F64, 1, t->dropped},   {"/sums", LSP_F64, plan->problem.desc.d_v, t->sums}};
    bool first = plan->phase == LSP_TOPK_KEYS;
    memcpy(arrays, first ? keys : values, first ? sizeof keys : sizeof values);
    return (int)(first ? sizeof keys / sizeof *keys : sizeof values / sizeof *values);
}
