/* Sights of a plan's rows, rules of its heads, places of packed tiles. SPDX-License-Identifier: BSD-3-Clause */
#include "method/sights.h"

#include "base/checked.h"

double lsp_attention_look(const lsp_attention *plan, int64_t batch, int64_t begin, int64_t rows, int64_t low,
                          int64_t high, lsp_sight *sight)
{
    const lsp_range *ranges = plan->partition.ranges + plan->partition.range_first[plan->group_rank];
    int64_t range = 0, before = 0, pairs = 0;
    for (int64_t r = 0; r < rows;) {
        int64_t row = lsp_attention_global_row(plan, begin + r, &range, &before);
        int64_t run = lsp_min(rows - r, ranges[range].end - row);
        lsp_mask_sights(&plan->problem.mask, batch, row, run, sight + r);
        r += run;
    }
    for (int64_t r = 0; r < rows; r++)
        pairs += lsp_max(0, lsp_min(sight[r].end, high) - lsp_max(sight[r].begin, low));
    return (double)pairs;
}

bool lsp_attention_may_see(const lsp_attention *plan, int64_t batch, int64_t begin, int64_t rows, int64_t low,
                           int64_t high)
{
    int64_t range = 0, start = 0;
    int64_t first = lsp_attention_global_row(plan, begin, &range, &start);
    int64_t last = lsp_attention_global_row(plan, begin + rows - 1, &range, &start);
    return lsp_mask_sight(&plan->problem.mask, batch, first).begin < high &&
           lsp_mask_sight(&plan->problem.mask, batch, last).end > low;
}

bool lsp_attention_has_met(const lsp_attention *plan, int64_t begin, int64_t end)
{
    int64_t unit_begin = lsp_partition_tile(&plan->partition, begin).unit;
    int64_t unit_end = lsp_partition_tile(&plan->partition, end - 1).unit + 1;
    for (int64_t unit = unit_begin; unit < unit_end; unit++) {
        int64_t first = begin, last = end;
        lsp_partition_clip(&plan->partition, unit, &first, &last);
        int64_t key_end = lsp_partition_tile(&plan->partition, last - 1).end;
        for (int64_t i = plan->unit_matrix[unit]; i < plan->unit_matrix[unit + 1]; i++)
            for (int64_t row = plan->matrices[i].first; row < plan->matrices[i].first + plan->rows; row++)
                if (plan->met[row] < key_end) return false;
    }
    return true;
}

int64_t lsp_attention_alike(const lsp_attention *plan, int64_t row, int64_t end)
{
    int64_t after = row + 1;
    while (after < end && plan->met[after] == plan->met[row]) after++;
    return after - row;
}

lsp_score_rule lsp_attention_rule(const lsp_attention_desc *d, int64_t head)
{
    double slope = d->alibi_slopes ? d->alibi_slopes[head] : 0;
    return (lsp_score_rule){d->softcap * LSP_LOG2_E, slope * LSP_LOG2_E, d->scale * LSP_LOG2_E};
}

void *lsp_attention_packed_k(const lsp_attention *plan, int64_t index)
{
    return (char *)plan->packed_k +
           (size_t)(index * plan->shape.tile_keys * plan->shape.k_depth) * (size_t)plan->kernel->packed_bytes;
}

void *lsp_attention_packed_v(const lsp_attention *plan, int64_t index)
{
    return (char *)plan->packed_v + (size_t)(index * plan->shape.tile_keys * plan->shape.v_stride) *
                                        (size_t)plan->kernel->packed_bytes;
}
