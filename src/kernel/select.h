/* The k largest scores of each row, of equal ones those of the lower keys, as tiles go by.
 *
 * A row's candidates stand in the order of their keys. A score joins them when it exceeds `least`; when their room is
 * full, those that cannot be among the k largest any more leave, and `least` rises. What remains at the end is the
 * one exact choice, whenever that happened.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_SELECT_H
#define LSP_KERNEL_SELECT_H

#include "kernel/tile_scores.h"
#include "kernel/tile_softmax.h"

#include <string.h>

/* Room for candidates beyond k: half as many, so that they are sorted out after the keys have grown by half. */
enum { SLACK_LEAST = 2 * STRIP_KEYS, SLACK_MOST = 1024 };

static int64_t candidate_stride(int64_t k)
{
    int64_t slack = lsp_max(SLACK_LEAST, lsp_min(k / 2, SLACK_MOST));
    return lsp_round_up(k + slack, SUM_LANES) + SUM_LANES;
}

/* Candidates beyond k that sorting out may leave: an eighth of the room for them. */
static int64_t candidate_spare(int64_t k)
{
    return lsp_max(SLACK_LEAST, lsp_min(k / 2, SLACK_MOST)) / 8;
}

/* ---- numbers by their order --------------------------------------------------------------------- */

#if REAL_BITS == 32
typedef int32_t real_order;
#else
typedef int64_t real_order;
#endif

/* Integers in the order of the numbers that they stand for; -0 comes before 0. */
INLINE real_order order_of(real a)
{
    const real_order sign = (real_order)1 << (REAL_BITS - 2), largest = sign + (sign - 1);
    real_order bits;
    memcpy(&bits, &a, sizeof bits);
    return bits < 0 ? bits ^ largest : bits;
}

INLINE real real_of(real_order order)
{
    const real_order sign = (real_order)1 << (REAL_BITS - 2), largest = sign + (sign - 1);
    real_order bits = order < 0 ? order ^ largest : order;
    real a;
    memcpy(&a, &bits, sizeof a);
    return a;
}

/* ---- sorting out -------------------------------------------------------------------------------- */

/* A row's candidates. */
typedef struct candidate_row {
    real *scores, *least;
    int32_t *keys, *count;
} candidate_row;

INLINE candidate_row candidates_of(const lsp_candidates *c, int64_t row)
{
    return (candidate_row){(real *)c->scores + row * c->stride, (real *)c->least + row,
                           c->keys + row * c->stride, c->counts + row};
}

/* How many of `count` scores (a multiple of LANES) are above a limit. */
INLINE int32_t count_above(const real *scores, int32_t count, real limit)
{
    vec bound = vec_set(limit);
    int32_t above = 0;
    for (int32_t i = 0; i < count; i += LANES)
        above += __builtin_popcount(vec_greater(vec_load(scores + i), bound));
    return above;
}

INLINE real largest_of(const real *scores, int32_t count)
{
    vec most = vec_load(scores);
    real lanes[LANES], largest = -(real)INFINITY;
    for (int32_t i = LANES; i < count; i += LANES) most = vec_max(most, vec_load(scores + i));
    vec_store(lanes, most);
    for (int i = 0; i < LANES; i++) largest = lanes[i] > largest ? lanes[i] : largest;
    return largest;
}

/* Moves the chosen lanes of LANES candidates to place `to`, which is not after them; returns the place after. */
INLINE int32_t keep_lanes(candidate_row *row, int32_t from, uint32_t which, int32_t to)
{
#ifdef VEC_HAS_COMPRESS
    vec_compress(row->scores + to, vec_load(row->scores + from), which);
    keys_compress(row->keys + to, row->keys + from, which);
    return to + __builtin_popcount(which);
#else
    for (; which; which &= which - 1) {
        int32_t i = from + __builtin_ctz(which);
        row->scores[to] = row->scores[i];
        row->keys[to++] = row->keys[i];
    }
    return to;
#endif
}

/* Keeps what is above `limit` and the first `equals` of what equals it. */
static void keep_above(candidate_row *row, int32_t padded, real limit, int64_t equals)
{
    vec bound = vec_set(limit);
    int32_t to = 0;
    for (int32_t from = 0; from < padded; from += LANES) {
        vec scores = vec_load(row->scores + from);
        uint32_t which = vec_greater(scores, bound);
        if (equals > 0) {
            const uint32_t all = (uint32_t)((1ULL << LANES) - 1);
            uint32_t same = ~(which | vec_greater(bound, scores)) & all;
            for (; same && equals > 0; same &= same - 1, equals--) which |= same & -same;
        }
        to = keep_lanes(row, from, which, to);
    }
    *row->count = to;
}

