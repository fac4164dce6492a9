/* When a thread takes the rows of a whole K/V head, and packs key tiles one at a time: few rows, short sequences, short
 * windows and documents. SPDX-License-Identifier: BSD-3-Clause */
#include "method/partition.h"

#include "base/checked.h"
#include "method/method.h"

int64_t lsp_partition_unit_heads(const lsp_partition *d)
{
    const lsp_problem *p = d->problem;
    int64_t heads = 1;
    for (int64_t kv = 0; kv < p->desc.kv_heads; kv++)
        heads = lsp_max(heads, p->query_first[kv + 1] - p->query_first[kv]);
    return heads;
}

bool lsp_partition_few_rows(const lsp_partition *d, int r)
{
    return d->rows[r] * lsp_partition_unit_heads(d) <= LSP_FEW_ROWS;
}

int64_t lsp_partition_unit_chunk(const lsp_partition *d, int r)
{
    return lsp_max(1, lsp_min(d->rows[r], LSP_UNIT_ROWS / lsp_partition_unit_heads(d)));
}

bool lsp_partition_unit_tasks(const lsp_partition *d, int r, int threads)
{
    if (d->problem->ops->keys_alone) return false; /* looks at keys, then at values, or at keys again */
    if (lsp_partition_few_rows(d, r)) return true;
    if (lsp_partition_unit_heads(d) > LSP_UNIT_HEADS) return false;
    int64_t chunk = lsp_partition_unit_chunk(d, r);
    bool whole = chunk == d->rows[r], together = d->kind != LSP_PARTITION_CYCLIC || d->group_ranks == 1;
    if (!whole && (!together || lsp_problem_reach(d->problem) > chunk)) return false;
    int64_t tasks = whole ? d->panel_tiles / d->unit_tiles : d->panel_tiles * d->tile_keys / chunk;
    return threads == 1 || tasks >= 2 * (int64_t)threads;
}

int64_t lsp_partition_packed_tiles(const lsp_partition *d, int r, int threads)
{
    if (!lsp_partition_unit_tasks(d, r, threads)) return d->panel_tiles;
    return threads * (lsp_partition_unit_chunk(d, r) < d->rows[r] ? 2 : 1);
}
