/* What a layer may be. SPDX-License-Identifier: BSD-3-Clause */
#include "layer/layer.h"

#include "base/checked.h"

#include <inttypes.h>
#include <math.h>

static lsp_status check_shape(lsp_context *ctx, const lsp_layer_desc *desc)
{
    const lsp_attention_desc *a = &desc->attention;
    const int64_t sizes[] = {a->batch, a->heads, a->kv_heads, a->n, a->m, a->d_k, desc->d_model};
    const char *names[] = {"batch", "heads", "kv_heads", "n", "m", "head_dim", "d_model"};
    for (int i = 0; i < 7; i++)
        if (sizes[i] < 1 || sizes[i] > (int64_t)1 << 40)
            return lsp_context_fail(ctx, LSP_ERR_USAGE,
                                    "layer: %s is %" PRId64 ": it must be between 1 and 2^40", names[i],
                                    sizes[i]);
    if (a->heads % a->kv_heads != 0)
        return lsp_context_fail(ctx, LSP_ERR_USAGE,
                                "layer: %" PRId64 " query heads are not a multiple of %" PRId64 " K/V heads",
                                a->heads, a->kv_heads);
    int64_t all, columns, line;
    if (!lsp_checked_mul(a->heads + 2 * a->kv_heads, a->d_k, &columns) || columns > INT_MAX ||
        desc->d_model > INT_MAX || !lsp_checked_mul(a->batch, lsp_max(a->n, a->m), &line) ||
        !lsp_checked_mul(line, lsp_max(columns, desc->d_model), &all) || !lsp_checked_mul(all, 8, &all) ||
        !lsp_checked_mul(2 * columns, desc->d_model, &all) || !lsp_checked_mul(all, 16, &all))
        return lsp_context_fail(
            ctx, LSP_ERR_LIMIT,
            "layer: (heads + 2 kv_heads) head_dim and d_model must be below 2^31, and operands "
            "and weights of fewer than 2^63 bytes");
    if (!desc->cross && a->n != a->m)
        return lsp_context_fail(ctx, LSP_ERR_USAGE,
                                "layer: n = %" PRId64 " and m = %" PRId64 " differ, which needs a context",
                                a->n, a->m);
    return LSP_OK;
}

static lsp_status check_rule(lsp_context *ctx, const lsp_layer_desc *desc, const lsp_layer_weights *weights)
{
    const lsp_attention_desc *a = &desc->attention;
    bool part = a->row_begin == 0 && (a->row_end == 0 || a->row_end == a->n) && a->key_begin == 0 &&
                (a->key_end == 0 || a->key_end == a->m);
    if (a->d_k != a->d_v || a->kv_head_of || !part)
        return lsp_context_fail(
            ctx, LSP_ERR_USAGE,
            "layer: d_k and d_v must be head_dim, kv_head_of NULL, and rows and keys all");
    const lsp_dtype types[] = {desc->x_type, desc->cross ? desc->context_type : LSP_F32, weights->type};
    for (int i = 0; i < 3; i++)
        if (types[i] != LSP_F32 && types[i] != LSP_F64)
            return lsp_context_fail(ctx, LSP_ERR_USAGE, "layer: %s must be f32 or f64, not %s",
                                    i == 0   ? "x"
                                    : i == 1 ? "the context"
                                             : "weights",
                                    lsp_dtype_name(types[i]));
    if (!weights->qkv || !weights->out)
        return lsp_context_fail(ctx, LSP_ERR_USAGE, "layer: the weights qkv and out are needed");
    if (!isfinite(desc->rope_base) || desc->rope_base < 0 || (desc->rope_base > 0 && a->d_k % 2 != 0))
        return lsp_context_fail(
            ctx, LSP_ERR_USAGE,
            "layer: rotary positions need a base above 0 (%g) and an even head_dim (%" PRId64 ")",
            desc->rope_base, a->d_k);
    if ((int)desc->rope_pairing < 0 || desc->rope_pairing > LSP_ROPE_INTERLEAVED ||
        !isfinite(desc->qk_norm_eps) || desc->qk_norm_eps < 0)
        return lsp_context_fail(ctx, LSP_ERR_USAGE,
                                "layer: rope_pairing %d does not exist, or qk_norm_eps (%g) is negative",
                                (int)desc->rope_pairing, desc->qk_norm_eps);
    return LSP_OK;
}

lsp_status lsp_layer_check(lsp_context *ctx, lsp_layer_desc *desc, const lsp_layer_weights *weights)
{
    lsp_status status = check_shape(ctx, desc);
    if (status == LSP_OK) status = check_rule(ctx, desc, weights);
    if (desc->qk_norm_eps == 0) desc->qk_norm_eps = 1e-6;
    return status;
}
