/* Scores of a block of rows against a key tile: Q K^T, then softcap, ALiBi and mask where a row has them.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_TILE_SCORES_H
#define LSP_KERNEL_TILE_SCORES_H

#include "kernel/product.h"
#include "kernel/row_group.h"
#include "kernel/vec_math.h"

enum {
    DISTANCE_LIMIT = 1 << 30,
    STRIP_DEPTH = CACHE_BYTES / (STRIP_KEYS * (int)sizeof(unit)), /* units of a strip that take turns */
    CHAIN_UNITS = 32 / UNIT_ELEMENTS /* of one chain of FMAs: 32 elements on every instruction set */
};
_Static_assert(STRIP_DEPTH % CHAIN_UNITS == 0, "the parts of a strip end where chains end");

/* What scores are still to be multiplied by after packing; positive, as packing took the sign. */
INLINE real score_factor(const lsp_score_rule *rule)
{
    real size = (real)(rule->factor < 0 ? -rule->factor : rule->factor);
    return BRAIN && size > (real)0 ? size : (real)1;
}

/* A piece of the packed K: units [depth_begin, depth_end) of one strip. */
typedef struct strip_part {
    int64_t strip, depth_begin, depth_end;
    const unit *k;
    bool last; /* the sums are complete */
} strip_part;

/* The part's share of the scores of `rows` rows (a constant), and their maxima by lane when complete. Scores
 * sum over d in chains of CHAIN_UNITS: one chain of FMAs over all of d_k would lose a digit where d_k is large. */
INLINE void scores_rows(const int rows, row_group *group, const strip_part *part)
{
    for (int column = 0; column < STRIP_KEYS; column += COL_TILE * LANES) {
        int64_t key = part->strip * STRIP_KEYS + column;
        for (int64_t d = part->depth_begin; d < part->depth_end; d += CHAIN_UNITS) {
            const unit *q[ROW_TILE], *k = part->k + (d - part->depth_begin) * STRIP_KEYS + column;
            register_tile acc;
            UNROLL
            for (int r = 0; r < rows; r++) q[r] = group->q[r] + d;
            tile_zero(rows, COL_TILE, acc);
            product(rows, COL_TILE, lsp_min(part->depth_end - d, CHAIN_UNITS), q, k, STRIP_KEYS, acc);
            bool complete = part->last && d + CHAIN_UNITS >= part->depth_end;
            UNROLL
            for (int r = 0; r < rows; r++) {
                vec *maxima = group->lane_max[r] + column / LANES % SUM_VECS;
                UNROLL
                for (int c = 0; c < COL_TILE; c++) {
                    real *p = group->p[r] + key + c * LANES;
                    if (d > 0) acc[r][c] = vec_add(vec_load(p), acc[r][c]);
                    vec_store(p, acc[r][c]);
                    if (complete) maxima[c % SUM_VECS] = vec_max(maxima[c % SUM_VECS], acc[r][c]);
                }
            }
        }
    }
}

static void scores_part(row_group *group, const strip_part *part)
{
    switch (group->rows) {
    case 1: scores_rows(1, group, part); break;
    case 2: scores_rows(2, group, part); break;
    case 3: scores_rows(3, group, part); break;
#if ROW_TILE > 4
    case 4: scores_rows(4, group, part); break;
    case 5: scores_rows(5, group, part); break;
#endif
    default: scores_rows(ROW_TILE, group, part);
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

static void scores_rule(row_group *group, int r, const lsp_score_rule *rule, int64_t strip, int64_t strip_end)
{
    vec cap = vec_set((real)rule->softcap), factor = vec_set(group->factor);
    for (int64_t s = strip; s < strip_end; s++) {
        real *scores = group->p[r] + s * STRIP_KEYS;
        for (int i = 0; i < STRIP_KEYS && BRAIN; i += LANES)
            vec_store(scores + i, vec_mul(factor, vec_load(scores + i)));
        for (int i = 0; i < STRIP_KEYS && rule->softcap != 0; i += LANES)
            vec_store(scores + i, vec_mul(cap, vec_tanh(vec_div(vec_load(scores + i), cap))));
        if (rule->slope != 0) scores_alibi(scores, group->position[r] - s * STRIP_KEYS, (real)rule->slope);
    }
}

/* Unseen keys get -inf by assignment, whatever their k was; the row's maxima are found again. */
static void scores_mask(row_group *group, int r, int64_t strip, int64_t strip_end)
{
    real *p = group->p[r];
    for (int64_t j = strip * STRIP_KEYS; j < group->row_begin[r]; j++) p[j] = -(real)INFINITY;
    for (int64_t j = group->row_end[r]; j < strip_end * STRIP_KEYS; j++) p[j] = -(real)INFINITY;
    vec *maxima = group->lane_max[r];
    for (int g = 0; g < SUM_VECS; g++) maxima[g] = vec_set(-(real)INFINITY);
    for (int64_t j = strip * STRIP_KEYS; j < strip_end * STRIP_KEYS; j += SUM_LANES)
        for (int g = 0; g < SUM_VECS; g++) maxima[g] = vec_max(maxima[g], vec_load(p + j + g * LANES));
}

static void scores_adjust(row_group *group, const lsp_score_rule *rule)
{
    int64_t strip = group->begin / STRIP_KEYS, strip_end = lsp_ceil_div(group->end, STRIP_KEYS);
    bool ruled = rule->softcap != 0 || rule->slope != 0;
    for (int r = 0; r < group->rows; r++) {
        if (ruled) scores_rule(group, r, rule, strip, strip_end);
        bool whole = group->row_begin[r] <= strip * STRIP_KEYS && group->row_end[r] >= strip_end * STRIP_KEYS;
        if (ruled || !whole) scores_mask(group, r, strip, strip_end);
    }
    if (BRAIN && ruled) group->factor = (real)1;
}

static void tile_scores(row_block *block, const lsp_tile_shape *shape, const lsp_score_rule *rule,
                        const unit *tile_k)
{
    int64_t begin = shape->tile_keys, end = 0, depth = shape->k_depth / UNIT_ELEMENTS;
    for (int g = 0; g < block->groups; g++) {
        row_group *group = &block->group[g];
        begin = lsp_min(begin, group->begin), end = lsp_max(end, group->end);
        group->factor = score_factor(rule);
        for (int r = 0; r < group->rows; r++)
            for (int v = 0; v < SUM_VECS; v++) group->lane_max[r][v] = vec_set(-(real)INFINITY);
    }
    strip_part part = {.strip = begin / STRIP_KEYS};
    for (; part.strip * STRIP_KEYS < end; part.strip++) {
        for (int64_t d = 0; d < depth; d = part.depth_end) {
            part.depth_begin = d, part.depth_end = lsp_min(d + STRIP_DEPTH, depth);
            part.k = tile_k + (part.strip * depth + d) * STRIP_KEYS;
            part.last = part.depth_end == depth;
            for (int g = 0; g < block->groups; g++) {
                row_group *group = &block->group[g];
                if (group->begin < (part.strip + 1) * STRIP_KEYS && group->end > part.strip * STRIP_KEYS)
                    scores_part(group, &part);
            }
        }
    }
    for (int g = 0; g < block->groups; g++) scores_adjust(&block->group[g], rule);
}

#endif
