/* Scores of a block of rows against a key tile: Q K^T, then softcap, ALiBi and mask where a row has them.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_TILE_SCORES_H
#define LSP_KERNEL_TILE_SCORES_H

#include "kernel/pack.h"
#include "kernel/product.h"
#include "kernel/row_group.h"
#include "kernel/tile_softmax.h"
#include "kernel/vec_math.h"

enum { DISTANCE_LIMIT = 1 << 30 };

/* A sum over d runs in two pieces, or more of 64, added one after the other: rounding of scores is most of the
 * kernel's error, and grows with the length of a chain. In f64 only where a chain would be longer than 64; not in bf16,
 * where it is far below what counts. */
INLINE int64_t score_piece(int64_t depth)
{
    if (BRAIN || depth <= (LSP_REAL == LSP_F32 ? 32 : 64)) return depth;
    return lsp_min(64, lsp_ceil_div(depth, 2));
}

/* acc += the products of units [d, d + depth), as a sum of their own. */
INLINE void scores_piece(const int rows, const int cols, const row_group *group, int64_t d, int64_t depth,
                         const unit *k, int64_t key, ahead_part *ahead, register_tile acc)
{
    const unit *q[ROW_TILE];
    UNROLL
    for (int r = 0; r < rows; r++) {
        q[r] = group->q[r] + d;
        if (ahead) ahead_ask(ahead);
        UNROLL
        for (int c = 0; c < cols; c++) vec_store(group->p[r] + key + c * LANES, acc[r][c]);
    }
    product(rows, cols, depth, q, k, STRIP_KEYS, acc);
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int c = 0; c < cols; c++)
            acc[r][c] = vec_add(vec_load(group->p[r] + key + c * LANES), acc[r][c]);
    }
}

/* What becomes of scores of one row, `cols` vectors from `key` on: they are stored, and the maxima by lane. */
INLINE void scores_keep(const int cols, row_group *group, int r, int64_t key, const vec *scores)
{
    vec *maxima = group->lane_max[r] + key / LANES % SUM_VECS;
    UNROLL
    for (int c = 0; c < cols; c++) {
        vec_store(group->p[r] + key + c * LANES, scores[c]);
        maxima[c % SUM_VECS] = vec_max(maxima[c % SUM_VECS], scores[c]);
    }
}

/* Sums by lane of the vectors of a block from `key` on, in registers: in memory each addition would wait for the store of the
 * one before, and for all that the compiler cannot tell from it. */
INLINE void sums_load(const row_group *group, int r, int64_t key, vec *sum)
{
    UNROLL
    for (int c = 0; c < COL_TILE && c < SUM_VECS; c++)
        sum[c] = group->lane_sum[r][key / LANES % SUM_VECS + c];
}

INLINE void sums_store(row_group *group, int r, int64_t key, const vec *sum)
{
    UNROLL
    for (int c = 0; c < COL_TILE && c < SUM_VECS; c++)
        group->lane_sum[r][key / LANES % SUM_VECS + c] = sum[c];
}

/* Or, in a fused group, their powers are, and the sums by lane, as softmax_row does it. */
INLINE void scores_power(row_group *group, int r, int64_t key, const vec *scores)
{
    vec sum[SUM_VECS], power[UNIT_ELEMENTS];
    real *p = group->p[r] + key / UNIT_ELEMENTS;
    const score_power how = {group->factor, *group->max[r]};
    sums_load(group, r, key, sum);
    UNROLL
    for (int c = 0; c < COL_TILE; c += UNIT_ELEMENTS) {
        UNROLL
        for (int i = 0; i < UNIT_ELEMENTS; i++) {
            power[i] = softmax_power(true, how, scores[c + i]);
            sum[(c + i) % SUM_VECS] = vec_add(sum[(c + i) % SUM_VECS], power[i]);
        }
        vec_store(p + c * LANES / UNIT_ELEMENTS, unit_powers(power));
    }
    sums_store(group, r, key, sum);
}

/* Or both: the scores are stored, and of those above the row's limit a bit is set. */
INLINE void scores_sift(row_group *group, int r, int64_t key, const vec *scores)
{
    vec sum[SUM_VECS], limit = vec_set(group->limit[r]);
    real *p = group->p[r] + key;
    hit_lanes *hits = group->hits[r] + key / LANES;
    const score_power how = {group->factor, *group->max[r]};
    sums_load(group, r, key, sum);
    UNROLL
    for (int c = 0; c < COL_TILE; c++) {
        vec_store(p + c * LANES, scores[c]);
        hits[c] = (hit_lanes)vec_greater(scores[c], limit);
        sum[c % SUM_VECS] = vec_add(sum[c % SUM_VECS], softmax_power(true, how, scores[c]));
    }
    sums_store(group, r, key, sum);
}

