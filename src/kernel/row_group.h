/* The query rows that go through one key tile together: up to ROW_TILE rows that all see it.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_ROW_GROUP_H
#define LSP_KERNEL_ROW_GROUP_H

#include "kernel/ahead.h"

#include <math.h>
#include <string.h>

enum {
    SUM_VECS = SUM_LANES / LANES,
    KEY_GRAIN = SUM_LANES * UNIT_ELEMENTS, /* keys that a loop over probabilities takes at a time */
    TILE_KEYS_MOST = 512
};

#if LANES > 8
typedef uint16_t hit_lanes;
#else
typedef uint8_t hit_lanes;
#endif

/* Key indices are relative to the tile. */
typedef struct row_group {
    int rows;
    int64_t begin, end; /* the union of the rows' sights */
    bool same_sight;
    const unit *q[ROW_TILE];
    real *p[ROW_TILE]; /* [tile_keys] scores, then units of probabilities */
    unit *edge;        /* [2][PAIR / UNIT_ELEMENTS][v_stride] */
    unit *strip;       /* of stored K, or STRIP_KEYS rows of stored V */
    real *carry;       /* [ROW_TILE][v_stride] sums over the strips of stored V met so far */
    real *out[ROW_TILE];
    real *max[ROW_TILE], *sum[ROW_TILE];
    int64_t row_begin[ROW_TILE], row_end[ROW_TILE];
    int64_t position[ROW_TILE];
    vec lane_max[ROW_TILE][SUM_VECS]; /* of the tile's scores */
    vec lane_sum[ROW_TILE][SUM_VECS]; /* of the tile's probabilities */
    real factor;                      /* of the scores, where packing left it to the kernel */
    bool keep[ROW_TILE];              /* the maximum may stay as it is: see row_keeps */
    int64_t seen_begin, seen_end;     /* what all rows see */
    bool fused; /* all rows keep their maxima, and powers are `near`: taken block by block */
    bool fresh; /* no row has met a key: there is no output yet */
    real base[ROW_TILE], alpha[ROW_TILE];
    bool sifts;           /* it looks for scores above `limit`; a fused group sets a bit of `hits` for each */
    real limit[ROW_TILE]; /* finite or -inf */
    hit_lanes hits[ROW_TILE][TILE_KEYS_MOST / LANES]; /* a bit for each lane of a vector */
    group_ahead ahead;
} row_group;

#ifdef VEC_HAS_SCHEDULE
enum { SCORE_ROWS = 2 * ROW_TILE }; /* rows of probabilities in the scratch buffer: plain.h has two groups */
#else
enum { SCORE_ROWS = ROW_TILE };
#endif

/* Elements from one row's scores to the next: past a power of two, so that rows do not share cache sets. */
INLINE int64_t scores_stride(const lsp_tile_shape *shape)
{
    return shape->tile_keys + SUM_LANES;
}

static size_t scratch_bytes(const lsp_tile_shape *shape)
{
    return (size_t)(SCORE_ROWS * scores_stride(shape) + ROW_TILE * shape->v_stride +
                    2 * PAIR * shape->v_stride + STRIP_KEYS * lsp_max(shape->k_depth, shape->v_stride)) *
           sizeof(real);
}

INLINE void row_group_start(row_group *group, const lsp_tile_shape *shape, void *scratch)
{
    group->rows = 0;
    group->sifts = group->fresh = false;
    group_ahead_start(&group->ahead, scratch);
    for (int r = 0; r < ROW_TILE; r++) group->p[r] = (real *)scratch + r * scores_stride(shape);
    group->edge = (unit *)(void *)((real *)scratch + ROW_TILE * scores_stride(shape));
    group->carry = (real *)scratch + ROW_TILE * scores_stride(shape) + 2 * PAIR * shape->v_stride;
    group->strip = (unit *)(void *)(group->carry + ROW_TILE * shape->v_stride);
}

