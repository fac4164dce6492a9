/* What an execution costs, from the partition alone. SPDX-License-Identifier: BSD-3-Clause */
#include "base/checked.h"
#include "method/attention.h"

#include <stdio.h>
#include <string.h>

/* Keys of one unit that group rank r needs: the union of its ranges' hulls (ascending, since sights
 * never go back), and the part of it among the keys [own_begin, own_end). */
static int64_t needed_keys(const lsp_partition *p, int64_t batch, int r, int64_t own_begin, int64_t own_end,
                           int64_t *own)
{
    const lsp_mask *mask = &p->problem->mask;
    int64_t keys = 0, reached = 0;
    *own = 0;
    for (int64_t i = p->range_first[r]; i < p->range_first[r + 1]; i++) {
        lsp_range range = p->ranges[i];
        if (range.begin >= range.end) continue;
        int64_t begin = lsp_max(reached, lsp_mask_sight(mask, batch, range.begin).begin);
        int64_t end = lsp_mask_sight(mask, batch, range.end - 1).end;
        if (end <= begin) continue;
        keys += end - begin;
        *own += lsp_max(0, lsp_min(end, own_end) - lsp_max(begin, own_begin));
        reached = end;
    }
    return keys;
}

/* K/V rows that group rank r of a group receives. Batches with their own key lengths are summed. */
static double received_rows(const lsp_partition *p, int group, int r)
{
    const lsp_problem *problem = p->problem;
    int64_t unit_begin, unit_end, own;
    lsp_partition_units(p, group, &unit_begin, &unit_end);
    int64_t first = lsp_partition_tile_row(p, lsp_partition_owned_tile(p, group, r));
    int64_t last = lsp_partition_tile_row(p, lsp_partition_owned_tile(p, group, r + 1));
    if (p->gather == LSP_GATHER_ALL) return (double)((unit_end - unit_begin) * p->unit_keys - (last - first));
    double rows = 0;
    for (int64_t u = 0; u < unit_end - unit_begin; u++) {
        int64_t base = u * p->unit_keys - problem->desc.key_begin;
        int64_t needed =
            needed_keys(p, (unit_begin + u) / problem->desc.kv_heads, r, first - base, last - base, &own);
        rows += (double)(needed - own);
    }
    return rows;
}

static lsp_footprint footprint_of(const lsp_partition *p, const lsp_kernel *kernel, int group, int r,
                                  int ranks_per_node, int threads)
{
    const lsp_attention_desc *d = &p->problem->desc;
    lsp_tile_shape shape = kernel->shape(d->d_k, d->d_v);
    int64_t element = (int64_t)lsp_dtype_size(lsp_dtype_result(d->compute)), packed = kernel->packed_bytes;
    int64_t rows = lsp_partition_matrices(p, group) * p->rows[r];
    int64_t keys = lsp_partition_tile_row(p, lsp_partition_owned_tile(p, group, r + 1)) -
                   lsp_partition_tile_row(p, lsp_partition_owned_tile(p, group, r));
    int64_t k_row = d->d_k * (int64_t)lsp_dtype_size(d->k_type),
            v_row = d->d_v * (int64_t)lsp_dtype_size(d->v_type);
    int64_t panel_rows = lsp_min(p->panel_tiles * p->tile_keys, p->unit_keys * p->problem->units);
    int64_t chunk = lsp_attention_chunk_rows(p->problem, p->rows[r], threads);
    lsp_footprint f = {.q = rows * d->d_k * (int64_t)lsp_dtype_size(d->q_type),
                       .k = keys * k_row,
                       .v = keys * v_row,
                       .out = rows * d->d_v * element,
                       .lse = rows * element};
    if (p->group_ranks > 1 && p->gather == LSP_GATHER_ALL) {
        int64_t begin, end;
        lsp_partition_units(p, group, &begin, &end);
        f.panels = (end - begin) * p->unit_keys * (k_row + v_row);
    } else if (p->group_ranks > 1) {
        f.panels = 3 * panel_rows * (k_row + v_row);
        if (p->gather == LSP_GATHER_NODE)
            f.panels = lsp_ceil_div(f.panels, lsp_min(ranks_per_node, p->group_ranks));
    }
    f.packed = p->panel_tiles * p->tile_keys * (shape.k_depth + shape.v_stride) * packed;
    int64_t state = lsp_attention_folds(p->problem, p->tile_keys) ? d->d_v + 4 : 2; /* numbers a row */
    f.work = state * rows * element +
             threads * (chunk * (shape.k_depth * packed + (int64_t)(sizeof(lsp_sight) + sizeof(double))) +
                        (int64_t)kernel->scratch_bytes(&shape));
    f.total = f.q + f.k + f.v + f.out + f.lse + f.panels + f.packed + f.work;
    return f;
}