/* What a row group does with scores as they come. */
typedef enum scores_use { SCORES_KEEP, SCORES_POWER, SCORES_SIFT } scores_use;

/* Scores of `rows` rows and `cols` vectors of keys (constants, as is `use`), from column `column` of a strip on. */
INLINE void scores_block(const int rows, const int cols, const scores_use use, row_group *group,
                         int64_t depth, const unit *strip_k, int64_t strip, int64_t column)
{
    int64_t key = strip * STRIP_KEYS + column, piece = score_piece(depth);
    register_tile acc;
    ahead_part *part = group_ahead_turn(&group->ahead), ahead = *part;
    product(rows, cols, piece, group->q, strip_k + column, STRIP_KEYS, acc);
    for (int64_t d = piece; d < depth; d += piece)
        scores_piece(rows, cols, group, d, lsp_min(depth - d, piece), strip_k + d * STRIP_KEYS + column, key,
                     &ahead, acc);
    UNROLL
    for (int r = 0; r < rows; r++) {
        ahead_ask(&ahead);
        if (use == SCORES_POWER)
            scores_power(group, r, key, acc[r]);
        else if (use == SCORES_SIFT)
            scores_sift(group, r, key, acc[r]);
        else
            scores_keep(cols, group, r, key, acc[r]);
    }
    part->at = ahead.at;
}

/* Unseen keys among [key, key_end) get -inf by assignment, whatever their k was. */
INLINE void scores_hide(row_group *group, int r, int64_t key, int64_t key_end)
{
    real *p = group->p[r];
    for (int64_t j = key; j < lsp_min(group->row_begin[r], key_end); j++) p[j] = -(real)INFINITY;
    for (int64_t j = lsp_max(group->row_end[r], key); j < key_end; j++) p[j] = -(real)INFINITY;
}

/* Keys of a strip whose scores are taken together: blocks of registers, and whole grains of probabilities. */
enum {
    BLOCK_KEYS = COL_TILE * LANES,
    STEP_KEYS = COL_TILE * LANES > SUM_LANES *UNIT_ELEMENTS ? COL_TILE *LANES : SUM_LANES *UNIT_ELEMENTS
};

/* Those from `column` on, without blocks that no row sees, and without half of one that is a whole strip. */
INLINE void scores_step(const int rows, const scores_use use, row_group *group, int64_t depth,
                        const unit *strip_k, int64_t strip, int64_t column)
{
    const int half = BLOCK_KEYS / 2;
    for (int64_t c = column; c < column + STEP_KEYS; c += BLOCK_KEYS) {
        int64_t begin = group->begin - strip * STRIP_KEYS - c, end = group->end - strip * STRIP_KEYS - c;
        if (use == SCORES_KEEP && (begin >= BLOCK_KEYS || end <= 0)) continue;
        bool halves = use == SCORES_KEEP && COL_TILE * LANES == 1 * STRIP_KEYS;
        if (halves && end <= half)
            scores_block(rows, COL_TILE / 2, SCORES_KEEP, group, depth, strip_k, strip, 0);
        else if (halves && begin >= half)
            scores_block(rows, COL_TILE / 2, SCORES_KEEP, group, depth, strip_k, strip, half);
        else
            scores_block(rows, COL_TILE, use, group, depth, strip_k, strip, c);
    }
}

INLINE void scores_start(int rows, row_group *group)
{
    for (int r = 0; r < rows; r++)
        for (int g = 0; g < SUM_VECS; g++)
            group->lane_max[r][g] = vec_set(-(real)INFINITY), group->lane_sum[r][g] = vec_zero();
}

/* Over the strips [strip, strip_end), of which `k` is the first. Of what no row sees there scores_mask writes what is missing. */
INLINE void scores_rows(const int rows, const scores_use use, row_group *group, int64_t depth, const unit *k,
                        int64_t strip, int64_t strip_end)
{
    for (; strip < strip_end; strip++, k += depth * STRIP_KEYS)
        for (int column = 0; column < STRIP_KEYS; column += STEP_KEYS)
            scores_step(rows, use, group, depth, k, strip, column);
}

