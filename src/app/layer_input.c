/* What a layer is computed from: rows, weights, and the rule of the scores. SPDX-License-Identifier: BSD-3-Clause */
#include "app/layer.h"

#include "app/format.h"
#include "base/memory.h"

#include <inttypes.h>

/* Opens rows [n, d] or [B, n, d]; the batch stands where a tensor has its heads. */
static lsp_status open_rows(lsp_app *app, lsp_key key, lsp_source *source)
{
    lsp_status status = lsp_source_resolve(app, key, source);
    if (status == LSP_OK)
        status = lsp_tensor_open(app->ctx, source->file, source->dataset, LSP_VIEW_ROWS, LSP_BHND,
                                 &source->tensor);
    if (status != LSP_OK) return status;
    source->shape = lsp_tensor_get_shape(source->tensor);
    const lsp_tensor_shape *s = &source->shape;
    char shape[LSP_FORMAT_SIZE];
    if (s->axes > 3)
        return lsp_context_fail(app->ctx, LSP_ERR_CONTENT,
                                "%s of %s is %s; wanted is [n, d_model] or [B, n, d_model]", source->dataset,
                                source->file, lsp_format_shape(s, shape));
    if (s->type != LSP_F32 && s->type != LSP_F64)
        return lsp_context_fail(app->ctx, LSP_ERR_CONTENT,
                                "%s of %s is %s; rows of a layer must be f32 or f64: convert them",
                                source->dataset, source->file, lsp_format_shape(s, shape));
    return LSP_OK;
}

static lsp_status check_context(lsp_app *app, const lsp_layer_input *input)
{
    const lsp_tensor_shape *x = &input->x.shape, *c = &input->context.shape;
    char one[LSP_FORMAT_SIZE], other[LSP_FORMAT_SIZE];
    if (c->d == x->d && c->heads == x->heads) return LSP_OK;
    return lsp_context_fail(app->ctx, LSP_ERR_CONTENT,
                            "%s of x and context differ: %s of %s is %s, %s of %s is %s; check the datasets",
                            c->d != x->d ? "d_model" : "the batches", input->x.dataset, input->x.file,
                            lsp_format_shape(x, one), input->context.dataset, input->context.file,
                            lsp_format_shape(c, other));
}

lsp_status lsp_layer_input_take_heads(lsp_app *app, lsp_attention_desc *a)
{
    lsp_status status = lsp_app_require(app, LSP_KEY_LAYER_HEADS);
    if (status != LSP_OK) return status;
    a->heads = lsp_options_int(app->options, LSP_KEY_LAYER_HEADS);
    a->kv_heads = lsp_options_int(app->options, LSP_KEY_LAYER_KV_HEADS);
    if (a->kv_heads == 0) a->kv_heads = a->heads;
    if (a->kv_heads <= a->heads && a->heads % a->kv_heads == 0 && a->heads <= 1 << 20) return LSP_OK;
    return lsp_context_fail(app->ctx, LSP_ERR_USAGE,
                            "%s: layer.heads = %" PRId64
                            " (at most 2^20) is no multiple of layer.kv_heads = %" PRId64,
                            lsp_options_origin(app->options, LSP_KEY_LAYER_HEADS), a->heads, a->kv_heads);
}

static lsp_status take_rotary(lsp_app *app, lsp_layer_input *input)
{
    lsp_options *options = app->options;
    lsp_layer_desc *desc = &input->desc;
    desc->qk_norm = lsp_options_yes(options, LSP_KEY_LAYER_QK_NORM);
    if (desc->qk_norm) desc->qk_norm_eps = lsp_options_real(options, LSP_KEY_LAYER_QK_NORM_EPS);
    desc->rope_base = lsp_options_real(options, LSP_KEY_LAYER_ROPE_BASE);
    if (desc->rope_base <= 0) return LSP_OK;
    desc->rope_pairing = (lsp_rope_pairing)lsp_options_choice(options, LSP_KEY_LAYER_ROPE_PAIRING);
    if (desc->cross)
        input->rule.desc.align =
            (lsp_causal_align)lsp_options_choice(options, LSP_KEY_ATTENTION_CAUSAL_ALIGN);
    if (input->rule.desc.d_k % 2 == 0) return LSP_OK;
    return lsp_context_fail(app->ctx, LSP_ERR_USAGE,
                            "%s: rotary positions turn pairs, but head_dim is %" PRId64 " by the weights; "
                            "check layer.heads, or set layer.rope_base = 0",
                            lsp_options_origin(options, LSP_KEY_LAYER_ROPE_BASE), input->rule.desc.d_k);
}

lsp_status lsp_layer_input_look(lsp_app *app, lsp_layer_input *input)
{
    *input = (lsp_layer_input){.nonfinite = 0};
    lsp_attention_desc *a = &input->rule.desc;
    lsp_status status = lsp_layer_input_take_heads(app, a);
    if (status == LSP_OK) status = open_rows(app, LSP_KEY_INPUT_X, &input->x);
    input->desc.cross = lsp_options_is_set(app->options, LSP_KEY_INPUT_CONTEXT);
    if (status == LSP_OK && input->desc.cross) {
        status = open_rows(app, LSP_KEY_INPUT_CONTEXT, &input->context);
        if (status == LSP_OK) status = check_context(app, input);
    }
    if (status != LSP_OK) return status;
    a->batch = input->x.shape.heads;
    a->n = input->x.shape.n;
    a->m = input->desc.cross ? input->context.shape.n : a->n;
    input->desc.d_model = input->x.shape.d;
    input->desc.x_type = input->x.shape.type;
    input->desc.context_type = input->desc.cross ? input->context.shape.type : input->desc.x_type;
    input->rule.head_total = a->heads;
    status = lsp_layer_weights_open(app, input);
    if (status == LSP_OK) status = lsp_input_take_rule(app, &input->rule);
    if (status == LSP_OK) status = take_rotary(app, input);
    input->desc.attention = *a;
    return status;
}

lsp_status lsp_layer_input_open(lsp_app *app, lsp_layer_input *input)
{
    lsp_status status = lsp_layer_input_look(app, input);
    return status == LSP_OK ? lsp_layer_weights_read(app, input) : status;
}

void lsp_layer_input_close(lsp_layer_input *input)
{
    lsp_source_close(&input->x);
    lsp_source_close(&input->context);
    for (int i = 0; i < LSP_WEIGHT_COUNT; i++) {
        lsp_source_close(&input->parts[i]);
        lsp_memory_free(input->arrays[i]);
    }
    lsp_memory_free(input->weights_file);
    lsp_memory_free(input->weights_group);
    lsp_input_close(&input->rule);
    *input = (lsp_layer_input){.nonfinite = 0};
}
