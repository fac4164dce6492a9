/* Sections attention and compute, documents and key lengths, as a description.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include "app/input.h"

#include <inttypes.h>

/* Offsets ascend from 0 to size. */
static lsp_status check_offsets(lsp_app *app, lsp_key key, const int64_t *offsets, int64_t count,
                                int64_t size)
{
    const char *name = lsp_option_get(key)->name, *value = lsp_options_text(app->options, key);
    if (count < 2 || offsets[0] != 0 || offsets[count - 1] != size) {
        return lsp_context_fail(app->ctx, LSP_ERR_CONTENT,
                                "input.%s (%s) must hold offsets from 0 to %" PRId64 "; it has %" PRId64
                                " numbers, from %" PRId64 " to %" PRId64,
                                name, value, size, count, count ? offsets[0] : 0,
                                count ? offsets[count - 1] : 0);
    }
    for (int64_t i = 1; i < count; i++) {
        if (offsets[i] >= offsets[i - 1]) continue;
        return lsp_context_fail(app->ctx, LSP_ERR_CONTENT,
                                "input.%s (%s) must ascend; number %" PRId64 " is %" PRId64
                                ", the one before %" PRId64,
                                name, value, i, offsets[i], offsets[i - 1]);
    }
    return LSP_OK;
}

/* Offsets of one key, read and checked; *count is the number of documents. */
static lsp_status take_offsets(lsp_app *app, lsp_key key, int64_t size, int64_t **offsets, int64_t *count)
{
    int64_t numbers = 0;
    lsp_status status = lsp_source_read_i64(app, key, offsets, &numbers);
    if (status == LSP_OK) status = check_offsets(app, key, *offsets, numbers, size);
    *count = numbers - 1;
    return status;
}

static lsp_status take_documents(lsp_app *app, lsp_input *input)
{
    lsp_attention_desc *desc = &input->desc;
    bool over_keys = lsp_options_is_set(app->options, LSP_KEY_INPUT_DOCUMENTS_K);
    int64_t count_k = 0;
    if (!lsp_options_is_set(app->options, LSP_KEY_INPUT_DOCUMENTS))
        return over_keys ? lsp_app_require(app, LSP_KEY_INPUT_DOCUMENTS) : LSP_OK;
    lsp_status status =
        take_offsets(app, LSP_KEY_INPUT_DOCUMENTS, desc->n, &input->documents, &desc->document_count);
    if (status != LSP_OK) return status;
    desc->documents = input->documents;
    if (!over_keys && desc->n != desc->m) {
        return lsp_context_fail(app->ctx, LSP_ERR_USAGE,
                                "input.documents_k is missing: input.documents is given, and q has %" PRId64
                                " rows, k %" PRId64,
                                desc->n, desc->m);
    }
    if (!over_keys) return LSP_OK;
    status = take_offsets(app, LSP_KEY_INPUT_DOCUMENTS_K, desc->m, &input->documents_k, &count_k);
    desc->documents_k = input->documents_k;
    if (status == LSP_OK && count_k != desc->document_count) {
        return lsp_context_fail(app->ctx, LSP_ERR_CONTENT,
                                "input.documents has %" PRId64 " documents, input.documents_k %" PRId64
                                "; they must be as many",
                                desc->document_count, count_k);
    }
    return status;
}

static lsp_status take_key_lengths(lsp_app *app, lsp_input *input)
{
    lsp_attention_desc *desc = &input->desc;
    if (!lsp_options_is_set(app->options, LSP_KEY_INPUT_KEY_LENGTHS)) return LSP_OK;
    int64_t count = 0;
    lsp_status status = lsp_source_read_i64(app, LSP_KEY_INPUT_KEY_LENGTHS, &input->key_lengths, &count);
    if (status != LSP_OK) return status;
    if (count != desc->batch) {
        return lsp_context_fail(app->ctx, LSP_ERR_CONTENT,
                                "input.key_lengths has %" PRId64 " numbers; the input has %" PRId64
                                " batches",
                                count, desc->batch);
    }
    for (int64_t b = 0; b < count; b++) {
        if (input->key_lengths[b] >= 0 && input->key_lengths[b] <= desc->m) continue;
        return lsp_context_fail(app->ctx, LSP_ERR_CONTENT,
                                "input.key_lengths: batch %" PRId64 " has %" PRId64 " keys; 0 to %" PRId64
                                " are possible",
                                b, input->key_lengths[b], desc->m);
    }
    desc->key_lengths = input->key_lengths;
    return LSP_OK;
}

static lsp_status take_mask(lsp_app *app, lsp_attention_desc *desc)
{
    lsp_options *options = app->options;
    desc->mask = (lsp_mask_kind)lsp_options_choice(options, LSP_KEY_ATTENTION_MASK);
    if (desc->mask == LSP_MASK_WINDOW) {
        lsp_status status = lsp_app_require(app, LSP_KEY_ATTENTION_WINDOW_LEFT);
        if (status != LSP_OK) return status;
        desc->window_left = lsp_options_int(options, LSP_KEY_ATTENTION_WINDOW_LEFT);
        desc->window_right = lsp_options_int(options, LSP_KEY_ATTENTION_WINDOW_RIGHT);
    }
    bool alibi = lsp_options_yes(options, LSP_KEY_ATTENTION_ALIBI);
    if (alibi || desc->mask != LSP_MASK_NONE)
        desc->align = (lsp_causal_align)lsp_options_choice(options, LSP_KEY_ATTENTION_CAUSAL_ALIGN);
    return LSP_OK;
}

/* The description counts from 1 what a deck may set to 0. */
static int64_t none_or(int64_t value)
{
    return value == 0 ? -1 : value;
}

