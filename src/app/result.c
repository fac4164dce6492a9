/* SPDX-License-Identifier: BSD-3-Clause */
#include "app/result.h"

#include "app/deck.h"
#include "app/report.h"
#include "base/memory.h"

#include <math.h>
#include <sys/stat.h>

lsp_output_dataset lsp_result_dataset(const char *name, lsp_dtype type, lsp_view view, lsp_layout layout,
                                      int axes, const int64_t shape[4])
{
    static const char *const names[4] = {"batch", "head", "row", "column"};
    lsp_output_dataset dataset = {.name = name, .type = type, .view = view, .layout = layout};
    int from = 4 - axes, to = view == LSP_VIEW_SCALARS ? 3 : 4;
    for (int a = from; a < to; a++) {
        /* bnhd: the axes head and row change places where both are there. */
        int which = layout == LSP_BNHD && axes > 2 && (a == 1 || a == 2) ? 3 - a : a;
        dataset.dims[dataset.axes] = shape[which];
        dataset.axis_names[dataset.axes++] = names[which];
    }
    return dataset;
}

lsp_status lsp_result_check_target(lsp_app *app, const char *const *files, int count)
{
    lsp_status status = lsp_app_require(app, LSP_KEY_OUTPUT_FILE);
    if (status != LSP_OK) return status;
    const char *target = lsp_options_text(app->options, LSP_KEY_OUTPUT_FILE);
    struct stat output, input;
    bool exists = app->layout.rank == 0 && stat(target, &output) == 0;
    for (int i = 0; exists && status == LSP_OK && i < count; i++) {
        if (stat(files[i], &input) == 0 && input.st_dev == output.st_dev && input.st_ino == output.st_ino)
            status =
                lsp_context_fail(app->ctx, LSP_ERR_USAGE,
                                 "output.file = %s is an input (%s) and would be replaced; name another file",
                                 target, files[i]);
    }
    return lsp_context_agree(app->ctx, status);
}

lsp_status lsp_result_create(lsp_app *app, const lsp_input *input, bool lse, lsp_weights *weights,
                             lsp_output **output)
{
    const char *const inputs[] = {input->q.file, input->k.file, input->v.file};
    lsp_status status = lsp_result_check_target(app, inputs, 3);
    if (status != LSP_OK) return status;
    const lsp_attention_desc *d = &input->desc;
    const lsp_tensor_shape *q = &input->q.shape;
    const int64_t shape[4] = {d->batch, d->heads, d->row_end - d->row_begin, d->d_v};
    lsp_output_dataset datasets[2 + LSP_WEIGHTS_DATASETS] = {
        lsp_result_dataset("/out", lsp_dtype_result(d->compute), LSP_VIEW_ROWS, q->layout, q->axes, shape),
        lsp_result_dataset("/lse", lsp_dtype_result(d->compute), LSP_VIEW_SCALARS, q->layout, q->axes,
                           shape)};
    datasets[LSP_RESULT_OUT].units = "as v";
    datasets[LSP_RESULT_LSE].units = "natural logarithm";
    int count = lse ? 2 : 1;
    if (weights->wanted) {
        lsp_weights_datasets(weights, d, q->axes, datasets + count);
        weights->first = count;
        count += LSP_WEIGHTS_DATASETS;
    }
    return lsp_output_create(app->ctx, lsp_options_text(app->options, LSP_KEY_OUTPUT_FILE),
                             lsp_options_yes(app->options, LSP_KEY_OUTPUT_OVERWRITE), datasets, count,
                             output);
}

lsp_status lsp_result_sign(lsp_app *app, lsp_output *output)
{
    char *deck = lsp_deck_write(app->options);
    lsp_status status = LSP_OK;
    if (!deck) status = lsp_context_fail(app->ctx, LSP_ERR_LIMIT, "no memory for the deck");
    status = lsp_context_agree(app->ctx, status);
    if (status == LSP_OK) status = lsp_output_attribute_text(output, -1, "command", app->command->name);
    if (status == LSP_OK) status = lsp_output_attribute_text(output, -1, "deck", deck);
    lsp_memory_free(deck);
    return status;
}

lsp_status lsp_result_describe(lsp_app *app, const lsp_input *input, lsp_isa isa, lsp_output *output)
{
    const lsp_attention_desc *d = &input->desc;
    char rule[LSP_RULE_TEXT];
    const struct {
        const char *name;
        int64_t value;
    } numbers[] = {{"row_begin", d->row_begin},
                   {"row_end", d->row_end},
                   {"key_begin", d->key_begin},
                   {"key_end", d->key_end},
                   {"n", d->n},
                   {"m", d->m}};
    const struct {
        const char *name, *value;
    } texts[] = {{"method", lsp_method_name(d->method)},
                 {"rule", lsp_summary_rule(d, rule)},
                 {"heads", lsp_options_text(app->options, LSP_KEY_INPUT_HEADS)},
                 {"isa", lsp_isa_name(isa)}};
    lsp_status status = lsp_result_sign(app, output);
    for (size_t i = 0; status == LSP_OK && i < sizeof texts / sizeof *texts; i++)
        status = lsp_output_attribute_text(output, -1, texts[i].name, texts[i].value);
    for (size_t i = 0; status == LSP_OK && i < sizeof numbers / sizeof *numbers; i++)
        status = lsp_output_attribute_i64(output, -1, numbers[i].name, numbers[i].value);
    double scale = d->scale != 0 ? d->scale : 1 / sqrt((double)d->d_k);
    if (status == LSP_OK) status = lsp_output_attribute_f64(output, -1, "scale", scale);
    return status;
}
