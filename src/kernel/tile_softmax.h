/* From a row group's scores to probabilities, relative to the rows' new maxima.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_TILE_SOFTMAX_H
#define LSP_KERNEL_TILE_SOFTMAX_H

#include "kernel/row_group.h"
#include "kernel/vec_math.h"

/* The new maxima, and the factors alpha by which what came before shrinks: each row's from its own numbers. */
INLINE void softmax_scale(row_group *group)
{
    real before[ROW_TILE];
    for (int r = 0; r < group->rows; r++) {
        real tile_max = lanes_max(group->lane_max[r]);
        if (BRAIN) tile_max *= group->factor;
        before[r] = *group->max[r];
        real now = before[r] > tile_max ? before[r] : tile_max;
        /* A row whose scores are all -inf has no maximum to subtract; -inf minus -inf would be NaN. */
        group->base[r] = now == -(real)INFINITY ? (real)0 : now;
        *group->max[r] = now;
        group->alpha[r] = before[r] - group->base[r];
    }
    UNROLL
    for (int r = 0; r < ROW_LANES; r += LANES)
        vec_store(group->alpha + r, vec_exp2(vec_load(group->alpha + r)));
}

/* The probabilities of LANES keys from their scores. */
INLINE vec softmax_power(const row_group *group, vec base, const real *scores)
{
#if BRAIN
    return vec_exp2_brain(vec_fma(vec_load(scores), vec_set(group->factor), base));
#else
    (void)group;
    return vec_exp2(vec_sub(vec_load(scores), base));
#endif
}

/* p_j = exp2(s_j - base) in place for whole grains of keys; the sums by lanes (key index modulo SUM_LANES). In
 * bf16 what is added is what is multiplied with V: the weights add up to 1 whatever their rounding. */
INLINE void softmax_row(row_group *group, int r, int64_t key, int64_t key_end)
{
    real *p = group->p[r];
    vec sum[SUM_VECS];
#if BRAIN
    vec base = vec_set(BRAIN_BIAS - group->base[r]);
#else
    vec base = vec_set(group->base[r]);
#endif
    UNROLL
    for (int v = 0; v < SUM_VECS; v++) sum[v] = vec_zero();
    for (; key < key_end; key += SUM_LANES * UNIT_ELEMENTS) {
        vec power[SUM_VECS * UNIT_ELEMENTS];
        UNROLL
        for (int v = 0; v < SUM_VECS * UNIT_ELEMENTS; v++) {
            power[v] = softmax_power(group, base, p + key + v * LANES);
            sum[v % SUM_VECS] = vec_add(sum[v % SUM_VECS], power[v]);
        }
#ifdef VEC_HAS_PAIRS
        vec_store(p + key / UNIT_ELEMENTS, unit_join(power[0], power[1]));
#else
        UNROLL
        for (int v = 0; v < SUM_VECS; v++) vec_store(p + key + v * LANES, power[v]);
#endif
    }
    UNROLL
    for (int v = 0; v < SUM_VECS; v++) group->lane_sum[r][v] = sum[v];
}

static void tile_softmax(row_group *group)
{
    int64_t key = group->begin / KEY_GRAIN * KEY_GRAIN, key_end = lsp_round_up(group->end, KEY_GRAIN);
    softmax_scale(group);
    for (int r = 0; r < group->rows; r++) softmax_row(group, r, key, key_end);
    for (int r = 0; r < group->rows; r++)
        *group->sum[r] = real_fma(*group->sum[r], group->alpha[r], lanes_sum(group->lane_sum[r]));
}

#endif