/* What scores are still to be multiplied by after packing; positive, as packing took the sign. */
INLINE real score_factor(const lsp_score_rule *rule)
{
    real size = (real)(rule->factor < 0 ? -rule->factor : rule->factor);
    return BRAIN && size > (real)0 ? size : (real)1;
}

/* What |score| cannot exceed. */
INLINE double score_bound(const lsp_key_tile *tile, const lsp_score_rule *rule, double q_norm)
{
    return q_norm * tile->k_norm * (double)score_factor(rule) * (1 + 1e-5);
}

/* No weight overflows with values up to this. */
INLINE double values_limit(void)
{
    return REAL_BITS == 32 ? 0x1p32 : 0x1p300;
}

/* Whether a row's running maximum, an even integer, may stay for a tile whose scores are bounded by q_norm k_norm: then
 * no weight overflows, with what V makes of it, and none is lost to underflow. From the row's own numbers and the
 * tile's alone. */
INLINE bool row_keeps(const lsp_key_tile *tile, const lsp_score_rule *rule, double q_norm, real max)
{
    const double above = BRAIN ? 24 : REAL_BITS == 32 ? 40 : 300, range = REAL_BITS == 32 ? 120 : 1000;
    double bound = score_bound(tile, rule, q_norm);
    return (rule->softcap == 0) & (rule->slope == 0) & (tile->v_max <= values_limit()) &
           (bound - (double)max <= above) & (bound + (double)max <= range);
}

/* Adds row `row` to the group, whether or not it may keep its maximum, unless it does not see the tile: then false. */
INLINE bool row_group_take(row_group *group, const lsp_tile_shape *shape, const lsp_key_tile *tile,
                           const lsp_query_rows *rows, int64_t row)
{
    const lsp_sight *sight = &rows->sight[row];
    int64_t begin = lsp_max(sight->begin, tile->first) - tile->first;
    int64_t end = lsp_min(sight->end, tile->first + shape->tile_keys) - tile->first;
    if (begin >= end) return false;
    int r = group->rows++;
    if (r == 0) {
        group->begin = group->seen_begin = begin, group->end = group->seen_end = end;
        group->same_sight = group->fused = true;
    } else {
        group->same_sight = group->same_sight && begin == group->row_begin[0] && end == group->row_end[0];
        group->begin = lsp_min(group->begin, begin), group->end = lsp_max(group->end, end);
        group->seen_begin = lsp_max(group->seen_begin, begin);
        group->seen_end = lsp_min(group->seen_end, end);
    }
    group->row_begin[r] = begin, group->row_end[r] = end;
    group->position[r] = sight->position - tile->first;
    group->q[r] = (const unit *)rows->q + row * (shape->k_depth / UNIT_ELEMENTS);
    group->out[r] = (real *)rows->out + row * shape->d_v;
    group->max[r] = (real *)rows->max + row;
    group->sum[r] = (real *)rows->sum + row;
    return true;
}

/* Whether a row that has met no key may begin with a maximum of 0: its first weights are not so small then that
 * what V makes of them is lost. */
INLINE bool row_begins(const lsp_key_tile *tile, const lsp_score_rule *rule, double q_norm)
{
    const double most = REAL_BITS == 32 ? 24 : 100;
    const bool keeps = row_keeps(tile, rule, q_norm, (real)0);
    return keeps & (score_bound(tile, rule, q_norm) <= most);
}

/* What the bounds of the tile mean for a row of the group. */
INLINE void row_group_bound(row_group *group, int r, const lsp_key_tile *tile, const lsp_score_rule *rule,
                            double norm)
{
    if (*group->max[r] == -(real)INFINITY && row_begins(tile, rule, norm)) *group->max[r] = (real)0;
    group->keep[r] = row_keeps(tile, rule, norm, *group->max[r]);
}

/* Adds row `row` to the group, unless it does not see the tile. */
INLINE void row_group_add(row_group *group, const lsp_tile_shape *shape, const lsp_key_tile *tile,
                          const lsp_score_rule *rule, const lsp_query_rows *rows, int64_t row)
{
    if (!row_group_take(group, shape, tile, rows, row)) return;
    int r = group->rows - 1;
    row_group_bound(group, r, tile, rule, rows->norm[row]);
    group->fused = group->fused && group->keep[r] && (!EXP2_NEAR_ZERO || BRAIN || *group->max[r] == (real)0);
}

