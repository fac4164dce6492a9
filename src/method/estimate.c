/* What an execution costs, from the partition alone. SPDX-License-Identifier: BSD-3-Clause */
#include "base/checked.h"
#include "method/attention.h"
#include "method/method.h"

#include <stdio.h>
#include <string.h>

/* Group rank that owns tile `tile`. */
static int owner_of(const lsp_partition *p, int group, int64_t tile)
{
    int low = 0, high = p->group_ranks;
    while (high - low > 1) {
        int middle = low + (high - low) / 2;
        if (lsp_partition_owned_tile(p, group, middle) <= tile)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* The tiles of the panel that holds tile `tile`: an owner's tiles are cut from its first one on. */
static lsp_range panel_around(const lsp_partition *p, int group, int64_t tile)
{
    int owner = owner_of(p, group, tile);
    int64_t first = lsp_partition_owned_tile(p, group, owner);
    int64_t begin = first + (tile - first) / p->panel_tiles * p->panel_tiles;
    return (lsp_range){begin, lsp_min(begin + p->panel_tiles, lsp_partition_owned_tile(p, group, owner + 1))};
}

static int64_t rows_of_tiles(const lsp_partition *p, int64_t begin, int64_t end)
{
    return end > begin ? lsp_partition_tile_row(p, end) - lsp_partition_tile_row(p, begin) : 0;
}

/* K/V rows that group rank r of a group receives: those of the panels that it needs (as
 * lsp_partition_sees has it: the hull of each range of rows) and does not own. Each counts once: hulls
 * never go back, and `reached` is where the panels counted so far end. */
static double received_rows(const lsp_partition *p, int group, int r)
{
    const lsp_attention_desc *d = &p->problem->desc;
    int64_t unit_begin, unit_end, reached = 0;
    lsp_partition_units(p, group, &unit_begin, &unit_end);
    int64_t own_begin = lsp_partition_owned_tile(p, group, r);
    int64_t own_end = lsp_partition_owned_tile(p, group, r + 1);
    if (p->gather == LSP_GATHER_ALL)
        return (double)((unit_end - unit_begin) * p->unit_keys - rows_of_tiles(p, own_begin, own_end));
    if (p->key_cuts) return 0; /* nobody sees another's keys */
    double rows = 0;
    for (int64_t u = 0; u < unit_end - unit_begin; u++) {
        int64_t batch = (unit_begin + u) / d->kv_heads, first_tile = u * p->unit_tiles - p->first_tile;
        for (int64_t i = p->range_first[r]; i < p->range_first[r + 1]; i++) {
            lsp_range range = p->ranges[i];
            if (range.begin >= range.end) continue;
            int64_t begin = lsp_mask_sight(&p->problem->mask, batch, range.begin).begin;
            int64_t end = lsp_mask_sight(&p->problem->mask, batch, range.end - 1).end;
            if (begin >= d->key_end || end <= d->key_begin) continue;
            int64_t tile = first_tile + lsp_max(begin, d->key_begin) / p->tile_keys;
            int64_t last = first_tile + (lsp_min(end, d->key_end) - 1) / p->tile_keys;
            if (last < reached) continue;
            int64_t from = tile < reached ? reached : panel_around(p, group, tile).begin;
            int64_t to = panel_around(p, group, last).end;
            rows += (double)(rows_of_tiles(p, from, to) -
                             rows_of_tiles(p, lsp_max(from, own_begin), lsp_min(to, own_end)));
            reached = lsp_max(reached, to);
        }
    }
    return rows;
}

static lsp_footprint footprint_of(const lsp_partition *p, const lsp_kernel *kernel, int group, int r,
                                  int ranks_per_node, int threads)
{
    const lsp_attention_desc *d = &p->problem->desc;
    lsp_tile_shape shape = lsp_attention_shape(p->problem, kernel);
    int64_t element = (int64_t)lsp_dtype_size(lsp_dtype_result(d->compute)), packed = kernel->packed_bytes;
    int64_t rows = lsp_partition_matrices(p, group) * p->rows[r];
    int64_t keys = lsp_partition_tile_row(p, lsp_partition_owned_tile(p, group, r + 1)) -
                   lsp_partition_tile_row(p, lsp_partition_owned_tile(p, group, r));
    int64_t k_row = d->d_k * (int64_t)lsp_dtype_size(d->k_type),
            v_row = d->d_v * (int64_t)lsp_dtype_size(d->v_type);
    const lsp_method_ops *method = p->problem->ops;
    if (method->no_values) v_row = 0;
    int64_t panel_rows = lsp_min(p->panel_tiles * p->tile_keys, p->unit_keys * p->problem->units);
    int64_t room = lsp_attention_room_rows(p, r, threads);
    lsp_footprint f = {.q = rows * d->d_k * (int64_t)lsp_dtype_size(d->q_type),
                       .k = keys * k_row,
                       .v = keys * v_row,
                       .out = method->no_values ? 0 : rows * d->d_v * element,
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
    f.packed =
        lsp_partition_packed_tiles(p, r, threads) * p->tile_keys * (shape.k_depth + shape.v_stride) * packed;
    int64_t state = (lsp_attention_folds(p->problem, p->tile_keys) ? d->d_v + 4 : 2) * element; /* of a row */
    if (method->row_bytes) state = method->row_bytes(p->problem, kernel);
    state += (int64_t)sizeof(int64_t); /* met */
    int64_t matrix = method->matrix_bytes ? method->matrix_bytes(p->problem, threads) : 0;
    f.work = state * rows + matrix * lsp_partition_matrices(p, group) +
             threads * (room * (shape.k_depth * packed + (int64_t)(sizeof(lsp_sight) + sizeof(double))) +
                        lsp_attention_scratch_bytes(p->problem, kernel, &shape));
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

lsp_status lsp_estimate_fill(const lsp_partition *p, const lsp_kernel *kernel, int ranks_per_node,
                             int threads, lsp_estimate *e, lsp_error *error)
{
    const lsp_attention_desc *d = &p->problem->desc;
    memset(e, 0, sizeof *e);
    int64_t v_bytes = p->problem->ops->no_values ? 0 : d->d_v * (int64_t)lsp_dtype_size(d->v_type);
    double row_bytes = (double)(d->d_k * (int64_t)lsp_dtype_size(d->k_type) + v_bytes);
    e->pairs = lsp_problem_pairs(p->problem, d->row_begin, d->row_end) * (double)d->heads;
    e->flops = 2 * (double)(d->d_k + d->d_v) * e->pairs;
    e->work = e->flops;
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
    const lsp_method_ops *method = p->problem->ops;
    return method->estimate ? method->estimate(p, ranks_per_node, threads, e, error) : LSP_OK;
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
        lsp_tile_shape shape = lsp_attention_shape(&problem, kernel);
        status = lsp_partition_make(&problem, &shape, ranks, &partition, &error);
        if (status == LSP_OK) {
            status = lsp_estimate_fill(&partition, kernel, ranks_per_node, threads, estimate, &error);
            lsp_partition_free(&partition);
        }
        lsp_problem_free(&problem);
    }
    if (status != LSP_OK && message && message_size) (void)snprintf(message, message_size, "%s", error.text);
    return status;
}
