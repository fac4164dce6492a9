/* The query rows that go through one key tile together: up to ROW_TILE rows that all see it.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_ROW_GROUP_H
#define LSP_KERNEL_ROW_GROUP_H

#include "base/checked.h"
#include "kernel/real.h"

enum { SUM_VECS = SUM_LANES / LANES };

/* Key indices are relative to the tile. */
typedef struct row_group {
    int rows;
    int64_t begin, end; /* the union of the rows' sights */
    bool same_sight;
    const real *q[ROW_TILE];
    real *p[ROW_TILE]; /* [tile_keys] scores, then probabilities */
    real *out[ROW_TILE];
    real *max[ROW_TILE], *sum[ROW_TILE];
    int64_t row_begin[ROW_TILE], row_end[ROW_TILE];
    int64_t position[ROW_TILE];
    vec lane_max[ROW_TILE][SUM_VECS]; /* of the tile's scores */
    real base[ROW_TILE], alpha[ROW_TILE];
} row_group;

/* Elements from one row's scores to the next: past a power of two, so that rows do not share cache sets. */
INLINE int64_t scores_stride(const lsp_tile_shape *shape)
{
    return shape->tile_keys + SUM_LANES;
}

/* Adds row `row` to the group, unless it does not see the tile. */
INLINE void row_group_add(row_group *group, const lsp_tile_shape *shape, const lsp_key_tile *tile,
                          const lsp_query_rows *rows, int64_t row)
{
    const lsp_sight *sight = &rows->sight[row];
    int64_t begin = lsp_max(sight->begin, tile->first) - tile->first;
    int64_t end = lsp_min(sight->end, tile->first + shape->tile_keys) - tile->first;
    if (begin >= end) return;
    int r = group->rows++;
    if (r == 0) {
        group->begin = begin, group->end = end, group->same_sight = true;
    } else {
        group->same_sight = group->same_sight && begin == group->row_begin[0] && end == group->row_end[0];
        group->begin = lsp_min(group->begin, begin), group->end = lsp_max(group->end, end);
    }
    group->row_begin[r] = begin, group->row_end[r] = end;
    group->position[r] = sight->position - tile->first;
    group->q[r] = (const real *)rows->q + row * shape->d_k;
    group->out[r] = (real *)rows->out + row * shape->d_v;
    group->max[r] = (real *)rows->max + row;
    group->sum[r] = (real *)rows->sum + row;
}

#endif
