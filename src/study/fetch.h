/* Rows of a distributed array on every rank. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_STUDY_FETCH_H
#define LSP_STUDY_FETCH_H

#include "comm/context.h"

#include <longspan/tensor.h>

/* An array of rows as this rank holds it: its runs one after the other. */
typedef struct lsp_held_rows {
    const lsp_run *runs;
    int64_t run_count;
    const void *array;
    lsp_dtype type;
    int64_t columns;
} lsp_held_rows;

typedef struct lsp_row_place {
    int64_t batch, head, row;
} lsp_row_place;

/* Collective. Gives every rank the rows at `places` (the same on every rank) as doubles, [count][columns]. `what` names
 * the array. Errors: LSP_ERR_USAGE (a row is held by no rank, or by several), LSP_ERR_LIMIT. */
lsp_status lsp_fetch_rows(lsp_context *ctx, const lsp_held_rows *held, const char *what,
                          const lsp_row_place *places, int64_t count, double *values);

/* Collective. Reductions of any number of values. */
lsp_status lsp_fetch_sum(lsp_context *ctx, double *values, int64_t count);
lsp_status lsp_fetch_max(lsp_context *ctx, double *values, int64_t count);

#endif
