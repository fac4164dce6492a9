/* A BLACS process grid over the ranks of a context. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_LINALG_GRID_H
#define LSP_LINALG_GRID_H

#include "comm/context.h"

#include <stdbool.h>

/* Context rank row * cols + col stands at (row, col); ranks from rows * cols on stand outside. */
typedef struct lsp_grid {
    lsp_context *ctx; /* borrowed, must outlive the grid */
    int blacs;        /* BLACS context, -1 outside */
    int rows, cols;
    int row, col; /* of this rank, -1 outside */
} lsp_grid;

/* Local. A grid for general matrices: rows = floor(sqrt(ranks)), cols = ranks / rows. Up to rows - 1
 * ranks stay outside (1 of 7, which are 2 x 3): a nearly square grid gains more than they would. */
void lsp_grid_shape(int ranks, int *rows, int *cols);

/* Collective. Makes a grid of rows x cols <= ranks of the context. BLACS is told to repeat
 * (TopsRepeat: sums are added up in one fixed order) and to be coherent (every process gets the same
 * bits). Freed with lsp_grid_destroy. Errors: LSP_ERR_USAGE (shape), LSP_ERR_RANK (MPI); then *grid is
 * empty and needs no destroying. */
lsp_status lsp_grid_create(lsp_context *ctx, int rows, int cols, lsp_grid *grid);

/* Collective. Frees the grid; an empty one is allowed. */
void lsp_grid_destroy(lsp_grid *grid);

/* Local. */
bool lsp_grid_inside(const lsp_grid *grid);

/* Local. Whether MPI failed inside BLACS, which looks at no return code, since the last time this was
 * asked: LSP_ERR_RANK with MPI's text. */
lsp_status lsp_grid_verdict(const lsp_grid *grid, const char *what);

#endif
