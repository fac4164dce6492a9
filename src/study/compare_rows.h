/* Rows of outputs beside each other, in blocks of rows that do not depend on the ranks: each block is on one rank, and
 * sums are made block by block, so that they have the same bits for any number of ranks.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_STUDY_COMPARE_ROWS_H
#define LSP_STUDY_COMPARE_ROWS_H

#include "comm/context.h"

#include <longspan/compare.h>

enum { LSP_COMPARE_BLOCK = 512 };

typedef struct lsp_compare_rows {
    lsp_context *ctx;
    const lsp_attention_desc *desc; /* ends filled in; borrowed */
    lsp_dtype type;                 /* of out and lse */
    int64_t matrix_blocks, blocks;  /* of one head of one batch, of all */
    int64_t block_begin;            /* this rank's blocks are those from here on */
    lsp_run *runs;                  /* this rank's rows, one run for each matrix */
    int64_t run_count, rows;
    void *out, *lse; /* the exact ones, [rows, d_v] and [rows] */
    double *lengths; /* [batch * kv_heads] longest row of V */
} lsp_compare_rows;

/* Local. Bytes of out and lse on the rank that has most. */
int64_t lsp_compare_rows_bytes(const lsp_attention_desc *desc, int ranks);

/* Local. Decides the blocks and allocates. On failure too, lsp_compare_rows_free is to be called. */
lsp_status lsp_compare_rows_make(lsp_context *ctx, const lsp_attention_desc *desc, lsp_compare_rows *rows);
void lsp_compare_rows_free(lsp_compare_rows *rows);

/* Collective. Fills lengths from this rank's V, keys that do not exist left out. */
lsp_status lsp_compare_rows_measure(lsp_compare_rows *rows, const lsp_run *key_runs, int64_t key_run_count,
                                    const void *v);

/* Collective. An array of out (or lse) in some runs, brought to the blocks: *array [rows, d_v] ([rows]) is freed by the
 * caller, also after a failure. */
lsp_status lsp_compare_rows_bring(const lsp_compare_rows *rows, const lsp_run *runs, int64_t run_count,
                                  const void *from, bool lse, void **array);

/* Collective. Fills the errors of a result and of heads (NULL: none) from an output in blocks; with lse (NULL: none)
 * also what it retains, by that, and out_error_bound. */
lsp_status lsp_compare_rows_judge(const lsp_compare_rows *rows, const void *out, const void *lse,
                                  lsp_compare_result *result, lsp_compare_head *heads);

#endif