/* Pairs of group rank r of a group: batches differ in key lengths, K/V heads in their query heads. */
static double rank_pairs(const lsp_partition *p, int group, int r)
{
    const lsp_problem *problem = p->problem;
    int64_t unit_begin, unit_end, kv_heads = problem->desc.kv_heads;
    lsp_partition_units(p, group, &unit_begin, &unit_end);
    double pairs = 0, one_head = 0;
    for (int64_t u = unit_begin; u < unit_end; u++) {
        int64_t batch = u / kv_heads, kv = u % kv_heads;
        if (u == unit_begin || (problem->key_lengths && kv == 0)) {
            one_head = 0;
            for (int64_t i = p->range_first[r]; i < p->range_first[r + 1]; i++)
                one_head += lsp_mask_pairs(&problem->mask, batch, p->ranges[i].begin, p->ranges[i].end);
        }
        pairs += one_head * (double)(problem->query_first[kv + 1] - problem->query_first[kv]);
    }
    return pairs;
}

void lsp_estimate_fill(const lsp_partition *p, const lsp_kernel *kernel, int ranks_per_node, int threads,
                       lsp_estimate *e)
{
    const lsp_attention_desc *d = &p->problem->desc;
    memset(e, 0, sizeof *e);
    double row_bytes =
        (double)(d->d_k * (int64_t)lsp_dtype_size(d->k_type) + d->d_v * (int64_t)lsp_dtype_size(d->v_type));
    e->pairs = lsp_problem_pairs(p->problem, d->row_begin, d->row_end) * (double)d->heads;
    e->flops = 2 * (double)(d->d_k + d->d_v) * e->pairs;
    for (int r = 0; r < p->group_ranks; r++) {
        for (int g = 0; g < p->groups; g++) {
            double pairs = rank_pairs(p, g, r), bytes = received_rows(p, g, r) * row_bytes;
            lsp_footprint f = footprint_of(p, kernel, g, r, ranks_per_node, threads);
            if (pairs > e->pairs_max) e->pairs_max = pairs;
            e->bytes_received += bytes;
            if (bytes > e->bytes_received_max) e->bytes_received_max = bytes;
            if (f.total > e->footprint.total) e->footprint = f;
            e->idle_ranks += p->rows[r] == 0 || lsp_partition_matrices(p, g) == 0;
        }
    }
    e->tile_keys = p->tile_keys;
    e->panel_keys = p->panel_tiles * p->tile_keys;
    for (int g = 0; g < p->groups; g++)
        for (int r = 0; r < p->group_ranks; r++)
            e->panels += lsp_ceil_div(
                lsp_partition_owned_tile(p, g, r + 1) - lsp_partition_owned_tile(p, g, r), p->panel_tiles);
    e->gather = p->gather;
    e->partition = p->kind;
    e->head_groups = p->groups;
}

lsp_status lsp_attention_estimate(const lsp_attention_desc *desc, int ranks, int ranks_per_node, int threads,
                                  lsp_estimate *estimate, char *message, size_t message_size)
{
    lsp_error error = {LSP_OK, ""};
    lsp_problem problem;
    lsp_partition partition;
    lsp_status status = LSP_OK;
    if (ranks < 1 || ranks_per_node < 1 || threads < 1)
        status = lsp_error_set(&error, LSP_ERR_USAGE,
                               "ranks (%d), ranks per node (%d) and threads (%d) must be 1 or more", ranks,
                               ranks_per_node, threads);
    if (status == LSP_OK) status = lsp_problem_make(desc, &problem, &error);
    if (status == LSP_OK) {
        /* The portable kernel stands for all: shapes do not depend on the instruction set. */
        const lsp_kernel *kernel = lsp_kernel_get(LSP_ISA_PORTABLE, desc->compute);
        lsp_tile_shape shape = kernel->shape(desc->d_k, desc->d_v);
        status = lsp_partition_make(&problem, &shape, ranks, &partition, &error);
        if (status == LSP_OK) {
            lsp_estimate_fill(&partition, kernel, ranks_per_node, threads, estimate);
            lsp_partition_free(&partition);
        }
        lsp_problem_free(&problem);
    }
    if (status != LSP_OK && message && message_size) (void)snprintf(message, message_size, "%s", error.text);
    return status;
}
