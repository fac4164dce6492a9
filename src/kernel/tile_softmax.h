/* From a row group's scores to probabilities, relative to the rows' new maxima.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_TILE_SOFTMAX_H
#define LSP_KERNEL_TILE_SOFTMAX_H

#include "kernel/row_group.h"
#include "kernel/vec_math.h"

/* The new maxima, rounded up to even integers, and the powers of two alpha by which what came before shrinks. */
INLINE void softmax_scale(row_group *group)
{
    for (int r = 0; r < group->rows; r++) {
        real before = *group->max[r], now = before;
        if (group->fused) { /* all of that stays */
            group->alpha[r] = (real)1;
            continue;
        }
        if (!group->keep[r]) {
            real tile_max = real_ceil_even(lanes_max(group->lane_max[r]) * group->factor);
            now = before > tile_max ? before : tile_max;
        }
        /* A row whose scores are all -inf has no maximum to subtract; -inf minus -inf would be NaN. */
        group->base[r] = now == -(real)INFINITY ? (real)0 : now;
        *group->max[r] = now;
        group->alpha[r] = real_power(before - group->base[r]);
    }
}

/* How scores of a row become probabilities: 2^(factor s - base). */
typedef struct score_power {
    real factor, base;
} score_power;

/* The probabilities of LANES keys from their scores; `near` as vec_power has it. */
INLINE vec softmax_power(const bool near, score_power how, vec scores)
{
#if BRAIN
    (void)near;
    return vec_exp2_brain(vec_fma(scores, vec_set(how.factor), vec_set(BRAIN_BIAS)), how.base);
#else
    return vec_power(near, scores, vec_set(how.base));
#endif
}

/* A large base does not fit beside ROUND_SHIFT (BRAIN_BIAS), and scores there have few bits after the point, if any:
 * it is subtracted first. */
INLINE score_power softmax_near(row_group *group, int r, int64_t key, int64_t key_end)
{
    const real far = BRAIN ? (real)0x1p9 : REAL_BITS == 32 ? (real)0x1p20 : (real)0x1p45;
    score_power how = {group->factor, group->base[r]};
    if (how.base <= far && how.base >= -far) return how;
    vec factor = vec_set(how.factor), shift = vec_set(-how.base);
    for (; key < key_end; key += LANES)
        vec_store(group->p[r] + key, vec_fma(vec_load(group->p[r] + key), factor, shift));
    return (score_power){(real)1, (real)0};
}

/* p_j = exp2(s_j - base) SUM_UNIT in place for whole grains of keys; adds to the sums by lanes (key index modulo SUM_LANES). In
 * bf16 what is added is what is multiplied with V: the weights add up to 1 whatever their rounding. */
INLINE void softmax_row(row_group *group, int r, score_power how, int64_t key, int64_t key_end)
{
    real *p = group->p[r];
    vec sum[SUM_VECS];
    UNROLL
    for (int v = 0; v < SUM_VECS; v++) sum[v] = group->lane_sum[r][v];
    for (; key < key_end; key += SUM_LANES * UNIT_ELEMENTS) {
        vec power[SUM_VECS * UNIT_ELEMENTS];
        UNROLL
        for (int v = 0; v < SUM_VECS * UNIT_ELEMENTS; v++) {
            power[v] = softmax_power(false, how, vec_load(p + key + v * LANES));
            sum[v % SUM_VECS] = vec_add(sum[v % SUM_VECS], power[v]);
        }
        UNROLL
        for (int v = 0; v < SUM_VECS; v++)
            vec_store(p + key / UNIT_ELEMENTS + v * LANES, unit_powers(power + v * UNIT_ELEMENTS));
    }
    UNROLL
    for (int v = 0; v < SUM_VECS; v++) group->lane_sum[r][v] = sum[v];
}

static void tile_softmax(row_group *group)
{
    int64_t key = group->begin / KEY_GRAIN * KEY_GRAIN, key_end = lsp_round_up(group->end, KEY_GRAIN);
    softmax_scale(group);
    for (int r = 0; r < group->rows && !group->fused; r++)
        softmax_row(group, r, softmax_near(group, r, key, key_end), key, key_end);
    for (int r = 0; r < group->rows; r++)
        *group->sum[r] = real_fma(*group->sum[r], group->alpha[r], lanes_sum(group->lane_sum[r]));
}

#endif
