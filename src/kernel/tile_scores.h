/* Scores of a row group against a key tile: Q K^T, then softcap, ALiBi and mask where a row has them.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_TILE_SCORES_H
#define LSP_KERNEL_TILE_SCORES_H

#include "kernel/product.h"
#include "kernel/row_group.h"
#include "kernel/vec_math.h"

enum { DISTANCE_LIMIT = 1 << 30, CHAIN_DEPTH = 32 };

/* Adds the products over the next columns of q and k from `d` on, as a chain of their own: one chain of FMAs
 * over all of d_k would lose a digit where d_k is large. The sums wait in the scores buffer meanwhile. */
INLINE void scores_more(const int rows, row_group *group, const lsp_tile_shape *shape, const real *k,
                        int64_t key, int64_t d, register_tile acc)
{
    const real *q[ROW_TILE];
    UNROLL
    for (int r = 0; r < rows; r++) {
        q[r] = group->q[r] + d;
        UNROLL
        for (int c = 0; c < COL_TILE; c++) vec_store(group->p[r] + key + c * LANES, acc[r][c]);
    }
    product(rows, COL_TILE, lsp_min(shape->d_k - d, CHAIN_DEPTH), q, k + d * STRIP_KEYS, STRIP_KEYS, acc);
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int c = 0; c < COL_TILE; c++)
            acc[r][c] = vec_add(vec_load(group->p[r] + key + c * LANES), acc[r][c]);
    }
}

/* Scores of `rows` rows (a constant) over the strips [strip, strip_end), and the maxima by lane. */
INLINE void scores_rows(const int rows, row_group *group, const lsp_tile_shape *shape, const real *tile_k,
                        int64_t strip, int64_t strip_end)
{
    UNROLL
    for (int r = 0; r < rows; r++)
        for (int g = 0; g < SUM_VECS; g++) group->lane_max[r][g] = vec_set(-(real)INFINITY);
    for (; strip < strip_end; strip++) {
        const real *k = tile_k + strip * shape->d_k * STRIP_KEYS;
        for (int column = 0; column < STRIP_KEYS; column += COL_TILE * LANES) {
            register_tile acc;
            product(rows, COL_TILE, lsp_min(shape->d_k, CHAIN_DEPTH), group->q, k + column, STRIP_KEYS, acc);
            for (int64_t d = CHAIN_DEPTH; d < shape->d_k; d += CHAIN_DEPTH)
                scores_more(rows, group, shape, k + column, strip * STRIP_KEYS + column, d, acc);
            vec *maxima[ROW_TILE];
            UNROLL
            for (int r = 0; r < rows; r++) maxima[r] = group->lane_max[r] + column / LANES % SUM_VECS;
            UNROLL
            for (int r = 0; r < rows; r++) {
                UNROLL
                for (int c = 0; c < COL_TILE; c++) {
                    vec_store(group->p[r] + strip * STRIP_KEYS + column + c * LANES, acc[r][c]);
                    maxima[r][c % SUM_VECS] = vec_max(maxima[r][c % SUM_VECS], acc[r][c]);
                }
            }
        }
    }
}

/* s -= slope * |position - key|. The distance is an exact integer up to its limit: the same for every
 * tile and partition. */
INLINE void scores_alibi(real *scores, int64_t distance, real slope)
{
    int64_t room = DISTANCE_LIMIT + STRIP_KEYS;
    int32_t first = (int32_t)lsp_max(-room, lsp_min(room, distance));
    real away[STRIP_KEYS];
    for (int32_t i = 0; i < STRIP_KEYS; i++) {
        int32_t d = first - i < 0 ? i - first : first - i;
        away[i] = (real)(d < DISTANCE_LIMIT ? d : DISTANCE_LIMIT);
    }
    for (int i = 0; i < STRIP_KEYS; i += LANES)
        vec_store(scores + i, vec_fma(vec_set(-slope), vec_load(away + i), vec_load(scores + i)));
}

/* Changes one row's scores and finds its maxima again. Unseen keys get -inf by assignment, whatever
 * their k was. */
static void scores_adjust(row_group *group, int r, const lsp_score_rule *rule, int64_t strip,
                          int64_t strip_end)
{
    real *p = group->p[r];
    vec cap = vec_set((real)rule->softcap);
    for (int64_t s = strip; s < strip_end; s++) {
        real *scores = p + s * STRIP_KEYS;
        for (int i = 0; i < STRIP_KEYS && rule->softcap != 0; i += LANES)
            vec_store(scores + i, vec_mul(cap, vec_tanh(vec_div(vec_load(scores + i), cap))));
        if (rule->slope != 0) scores_alibi(scores, group->position[r] - s * STRIP_KEYS, (real)rule->slope);
    }
    for (int64_t j = strip * STRIP_KEYS; j < group->row_begin[r]; j++) p[j] = -(real)INFINITY;
    for (int64_t j = group->row_end[r]; j < strip_end * STRIP_KEYS; j++) p[j] = -(real)INFINITY;
    vec *maxima = group->lane_max[r];
    for (int g = 0; g < SUM_VECS; g++) maxima[g] = vec_set(-(real)INFINITY);
    for (int64_t j = strip * STRIP_KEYS; j < strip_end * STRIP_KEYS; j += SUM_LANES)
        for (int g = 0; g < SUM_VECS; g++) maxima[g] = vec_max(maxima[g], vec_load(p + j + g * LANES));
}

static void tile_scores(row_group *group, const lsp_tile_shape *shape, const lsp_score_rule *rule,
                        const real *tile_k)
{
    int64_t strip = group->begin / STRIP_KEYS, strip_end = lsp_ceil_div(group->end, STRIP_KEYS);
    switch (group->rows) {
    case 1: scores_rows(1, group, shape, tile_k, strip, strip_end); break;
    case 2: scores_rows(2, group, shape, tile_k, strip, strip_end); break;
    case 3: scores_rows(3, group, shape, tile_k, strip, strip_end); break;
#if ROW_TILE > 4
    case 4: scores_rows(4, group, shape, tile_k, strip, strip_end); break;
    case 5: scores_rows(5, group, shape, tile_k, strip, strip_end); break;
#endif
    default: scores_rows(ROW_TILE, group, shape, tile_k, strip, strip_end);
    }
    bool ruled = rule->softcap != 0 || rule->slope != 0;
    for (int r = 0; r < group->rows; r++) {
        bool whole = group->row_begin[r] <= strip * STRIP_KEYS && group->row_end[r] >= strip_end * STRIP_KEYS;
        if (ruled || !whole) scores_adjust(group, r, rule, strip, strip_end);
    }
}

#endif
