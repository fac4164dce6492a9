/* W^T Y of a group of key rows over a tile of query rows: the exact kernel's mirror. What subtracts from a score and
 * multiplies its power belongs to the column, a query row, and is known: nothing is rescaled.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_TILE_TRANSPOSE_H
#define LSP_KERNEL_TILE_TRANSPOSE_H

#include "kernel/row_group.h"
#include "kernel/tile_scores.h"
#include "kernel/tile_values.h"
#include "kernel/vec_math.h"

#if BRAIN
/* Weights rounded to bf16 would be another matrix than the forward pass has: there is no mirror in bf16. */
#    define ATTEND_TRANSPOSED NULL
#else
#    define ATTEND_TRANSPOSED attend_transposed

/* w_i = exp2(s_i - base_i) weight_i in place; the squares by lanes (row index modulo SUM_LANES). */
INLINE void transposed_weights(row_group *group, int r, const real *base, const real *weight, int64_t i,
                               int64_t end)
{
    real *p = group->p[r];
    vec square[SUM_VECS];
    UNROLL
    for (int v = 0; v < SUM_VECS; v++) square[v] = vec_zero();
    for (; i < end; i += SUM_LANES) {
        UNROLL
        for (int v = 0; v < SUM_VECS; v++) {
            int64_t at = i + v * LANES;
            vec power = vec_exp2(vec_sub(vec_load(p + at), vec_load(base + at)));
            power = vec_mul(power, vec_load(weight + at));
            square[v] = vec_fma(power, power, square[v]);
            vec_store(p + at, power);
        }
    }
    UNROLL
    for (int v = 0; v < SUM_VECS; v++) group->lane_sum[r][v] = square[v];
}

static void transposed_advance(row_group *group, const lsp_tile_shape *shape, const lsp_score_rule *rule,
                               const lsp_row_tile *tile)
{
    int64_t begin = group->begin / KEY_GRAIN * KEY_GRAIN, end = lsp_round_up(group->end, KEY_GRAIN);
    tile_scores(group, shape, rule, tile->tile.k);
    for (int r = 0; r < group->rows; r++) transposed_weights(group, r, tile->base, tile->weight, begin, end);
    for (int r = 0; r < group->rows; r++) *group->sum[r] += lanes_sum(group->lane_sum[r]);
    row_group_prefetch(group, shape);
    tile_values(group, shape, &tile->tile);
    group->rows = 0;
}

static void attend_transposed(const lsp_tile_shape *shape, const lsp_score_rule *rule,
                              const lsp_row_tile *tile, const lsp_key_rows *keys, void *scratch)
{
    /* Key rows take the place of query rows; they have no running maximum, which nothing here touches. */
    lsp_query_rows rows = {keys->rows, keys->k, keys->sight, keys->out, keys->squares, keys->squares};
    row_group group;
    row_group_start(&group, shape, scratch);
    for (int r = 0; r < ROW_LANES; r++) group.alpha[r] = (real)1;
    for (int64_t row = 0; row < rows.rows; row++) {
        row_group_add(&group, shape, &tile->tile, &rows, row);
        if (group.rows == ROW_TILE) transposed_advance(&group, shape, rule, tile);
    }
    if (group.rows) transposed_advance(&group, shape, rule, tile);
}
#endif

#endif
