/* /weights: what the method topk kept, as CSR of all heads one after the other.
 *
 *   indptr  [.., heads, rows + 1]  where each row's entries begin in the two below; a head's last is where it ends
 *   indices [entries]              keys, ascending in a row
 *   data    [entries]              their weights
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_WEIGHTS_H
#define LSP_APP_WEIGHTS_H

#include "app/operands.h"

enum { LSP_WEIGHTS_DATASETS = 3 };

typedef struct lsp_weights {
    bool wanted;
    int first;        /* number of /weights/indptr in the output; the others follow */
    int64_t *offsets; /* [batches of their own][rows + 1] of one head */
    int64_t *batch;   /* [batch + 1] entries before each batch */
} lsp_weights;

/* Collective. Counts entries when output.weights = yes and the method is topk; else *weights wants nothing. On failure
 * too, lsp_weights_free is to be called. */
lsp_status lsp_weights_open(lsp_app *app, const lsp_attention_desc *desc, lsp_weights *weights);

/* Local. The three datasets, and their bytes. axes: of q in its file. */
void lsp_weights_datasets(const lsp_weights *weights, const lsp_attention_desc *desc, int axes,
                          lsp_output_dataset *datasets);
double lsp_weights_bytes(const lsp_weights *weights, const lsp_attention_desc *desc);

/* Collective. Writes what the plan's last execution kept. */
lsp_status lsp_weights_write(lsp_app *app, const lsp_weights *weights, const lsp_attention_desc *desc,
                             const lsp_attention *plan, const lsp_operands *operands, lsp_output *output);

/* Local. */
void lsp_weights_free(lsp_weights *weights);

#endif