/* Whether all rows see all of the tile, or, if it is `cut`, some of it, with maxima of 0 that may stay; those that have met no
 * key get theirs here. Asked for a group at a time, this keeps the products waiting; hence also loops without branches. */
static bool rows_plain(const lsp_tile_shape *shape, const lsp_key_tile *tile, const lsp_score_rule *rule,
                       const lsp_query_rows *rows, bool cut)
{
    if (rows->rows < ROW_TILE) return false;
    const int64_t count = rows->rows, first = tile->first, end = first + shape->tile_keys;
    const int64_t latest = cut ? end - 1 : first, earliest = cut ? first + 1 : end;
    real *max = rows->max;
    int64_t others = 0, fresh = 0;
    for (int64_t row = 0; row < count; row++)
        others |= (rows->sight[row].begin > latest) | (rows->sight[row].end < earliest) |
                  (rows->sight[row].begin >= rows->sight[row].end);
    for (int64_t row = 0; row < count; row++) {
        const int64_t none = max[row] == -(real)INFINITY;
        fresh |= none;
        others |= (max[row] != (real)0) & (none == 0);
    }
    if (others) return false;
    /* Norms are not negative, and then in the order of their bits, NaN above all. What the largest may, all may. */
    int64_t bits, largest = 0;
    for (int64_t row = 0; row < count; row++) {
        memcpy(&bits, &rows->norm[row], sizeof bits);
        bits &= INT64_MAX;
        largest = bits > largest ? bits : largest;
    }
    double norm;
    memcpy(&norm, &largest, sizeof norm);
    if (fresh ? !row_begins(tile, rule, norm) : !row_keeps(tile, rule, norm, (real)0)) return false;
    for (int64_t row = 0; row < count && fresh; row++) max[row] = (real)0;
    return true;
}

/* The group of such rows from `row` on: after the first one only pointers move. Positions matter to slopes alone, with which
 * no maximum stays. */
INLINE void row_group_plain(row_group *group, const lsp_tile_shape *shape, const lsp_key_tile *tile,
                            const lsp_query_rows *rows, int64_t row)
{
    if (row == 0) {
        for (int r = 0; r < ROW_TILE; r++) {
            (void)row_group_take(group, shape, tile, rows, row + r);
            group->keep[r] = true;
        }
        return;
    }
    group->rows = ROW_TILE;
    for (int r = 0; r < ROW_TILE; r++) {
        group->q[r] += ROW_TILE * (shape->k_depth / UNIT_ELEMENTS);
        group->out[r] += ROW_TILE * shape->d_v;
        group->max[r] += ROW_TILE;
        group->sum[r] += ROW_TILE;
    }
}

/* Sums of -0 tell rows that have met no key, whose output is not there: where others have, it is set to 0. */
INLINE void row_group_settle(row_group *group, int64_t d_v)
{
    int fresh = 0;
    for (int r = 0; r < group->rows; r++) fresh += signbit(*group->sum[r]) != 0;
    group->fresh = fresh == group->rows;
    for (int r = 0; r < group->rows && fresh && !group->fresh; r++)
        for (int64_t c = 0; c < d_v && signbit(*group->sum[r]); c++) group->out[r][c] = (real)0;
}

/* Asks for the rows after the group, which probably are the next one, while its own products run. */
INLINE void row_group_prefetch(const row_group *group, const lsp_tile_shape *shape)
{
    const char *q = (const char *)(group->q[group->rows - 1] + shape->k_depth / UNIT_ELEMENTS);
    const char *out = (const char *)(group->out[group->rows - 1] + shape->d_v);
    int64_t q_bytes = ROW_TILE * shape->k_depth / UNIT_ELEMENTS * (int64_t)sizeof(unit);
    int64_t out_bytes = ROW_TILE * shape->d_v * (int64_t)sizeof(real);
    for (int64_t i = 0; i < q_bytes; i += CACHE_LINE) __builtin_prefetch(q + i, 0, 3);
    for (int64_t i = 0; i < out_bytes; i += CACHE_LINE) __builtin_prefetch(out + i, 1, 2);
}

