/* From a row group's scores to probabilities, relative to the rows' new maxima.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_TILE_SOFTMAX_H
#define LSP_KERNEL_TILE_SOFTMAX_H

#include "kernel/row_group.h"
#include "kernel/vec_math.h"

/* The new maximum, and the factor alpha by which what came before shrinks: decided for each row alone. */
INLINE void softmax_scale(row_group *group, int r)
{
    real before = *group->max[r], tile_max = lanes_max(group->lane_max[r]);
    real now = before > tile_max ? before : tile_max;
    /* A row whose scores are all -inf has no maximum to subtract; -inf minus -inf would be NaN. */
    real base = now == -(real)INFINITY ? (real)0 : now;
    *group->max[r] = now;
    group->base[r] = base;
    group->alpha[r] = real_exp2(before - base);
}

/* p_j = exp2(s_j - base) in place; their sum over the tile by lanes (key index modulo SUM_LANES). */
INLINE void softmax_row(row_group *group, int r, int64_t key, int64_t key_end)
{
    vec base = vec_set(group->base[r]), sum[SUM_VECS];
    real *p = group->p[r];
    UNROLL
    for (int g = 0; g < SUM_VECS; g++) sum[g] = vec_zero();
    for (; key < key_end; key += SUM_LANES) {
        UNROLL
        for (int g = 0; g < SUM_VECS; g++) {
            vec power = vec_exp2(vec_sub(vec_load(p + key + g * LANES), base));
            vec_store(p + key + g * LANES, power);
            sum[g] = vec_add(sum[g], power);
        }
    }
    *group->sum[r] = real_fma(*group->sum[r], group->alpha[r], lanes_sum(sum));
}

static void tile_softmax(row_group *group)
{
    int64_t key = group->begin / STRIP_KEYS * STRIP_KEYS, key_end = lsp_round_up(group->end, STRIP_KEYS);
    for (int r = 0; r < group->rows; r++) softmax_scale(group, r);
    for (int r = 0; r < group->rows; r++) softmax_row(group, r, key, key_end);
}

#endif
