/* One entry of the kernel table, from the parts. Included once by each source of (instruction set,
 * type), after REAL_BITS and one of the vec_*.h.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_TABLE_H
#define LSP_KERNEL_TABLE_H

#include "kernel/add_values.h"
#include "kernel/entries.h"
#include "kernel/finish.h"
#include "kernel/fold.h"
#include "kernel/pack_queries.h"
#ifdef VEC_HAS_SCHEDULE
#    include "kernel/plain.h"
#endif
#include "kernel/pool.h"
#include "kernel/select.h"
#include "kernel/tile_map.h"
#include "kernel/tile_scores.h"
#include "kernel/tile_softmax.h"
#include "kernel/tile_transpose.h"
#include "kernel/tile_values.h"

/* The tile height depends on widths and type alone: two packed tiles of K and V, this one and the next, take half of a
 * second-level cache of 2 MiB up to the first step. */
static lsp_tile_shape shape_for(int64_t d_k, int64_t d_v)
{
    int64_t bytes = (d_k + d_v) * (int64_t)sizeof(real);
    int64_t tile_keys = bytes <= 1024 ? TILE_KEYS_MOST : bytes <= 4096 ? 256 : 128;
    return (lsp_tile_shape){
        d_k, d_v, tile_keys, STRIP_KEYS, lsp_round_up(d_k, PAIR), lsp_round_up(d_v, SUM_LANES)};
}

static void row_group_advance(row_group *group, const lsp_tile_shape *shape, const lsp_score_rule *rule,
                              const lsp_key_tile *tile)
{
    row_group_settle(group, shape->d_v);
    tile_scores(group, shape, rule, tile->k);
    tile_softmax(group);
    tile_values(group, shape, tile);
    group->rows = 0;
}

/* Rows of one group against a tile as it is stored. What its bounds are is known when K, and V, have been read: maxima are
 * chosen after the scores, as they are for packed tiles, and once more where V turns out to have larger numbers than the
 * choice assumed. So a row has the same bits in either way, weights that underflow included. */
static void attend_stored(const lsp_tile_shape *shape, const lsp_score_rule *rule, const lsp_key_tile *tile,
                          const lsp_query_rows *rows, void *scratch)
{
    const bool asked = tile->k_norm < INFINITY;
    row_group group;
    double norm[ROW_TILE];
    real max[ROW_TILE], sum[ROW_TILE];
    row_group_start(&group, shape, scratch);
    for (int64_t row = 0; row < rows->rows; row++)
        if (row_group_take(&group, shape, tile, rows, row)) norm[group.rows - 1] = rows->norm[row];
    if (group.rows == 0) return;
    row_group_settle(&group, shape->d_v);
    for (int r = 0; r < group.rows; r++) max[r] = *group.max[r], sum[r] = *group.sum[r];
    for (lsp_key_tile found = {.v_max = 0};; found.v_max = INFINITY) {
        found.k_norm = tile_scores_stored(&group, shape, rule, &tile->stored_k, asked);
        for (int r = 0; r < group.rows; r++) {
            *group.max[r] = max[r], *group.sum[r] = sum[r];
            row_group_bound(&group, r, &found, rule, norm[r]);
        }
        tile_softmax(&group);
        double most = tile_values_stored(&group, shape, &tile->stored_v, asked);
        if (!asked || most <= values_limit() || found.v_max == INFINITY) break;
    }
    tile_values_add(&group, shape);
}

/* Rows [begin, end) of `rows`. */
static lsp_query_rows rows_part(const lsp_tile_shape *shape, const lsp_query_rows *rows, int64_t begin,
                                int64_t end)
{
    return (lsp_query_rows){end - begin,
                            (const unit *)rows->q + begin * (shape->k_depth / UNIT_ELEMENTS),
                            rows->norm + begin,
                            rows->sight + begin,
                            (real *)rows->out + begin * shape->d_v,
                            (real *)rows->max + begin,
                            (real *)rows->sum + begin};
}

/* Those of the rows among which are all that see the tile, and mostly no others. */
static lsp_query_rows rows_of_tile(const lsp_tile_shape *shape, const lsp_key_tile *tile,
                                   const lsp_query_rows *rows)
{
    int64_t begin = 0, end = rows->rows;
    while (begin < end && rows->sight[begin].end <= tile->first) begin++;
    while (begin < end && rows->sight[end - 1].begin >= tile->first + shape->tile_keys) end--;
    return rows_part(shape, rows, begin, end);
}

/* Of them those among which are all that see all of the tile, from a whole group on: sights never go back. */
static lsp_query_rows rows_of_whole_tile(const lsp_tile_shape *shape, const lsp_key_tile *tile,
                                         const lsp_query_rows *rows)
{
    int64_t begin = 0, end = rows->rows;
    while (begin < end && rows->sight[begin].end < tile->first + shape->tile_keys) begin++;
    while (begin < end && rows->sight[end - 1].begin > tile->first) end--;
    begin = lsp_min(lsp_round_up(begin, ROW_TILE), end);
    return rows_part(shape, rows, begin, begin + (end - begin) / ROW_TILE * ROW_TILE);
}

/* Rows [row, end), whatever they see. */
static void attend_any(const lsp_tile_shape *shape, const lsp_score_rule *rule, const lsp_key_tile *tile,
                       const lsp_query_rows *rows, int64_t row, int64_t end, row_group *group,
                       tile_ahead *ahead)
{
    for (; row < end; row++) {
        row_group_add(group, shape, tile, rule, rows, row);
        if (group->rows < ROW_TILE) continue;
        row_group_ask(group, shape, ahead, rows, row + 1);
        row_group_advance(group, shape, rule, tile);
    }
    if (group->rows) row_group_advance(group, shape, rule, tile);
}

