/* Matrices in ScaLAPACK's two-dimensional block-cyclic layout: sizes, indices, and how blocks of the whole
 * get to and from the ranks that hold or want them. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_LINALG_CYCLIC_H
#define LSP_LINALG_CYCLIC_H

#include "linalg/grid.h"

/* A [rows, cols] matrix in double. Blocks of row_block x col_block are dealt to the grid from (0, 0) on;
 * each rank keeps its part column-major with leading dimension `lead`. */
typedef struct lsp_cyclic {
    const lsp_grid *grid; /* borrowed */
    int64_t rows, cols;   /* of the whole */
    int64_t row_block, col_block;
    int64_t local_rows, local_cols; /* on this rank; 0 outside the grid */
    int64_t lead;                   /* max(1, local_rows) */
    int desc[9];                    /* ScaLAPACK's array descriptor */
} lsp_cyclic;

/* Rows [row_begin, row_end) by columns [col_begin, col_end) of the whole. */
typedef struct lsp_block {
    int64_t row_begin, row_end, col_begin, col_end;
} lsp_block;

/* Local. How many of the first `size` rows (or columns) stand at `place` of `places`. Also the local index
 * of the first of them at or after global index `size`. */
int64_t lsp_cyclic_count(int64_t size, int64_t block, int place, int places);

/* Local. Describes a matrix. Errors: LSP_ERR_LIMIT with the numbers when ScaLAPACK's 32-bit integers
 * cannot count its rows, its columns or the elements of the rank that has most. */
lsp_status lsp_cyclic_init(const lsp_grid *grid, int64_t rows, int64_t cols, int64_t row_block,
                           int64_t col_block, lsp_cyclic *matrix);

/* Local. Elements of this rank: lead * local_cols. */
int64_t lsp_cyclic_elements(const lsp_cyclic *matrix);

/* Local. Index in the whole of a local row and of a local column. */
static inline int64_t lsp_cyclic_row(const lsp_cyclic *c, int64_t local)
{
    return (local / c->row_block * c->grid->rows + c->grid->row) * c->row_block + local % c->row_block;
}

static inline int64_t lsp_cyclic_col(const lsp_cyclic *c, int64_t local)
{
    return (local / c->col_block * c->grid->cols + c->grid->col) * c->col_block + local % c->col_block;
}

/* Collective over the context. Gives this rank the block `mine` of the matrix, row-major in values
 * [rows of the block][columns of the block]. Ranks may want any blocks, also overlapping or empty ones.
 * Errors: LSP_ERR_USAGE (a block outside the matrix), LSP_ERR_LIMIT (memory: as much again as is sent and
 * received), LSP_ERR_RANK. */
lsp_status lsp_cyclic_collect(const lsp_cyclic *matrix, const double *local, const lsp_block *mine,
                              double *values);

/* Collective over the context. The reverse: puts this rank's block, row-major in values, into the matrix.
 * What no rank gives is left as it is; blocks must not overlap. */
lsp_status lsp_cyclic_deal(const lsp_cyclic *matrix, const lsp_block *mine, const double *values,
                           double *local);

#endif
