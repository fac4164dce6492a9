/* Groups of rows with maxima of 0 that stay, on AVX-512: nearly all of the work of most calls.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_PLAIN_H
#define LSP_KERNEL_PLAIN_H

#if BRAIN
#    include "kernel/plain_pairs.h"
#else
#    include "kernel/plain_scores.h"
#endif
#include "kernel/plain_sums.h"
#include "kernel/plain_values.h"

/* Whether the first piece of a sum over d has a step for each power, and there is a V (a map's first pass has none), during whose
 * product probabilities are summed. */
INLINE bool plain_fits(const lsp_tile_shape *shape)
{
    return score_piece(shape->k_depth / UNIT_ELEMENTS) >= PLAIN_WOVEN && shape->v_stride > 0;
}

INLINE plain_steps plain_count(int64_t steps)
{
    return (plain_steps){steps / PLAIN_FOUR, steps % PLAIN_FOUR};
}

static void plain_numbers(real *number, const lsp_score_rule *rule)
{
#if BRAIN
    memcpy(number, brain_numbers, sizeof brain_numbers);
    number[5] = BRAIN_BIAS, number[6] = BRAIN_BIAS - BRAIN_SPARE, number[7] = score_factor(rule);
    number[8] = (real)-1e30; /* in place of scores before there are any: its power is 0 */
#else
    (void)rule;
#    if REAL_BITS == 32
    memcpy(number, power_numbers, sizeof power_numbers);
#    else
    memcpy(number, exp2_coefficients, sizeof exp2_coefficients);
    number[6] = STEP_SHIFT;
#    endif
#endif
}

static void plain_start(plain_state *state, const lsp_tile_shape *shape, const lsp_score_rule *rule)
{
    const int64_t depth = shape->k_depth / UNIT_ELEMENTS, piece = score_piece(depth);
    *state = (plain_state){.pieces = lsp_ceil_div(depth, piece)};
    state->sparse = !BRAIN && piece >= PLAIN_SPARSE;
    state->first = plain_count(piece - (state->sparse ? PLAIN_SPARSE : PLAIN_WOVEN));
    state->middle = plain_count(piece);
    state->last = plain_count(depth - (state->pieces - 1) * piece);
    plain_numbers(state->number, rule);
    state->out_stride = shape->d_v * (int64_t)sizeof(real);
    const int64_t vectors = shape->v_stride / LANES, blocks = lsp_ceil_div(vectors, COL_TILE);
    state->width = vectors / blocks, state->wider = vectors % blocks;
}

/* What alternates, for one group or for two, and ends as it begins. Turns count down: their lower bits tell the first half
 * of a strip and the second (in bf16 there are none), of the first group and the second. */
static void plain_turns(plain_state *state, const lsp_tile_shape *shape, int64_t p_stride, int groups)
{
    const int64_t depth = shape->k_depth / UNIT_ELEMENTS,
                  k_bytes = depth * STRIP_KEYS * (int64_t)sizeof(unit);
    const int64_t q_row = depth * (int64_t)sizeof(unit), next_group = ROW_TILE * p_stride, block = 128;
    for (int left = 0; left < 4; left++) {
        const int turn = (4 - left) % 4, group = groups == 1 ? 0 : turn % 2,
                  key_turn = groups == 1 ? turn : turn / 2;
        const bool more = group + 1 < groups, first_half = key_turn % 2 == 0;
        state->k_move[left] = more ? -k_bytes : BRAIN ? 0 : first_half ? block - k_bytes : -block;
        state->q_move[left] = (groups == 1 ? -1 : more ? ROW_TILE - 1 : -1 - ROW_TILE) * q_row;
        state->sum_x[left] = state->sum + group * ROW_TILE;
        state->sum_y[left] = state->sum + (groups - 1 - group) * ROW_TILE;
    }
    const int64_t to_next = groups == 1 ? block : next_group;
    state->around = groups == 1 ? 2 * block : block;
    state->p_move[0] = BRAIN ? to_next : state->around - to_next;
    state->p_move[1] = state->around - to_next;
}