/* The same for any number of rows, whose scores are stored. */
static void scores_kept(row_group *group, int64_t depth, const unit *k, int64_t strip, int64_t strip_end)
{
    switch (group->rows) {
    case 1: scores_rows(1, SCORES_KEEP, group, depth, k, strip, strip_end); break;
    case 2: scores_rows(2, SCORES_KEEP, group, depth, k, strip, strip_end); break;
    case 3: scores_rows(3, SCORES_KEEP, group, depth, k, strip, strip_end); break;
#if ROW_TILE > 4
    case 4: scores_rows(4, SCORES_KEEP, group, depth, k, strip, strip_end); break;
    case 5: scores_rows(5, SCORES_KEEP, group, depth, k, strip, strip_end); break;
#endif
    default: scores_rows(ROW_TILE, SCORES_KEEP, group, depth, k, strip, strip_end);
    }
}

/* Negative in the first lanes, and in those from `lane` on. */
INLINE vec scores_hidden_before(int64_t lanes)
{
    static const real hide[] = {[0 ... LANES - 1] = (real)-1, [LANES... 2 * LANES - 1] = (real)0};
    return vec_load(hide + LANES - lsp_max(0, lsp_min(lanes, LANES)));
}

INLINE vec scores_hidden_from(int64_t lane)
{
    static const real hide[] = {[0 ... LANES - 1] = (real)0, [LANES... 2 * LANES - 1] = (real)-1};
    return vec_load(hide + LANES - lsp_max(0, lsp_min(lane, LANES)));
}

/* The powers of a grain of keys of row r, of which it does not see all. Where no row sees a key, there need not be a score. */
INLINE void scores_edge_grain(row_group *group, int r, score_power how, int64_t key, vec *sum)
{
    real *p = group->p[r];
    vec power[SUM_VECS * UNIT_ELEMENTS];
    UNROLL
    for (int v = 0; v < SUM_VECS * UNIT_ELEMENTS; v++) {
        const int64_t first = key + v * LANES;
        const vec hide = vec_add(scores_hidden_before(group->row_begin[r] - first),
                                 scores_hidden_from(group->row_end[r] - first));
        const vec seen = vec_select_less(hide, vec_zero(), vec_set(-(real)INFINITY), vec_load(p + first));
        power[v] = softmax_power(false, how, seen);
        sum[v % SUM_VECS] = vec_add(sum[v % SUM_VECS], power[v]);
    }
    UNROLL
    for (int v = 0; v < SUM_VECS; v++)
        vec_store(p + key / UNIT_ELEMENTS + v * LANES, unit_powers(power + v * UNIT_ELEMENTS));
}

/* The powers of a fused group's keys of which some row does not see all. Hidden keys are not written to one by one: a vector
 * that is read after that would wait. */
INLINE void scores_edge(row_group *group, int64_t key, int64_t key_end)
{
    key = lsp_max(key, group->begin / KEY_GRAIN * KEY_GRAIN);
    key_end = lsp_min(key_end, lsp_round_up(group->end, KEY_GRAIN));
    for (int r = 0; r < ROW_TILE; r++) {
        const score_power how = {group->factor, *group->max[r]};
        const int64_t begin = group->row_begin[r], end = group->row_end[r];
        for (int64_t k = key; k < key_end; k += KEY_GRAIN) {
            if (k >= begin && k + KEY_GRAIN <= end)
                softmax_row(group, r, how, k, k + KEY_GRAIN);
            else if (k < end && k + KEY_GRAIN > begin)
                scores_edge_grain(group, r, how, k, group->lane_sum[r]);
            else
                for (int v = 0; v < SUM_VECS; v++)
                    vec_store(group->p[r] + k / UNIT_ELEMENTS + v * LANES, vec_zero());
        }
    }
}