/* Rows [row, end), of which all that see the tile see a part of it. */
static void attend_part(const lsp_tile_shape *shape, const lsp_score_rule *rule, const lsp_key_tile *tile,
                        const lsp_query_rows *rows, int64_t row, int64_t end, row_group *group,
                        tile_ahead *ahead)
{
#ifdef VEC_HAS_SCHEDULE
    const lsp_query_rows part = rows_part(shape, rows, row, row + (end - row) / ROW_TILE * ROW_TILE);
    if (plain_fits(shape) && rows_plain(shape, tile, rule, &part, true)) {
        attend_plain_cut(shape, rule, tile, &part, group->p[0], ahead);
        row += part.rows;
    }
#endif
    attend_any(shape, rule, tile, rows, row, end, group, ahead);
}

/* Groups of rows that rows_plain speaks of. */
static void attend_whole(const lsp_tile_shape *shape, const lsp_score_rule *rule, const lsp_key_tile *tile,
                         const lsp_query_rows *rows, row_group *group, tile_ahead *ahead)
{
#ifdef VEC_HAS_SCHEDULE
    if (plain_fits(shape)) {
        attend_plain_whole(shape, rule, tile, rows, group->p[0], ahead);
        return;
    }
#endif
    for (int64_t row = 0; row < rows->rows; row += ROW_TILE) {
        row_group_plain(group, shape, tile, rows, row);
        row_group_ask(group, shape, ahead, rows, row + ROW_TILE);
        row_group_advance(group, shape, rule, tile);
    }
}

static void attend(const lsp_tile_shape *shape, const lsp_score_rule *rule, const lsp_key_tile *tile,
                   const lsp_query_rows *all, void *scratch)
{
    row_group group;
    const lsp_query_rows rows = rows_of_tile(shape, tile, all);
    if (rows.rows == 0) return;
    if (!tile->k) {
        attend_stored(shape, rule, tile, &rows, scratch);
        return;
    }
    tile_ahead ahead = tile_ahead_start(shape, tile, rows.rows);
    row_group_start(&group, shape, scratch);
    const lsp_query_rows whole = rows_of_whole_tile(shape, tile, &rows);
    int64_t begin = 0, end = 0;
    if (whole.rows > 0 && rows_plain(shape, tile, rule, &whole, false))
        begin = whole.sight - rows.sight, end = begin + whole.rows;
    attend_part(shape, rule, tile, &rows, 0, begin, &group, &ahead);
    if (end > begin) attend_whole(shape, rule, tile, &whole, &group, &ahead);
    attend_part(shape, rule, tile, &rows, end, rows.rows, &group, &ahead);
}

/* Twelve chains, or, where there are registers, twice as many: more than any processor of today needs to keep its FMA units
 * busy. VDPBF16PS takes six cycles on Zen 5, and two begin in each: on twelve chains it lost a twentieth. */
static double fma_burst(int64_t iterations)
{
    enum { CHAINS = 12, LINKS = ROW_TILE * COL_TILE >= 2 * CHAINS ? 2 : 1 };
    volatile real start = (real)0.5;
    vec factor = vec_set(start), chain[CHAINS][LINKS];
    UNROLL
    for (int i = 0; i < CHAINS; i++)
        for (int j = 0; j < LINKS; j++) chain[i][j] = vec_set(start + (real)(i + j));
    for (int64_t n = 0; n < iterations; n++) {
        UNROLL
        for (int i = 0; i < CHAINS; i++) {
            UNROLL
            for (int j = 0; j < LINKS; j++) {
#ifdef VEC_HAS_PAIRS
                chain[i][j] = unit_fma((unit_vec)factor, (unit_vec)factor, chain[i][j]);
#else
                chain[i][j] = vec_fma(chain[i][j], factor, factor);
#endif
            }
        }
    }
    real lanes[LANES];
    vec sum = vec_zero();
    UNROLL
    for (int i = 0; i < CHAINS; i++)
        for (int j = 0; j < LINKS; j++) sum = vec_add(sum, chain[i][j]);
    vec_store(lanes, sum);
    start = lanes[0]; /* volatile: keeps the work */
    return (double)iterations * CHAINS * LINKS * LANES * UNIT_ELEMENTS * 2.0;
}

#define LSP_KERNEL_ENTRY                                                                                     \
    {                                                                                                        \
        .isa = VEC_ISA, .compute = BRAIN ? LSP_BF16 : LSP_REAL, .row_tile = ROW_TILE, .lanes = LANES,        \
        .packed_bytes = (int)sizeof(unit) / UNIT_ELEMENTS, .sum_unit = SUM_UNIT, .shape = shape_for,         \
        .scratch_bytes = scratch_bytes, .pack_k = pack_k, .pack_v = pack_v, .pack_queries = pack_queries,    \
        .query_norms = query_norms, .attend = attend, .attend_transposed = ATTEND_TRANSPOSED,                \
        .candidate_stride = candidate_stride, .select_bytes = select_bytes, .select = select_keys,           \
        .weigh = weigh, .add_values = add_values, .look = LOOK, .pool = POOL, .fold = fold,                  \
        .finish = finish, .fma_burst = fma_burst,                                                            \
    }

#endif