INLINE real smallest_of(const real *scores, int32_t count)
{
    real smallest = scores[0], lanes[LANES];
    int32_t i = 0;
    vec most = vec_set(-smallest);
    for (; i + LANES <= count; i += LANES) most = vec_max(most, vec_sub(vec_zero(), vec_load(scores + i)));
    vec_store(lanes, most);
    for (int lane = 0; lane < LANES; lane++) smallest = -lanes[lane] < smallest ? -lanes[lane] : smallest;
    for (; i < count; i++) smallest = scores[i] < smallest ? scores[i] : smallest;
    return smallest;
}

/* Numbers between which a limit lies, and how many scores are above each. */
typedef struct bracket {
    real_order low, high;
    int32_t above_low, above_high;
} bracket;

/* A number inside of a bracket. Scores above some limit thin out like powers, more or less: a line through the
 * logarithms of both counts tells where `wanted` of them are above. Or, for any scores, its middle. */
static real_order try_limit(const bracket *b, double wanted, bool by_line)
{
    if (by_line) {
        double low = (double)real_of(b->low), high = (double)real_of(b->high);
        double fall = log2((double)b->above_low / wanted),
               whole = log2((double)b->above_low / (b->above_high > 0 ? (double)b->above_high : 0.5));
        real guess = (real)(low + (high - low) * (fall / whole));
        if (guess > real_of(b->low) && guess < real_of(b->high)) return order_of(guess);
    }
    return (b->low & b->high) + ((b->low ^ b->high) >> 1);
}

/* A number that at least k, and at most k + spare, of the scores are above; where too many are equal for that, the k-th largest of
 * them. More than k + spare of the scores are above `least`. */
static real find_limit(const real *scores, int32_t count, int32_t padded, int64_t k, int64_t spare,
                       real least, int32_t above_least)
{
    bracket b = {order_of(least), order_of(largest_of(scores, padded)), above_least, 0};
    if (least == -(real)INFINITY) b.low = order_of(smallest_of(scores, count)) - 1;
    for (int step = 0; b.low + 1 < b.high; step++) {
        real_order middle = try_limit(&b, (double)k + 0.5 * (double)spare, step % 3 < 2);
        int32_t above = count_above(scores, padded, real_of(middle));
        if (above >= k && above <= k + spare) return real_of(middle);
        if (above > k)
            b.low = middle, b.above_low = above;
        else
            b.high = middle, b.above_high = above;
    }
    return real_of(b.high);
}

/* Leaves the k largest of more than k, and up to `spare` others, which are the next ones: a limit that parts off about
 * as many as wanted is found sooner than one that parts off k. Scores that equal `least` are left from the last time;
 * what is above pushes them out, the last ones first. */
static void sort_out(candidate_row *row, int64_t k, int64_t spare)
{
    int32_t count = *row->count, padded = (int32_t)lsp_round_up(count, LANES);
    for (int32_t i = count; i < padded; i++) row->scores[i] = -(real)INFINITY;
    int32_t above = count_above(row->scores, padded, *row->least);
    if (above > k + spare) {
        *row->least = find_limit(row->scores, count, padded, k, spare, *row->least, above);
        above = count_above(row->scores, padded, *row->least);
    }
    keep_above(row, padded, *row->least, k - above);
}

/* ---- tiles -------------------------------------------------------------------------------------- */

/* Adds the scores of a strip whose bits are set in `hits`; `key` is its first. */
INLINE void add_hits(const candidate_row *row, const real *scores, int32_t key, uint64_t hits)
{
    int32_t at = *row->count;
#ifdef VEC_HAS_COMPRESS
    UNROLL
    for (int i = 0; i < STRIP_KEYS; i += LANES, hits >>= LANES) {
        uint32_t which = (uint32_t)hits & (uint32_t)((1ULL << LANES) - 1);
        vec_compress(row->scores + at, vec_load(scores + i), which);
        run_compress(row->keys + at, key + i, which);
        at += __builtin_popcount(which);
    }
#else
    for (; hits; hits &= hits - 1) {
        int i = __builtin_ctzll(hits);
        row->scores[at] = scores[i];
        row->keys[at++] = key + i;
    }
#endif
    *row->count = at;
}

