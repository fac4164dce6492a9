/* Which keys of every head a rank owns, where each rank owns a part of all heads: with its rows (method block), or in
 * equal shares (methods of whole heads). SPDX-License-Identifier: BSD-3-Clause */
#include "base/checked.h"
#include "base/memory.h"
#include "method/partition.h"

/* Where the keys of rank r begin when they lie with its rows; -1 when its rows begin inside a block. */
static int64_t key_cut(const lsp_partition *d, int r)
{
    const lsp_attention_desc *desc = &d->problem->desc;
    int64_t row = r < d->group_ranks ? d->ranges[r].begin : desc->row_end;
    if (r == d->group_ranks || row == desc->row_end) return r == 0 ? desc->key_begin : desc->key_end;
    if (row == desc->row_begin) return desc->key_begin;
    if (row % d->problem->mask.block_size != 0) return -1;
    return lsp_max(desc->key_begin, lsp_min(desc->key_end, lsp_mask_block_key(&d->problem->mask, row)));
}

/* Lays keys with the rows, where that leaves no rank with more than twice its share; returns whether it does. */
static bool cut_with_rows(const lsp_partition *d, int64_t *cuts, int64_t *tiles)
{
    int64_t most = 2 * lsp_ceil_div(d->unit_keys, d->group_ranks) + d->tile_keys;
    bool fits = true;
    cuts[0] = d->problem->desc.key_begin;
    for (int r = 0; fits && r < d->group_ranks; r++) {
        cuts[r + 1] = key_cut(d, r + 1);
        int64_t keys = cuts[r + 1] - cuts[r];
        fits = cuts[r + 1] >= 0 && keys <= most;
        tiles[r + 1] = tiles[r];
        if (keys > 0) tiles[r + 1] += lsp_ceil_div(cuts[r + 1], d->tile_keys) - cuts[r] / d->tile_keys;
    }
    return fits;
}

/* As lsp_partition_owned_tile shares out the tiles of a single unit. */
static bool cut_equally(const lsp_partition *d, int64_t *cuts, int64_t *tiles)
{
    const lsp_attention_desc *desc = &d->problem->desc;
    for (int r = 0; r <= d->group_ranks; r++) {
        tiles[r] = d->unit_tiles / d->group_ranks * r + d->unit_tiles % d->group_ranks * r / d->group_ranks;
        int64_t key = (d->first_tile + tiles[r]) * d->tile_keys;
        cuts[r] = lsp_max(desc->key_begin, lsp_min(desc->key_end, key));
    }
    return true;
}

lsp_status lsp_partition_cut_keys(lsp_partition *d, lsp_error *error)
{
    bool whole = d->problem->whole_heads;
    bool with_rows = d->problem->mask.block_size > 0 && d->group_ranks > 1 &&
                     d->kind != LSP_PARTITION_CYCLIC && d->problem->units % d->groups == 0;
    if (!whole && !with_rows) return LSP_OK;
    int64_t *cuts = lsp_memory_zalloc((int64_t)d->group_ranks + 1, sizeof *cuts),
            *tiles = lsp_memory_zalloc((int64_t)d->group_ranks + 1, sizeof *tiles);
    if (cuts && tiles && (whole ? cut_equally(d, cuts, tiles) : cut_with_rows(d, cuts, tiles))) {
        d->key_cuts = cuts;
        d->tiles_before = tiles;
        return LSP_OK;
    }
    bool allocated = cuts && tiles;
    lsp_memory_free(cuts);
    lsp_memory_free(tiles);
    if (allocated) return LSP_OK;
    return lsp_error_set(error, LSP_ERR_LIMIT, "not enough memory for the partition of keys");
}
