/* SPDX-License-Identifier: BSD-3-Clause */
#include "app/input.h"

#include "app/format.h"
#include "base/memory.h"

#include <inttypes.h>

/* "d_k of q and k differ: /q of x.h5 is [4, 100, 64] f32, /k of x.h5 is [4, 100, 32] f32". */
static lsp_status refuse_pair(lsp_app *app, const char *what, const lsp_source *a, const lsp_source *b,
                              const char *remedy)
{
    char one[LSP_FORMAT_SIZE], other[LSP_FORMAT_SIZE];
    return lsp_context_fail(app->ctx, LSP_ERR_CONTENT, "%s: %s of %s is %s, %s of %s is %s; %s", what,
                            a->dataset, a->file, lsp_format_shape(&a->shape, one), b->dataset, b->file,
                            lsp_format_shape(&b->shape, other), remedy);
}

/* Where values are not read, k stands for them. */
static lsp_status check_shapes(lsp_app *app, const lsp_input *input)
{
    const lsp_source *q = &input->q, *k = &input->k, *v = input->v.tensor ? &input->v : &input->k;
    const lsp_source *all[] = {q, k, v};
    static const char layout[] = "check the datasets and input.layout";
    for (int i = 0; i < 3; i++) {
        if (all[i]->shape.axes >= 2) continue;
        return lsp_context_fail(app->ctx, LSP_ERR_CONTENT,
                                "%s of %s has one axis; wanted are [n, d], [H, n, d] or [B, H, n, d]",
                                all[i]->dataset, all[i]->file);
    }
    if (q->shape.d != k->shape.d) return refuse_pair(app, "d_k of q and k differ", q, k, layout);
    if (k->shape.n != v->shape.n) return refuse_pair(app, "k and v have different rows", k, v, layout);
    if (k->shape.heads != v->shape.heads)
        return refuse_pair(app, "k and v have different heads", k, v, layout);
    if (q->shape.batch != k->shape.batch)
        return refuse_pair(app, "q and k have different batches", q, k, layout);
    if (k->shape.batch != v->shape.batch)
        return refuse_pair(app, "k and v have different batches", k, v, layout);
    if (q->shape.heads % k->shape.heads != 0)
        return refuse_pair(app, "the heads of q are no multiple of those of k", q, k, layout);
    return LSP_OK;
}

lsp_status lsp_input_open(lsp_app *app, lsp_input *input)
{
    *input = (lsp_input){0};
    lsp_status status = lsp_source_open(app, LSP_KEY_INPUT_Q, &input->q);
    if (status == LSP_OK) status = lsp_source_open(app, LSP_KEY_INPUT_K, &input->k);
    if (status == LSP_OK && !(app->command->uses & (LSP_FOR_SVD | LSP_FOR_MAP)))
        status = lsp_source_open(app, LSP_KEY_INPUT_V, &input->v);
    if (status == LSP_OK) status = check_shapes(app, input);
    if (status != LSP_OK) return status;
    const lsp_tensor_shape *q = &input->q.shape, *k = &input->k.shape;
    const lsp_tensor_shape *v = input->v.tensor ? &input->v.shape : k;
    lsp_attention_desc *desc = &input->desc;
    desc->batch = q->batch;
    desc->heads = q->heads;
    desc->kv_heads = k->heads;
    desc->n = q->n;
    desc->m = k->n;
    desc->d_k = q->d;
    desc->d_v = v->d;
    desc->q_type = q->type;
    desc->k_type = k->type;
    desc->v_type = v->type;
    input->head_total = q->heads;
    status = lsp_input_select(app, input);
    return status == LSP_OK ? lsp_input_take_rule(app, input) : status;
}

lsp_status lsp_input_take_shape(lsp_app *app, lsp_attention_desc *desc)
{
    lsp_options *options = app->options;
    lsp_status status = lsp_app_require(app, LSP_KEY_SHAPE_N);
    if (status == LSP_OK) status = lsp_app_require(app, LSP_KEY_SHAPE_D_K);
    if (status != LSP_OK) return status;
    desc->batch = lsp_options_int(options, LSP_KEY_SHAPE_BATCH);
    desc->heads = lsp_options_int(options, LSP_KEY_SHAPE_HEADS);
    desc->kv_heads = lsp_options_int(options, LSP_KEY_SHAPE_KV_HEADS);
    desc->n = lsp_options_int(options, LSP_KEY_SHAPE_N);
    desc->m = lsp_options_int(options, LSP_KEY_SHAPE_M);
    desc->d_k = lsp_options_int(options, LSP_KEY_SHAPE_D_K);
    desc->d_v = lsp_options_int(options, LSP_KEY_SHAPE_D_V);
    if (desc->kv_heads == 0) desc->kv_heads = desc->heads;
    if (desc->m == 0) desc->m = desc->n;
    if (desc->d_v == 0) desc->d_v = desc->d_k;
    desc->q_type = (lsp_dtype)lsp_options_choice(options, LSP_KEY_SHAPE_TYPE);
    desc->k_type = desc->v_type = desc->q_type;
    if (desc->heads % desc->kv_heads != 0) {
        return lsp_context_fail(app->ctx, LSP_ERR_USAGE,
                                "shape.heads = %" PRId64 " is no multiple of shape.kv_heads = %" PRId64,
                                desc->heads, desc->kv_heads);
    }
    /* What is addressed by bytes must fit in 63 bits. */
    double bytes = (double)desc->batch * (double)desc->heads * 8.0 * ((double)desc->n + (double)desc->m) *
                   ((double)desc->d_k + (double)desc->d_v);
    if (bytes > 4e18)
        return lsp_context_fail(app->ctx, LSP_ERR_LIMIT,
                                "tensors of this [shape] are too large to be addressed");
    return LSP_OK;
}

lsp_status lsp_input_from_shape(lsp_app *app, lsp_input *input)
{
    *input = (lsp_input){0};
    lsp_status status = lsp_input_take_shape(app, &input->desc);
    input->head_total = input->desc.heads;
    if (status == LSP_OK) status = lsp_input_select(app, input);
    return status == LSP_OK ? lsp_input_take_rule(app, input) : status;
}

void lsp_input_close(lsp_input *input)
{
    lsp_source_close(&input->q);
    lsp_source_close(&input->k);
    lsp_source_close(&input->v);
    lsp_memory_free(input->heads);
    lsp_memory_free(input->kv_heads);
    lsp_memory_free(input->kv_head_of);
    lsp_memory_free(input->slopes);
    lsp_free(input->documents);
    lsp_free(input->documents_k);
    lsp_free(input->key_lengths);
    *input = (lsp_input){0};
}
