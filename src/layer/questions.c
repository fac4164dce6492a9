/* What a layer tells of itself. SPDX-License-Identifier: BSD-3-Clause */
#include "layer/layer.h"

void lsp_layer_runs(const lsp_layer *layer, lsp_layer_operand operand, const lsp_run **runs,
                    int64_t *run_count, int64_t *rows)
{
    const lsp_layer_line *line = operand == LSP_LAYER_X ? &layer->x : &layer->context;
    *runs = line->runs;
    *run_count = line->run_count;
    *rows = line->end - line->begin;
}

const lsp_attention *lsp_layer_attention(const lsp_layer *layer)
{
    return layer->plan;
}

lsp_attention *lsp_layer_state(lsp_layer *layer, void **out)
{
    *out = layer->planned_out;
    return layer->plan;
}

int64_t lsp_layer_bytes(const lsp_layer *layer)
{
    return layer->bytes;
}

void lsp_layer_set_progress(lsp_layer *layer, lsp_progress_fn progress, void *user)
{
    lsp_attention_set_progress(layer->plan, progress, user);
}

lsp_layer_inside lsp_layer_get_inside(const lsp_layer *layer)
{
    return (lsp_layer_inside){layer->desc, layer->planned[LSP_LAYER_Q], layer->planned[LSP_LAYER_K],
                              layer->planned[LSP_LAYER_V], layer->planned_out};
}
