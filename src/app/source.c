/* SPDX-License-Identifier: BSD-3-Clause */
#include "app/source.h"

#include "app/value.h"
#include "base/memory.h"

#include <string.h>

lsp_status lsp_source_resolve(lsp_app *app, lsp_key key, lsp_source *source)
{
    const char *value = lsp_options_text(app->options, key);
    const lsp_option *option = lsp_option_get(key);
    size_t length = 0;
    const char *path = NULL;
    if (!lsp_value_dataset(value, &length, &path)) {
        return lsp_context_fail(
            app->ctx, LSP_ERR_USAGE,
            "%s: %s.%s = '%s' names no dataset; write /path (in input.file) or FILE:/path",
            lsp_options_origin(app->options, key), option->section, option->name, value);
    }
    if (length == 0) {
        lsp_status status = lsp_app_require(app, LSP_KEY_INPUT_FILE);
        if (status != LSP_OK) return status;
        source->file = lsp_memory_strdup(lsp_options_text(app->options, LSP_KEY_INPUT_FILE));
    } else {
        source->file = lsp_memory_strdup(value);
        if (source->file) source->file[length] = '\0';
    }
    source->dataset = lsp_memory_strdup(path);
    lsp_status status = LSP_OK;
    if (!source->file || !source->dataset)
        status = lsp_context_fail(app->ctx, LSP_ERR_LIMIT, "no memory for the name of %s", value);
    return lsp_context_agree(app->ctx, status);
}

lsp_status lsp_source_open(lsp_app *app, lsp_key key, lsp_source *source)
{
    lsp_status status = lsp_source_resolve(app, key, source);
    lsp_layout layout = (lsp_layout)lsp_options_choice(app->options, LSP_KEY_INPUT_LAYOUT);
    if (status == LSP_OK)
        status =
            lsp_tensor_open(app->ctx, source->file, source->dataset, LSP_VIEW_ROWS, layout, &source->tensor);
    if (status != LSP_OK) return status;
    source->shape = lsp_tensor_get_shape(source->tensor);
    return LSP_OK;
}

lsp_status lsp_source_read_i64(lsp_app *app, lsp_key key, int64_t **values, int64_t *count)
{
    lsp_source source = {0};
    lsp_status status = lsp_source_resolve(app, key, &source);
    if (status == LSP_OK) status = lsp_tensor_read_i64(app->ctx, source.file, source.dataset, values, count);
    lsp_source_close(&source);
    return status;
}

void lsp_source_close(lsp_source *source)
{
    if (source->tensor) (void)lsp_tensor_close(&source->tensor);
    lsp_memory_free(source->file);
    lsp_memory_free(source->dataset);
    *source = (lsp_source){0};
}