/* What is left of the tile after this one to be asked for, and of the queries after these, a share with every group of rows. */
typedef struct tile_ahead {
    const char *k, *v, *q;
    int64_t k_bytes, v_bytes, q_bytes, k_step, v_step, q_step, k_at, v_at, q_at;
} tile_ahead;

INLINE tile_ahead tile_ahead_start(const lsp_tile_shape *shape, const lsp_key_tile *tile, int64_t rows)
{
    int64_t units = shape->tile_keys / UNIT_ELEMENTS * (int64_t)sizeof(unit),
            groups = lsp_ceil_div(rows, ROW_TILE);
    tile_ahead ahead = {
        .k = tile->next_k, .v = tile->next_v, .q = tile->next_q, .q_bytes = tile->next_q_bytes};
    if (ahead.k) ahead.k_bytes = shape->k_depth * units;
    if (ahead.v) ahead.v_bytes = shape->v_stride * units;
    ahead.k_step = lsp_round_up(lsp_ceil_div(ahead.k_bytes, groups), CACHE_LINE);
    ahead.v_step = lsp_round_up(lsp_ceil_div(ahead.v_bytes, groups), CACHE_LINE);
    ahead.q_step = lsp_round_up(lsp_ceil_div(ahead.q_bytes, groups), CACHE_LINE);
    return ahead;
}

/* The next share of the tile and of the queries after these, and the rows from `row` on (the first ones, where no more
 * follow), for the group's products to ask for. Where there are queries after these, the rows' own are in the cache. */
INLINE void row_group_ask(row_group *group, const lsp_tile_shape *shape, tile_ahead *ahead,
                          const lsp_query_rows *rows, int64_t row)
{
    int64_t next = row < rows->rows ? row : 0, k_left = ahead->k_bytes - ahead->k_at,
            v_left = ahead->v_bytes - ahead->v_at, q_left = ahead->q_bytes - ahead->q_at;
    int64_t q_units = shape->k_depth / UNIT_ELEMENTS;
    group_ahead_set(&group->ahead, 0, ahead->k + ahead->k_at, lsp_min(ahead->k_step, k_left));
    group_ahead_set(&group->ahead, 1, ahead->v + ahead->v_at, lsp_min(ahead->v_step, v_left));
    if (ahead->q)
        group_ahead_set(&group->ahead, 2, ahead->q + ahead->q_at, lsp_min(ahead->q_step, q_left));
    else
        group_ahead_set(&group->ahead, 2, (const unit *)rows->q + next * q_units,
                        ROW_TILE * q_units * (int64_t)sizeof(unit));
    group_ahead_set(&group->ahead, 3, (const real *)rows->out + next * shape->d_v,
                    ROW_TILE * shape->d_v * (int64_t)sizeof(real));
    ahead->k_at += lsp_min(ahead->k_step, k_left);
    ahead->v_at += lsp_min(ahead->v_step, v_left);
    ahead->q_at += lsp_min(ahead->q_step, q_left);
}

INLINE void tile_ahead_prefetch(tile_ahead *ahead)
{
    int64_t k_end = lsp_min(ahead->k_at + ahead->k_step, ahead->k_bytes);
    int64_t v_end = lsp_min(ahead->v_at + ahead->v_step, ahead->v_bytes);
    for (; ahead->k_at < k_end; ahead->k_at += CACHE_LINE) __builtin_prefetch(ahead->k + ahead->k_at, 0, 2);
    for (; ahead->v_at < v_end; ahead->v_at += CACHE_LINE) __builtin_prefetch(ahead->v + ahead->v_at, 0, 2);
}

#endif