/* A fused group whose rows do not see all of the strips. Apart from scores_rows, whose loop then keeps its registers. */
static __attribute__((noinline)) void scores_cut(row_group *group, const lsp_tile_shape *shape,
                                                 const unit *tile_k, int64_t strip, int64_t strip_end)
{
    int64_t depth = shape->k_depth / UNIT_ELEMENTS;
    for (; strip < strip_end; strip++) {
        const unit *k = tile_k + strip * depth * STRIP_KEYS;
        for (int column = 0; column < STRIP_KEYS; column += STEP_KEYS) {
            int64_t key = strip * STRIP_KEYS + column, key_end = key + STEP_KEYS;
            if (key_end <= group->begin || key >= group->end) continue;
            if (key >= group->seen_begin && key_end <= group->seen_end) {
                scores_step(ROW_TILE, SCORES_POWER, group, depth, k, strip, column);
                continue;
            }
            scores_step(ROW_TILE, SCORES_KEEP, group, depth, k, strip, column);
            scores_edge(group, key, key_end);
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

/* After that the row's maxima are found again, if they count. */
static void scores_mask(row_group *group, int r, int64_t strip, int64_t strip_end)
{
    real *p = group->p[r];
    scores_hide(group, r, strip * STRIP_KEYS, strip_end * STRIP_KEYS);
    if (group->keep[r]) return;
    vec *maxima = group->lane_max[r];
    for (int g = 0; g < SUM_VECS; g++) maxima[g] = vec_set(-(real)INFINITY);
    for (int64_t j = strip * STRIP_KEYS; j < strip_end * STRIP_KEYS; j += SUM_LANES)
        for (int g = 0; g < SUM_VECS; g++) maxima[g] = vec_max(maxima[g], vec_load(p + j + g * LANES));
}

/* What a rule and sights make of stored scores. */
static void scores_end(row_group *group, const lsp_score_rule *rule, int64_t strip, int64_t strip_end)
{
    bool ruled = rule->softcap != 0 || rule->slope != 0;
    for (int r = 0; r < group->rows; r++) {
        if (ruled) scores_rule(group, r, rule, strip, strip_end);
        bool whole = group->row_begin[r] <= strip * STRIP_KEYS && group->row_end[r] >= strip_end * STRIP_KEYS;
        if (ruled || !whole) scores_mask(group, r, strip, strip_end);
    }
    if (BRAIN && ruled) group->factor = (real)1;
}

static void tile_scores(row_group *group, const lsp_tile_shape *shape, const lsp_score_rule *rule,
                        const unit *tile_k)
{
    int64_t strip = group->begin / STRIP_KEYS, strip_end = lsp_ceil_div(group->end, STRIP_KEYS);
    int64_t depth = shape->k_depth / UNIT_ELEMENTS, piece = score_piece(depth);
    group->factor = score_factor(rule);
    group_ahead_spread(&group->ahead, (strip_end - strip) * (STRIP_KEYS / BLOCK_KEYS),
                       lsp_ceil_div(depth, piece));
    scores_start(group->rows, group);
    const unit *k = tile_k + strip * depth * STRIP_KEYS;
    bool all_seen = group->seen_begin <= strip * STRIP_KEYS && group->seen_end >= strip_end * STRIP_KEYS;
    if (group->fused && group->rows == ROW_TILE &&
        (!group->sifts || (all_seen && group->end - group->begin == shape->tile_keys))) {
        if (!all_seen)
            scores_cut(group, shape, tile_k, strip, strip_end);
        else if (group->sifts)
            scores_rows(ROW_TILE, SCORES_SIFT, group, depth, k, strip, strip_end);
        else
            scores_rows(ROW_TILE, SCORES_POWER, group, depth, k, strip, strip_end);
        return;
    }
    group->fused = false;
    scores_kept(group, depth, k, strip, strip_end);
    scores_end(group, rule, strip, strip_end);
}

/* The same with K as it is stored: a strip is packed and met at once. Returns k_norm of the tile where it is `asked` for, and
 * strips that no row sees are looked at too; else infinity. */
static __attribute__((noinline)) double tile_scores_stored(row_group *group, const lsp_tile_shape *shape,
                                                           const lsp_score_rule *rule,
                                                           const lsp_stored_rows *stored, bool asked)
{
    const int64_t strip = group->begin / STRIP_KEYS, strip_end = lsp_ceil_div(group->end, STRIP_KEYS);
    pack_bounds bounds = {vec_zero(), vec_zero()};
    group->factor = score_factor(rule);
    group->fused = false;
    scores_start(group->rows, group);
    for (int64_t s = asked ? 0 : strip; s < (asked ? shape->tile_keys / STRIP_KEYS : strip_end); s++) {
        pack_strips(shape, stored, s * STRIP_KEYS, (s + 1) * STRIP_KEYS, group->strip, &bounds);
        if (s >= strip && s < strip_end)
            scores_kept(group, shape->k_depth / UNIT_ELEMENTS, group->strip, s, s + 1);
    }
    for (int r = 0; r < group->rows; r++) group->keep[r] = false; /* maxima are found */
    scores_end(group, rule, strip, strip_end);
    return asked ? pack_norm(&bounds) : INFINITY;
}

#endif
