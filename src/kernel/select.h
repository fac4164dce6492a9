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

/* What one pass over candidates tells: how many are above their limit, how far above on average, and the largest. */
typedef struct candidate_spread {
    int32_t above;
    double excess;
    real largest;
} candidate_spread;

INLINE candidate_spread spread_of(const real *scores, int32_t count, real least)
{
    candidate_spread spread = {0, 0, -(real)INFINITY};
    vec bound = vec_set(least), most = vec_load(scores), sum = vec_zero();
    real lanes[LANES], sums[LANES];
    for (int32_t i = 0; i < count; i += LANES) {
        vec some = vec_load(scores + i);
        spread.above += __builtin_popcount(vec_greater(some, bound));
        most = vec_max(most, some);
        sum = vec_add(sum, vec_sub(vec_max(some, bound), bound));
    }
    vec_store(lanes, most);
    vec_store(sums, sum);
    for (int i = 0; i < LANES; i++) {
        spread.largest = lanes[i] > spread.largest ? lanes[i] : spread.largest;
        spread.excess += (double)sums[i];
    }
    spread.excess /= spread.above > 0 ? (double)spread.above : 1;
    return spread;
}

/* Moves the chosen lanes of LANES candidates to place `to`, which is not after them; returns the place after. */
INLINE int32_t keep_lanes(const candidate_row *row, int32_t from, uint32_t which, int32_t to)
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
static void keep_above(const candidate_row *of, int32_t padded, real limit, int64_t equals)
{
    candidate_row row = *of; /* a copy: no store below can change it */
    vec bound = vec_set(limit);
    int32_t to = 0;
    for (int32_t from = 0; from < padded; from += LANES) {
        vec scores = vec_load(row.scores + from);
        uint32_t which = vec_greater(scores, bound);
        if (equals > 0) {
            const uint32_t all = (uint32_t)((1ULL << LANES) - 1);
            uint32_t same = ~(which | vec_greater(bound, scores)) & all;
            for (; same && equals > 0; same &= same - 1, equals--) which |= same & -same;
        }
        to = keep_lanes(&row, from, which, to);
    }
    *row.count = to;
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

/* log2, a few in a thousand off: what is tried need not be exact. x is a normal number above 0. */
INLINE double rough_log2(double x)
{
    const uint64_t mantissa = ((uint64_t)1 << 52) - 1, one = (uint64_t)1023 << 52;
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int power = (int)(bits >> 52) - 1023;
    bits = (bits & mantissa) | one;
    memcpy(&x, &bits, sizeof x);
    return power + 2.885 * (x - 1) / (x + 1);
}

/* Numbers between which a limit lies, and how many scores are above each. */
typedef struct bracket {
    real_order low, high;
    int32_t above_low, above_high;
} bracket;

/* A number inside of a bracket that about `wanted` scores are above, if they thin out like powers: on the line through
 * the logarithms of both counts. */
INLINE real on_the_line(const bracket *b, double wanted)
{
    double low = (double)real_of(b->low), high = (double)real_of(b->high);
    double beyond = b->above_high > 0 ? (double)b->above_high : 0.5;
    return (real)(low + (high - low) * rough_log2((double)b->above_low / wanted) /
                            rough_log2((double)b->above_low / beyond));
}

/* A number that at least k, and at most k + spare, of the scores are above; where too many are equal for that, the k-th
 * largest of them. More than k + spare are above `least`. Tries what the mean tells of scores that thin out like
 * powers, then lines, and the middle often enough for any others. */
static real find_limit(const real *scores, int32_t count, int32_t padded, int64_t k, int64_t spare,
                       real least, candidate_spread *spread)
{
    bracket b = {order_of(least), order_of(spread->largest), spread->above, 0};
    double wanted = (double)k + 0.5 * (double)spare;
    if (least == -(real)INFINITY) b.low = order_of(smallest_of(scores, count)) - 1;
    for (int step = 0; b.low + 1 < b.high; step++) {
        real guess = step == 0 && least > -(real)INFINITY
                         ? least + (real)(spread->excess * 0.693 * rough_log2((double)spread->above / wanted))
                         : on_the_line(&b, wanted);
        real_order middle = (b.low & b.high) + ((b.low ^ b.high) >> 1);
        if (step % 3 < 2 && guess > real_of(b.low) && guess < real_of(b.high)) middle = order_of(guess);
        int32_t above = count_above(scores, padded, real_of(middle));
        if (above >= k && above <= k + spare) {
            spread->above = above;
            return real_of(middle);
        }
        if (above > k)
            b.low = middle, b.above_low = above;
        else
            b.high = middle, b.above_high = above;
    }
    spread->above = b.above_high;
    return real_of(b.high);
}

/* Leaves the k largest of more than k, and up to `spare` others, which are the next ones: a limit that parts off about
 * as many as wanted is found sooner than one that parts off k. Scores that equal `least` are left from the last time;
 * what is above pushes them out, the last ones first. */
static void sort_out(const candidate_row *row, int64_t k, int64_t spare)
{
    int32_t count = *row->count, padded = (int32_t)lsp_round_up(count, LANES);
    for (int32_t i = count; i < padded; i++) row->scores[i] = -(real)INFINITY;
    candidate_spread spread = spread_of(row->scores, padded, *row->least);
    if (spread.above > k + spare)
        *row->least = find_limit(row->scores, count, padded, k, spare, *row->least, &spread);
    keep_above(row, padded, *row->least, k - spread.above);
}

/* ---- tiles -------------------------------------------------------------------------------------- */

/* Whether any score of a strip is above the limit; a NaN is not, and hides no other. */
INLINE bool strip_has(const real *scores, vec limit)
{
    vec most = limit;
    UNROLL
    for (int i = 0; i < STRIP_KEYS; i += LANES) most = vec_max(vec_load(scores + i), most);
    return vec_greater(most, limit) != 0;
}

/* The same of a fused group, by its hits. */
INLINE bool strip_hit(const hit_lanes *hits)
{
    uint32_t any = 0;
    UNROLL
    for (int i = 0; i < STRIP_KEYS / LANES; i++) any |= hits[i];
    return any != 0;
}

/* Adds the scores of a vector whose bits are set in `hits`, at place `at`; returns the place after. */
INLINE int32_t add_hits(const candidate_row *row, int32_t at, const real *scores, int32_t key, uint32_t hits)
{
#ifdef VEC_HAS_COMPRESS
    vec_compress(row->scores + at, vec_load(scores), hits);
    run_compress(row->keys + at, key, hits);
    return at + __builtin_popcount(hits);
#else
    for (; hits; hits &= hits - 1) {
        int i = __builtin_ctz(hits);
        row->scores[at] = scores[i];
        row->keys[at++] = key + i;
    }
    return at;
#endif
}

/* Adds what is above the row's limit among scores of keys `key`, `key` + 1, ...: vector by vector, as long as there is
 * room; sorts out between them. */
static void add_scores(const candidate_row *row, const lsp_candidates *c, const real *scores, int32_t key,
                       int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i += LANES) {
        uint32_t hits = vec_greater(vec_load(scores + i), vec_set(*row->least));
        if (!hits) continue;
        if (*row->count + 2 * LANES > c->stride) {
            sort_out(row, c->most, candidate_spare(c->most));
            hits = vec_greater(vec_load(scores + i), vec_set(*row->least));
        }
        *row->count = add_hits(row, *row->count, scores + i, key + (int32_t)i, hits);
    }
}

