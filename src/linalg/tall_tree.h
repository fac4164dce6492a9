/* QR of the rows of one rank by a tree over blocks of rows (TSQR: Demmel, Grigori, Hoemmen, Langou,
 * Communication-optimal parallel and sequential QR and LU factorizations, 2012). For linalg/tall.c.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_LINALG_TALL_TREE_H
#define LSP_LINALG_TALL_TREE_H

#include <stdbool.h>
#include <stdint.h>

enum { LSP_TREE_LEVELS = 64 };

/* One level: a matrix [rows][cols] in `chunks` blocks of rows. Level 0 is the caller's, each next one the
 * triangles of the level below. Factored, a block holds its reflectors, column by column. */
typedef struct lsp_tall_level {
    int64_t rows, chunks;
    double *a; /* [rows][cols] */
    double *t; /* [chunks] block reflectors */
} lsp_tall_level;

typedef struct lsp_tall_tree {
    int64_t cols;
    int threads;
    int levels;
    lsp_tall_level level[LSP_TREE_LEVELS];
    int64_t room;  /* doubles of scratch a thread */
    double *rooms; /* [threads][room] */
} lsp_tall_tree;

/* Local. Bytes that a tree over [rows][cols] takes besides the matrix. */
int64_t lsp_tall_tree_bytes(int64_t rows, int64_t cols, int threads);

/* Local. Prepares for a matrix [rows][cols], rows >= 1; false when there is no memory. The blocks depend on
 * rows and cols alone. Freed with lsp_tall_tree_free, also after false. */
bool lsp_tall_tree_make(int64_t rows, int64_t cols, int threads, lsp_tall_tree *tree);
void lsp_tall_tree_free(lsp_tall_tree *tree);

/* Local. Overwrites a [rows][cols] with reflectors and gives its triangle r [min(rows, cols)][cols], zero
 * below the diagonal. The result does not depend on threads. */
void lsp_tall_tree_factor(lsp_tall_tree *tree, double *a, double *r);

/* Local. After factor: overwrites a with Q times b, where b is [min(rows, cols)][width], width <= cols;
 * columns from width on become zero. */
void lsp_tall_tree_expand(lsp_tall_tree *tree, const double *b, int64_t width);

#endif
