/* Runs of rows joined into few regular selections of a tensor, and where each lies in file and buffer.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_STORE_SLAB_H
#define LSP_STORE_SLAB_H

#include "base/error.h"
#include "store/h5.h"

/* A tensor as it lies in its file. */
typedef struct lsp_placing {
    lsp_tensor_shape shape;
    lsp_view view;
} lsp_placing;

/* `blocks` blocks of `block` rows, `stride` rows apart from start to start, of `heads` heads from `head` in
 * each of `batches` batches from `batch`. In the buffer its rows stand one after the other (batch, head,
 * row) from row `at`. */
typedef struct lsp_slab {
    int64_t batch, batches, head, heads, begin, block, stride, blocks;
    int64_t at;
} lsp_slab;

typedef struct lsp_slabs {
    lsp_slab *items; /* owned; free with lsp_slabs_free */
    int64_t count;
    int64_t rows; /* of all */
} lsp_slabs;

/* Local. The view [B, H, n, d] of a dataset with these axes. LSP_ERR_CONTENT when it has none. */
lsp_status lsp_placing_make(int axes, const int64_t dims[4], lsp_view view, lsp_layout layout, lsp_dtype type,
                            lsp_error *err, lsp_placing *out);

/* Local. Bytes of one row. */
int64_t lsp_placing_row_bytes(const lsp_placing *placing);

/* Local. LSP_ERR_USAGE when a run is outside of the tensor. */
lsp_status lsp_runs_check(const lsp_placing *placing, const lsp_run *runs, int64_t run_count, lsp_error *err);

/* Local. Joins runs, in time O(runs) (bnhd: O(runs log runs)). bhnd: slabs in the order of the runs, as regular as they come.
 * bnhd: one head, one block each, ordered by (batch, begin, block, head), so that the heads of the same
 * rows follow each other. Errors: LSP_ERR_USAGE (a run outside of the tensor), LSP_ERR_LIMIT. */
lsp_status lsp_slabs_make(const lsp_placing *placing, const lsp_run *runs, int64_t run_count, lsp_error *err,
                          lsp_slabs *out);
void lsp_slabs_free(lsp_slabs *slabs);

/* Local. Rows of a slab. */
int64_t lsp_slab_rows(const lsp_slab *slab);

/* Local. Whether two slabs of one head and one block each are of the same rows, of any heads. */
bool lsp_slab_same_rows(const lsp_slab *a, const lsp_slab *b);

/* Local. Selects the slab in the file's dataspace. */
bool lsp_slab_select(const lsp_placing *placing, const lsp_slab *slab, hid_t space);

#endif