#ifdef VEC_HAS_COMPRESS
/* The same of a whole tile of the largest height, whose hits are known and fill 64 bytes, if there is room for all of
 * them: goes from one vector with hits to the next. */
INLINE bool add_tile(const candidate_row *row, int64_t stride, const real *scores, int32_t key,
                     const hit_lanes *hits)
{
    uint64_t words[8], vectors = bits_of_64_bytes(hits);
    int32_t at = *row->count, more = 0;
    memcpy(words, hits, sizeof words);
    UNROLL
    for (int i = 0; i < 8; i++) more += __builtin_popcountll(words[i]);
    if (at + more + LANES > stride) return false;
    for (; vectors; vectors &= vectors - 1) {
        int i = __builtin_ctzll(vectors);
        at = add_hits(row, at, scores + i * LANES, key + i * LANES, hits[i]);
    }
    *row->count = at;
    /* With as many again the row has to be sorted out: it is asked for meanwhile. */
    for (int32_t i = 0; at + more + LANES > stride && i < at; i += CACHE_LINE / (int)sizeof(real)) {
        __builtin_prefetch(row->scores + i, 1, 2);
        __builtin_prefetch(row->keys + i, 1, 2);
    }
    return true;
}
#endif

/* Row r of the group, whose scores are there, in a fused group with their hits. */
static void select_row(const row_group *group, int r, int64_t row_index, const lsp_key_tile *tile,
                       const lsp_candidates *c)
{
    candidate_row row = candidates_of(c, row_index);
    const real *scores = group->p[r];
    int32_t key = (int32_t)tile->first;
    int64_t strip = group->begin / STRIP_KEYS, strip_end = lsp_ceil_div(group->end, STRIP_KEYS);
    if (!group->fused && !(lanes_max(group->lane_max[r]) > *row.least)) return;
#ifdef VEC_HAS_COMPRESS
    if (group->fused && strip_end == TILE_KEYS_MOST / STRIP_KEYS &&
        add_tile(&row, c->stride, scores, key, group->hits[r]))
        return;
#endif
    for (; strip < strip_end; strip++) {
        int64_t begin = strip * STRIP_KEYS;
        if (group->fused ? strip_hit(group->hits[r] + begin / LANES)
                         : strip_has(scores + begin, vec_set(*row.least)))
            add_scores(&row, c, scores, key, begin, begin + STRIP_KEYS);
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
                      vec_exp2(false, vec_fma(vec_load(row.scores + i), factor, base), vec_zero()));
        for (int32_t i = 0; i < *row.count; i++) own += (double)row.scores[i];
        double divisor = renormalize ? own : total;
        if (total != total) divisor = total;
        for (int32_t i = 0; i < *row.count; i++) row.scores[i] = (real)((double)row.scores[i] / divisor);
        kept[r] = own / total;
    }
}

#endif
