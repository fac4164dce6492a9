/* Scores of a fused group in bf16 by VDPBF16PS, with the powers of the block before taken between the steps of the product: the
 * adders, which the product leaves alone, then do most of the exponential.
 *
 * The processors on which this instruction pays (Zen) have adders beside their multipliers, but schedulers too short to bring
 * together by themselves what stands a product apart. In f32 and f64, where a product takes twice as long, the stores and
 * loads of scores that it takes cost what it gains. The bits are those of scores_rows.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_SCORES_WOVEN_H
#define LSP_KERNEL_SCORES_WOVEN_H

#include "kernel/tile_softmax.h"

enum { WEAVE_PARTS = COL_TILE / UNIT_ELEMENTS };
_Static_assert(SUM_VECS == 1 && BRAIN, "sums by lane are one vector, and those over d have one piece");

/* Or the compiler brings operands of several steps into registers, which do not suffice. */
#define WEAVE_FENCE __asm__ volatile("" ::: "memory")

/* Of the block at `key`, rows before `row` have become powers. */
typedef struct weave {
    int64_t key;
    int row;
} weave;

/* The powers of UNIT_ELEMENTS vectors, the part-th of the row; and `sum` by lane. */
INLINE void weave_part(const weave *w, row_group *group, int part, vec *sum)
{
    real *p = group->p[w->row];
    const score_power how = {group->factor, *group->max[w->row]};
    vec power[UNIT_ELEMENTS];
    UNROLL
    for (int i = 0; i < UNIT_ELEMENTS; i++) {
        power[i] = softmax_power(true, how, vec_load(p + w->key + (part * UNIT_ELEMENTS + i) * LANES));
        *sum = vec_add(*sum, power[i]);
    }
    vec_store(p + w->key / UNIT_ELEMENTS + part * LANES, unit_powers(power));
}

/* Those of a row, each part after so many steps of the product. */
INLINE void weave_row(const int steps, weave *w, row_group *group, int64_t i, const unit *k,
                      register_tile acc)
{
    vec sum = group->lane_sum[w->row][0];
    UNROLL
    for (int part = 0; part < WEAVE_PARTS; part++) {
        UNROLL
        for (int step = part * steps; step < (part + 1) * steps; step++) {
            product_step(ROW_TILE, COL_TILE, group->q, i + step, (unit_rows){k, NULL}, step * STRIP_KEYS,
                         acc);
            WEAVE_FENCE;
        }
        weave_part(w, group, part, &sum);
        WEAVE_FENCE;
    }
    group->lane_sum[w->row++][0] = sum;
}

/* acc = the scores of a block, and meanwhile powers of the block before. */
INLINE void weave_product(row_group *group, int64_t depth, const unit *k, weave *w, register_tile acc)
{
    enum { STEPS = 2 * WEAVE_PARTS }; /* of a row, if they suffice for all rows */
    const bool sparse = depth >= ROW_TILE * STEPS;
    int64_t i = 0;
    tile_zero(ROW_TILE, COL_TILE, acc);
    for (; sparse && w->row < ROW_TILE; i += STEPS, k += STEPS * STRIP_KEYS)
        weave_row(2, w, group, i, k, acc);
    for (; i + WEAVE_PARTS <= depth && w->row < ROW_TILE; i += WEAVE_PARTS, k += WEAVE_PARTS * STRIP_KEYS)
        weave_row(1, w, group, i, k, acc);
    UNROLL_BY_4
    for (; i < depth; i++, k += STRIP_KEYS)
        product_step(ROW_TILE, COL_TILE, group->q, i, (unit_rows){k, NULL}, 0, acc);
}

INLINE void weave_rest(row_group *group, weave *w)
{
    for (; w->row < ROW_TILE; w->row++)
        for (int part = 0; part < WEAVE_PARTS; part++)
            weave_part(w, group, part, &group->lane_sum[w->row][0]);
}

static __attribute__((noinline)) void scores_woven(row_group *group, int64_t depth, const unit *k,
                                                   int64_t strip, int64_t strip_end)
{
    weave w = {0, ROW_TILE};
    for (; strip < strip_end; strip++, k += depth * STRIP_KEYS) {
        register_tile acc;
        ahead_part *part = group_ahead_turn(&group->ahead), ahead = *part;
        weave_product(group, depth, k, &w, acc);
        weave_rest(group, &w);
        w = (weave){strip * STRIP_KEYS, 0};
        UNROLL
        for (int r = 0; r < ROW_TILE; r++) {
            ahead_ask(&ahead);
            UNROLL
            for (int c = 0; c < COL_TILE; c++) vec_store(group->p[r] + w.key + c * LANES, acc[r][c]);
        }
        part->at = ahead.at;
    }
    weave_rest(group, &w);
}

#endif
