/* W^T Y of a group of key rows over a tile of query rows: the exact kernel's mirror. What is subtracted from a score and
 * multiplied with its power belongs to the column, a query row, and is known: nothing is rescaled.
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

/* LANES columns: 2^(s - base) weight SUM_UNIT is what their rows of W hold. */
typedef struct mirror_columns {
    vec base, weight;
} mirror_columns;

INLINE mirror_columns mirror_load(const real *base, const real *weight)
{
    return (mirror_columns){vec_load(base), vec_load(weight)};
}

/* As attend has them, with a base for each lane, and times the weights. */
INLINE vec mirror_weights(mirror_columns at, vec s)
{
    return vec_mul(vec_power(false, s, at.base), at.weight);
}

/* Scores of ROW_TILE key rows that are seen from the whole tile, which become weights while they are in registers. */
INLINE void mirror_fused(row_group *group, const lsp_tile_shape *shape, const lsp_row_tile *tile)
{
    int64_t depth = shape->k_depth, piece = score_piece(depth);
    for (int64_t i = 0; i < shape->tile_keys; i += COL_TILE * LANES) {
        const unit *q = (const unit *)tile->tile.k + i / STRIP_KEYS * depth * STRIP_KEYS + i % STRIP_KEYS;
        register_tile acc;
        product(ROW_TILE, COL_TILE, piece, group->q, q, STRIP_KEYS, acc);
        for (int64_t d = piece; d < depth; d += piece)
            scores_piece(ROW_TILE, COL_TILE, group, d, lsp_min(depth - d, piece), q + d * STRIP_KEYS, i, NULL,
                         acc);
        UNROLL
        for (int c = 0; c < COL_TILE; c++) {
            int64_t at = i + c * LANES;
            mirror_columns columns =
                mirror_load((const real *)tile->base + at, (const real *)tile->weight + at);
            UNROLL
            for (int r = 0; r < ROW_TILE; r++) {
                vec weights = mirror_weights(columns, acc[r][c]),
                    *square = &group->lane_sum[r][at / LANES % SUM_VECS];
                *square = vec_fma(weights, weights, *square);
                vec_store(group->p[r] + at, weights);
            }
        }
    }
}

/* From stored scores. A base that does not fit beside ROUND_SHIFT is subtracted first: `far`. */
INLINE void mirror_row(row_group *group, int r, const lsp_row_tile *tile, bool far, int64_t i, int64_t end)
{
    static const real zeros[LANES] = {0};
    const real *base = tile->base, *weight = tile->weight;
    real *p = group->p[r];
    for (; i < end; i += LANES) {
        vec scores = vec_load(p + i), *square = &group->lane_sum[r][i / LANES % SUM_VECS];
        if (far) scores = vec_sub(scores, vec_load(base + i));
        vec weights = mirror_weights(mirror_load(far ? zeros : base + i, weight + i), scores);
        *square = vec_fma(weights, weights, *square);
        vec_store(p + i, weights);
    }
}

static void mirror_advance(row_group *group, const lsp_tile_shape *shape, const lsp_score_rule *rule,
                           const lsp_row_tile *tile, bool far)
{
    int64_t begin = group->begin / KEY_GRAIN * KEY_GRAIN, end = lsp_round_up(group->end, KEY_GRAIN);
    bool whole = group->seen_begin == 0 && group->seen_end == shape->tile_keys;
    bool fused = whole && group->rows == ROW_TILE && !far && rule->softcap == 0 && rule->slope == 0;
    group->fused = false;
    if (!fused) tile_scores(group, shape, rule, tile->tile.k);
    for (int r = 0; r < group->rows; r++)
        for (int v = 0; v < SUM_VECS; v++) group->lane_sum[r][v] = vec_zero();
    if (fused) mirror_fused(group, shape, tile);
    for (int r = 0; r < group->rows && !fused; r++) mirror_row(group, r, tile, far, begin, end);
    for (int r = 0; r < group->rows; r++) *group->sum[r] += lanes_sum(group->lane_sum[r]);
    row_group_prefetch(group, shape);
    tile_values(group, shape, &tile->tile);
    group->rows = 0;
}

/* Whether some base of the tile is too large: see softmax_near. */
INLINE bool mirror_is_far(const lsp_tile_shape *shape, const lsp_row_tile *tile)
{
    const real *base = tile->base, limit = REAL_BITS == 32 ? (real)0x1p20 : (real)0x1p49;
    int found = 0;
    for (int64_t i = 0; i < shape->tile_keys; i++) found |= base[i] > limit || base[i] < -limit;
    return found != 0;
}

static void attend_transposed(const lsp_tile_shape *shape, const lsp_score_rule *rule,
                              const lsp_row_tile *tile, const lsp_key_rows *keys, void *scratch)
{
    /* Key rows take the place of query rows; they have no running maximum, which nothing here touches. */
    lsp_query_rows rows = {.rows = keys->rows,
                           .q = keys->k,
                           .sight = keys->sight,
                           .out = keys->out,
                           .max = keys->squares,
                           .sum = keys->squares};
    row_group group;
    bool far = mirror_is_far(shape, tile);
    tile_ahead ahead = tile_ahead_start(shape, &tile->tile, rows.rows);
    row_group_start(&group, shape, scratch);
    for (int r = 0; r < ROW_TILE; r++) {
        group.alpha[r] = (real)1;
        group.keep[r] = true; /* so that masked scores are not searched for maxima */
    }
    for (int64_t row = 0; row < rows.rows; row++) {
        row_group_take(&group, shape, &tile->tile, &rows, row);
        if (group.rows < ROW_TILE) continue;
        tile_ahead_prefetch(&ahead);
        mirror_advance(&group, shape, rule, tile, far);
    }
    if (group.rows) mirror_advance(&group, shape, rule, tile, far);
}
#endif

#endif