void lsp_input_take_truncation(lsp_app *app, lsp_attention_desc *desc)
{
    lsp_options *options = app->options;
    if (lsp_options_is_set(options, LSP_KEY_ATTENTION_TOLERANCE))
        desc->tolerance = lsp_options_real(options, LSP_KEY_ATTENTION_TOLERANCE);
    desc->svd = (lsp_svd_kind)lsp_options_choice(options, LSP_KEY_ATTENTION_SVD);
    if (desc->svd == LSP_SVD_KRYLOV) {
        desc->oversample = none_or(lsp_options_int(options, LSP_KEY_ATTENTION_OVERSAMPLE));
        desc->steps = none_or(lsp_options_int(options, LSP_KEY_ATTENTION_STEPS));
        desc->seed = (uint64_t)lsp_options_int(options, LSP_KEY_ATTENTION_SEED);
    }
    desc->allow_leak = lsp_options_yes(options, LSP_KEY_ATTENTION_ALLOW_LEAK);
}

static lsp_status take_lowrank(lsp_app *app, lsp_attention_desc *desc)
{
    lsp_options *options = app->options;
    bool ranked = lsp_options_is_set(options, LSP_KEY_ATTENTION_RANK);
    bool tolerant = lsp_options_is_set(options, LSP_KEY_ATTENTION_TOLERANCE);
    if (!ranked && !tolerant)
        return lsp_context_fail(app->ctx, LSP_ERR_USAGE,
                                "attention.rank is missing: say how many singular values to keep, or give "
                                "attention.tolerance, the relative error that chooses their number");
    lsp_input_take_truncation(app, desc);
    return ranked ? lsp_app_require_one(app, LSP_KEY_ATTENTION_RANK, &desc->rank) : LSP_OK;
}

/* The method and the keys that it uses: the keys of others stay unused, as decks are shared. `compare` runs exact, and
 * takes the others itself. */
static lsp_status take_method(lsp_app *app, lsp_attention_desc *desc)
{
    lsp_options *options = app->options;
    if (app->command->uses == LSP_FOR_COMPARE) return LSP_OK;
    desc->method = (lsp_method)lsp_options_choice(options, LSP_KEY_ATTENTION_METHOD);
    if (desc->method == LSP_METHOD_LOWRANK && app->command->uses == LSP_FOR_SVD)
        desc->method = LSP_METHOD_EXACT; /* of which the command takes the singular values */
    if (desc->method == LSP_METHOD_BLOCK) {
        lsp_status status = lsp_app_require_one(app, LSP_KEY_ATTENTION_BLOCK_SIZE, &desc->block_size);
        if (status != LSP_OK) return status;
    }
    if (desc->method == LSP_METHOD_TOPK) {
        lsp_status status = lsp_app_require_one(app, LSP_KEY_ATTENTION_TOPK, &desc->topk);
        if (status != LSP_OK) return status;
        desc->renormalize = lsp_options_yes(options, LSP_KEY_ATTENTION_RENORMALIZE);
    }
    return desc->method == LSP_METHOD_LOWRANK ? take_lowrank(app, desc) : LSP_OK;
}

static void take_compute(lsp_app *app, lsp_attention_desc *desc)
{
    lsp_options *options = app->options;
    static const lsp_dtype types[] = {LSP_BF16, LSP_F32, LSP_F64}; /* in the order of the option's choices */
    desc->compute = types[lsp_options_choice(options, LSP_KEY_COMPUTE_DTYPE)];
    desc->scale = lsp_options_real(options, LSP_KEY_ATTENTION_SCALE);
    desc->softcap = lsp_options_real(options, LSP_KEY_ATTENTION_SOFTCAP);
    if (!(app->command->uses &
          (LSP_FOR_ATTEND | LSP_FOR_PLAN | LSP_FOR_SVD | LSP_FOR_COMPARE | LSP_FOR_LAYER)))
        return;
    desc->isa = (lsp_isa)lsp_options_choice(options, LSP_KEY_COMPUTE_ISA);
    desc->gather = (lsp_gather_mode)lsp_options_choice(options, LSP_KEY_COMPUTE_GATHER);
    desc->partition = (lsp_partition_kind)lsp_options_choice(options, LSP_KEY_COMPUTE_PARTITION);
    desc->panel_rows = lsp_options_int(options, LSP_KEY_COMPUTE_PANEL_ROWS);
    if (app->command->uses != LSP_FOR_SVD)
        desc->head_groups = (int)lsp_options_int(options, LSP_KEY_COMPUTE_HEAD_GROUPS);
}

static lsp_status take_slopes(lsp_app *app, lsp_input *input)
{
    if (!lsp_options_yes(app->options, LSP_KEY_ATTENTION_ALIBI)) return LSP_OK;
    lsp_status status = LSP_OK;
    input->slopes = lsp_app_alloc(app, input->desc.heads, sizeof(double), "the ALiBi slopes", &status);
    for (int64_t i = 0; status == LSP_OK && i < input->desc.heads; i++)
        input->slopes[i] = lsp_alibi_slope(input->heads ? input->heads[i] : i, input->head_total);
    input->desc.alibi_slopes = input->slopes;
    return lsp_context_agree(app->ctx, status);
}

lsp_status lsp_input_take_rule(lsp_app *app, lsp_input *input)
{
    take_compute(app, &input->desc);
    lsp_status status = take_method(app, &input->desc);
    if (status == LSP_OK) status = take_mask(app, &input->desc);
    if (status == LSP_OK) status = take_slopes(app, input);
    if (status == LSP_OK) status = take_documents(app, input);
    if (status == LSP_OK) status = take_key_lengths(app, input);
    return status;
}
