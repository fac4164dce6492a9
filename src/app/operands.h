/* One rank's arrays of an attention, read from the input. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_OPERANDS_H
#define LSP_APP_OPERANDS_H

#include "app/input.h"

typedef struct lsp_operands {
    const lsp_run *query_runs, *key_runs; /* in the description's heads and rows of the whole; borrowed */
    int64_t query_run_count, key_run_count, query_rows, key_rows;
    void *q, *k, *v;   /* in the types of the file */
    void *out, *lse;   /* in the computing type; lse NULL when not wanted */
    int64_t nonfinite; /* NaN and Inf in all ranks' q, k and v */
} lsp_operands;

/* Collective. Allocates the arrays for the runs (lse when wanted) and reads q, k, v. NaN or Inf:
 * LSP_ERR_CONTENT unless compute.nonfinite = propagate. On failure too, lsp_operands_free is to be called. */
lsp_status lsp_operands_read(lsp_app *app, const lsp_input *input, bool lse, lsp_operands *operands);

/* Collective. The same without out and lse. */
lsp_status lsp_operands_read_inputs(lsp_app *app, const lsp_input *input, lsp_operands *operands);

/* Collective. Reads runs of one source, in heads of the description (mapped by `heads` to those of the file; NULL: the
 * same) into buffer; adds NaN and Inf to *nonfinite, which are refused as above. */
lsp_status lsp_operands_read_source(lsp_app *app, const lsp_source *source, const lsp_run *runs,
                                    int64_t count, const int64_t *heads, void *buffer, int64_t *nonfinite);

/* Local. */
void lsp_operands_free(lsp_operands *operands);

#endif
