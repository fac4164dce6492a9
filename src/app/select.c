/* The part to compute: input.heads, input.rows, input.keys. SPDX-License-Identifier: BSD-3-Clause */
#include "app/input.h"
#include "app/value.h"
#include "base/memory.h"

#include <inttypes.h>
#include <string.h>

/* A range in [0, size); the whole when "all". */
static lsp_status take_range(lsp_app *app, lsp_key key, int64_t size, int64_t *begin, int64_t *end)
{
    const char *text = lsp_options_text(app->options, key);
    *begin = 0;
    *end = size;
    if (strcmp(text, "all") == 0) return LSP_OK;
    (void)lsp_value_range(text, begin, end);
    if (*end < 0) *end = size;
    if (*begin < *end && *end <= size) return LSP_OK;
    return lsp_context_fail(app->ctx, LSP_ERR_USAGE,
                            "%s: input.%s = %s leaves the input; the valid range is 0:%" PRId64,
                            lsp_options_origin(app->options, key), lsp_option_get(key)->name, text, size);
}

/* K/V heads that the chosen heads use, ascending, and each chosen head's place among them. */
static void map_kv_heads(lsp_input *input, int64_t kv_total)
{
    lsp_attention_desc *desc = &input->desc;
    int64_t group = input->head_total / kv_total;
    desc->kv_heads = 0;
    for (int64_t kv = 0; kv < kv_total; kv++) {
        bool used = false;
        for (int64_t i = 0; i < desc->heads; i++) {
            if (input->heads[i] / group != kv) continue;
            input->kv_head_of[i] = desc->kv_heads;
            used = true;
        }
        if (used) input->kv_heads[desc->kv_heads++] = kv;
    }
    desc->kv_head_of = input->kv_head_of;
}

static lsp_status take_heads(lsp_app *app, lsp_input *input)
{
    const char *text = lsp_options_text(app->options, LSP_KEY_INPUT_HEADS);
    if (strcmp(text, "all") == 0) return LSP_OK;
    int64_t count = lsp_value_list(text, NULL, 0), kv_total = input->desc.kv_heads;
    lsp_status status = LSP_OK;
    input->heads = lsp_app_alloc(app, count, sizeof(int64_t), "the list of heads", &status);
    input->kv_heads = lsp_app_alloc(app, count, sizeof(int64_t), "the list of heads", &status);
    input->kv_head_of = lsp_app_alloc(app, count, sizeof(int64_t), "the list of heads", &status);
    status = lsp_context_agree(app->ctx, status);
    if (status != LSP_OK) return status;
    bool valid = lsp_value_list(text, input->heads, count) == count;
    for (int64_t i = 0; valid && i < count; i++) valid = input->heads[i] < input->head_total;
    if (!valid) {
        return lsp_context_fail(
            app->ctx, LSP_ERR_USAGE,
            "%s: input.heads = %s: wanted are different heads, and the input has 0 to %" PRId64,
            lsp_options_origin(app->options, LSP_KEY_INPUT_HEADS), text, input->head_total - 1);
    }
    input->desc.heads = count;
    map_kv_heads(input, kv_total);
    return LSP_OK;
}

lsp_status lsp_input_select(lsp_app *app, lsp_input *input)
{
    lsp_attention_desc *desc = &input->desc;
    lsp_status status = take_heads(app, input);
    if (status == LSP_OK)
        status = take_range(app, LSP_KEY_INPUT_ROWS, desc->n, &desc->row_begin, &desc->row_end);
    if (status == LSP_OK)
        status = take_range(app, LSP_KEY_INPUT_KEYS, desc->m, &desc->key_begin, &desc->key_end);
    return status;
}
