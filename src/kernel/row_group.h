/* The query rows that go through one key tile together: groups of up to ROW_TILE rows that see it, and a block of
 * groups, which take turns at a piece of K or V while it is in the first-level cache.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_ROW_GROUP_H
#define LSP_KERNEL_ROW_GROUP_H

#include "base/checked.h"
#include "kernel/unit.h"

enum {
    SUM_VECS = SUM_LANES / LANES,
    BLOCK_ROWS = 48,
    BLOCK_GROUPS = BLOCK_ROWS / ROW_TILE,
    CACHE_BYTES = 32 << 10, /* of K or V that the groups take turns at */
    KEY_GRAIN = 32          /* keys that a loop over probabilities takes at least */
};

/* Key indices are relative to the tile. */
typedef struct row_group {
    int rows;
    int64_t begin, end; /* the union of the rows' sights */
    bool same_sight;
    const unit *q[ROW_TILE];
    real *p[ROW_TILE];   /* [tile_keys] scores, then units of probabilities */
    real *acc[ROW_TILE]; /* [v_stride] P V of the tile so far */
    real *out[ROW_TILE];
    real *max[ROW_TILE], *sum[ROW_TILE];
    int64_t row_begin[ROW_TILE], row_end[ROW_TILE];
    int64_t position[ROW_TILE];
    vec lane_max[ROW_TILE][SUM_VECS]; /* of the tile's scores */
    vec lane_sum[ROW_TILE][SUM_VECS]; /* of the tile's probabilities */
    real factor;                      /* of the scores, where packing left it to the kernel */
    real base[ROW_TILE], alpha[ROW_TILE];
} row_group;

typedef struct row_block {
    int groups;
    row_group group[BLOCK_GROUPS];
    unit *edge; /* [2][PAIR / UNIT_ELEMENTS][v_stride] */
} row_block;

/* Elements from one row's scores to the next: past a power of two, so that rows do not share cache sets. */
INLINE int64_t scores_stride(const lsp_tile_shape *shape)
{
    return shape->tile_keys + SUM_LANES;
}

static size_t scratch_bytes(const lsp_tile_shape *shape)
{
    return (size_t)(BLOCK_ROWS * (scores_stride(shape) + shape->v_stride) + 2 * PAIR * shape->v_stride) *
           sizeof(real);
}

INLINE void row_block_start(row_block *block, const lsp_tile_shape *shape, void *scratch)
{
    real *scores = scratch, *acc = scores + BLOCK_ROWS * scores_stride(shape);
    block->groups = 0;
    block->edge = (unit *)(void *)(acc + BLOCK_ROWS * shape->v_stride);
    for (int row = 0; row < BLOCK_ROWS; row++) {
        block->group[row / ROW_TILE].p[row % ROW_TILE] = scores + row * scores_stride(shape);
        block->group[row / ROW_TILE].acc[row % ROW_TILE] = acc + row * shape->v_stride;
    }
}

/* Adds row `row` to the block, unless it does not see the tile. Returns whether the block is full. */
INLINE bool row_block_add(row_block *block, const lsp_tile_shape *shape, const lsp_key_tile *tile,
                          const lsp_query_rows *rows, int64_t row)
{
    const lsp_sight *sight = &rows->sight[row];
    int64_t begin = lsp_max(sight->begin, tile->first) - tile->first;
    int64_t end = lsp_min(sight->end, tile->first + shape->tile_keys) - tile->first;
    if (begin >= end) return false;
    if (block->groups == 0 || block->group[block->groups - 1].rows == ROW_TILE)
        block->group[block->groups++].rows = 0;
    row_group *group = &block->group[block->groups - 1];
    int r = group->rows++;
    if (r == 0) {
        group->begin = begin, group->end = end, group->same_sight = true;
    } else {
        group->same_sight = group->same_sight && begin == group->row_begin[0] && end == group->row_end[0];
        group->begin = lsp_min(group->begin, begin), group->end = lsp_max(group->end, end);
    }
    group->row_begin[r] = begin, group->row_end[r] = end;
    group->position[r] = sight->position - tile->first;
    group->q[r] = (const unit *)rows->q + row * (shape->k_depth / UNIT_ELEMENTS);
    group->out[r] = (real *)rows->out + row * shape->d_v;
    group->max[r] = (real *)rows->max + row;
    group->sum[r] = (real *)rows->sum + row;
    return block->groups == BLOCK_GROUPS && group->rows == ROW_TILE;
}

#endif