/* What the scores of two groups ask for, line by line: their share of the next tile of K and of V and of the next queries (or the
 * rows after them), and the output of the rows after them. */
typedef struct plain_ahead {
    const char *at[AHEAD_PARTS];
    int64_t bytes[AHEAD_PARTS], asks;
    bool more; /* than lines by turns suffice for */
} plain_ahead;

INLINE void plain_ahead_set(plain_ahead *ahead, int part, const void *at, int64_t bytes)
{
    ahead->at[part] = at;
    ahead->bytes[part] = bytes;
}

/* Spreads what twelve rows ask for over so many blocks of keys times groups. */
static void plain_ahead_spread(plain_ahead *ahead, plain_state *state, int64_t blocks)
{
    const int64_t fours = state->first.fours + lsp_max(state->pieces - 2, 0) * state->middle.fours +
                          (state->pieces > 1 ? state->last.fours : 0);
    ahead->asks = blocks / AHEAD_PARTS * fours;
    ahead->more = false;
    for (int i = 0; i < AHEAD_PARTS; i++) {
        state->ask[i].step =
            ahead->asks > 0 ? lsp_min(CACHE_LINE, lsp_ceil_div(ahead->bytes[i], ahead->asks)) : 0;
        ahead->more |= ahead->asks * state->ask[i].step < ahead->bytes[i];
    }
}

static plain_ahead plain_ahead_start(const plain_state *state, const lsp_tile_shape *shape,
                                     const tile_ahead *tile, const lsp_query_rows *rows)
{
    const int64_t q_bytes = PLAIN_GROUPS * ROW_TILE * shape->k_depth / UNIT_ELEMENTS * (int64_t)sizeof(unit);
    const int64_t out_bytes = PLAIN_GROUPS * ROW_TILE * state->out_stride;
    plain_ahead ahead = {.asks = 0};
    plain_ahead_set(&ahead, 0, tile->k ? tile->k + tile->k_at : (const char *)rows->out,
                    PLAIN_GROUPS * tile->k_step);
    plain_ahead_set(&ahead, 1, tile->v ? tile->v + tile->v_at : (const char *)rows->out,
                    PLAIN_GROUPS * tile->v_step);
    plain_ahead_set(&ahead, 2, tile->q ? tile->q + tile->q_at : (const char *)rows->q + q_bytes,
                    tile->q ? PLAIN_GROUPS * tile->q_step : q_bytes);
    plain_ahead_set(&ahead, 3, (const char *)rows->out + out_bytes, out_bytes);
    return ahead;
}

/* What turns leave of the next groups' shares, at once. */
static __attribute__((noinline)) void plain_ahead_more(const plain_ahead *ahead, const plain_state *state)
{
    for (int i = 0; i < AHEAD_PARTS; i++)
        for (int64_t at = ahead->asks * state->ask[i].step; at < ahead->bytes[i]; at += CACHE_LINE)
            __builtin_prefetch(ahead->at[i] + at, 0, 2);
}

/* The next groups' shares. Few instructions: those between two products keep the second waiting. */
INLINE void plain_ahead_turn(plain_ahead *ahead, plain_state *state)
{
    if (ahead->more) plain_ahead_more(ahead, state);
    UNROLL
    for (int i = 0; i < AHEAD_PARTS; i++) {
        state->ask[i].at = ahead->at[i];
        ahead->at[i] += ahead->bytes[i];
    }
}

/* After `turns` of them. */
INLINE void plain_ahead_end(const plain_ahead *ahead, tile_ahead *tile, int64_t turns)
{
    tile->k_at = lsp_min(tile->k_bytes, tile->k_at + turns * ahead->bytes[0]);
    tile->v_at = lsp_min(tile->v_bytes, tile->v_at + turns * ahead->bytes[1]);
    tile->q_at = lsp_min(tile->q_bytes, tile->q_at + turns * ahead->bytes[2]);
}