/* Bits of the scores of a strip that are above the limit; a NaN is not, and hides no other. */
INLINE uint64_t strip_hits(const real *scores, real limit)
{
    vec bound = vec_set(limit), most = bound;
    uint64_t hits = 0;
    UNROLL
    for (int i = 0; i < STRIP_KEYS; i += LANES) most = vec_max(vec_load(scores + i), most);
    if (!vec_greater(most, bound)) return 0;
    UNROLL
    for (int i = 0; i < STRIP_KEYS; i += LANES)
        hits |= (uint64_t)vec_greater(vec_load(scores + i), bound) << i;
    return hits;
}

/* Row r of the group, whose scores are there, in a fused group with their hits. */
static void select_row(const row_group *group, int r, int64_t row_index, const lsp_key_tile *tile,
                       const lsp_candidates *c)
{
    candidate_row row = candidates_of(c, row_index);
    if (!group->fused && !(lanes_max(group->lane_max[r]) > *row.least)) return;
    int64_t strip = group->begin / STRIP_KEYS, strip_end = lsp_ceil_div(group->end, STRIP_KEYS);
    for (; strip < strip_end; strip++) {
        const real *scores = group->p[r] + strip * STRIP_KEYS;
        uint64_t hits = group->fused ? group->hits[r][strip] : strip_hits(scores, *row.least);
        if (!hits) continue;
        if (*row.count + STRIP_KEYS + LANES > c->stride) {
            sort_out(&row, c->most, candidate_spare(c->most));
            hits = strip_hits(scores, *row.least);
        }
        add_hits(&row, scores, (int32_t)(tile->first + strip * STRIP_KEYS), hits);
    }
}

static void select_advance(row_group *group, const int64_t *index, const lsp_tile_shape *shape,
                           const lsp_score_rule *rule, const lsp_key_tile *tile,
                           const lsp_candidates *candidates)
{
    for (int r = 0; r < group->rows; r++) {
        candidate_row row = candidates_of(candidates, index[r]);
        group->limit[r] = *row.least;
        /* Where the row's next candidates go is seldom in a near cache. */
        __builtin_prefetch(row.scores + *row.count, 1, 3);
        __builtin_prefetch(row.keys + *row.count, 1, 3);
    }
    tile_scores(group, shape, rule, tile->k);
    for (int r = 0; r < group->rows; r++) select_row(group, r, index[r], tile, candidates);
    tile_softmax(group);
    group->rows = 0;
}

/* `select` is a function of POSIX. */
static void select_keys(const lsp_tile_shape *shape, const lsp_score_rule *rule, const lsp_key_tile *tile,
                        const lsp_query_rows *rows, const lsp_candidates *candidates, void *scratch)
{
    /* No output: rows of no width, wherever they are said to be. */
    lsp_tile_shape narrow = *shape;
    lsp_query_rows states = *rows;
    narrow.d_v = 0;
    states.out = states.max;
    row_group group;
    int64_t index[ROW_TILE];
    tile_ahead ahead = tile_ahead_start(shape, tile, rows->rows);
    row_group_start(&group, shape, scratch);
    group.sifts = true;
    for (int64_t row = 0; row < rows->rows; row++) {
        int before = group.rows;
        row_group_add(&group, &narrow, tile, rule, &states, row);
        if (group.rows > before) index[before] = row;
        if (group.rows < ROW_TILE) continue;
        tile_ahead_prefetch(&ahead);
        select_advance(&group, index, shape, rule, tile, candidates);
    }
    if (group.rows) select_advance(&group, index, shape, rule, tile, candidates);
}

/* ---- the end ------------------------------------------------------------------------------------ */

static void weigh(const lsp_score_rule *rule, int64_t rows, const lsp_candidates *c, const void *max,
                  const void *sum, bool renormalize, double *kept)
{
    bool ruled = rule->softcap != 0 || rule->slope != 0;
    vec factor = vec_set(ruled ? (real)1 : score_factor(rule));
    for (int64_t r = 0; r < rows; r++) {
        candidate_row row = candidates_of(c, r);
        if (*row.count > c->most) sort_out(&row, c->most, 0);
        real top = ((const real *)max)[r];
        vec base = vec_set(top == -(real)INFINITY ? (real)0 : -top);
        double total = (double)((const real *)sum)[r], own = 0;
        for (int32_t i = 0; i < *row.count; i += LANES)
            vec_store(row.scores + i,
                      vec_exp2_from(vec_fma(vec_load(row.scores + i), factor, base), (real)0));
        for (int32_t i = 0; i < *row.count; i++) own += (double)row.scores[i];
        double divisor = renormalize ? own : total;
        if (total != total) divisor = total;
        for (int32_t i = 0; i < *row.count; i++) row.scores[i] = (real)((double)row.scores[i] / divisor);
        kept[r] = own / total;
    }
}

#endif
