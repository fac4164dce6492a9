/* Runs of rows: equal shares for ranks, and the way from a part to the file.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_RUNS_H
#define LSP_APP_RUNS_H

#include <longspan/tensor.h>

/* Rows [begin, end) of each of batch x heads matrices, numbered one matrix after the other. */
typedef struct lsp_extent {
    int64_t batch, heads, begin, end;
} lsp_extent;

/* Local. Rows of the extent: batch x heads x (end - begin). */
int64_t lsp_extent_rows(const lsp_extent *extent);

/* Local. The share [*first, *last) of `total` rows that rank `rank` of `ranks` has. */
void lsp_runs_share(int64_t total, int rank, int ranks, int64_t *first, int64_t *last);

/* Local. Rows [first, last) of the extent as runs (lsp_memory_free), *count of them; NULL when out of
 * memory. An empty share has count 0 and a valid pointer. */
lsp_run *lsp_runs_make(const lsp_extent *extent, int64_t first, int64_t last, int64_t *count);

/* Local. A copy of the runs with head h replaced by heads[h] (NULL: kept) and rows moved by `shift`
 * (lsp_memory_free); NULL when out of memory. */
lsp_run *lsp_runs_map(const lsp_run *runs, int64_t count, const int64_t *heads, int64_t shift);

#endif