/* Whether a group's rows have met no key, as row_group_settle has it. */
INLINE bool plain_fresh(uint32_t fresh, real *out, int64_t d_v)
{
    const uint32_t all = (1U << ROW_TILE) - 1U;
    if ((fresh & all) == all) return true;
    for (int r = 0; r < ROW_TILE && (fresh & all); r++, fresh >>= 1)
        for (int64_t c = 0; c < d_v && (fresh & 1U); c++) out[r * d_v + c] = (real)0;
    return false;
}

/* Whole groups of rows that see all of the tile, or (a constant) all of which see some of it; p: room for probabilities of
 * PLAIN_GROUPS groups. */
INLINE void attend_plain(const bool cut, const lsp_tile_shape *shape, const lsp_score_rule *rule,
                         const lsp_key_tile *tile, const lsp_query_rows *rows, real *p, tile_ahead *next)
{
    const int64_t depth = shape->k_depth / UNIT_ELEMENTS, p_row = scores_stride(shape);
    const int64_t p_stride = p_row * (int64_t)sizeof(real);
    plain_keys keys = plain_all_keys(shape);
    plain_state state;
    plain_start(&state, shape, rule);
    plain_ahead ahead = plain_ahead_start(&state, shape, next, rows);
    plain_ahead_spread(&ahead, &state, PLAIN_GROUPS * (keys.last / PLAIN_KEYS));
    int64_t turns = 0;
    for (int64_t row = 0, some = 0, before = 0; row < rows->rows; row += some, turns++) {
        some = lsp_min(PLAIN_GROUPS * ROW_TILE, rows->rows - row);
        if (cut) keys = plain_some_keys(shape, tile, rows->sight + row, &some);
        /* The second group's, as what is in front of it is written to. */
        real *to = p + (some > ROW_TILE ? 0 : ROW_TILE * p_row), *sum = (real *)rows->sum + row;
        state.blocks = some / ROW_TILE * ((keys.last - keys.first) / PLAIN_KEYS);
        state.turn = -(keys.first / PLAIN_KEYS % 2 * (some / ROW_TILE));
        if (cut) plain_ahead_spread(&ahead, &state, state.blocks);
        plain_ahead_turn(&ahead, &state);
        if (some != before) plain_turns(&state, shape, p_stride, (int)(some / ROW_TILE));
        before = some;
        UNROLL
        for (int r = 0; r < PLAIN_GROUPS * ROW_TILE && BRAIN; r++) state.sum[r] = vec_zero();
        const unit *k =
            (const unit *)tile->k + keys.first / STRIP_KEYS * STRIP_KEYS * depth + keys.first % STRIP_KEYS;
        plain_scores(&state, (const unit *)rows->q + row * depth, depth, to + keys.first / UNIT_ELEMENTS,
                     p_stride, k);
        if (cut) plain_hide(shape, tile, rows->sight + row, some, &keys, to, p_row, state.sum);
        const uint32_t fresh = sums_fresh(sum, some);
        const bool twice = BRAIN && some > ROW_TILE && shape->v_stride == 2 * LANES;
        for (int64_t r = 0; r < some; r += twice ? some : ROW_TILE) {
            real *out = (real *)rows->out + (row + r) * shape->d_v;
            state.fresh[0] = plain_fresh(fresh >> r, out, shape->d_v);
            if (twice)
                state.fresh[1] = plain_fresh(fresh >> ROW_TILE, out + ROW_TILE * shape->d_v, shape->d_v);
            plain_values(&state, shape, &keys, to + r * p_row, p_stride, tile->v, out, state.sum + r, twice);
        }
        sums_add(state.sum, sum, some);
    }
    plain_ahead_end(&ahead, next, turns);
}

static void attend_plain_whole(const lsp_tile_shape *shape, const lsp_score_rule *rule,
                               const lsp_key_tile *tile, const lsp_query_rows *rows, real *p,
                               tile_ahead *next)
{
    attend_plain(false, shape, rule, tile, rows, p, next);
}

static void attend_plain_cut(const lsp_tile_shape *shape, const lsp_score_rule *rule,
                             const lsp_key_tile *tile, const lsp_query_rows *rows, real *p, tile_ahead *next)
{
    attend_plain(true, shape, rule, tile, rows, p, next);
}

#endif
