/* The output file of an attention. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_RESULT_H
#define LSP_APP_RESULT_H

#include "app/weights.h"

enum { LSP_RESULT_OUT = 0, LSP_RESULT_LSE = 1 };

/* Local. A dataset [batch, heads, n, d] with `axes` axes in a layout (2: [n, d], 3: [heads, n, d]); with
 * LSP_VIEW_SCALARS the last axis is left out of them. */
lsp_output_dataset lsp_result_dataset(const char *name, lsp_dtype type, lsp_view view, lsp_layout layout,
                                      int axes, const int64_t shape[4]);

/* Collective. LSP_ERR_USAGE when output.file is one of these files (by whatever name): what is read is never
 * replaced, not even with output.overwrite. */
lsp_status lsp_result_check_target(lsp_app *app, const char *const *files, int count);

/* Collective. Creates output.file with /out and (when wanted) /lse and /weights, whose `first` it sets, for the part
 * that input describes. */
lsp_status lsp_result_create(lsp_app *app, const lsp_input *input, bool lse, lsp_weights *weights,
                             lsp_output **output);

/* Collective. Attributes that tell where an output comes from: command and deck. */
lsp_status lsp_result_sign(lsp_app *app, lsp_output *output);

/* Collective. Attributes that tell what was computed. */
lsp_status lsp_result_describe(lsp_app *app, const lsp_input *input, lsp_isa isa, lsp_output *output);

#endif
