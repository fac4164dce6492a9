/* Rows through a weight matrix, in blocks at absolute positions.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_LAYER_PROJECT_H
#define LSP_LAYER_PROJECT_H

#include <longspan/layer.h>

/* What a thread works in. */
typedef struct lsp_project_room {
    void *block;   /* [LSP_LAYER_ROWS][depth] of rows */
    void *columns; /* [LSP_LAYER_ROWS][group] of products */
} lsp_project_room;

/* One projection: rows [begin, end) of a line of rows, begin where a block begins, through columns of a weight.
 * BLAS chooses its kernels by the shape, so that every product has all rows of a block and one of the groups of
 * columns, which are the same for every distribution. */
typedef struct lsp_project {
    lsp_dtype type;     /* f32 or f64, of the weight and of the arithmetic */
    const void *weight; /* [columns][depth] */
    int64_t depth, columns;
    int64_t group; /* columns at a time; the last group may be narrower */
    int64_t begin, end;
    /* Rows [row, row + count) in the arithmetic's type, `depth` values each: room filled with them, or rows that are in
     * memory as they should be. */
    const void *(*load)(const void *user, int64_t row, int64_t count, void *room);
    /* Takes the products of count rows with columns [column, column + columns), which may be changed. */
    void (*store)(const void *user, int64_t row, int64_t count, int64_t column, int64_t columns, void *values,
                  int thread);
    const void *user;
} lsp_project;

/* Local. Columns of a group, a multiple of `unit`, about equal for all groups. */
int64_t lsp_project_group(int64_t columns, int64_t unit);

/* Local. Does it with so many threads, each in its room. BLAS is on one thread. */
void lsp_project_run(const lsp_project *project, int threads, const lsp_project_room *rooms);

#endif
