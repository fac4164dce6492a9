/* Groups of rows that see all of a tile, with maxima of 0 that stay, on AVX-512: nearly all of the work of most calls.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_PLAIN_H
#define LSP_KERNEL_PLAIN_H

#include "kernel/plain_values.h"

/* Whether the first piece of a sum over d has a step for each power. */
INLINE bool plain_fits(const lsp_tile_shape *shape)
{
    return score_piece(shape->k_depth / UNIT_ELEMENTS) >= PLAIN_WOVEN;
}

INLINE plain_steps plain_count(int64_t steps)
{
    return (plain_steps){steps / PLAIN_FOUR, steps % PLAIN_FOUR};
}

static void plain_start(plain_state *state, const lsp_tile_shape *shape, const lsp_score_rule *rule)
{
    const int64_t depth = shape->k_depth / UNIT_ELEMENTS, piece = score_piece(depth);
    *state = (plain_state){.pieces = lsp_ceil_div(depth, piece), .k_bytes = depth * 256, .away = (real)-1e30};
    state->first = plain_count(piece - PLAIN_WOVEN);
    state->middle = plain_count(piece);
    state->last = plain_count(depth - (state->pieces - 1) * piece);
#if BRAIN
    memcpy(state->number, brain_numbers, sizeof brain_numbers);
    state->number[5] = BRAIN_BIAS, state->number[6] = BRAIN_BIAS - BRAIN_SPARE, state->number[7] = score_factor(rule);
#else
    (void)rule;
    memcpy(state->number, exp2_coefficients, sizeof exp2_coefficients);
#    if REAL_BITS == 32
    state->number[5] = (real)1;
#    else
    state->number[6] = STEP_SHIFT;
#    endif
#endif
}

/* How often the scores of one group ask for a line, in each part's turns. */
static int64_t plain_asks(const plain_state *state, const lsp_tile_shape *shape)
{
    const int64_t fours = state->first.fours + (state->pieces > 2 ? state->pieces - 2 : 0) * state->middle.fours +
                          (state->pieces > 1 ? state->last.fours : 0);
    return shape->tile_keys / STRIP_KEYS * 2 / AHEAD_PARTS * fours;
}

/* Shares of what comes next, as group_ahead_spread has it. */
static void plain_ask(plain_state *state, group_ahead *ahead, int64_t asks)
{
    for (int i = 0; i < AHEAD_PARTS; i++) {
        int64_t step = asks > 0 ? lsp_min(CACHE_LINE, lsp_ceil_div(ahead->bytes[i], asks)) : 0;
        for (int64_t at = asks * step; at < ahead->bytes[i]; at += CACHE_LINE)
            __builtin_prefetch(ahead->part[i].at + at, 0, 2);
        state->ask[i] = (ahead_part){ahead->part[i].at, step};
        ahead->bytes[i] = 0;
    }
}

/* The first `count` rows, a multiple of ROW_TILE. */
static void attend_plain(const lsp_tile_shape *shape, const lsp_score_rule *rule, const lsp_key_tile *tile,
                         const lsp_query_rows *rows, int64_t count, row_group *group, tile_ahead *ahead)
{
    plain_state state;
    const int64_t depth = shape->k_depth / UNIT_ELEMENTS, p_stride = scores_stride(shape) * (int64_t)sizeof(real);
    plain_start(&state, shape, rule);
    const int64_t asks = plain_asks(&state, shape);
    for (int64_t row = 0; row < count; row += ROW_TILE) {
        row_group_plain(group, shape, tile, rows, row);
        row_group_ask(group, shape, ahead, rows, row + ROW_TILE);
        row_group_settle(group, shape->d_v);
        plain_ask(&state, &group->ahead, asks);
        state.halves = shape->tile_keys / STRIP_KEYS * 2;
        state.advance = 0;
        state.fresh = group->fresh;
        if (BRAIN) for (int r = 0; r < ROW_TILE; r++) state.sum[r] = vec_zero();
        plain_scores(&state, group->q[0], depth, group->p[0], p_stride, tile->k);
        plain_values(&state, shape, group->p[0], p_stride, tile->v, group->out[0]);
        for (int r = 0; r < ROW_TILE; r++) *group->sum[r] = real_fma(*group->sum[r], (real)1, lanes_sum(&state.sum[r]));
        group->rows = 0;
    }
}

#endif
