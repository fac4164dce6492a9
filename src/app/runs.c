/* SPDX-License-Identifier: BSD-3-Clause */
#include "app/runs.h"

#include "base/checked.h"
#include "base/memory.h"

int64_t lsp_extent_rows(const lsp_extent *extent)
{
    return extent->batch * extent->heads * (extent->end - extent->begin);
}

void lsp_runs_share(int64_t total, int rank, int ranks, int64_t *first, int64_t *last)
{
    int64_t each = total / ranks, more = total % ranks;
    *first = each * rank + lsp_min(rank, more);
    *last = *first + each + (rank < more);
}

lsp_run *lsp_runs_make(const lsp_extent *extent, int64_t first, int64_t last, int64_t *count)
{
    int64_t height = extent->end - extent->begin;
    int64_t matrices = first < last ? (last - 1) / height - first / height + 1 : 0;
    lsp_run *runs = lsp_memory_alloc(matrices, sizeof *runs);
    if (!runs) return NULL;
    *count = matrices;
    for (int64_t i = 0; i < matrices; i++) {
        int64_t matrix = first / height, row = first % height;
        int64_t rows = lsp_min(height - row, last - first);
        runs[i] = (lsp_run){matrix / extent->heads, matrix % extent->heads, extent->begin + row, rows};
        first += rows;
    }
    return runs;
}

lsp_run *lsp_runs_map(const lsp_run *runs, int64_t count, const int64_t *heads, int64_t shift)
{
    lsp_run *mapped = lsp_memory_alloc(count, sizeof *mapped);
    if (!mapped) return NULL;
    for (int64_t i = 0; i < count; i++) {
        mapped[i] = runs[i];
        mapped[i].begin += shift;
        if (heads) mapped[i].head = heads[runs[i].head];
    }
    return mapped;
}
