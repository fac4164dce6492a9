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

/* The k-th largest of at least k scores above `least`, or a number that parts the k largest from the rest: halves the
 * range of numbers in which it lies. */
static real find_limit(const real *scores, int32_t padded, int64_t k, real least)
{
    real_order low = order_of(least), high = order_of(largest_of(scores, padded));
    while (low + 1 < high) {
        real_order middle = (low & high) + ((low ^ high) >> 1);
        int32_t above = count_above(scores, padded, real_of(middle));
        if (above == k) return real_of(middle);
        if (above > k)
            low = middle;
        else
            high = middle;
    }
    return real_of(high);
}

/* Leaves the k largest of more than k. Scores that equal `least` are left from the last time; what is above pushes
 * them out, the last ones first. */
static void sort_out(candidate_row *row, int64_t k)
{
    int32_t count = *row->count, padded = (int32_t)lsp_round_up(count, LANES);
    for (int32_t i = count; i < padded; i++) row->scores[i] = -(real)INFINITY;
    int32_t above = count_above(row->scores, padded, *row->least);
    if (above > k) {
        *row->least = find_limit(row->scores, padded, k, *row->least);
        above = count_above(row->scores, padded, *row->least);
    }
    keep_above(row, padded, *row->least, k - above);
}

/* ---- tiles -------------------------------------------------------------------------------------- */

/* Adds the chosen lanes of scores of keys `key`, `key` + 1, ... at place `at`; returns the place after. */
INLINE int32_t add_lanes(const candidate_row *row, int32_t at, vec scores, int32_t key, uint32_t which)
{
#ifdef VEC_HAS_COMPRESS
    vec_compress(row->scores + at, scores, which);
    run_compress(row->keys + at, key, which);
    return at + __builtin_popcount(which);
#else
    real lanes[LANES];
    if (!which) return at;
    vec_store(lanes, scores);
    for (; which; which &= which - 1) {
        int i = __builtin_ctz(which);
        row->scores[at] = lanes[i];
        row->keys[at++] = key + i;
    }
    return at;
#endif
}

/* Whether any score of a strip is above the limit; a NaN is not, and hides no other. */
INLINE bool strip_has(const real *scores, vec limit)
{
    vec most = limit;
    UNROLL
    for (int i = 0; i < STRIP_KEYS; i += LANES) most = vec_max(vec_load(scores + i), most);
    return vec_greater(most, limit) != 0;
}

/* Row r of the group, whose scores are there. */
static void select_row(const row_group *group, int r, int64_t row_index, const lsp_key_tile *tile,
                       const lsp_candidates *c)
{
    candidate_row row = candidates_of(c, row_index);
    if (!(lanes_max(group->lane_max[r]) > *row.least)) return;
    int64_t strip = group->begin / STRIP_KEYS, strip_end = lsp_ceil_div(group->end, STRIP_KEYS);
    vec least = vec_set(*row.least);
    for (; strip < strip_end; strip++) {
        const real *scores = group->p[r] + strip * STRIP_KEYS;
        if (!strip_has(scores, least)) continue;
        if (*row.count + STRIP_KEYS + LANES > c->stride) {
            sort_out(&row, c->most);
            least = vec_set(*row.least);
        }
        int32_t at = *row.count, key = (int32_t)(tile->first + strip * STRIP_KEYS);
        UNROLL
        for (int i = 0; i < STRIP_KEYS; i += LANES) {
            vec some = vec_load(scores + i);
            at = add_lanes(&row, at, some, key + i, vec_greater(some, least));
        }
        *row.count = at;
    }
}

static void select_advance(row_group *group, const int64_t *index, const lsp_tile_shape *shape,
                           const lsp_score_rule *rule, const lsp_key_tile *tile,
                           const lsp_candidates *candidates)
{
    group->fused = false; /* the scores themselves are needed */
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
    row_group_start(&group, shape, scratch);
    for (int64_t row = 0; row < rows->rows; row++) {
        int before = group.rows;
        row_group_add(&group, &narrow, tile, rule, &states, row);
        if (group.rows > before) index[before] = row;
        if (group.rows == ROW_TILE) select_advance(&group, index, shape, rule, tile, candidates);
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
        if (*row.count > c->most) sort_out(&row, c->most);
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

#if REAL_BITS == 64 && !BRAIN
/* Columns [c, c + vectors * LANES) of the sum; `type`, its size and `vectors` are constants at every call. */
INLINE void sum_columns(const int vectors, int64_t d_v, int64_t c, const char *v, lsp_dtype type, size_t size,
                        int64_t first, int64_t count, const int32_t *rows, const void *weights, bool single,
                        double *out)
{
    enum { MOST = 8, AHEAD = 8 };
    vec acc[MOST];
    UNROLL
    for (int i = 0; i < vectors; i++) {
        int64_t left = d_v - c - i * LANES;
        acc[i] =
            left >= LANES ? vec_load(out + c + i * LANES) : vec_load_part(out + c + i * LANES, (int)left);
    }
    for (int64_t e = 0; e < count; e++) {
        double weight = single ? (double)((const float *)weights)[e] : ((const double *)weights)[e];
        if (e + AHEAD < count)
            for (size_t b = 0; b < (size_t)vectors * LANES * size; b += CACHE_LINE)
                __builtin_prefetch(v + ((size_t)(rows[e + AHEAD] - first) * (size_t)d_v + (size_t)c) * size +
                                   b);
        int64_t at = (rows[e] - first) * d_v + c;
        vec factor = vec_set(weight);
        UNROLL
        for (int i = 0; i < vectors; i++)
            acc[i] = vec_fma(factor, pack_load(v, type, size, at + i * LANES, d_v - c - i * LANES), acc[i]);
    }
    UNROLL
    for (int i = 0; i < vectors; i++) {
        int64_t left = d_v - c - i * LANES;
        if (left >= LANES)
            vec_store(out + c + i * LANES, acc[i]);
        else
            vec_store_part(out + c + i * LANES, acc[i], (int)left);
    }
}

INLINE void sum_values_of(int64_t d_v, const void *v, lsp_dtype type, size_t size, int64_t first,
                          int64_t count, const int32_t *rows, const void *weights, bool single, double *out)
{
    enum { WIDE = 8 };
    int64_t c = 0;
    for (; c + WIDE * LANES <= d_v; c += WIDE * LANES)
        sum_columns(WIDE, d_v, c, v, type, size, first, count, rows, weights, single, out);
    for (; c < d_v; c += LANES)
        sum_columns(1, d_v, c, v, type, size, first, count, rows, weights, single, out);
}

static void sum_values(int64_t d_v, const void *v, lsp_dtype type, int64_t first, int64_t count,
                       const int32_t *rows, const void *weights, lsp_dtype weight_type, double *out)
{
    bool single = weight_type == LSP_F32;
    switch (type) {
    case LSP_F16: sum_values_of(d_v, v, LSP_F16, 2, first, count, rows, weights, single, out); break;
    case LSP_BF16: sum_values_of(d_v, v, LSP_BF16, 2, first, count, rows, weights, single, out); break;
    case LSP_F32: sum_values_of(d_v, v, LSP_F32, 4, first, count, rows, weights, single, out); break;
    default: sum_values_of(d_v, v, LSP_F64, 8, first, count, rows, weights, single, out);
    }
}
#    define SUM_VALUES sum_values
#else
#    define SUM_VALUES NULL
#endif

#endif
