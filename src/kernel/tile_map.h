/* The weights of a group of rows over a key tile, looked at and not kept: sums and maxima of columns, sums of rows, and
 * the strongest links. What is subtracted from a score and multiplied with its power is known from a pass before.
 *
 * A strip of keys that all rows see is looked at in registers; others go through memory. Both add in the same order.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_TILE_MAP_H
#define LSP_KERNEL_TILE_MAP_H

#include "kernel/links.h"
#include "kernel/tile_scores.h"
#include "kernel/vec_math.h"

#if BRAIN
/* Weights rounded to bf16 would not add up to 1: there is no map in bf16. */
#    define LOOK NULL
#else
#    define LOOK look

/* The rows of a group, and their sums by lanes over the tile. */
typedef struct look_group {
    real base[ROW_TILE], weight[ROW_TILE];
    real least[ROW_TILE], least_of_all; /* what a weight must exceed to be a link */
    int64_t first_key[ROW_TILE];        /* in the tile */
    int64_t number[ROW_TILE];
    real *column_sum[ROW_TILE], *column_most[ROW_TILE]; /* of the row's grain */
    bool turns[ROW_TILE];                               /* the row before is of another grain */
    double *sums[ROW_TILE];
    vec rest[ROW_TILE][SUM_VECS], away[ROW_TILE][SUM_VECS], near[ROW_TILE][SUM_VECS],
        self[ROW_TILE][SUM_VECS];
    bool far[ROW_TILE];                     /* its base does not fit beside ROUND_SHIFT */
    bool plain, ruled;                      /* plain: no row is far, and all scores are known to be finite */
    int64_t whole_begin, whole_end;         /* keys that all rows see */
    int64_t lowest_position, last_position; /* in the tile */
} look_group;

/* Rows of a call, of which groups are made. */
typedef struct look_call {
    const lsp_tile_shape *shape;
    const lsp_score_rule *rule;
    const lsp_key_tile *tile;
    const lsp_look_rows *rows;
    real *sum, *most; /* [grains][tile_keys] of the columns */
    lsp_links *links;
} look_call;

/* Weights of LANES keys from their scores. *rest: how far the scores are below base; `least` (a constant) keeps it finite
 * where a score is -inf, which gives 0. */
INLINE vec look_weights(const bool least, real weight, vec base, vec s, vec *rest)
{
    vec below = vec_sub(s, base);
    *rest = least ? vec_max(below, vec_set(-POWER_REACH)) : below;
    return vec_mul(vec_power(false, s, base), vec_set(weight));
}

/* Numbers of the keys of a strip from its first one, and below them their negatives. */
static const real strip_numbers[] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                     16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
                                     32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47,
                                     48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63},
                  strip_negatives[] = {-0,  -1,  -2,  -3,  -4,  -5,  -6,  -7,  -8,  -9,  -10, -11, -12,
                                       -13, -14, -15, -16, -17, -18, -19, -20, -21, -22, -23, -24, -25,
                                       -26, -27, -28, -29, -30, -31, -32, -33, -34, -35, -36, -37, -38,
                                       -39, -40, -41, -42, -43, -44, -45, -46, -47, -48, -49, -50, -51,
                                       -52, -53, -54, -55, -56, -57, -58, -59, -60, -61, -62, -63};

/* A row's distance from the first key of a strip: whole numbers stay exact up to 2^24 in f32. */
INLINE real look_distance(const row_group *group, int r, int64_t strip)
{
    int64_t distance = group->position[r] - strip * STRIP_KEYS;
    return (real)lsp_max(-DISTANCE_LIMIT, lsp_min(DISTANCE_LIMIT, distance));
}

/* ---- from registers ----------------------------------------------------------------------------- */

/* Columns of the grain at hand, which row r is of, from `key` on. */
typedef struct look_columns {
    vec sum[COL_TILE], most[COL_TILE];
} look_columns;

INLINE void columns_open(const look_group *look, int r, int64_t key, look_columns *at)
{
    UNROLL
    for (int c = 0; c < COL_TILE; c++)
        at->sum[c] = vec_load(look->column_sum[r] + key + c * LANES), at->most[c] = vec_zero();
}

/* *all: the largest weights of all grains. */
INLINE void columns_close(const look_group *look, int r, int64_t key, const look_columns *at, vec *all)
{
    real *sum = look->column_sum[r] + key, *most = look->column_most[r] + key;
    UNROLL
    for (int c = 0; c < COL_TILE; c++) {
        vec_store(sum + c * LANES, at->sum[c]);
        vec_store(most + c * LANES, vec_max(at->most[c], vec_load(most + c * LANES)));
        *all = vec_max(at->most[c], *all);
    }
}

/* What of the weights lies within the row's window, and at its position. */
INLINE void look_near(look_group *look, int r, int64_t v, vec away, vec weights)
{
    vec window = vec_set((real)LSP_MAP_WINDOW - (real)0.5), half = vec_set((real)0.5), none = vec_zero();
    look->near[r][v] = vec_add(look->near[r][v], vec_select_less(away, window, weights, none));
    look->self[r][v] = vec_add(look->self[r][v], vec_select_less(away, half, weights, none));
}

/* Scores of `rows` rows (a constant, as is `near`) and COL_TILE vectors of keys, looked at in registers; the weights are stored. Returns
 * whether there may be a link. */
INLINE bool look_block(const int rows, const bool near, const look_call *call, row_group *group,
                       look_group *look, int64_t strip, int64_t column)
{
    int64_t depth = call->shape->k_depth, piece = score_piece(depth), key = strip * STRIP_KEYS + column;
    const unit *k = (const unit *)call->tile->k + strip * depth * STRIP_KEYS + column;
    const bool after = look->last_position > strip * STRIP_KEYS; /* the rows, where they are away */
    const real *numbers = (near || !after ? strip_numbers : strip_negatives) + column;
    register_tile acc;
    product(rows, COL_TILE, piece, group->q, k, STRIP_KEYS, acc);
    for (int64_t d = piece; d < depth; d += piece)
        scores_piece(rows, COL_TILE, group, d, lsp_min(depth - d, piece), k + d * STRIP_KEYS, key, NULL, acc);
    vec all = vec_zero();
    look_columns columns;
    columns_open(look, 0, key, &columns);
    UNROLL
    for (int r = 0; r < rows; r++) {
        real distance = look_distance(group, r, strip);
        vec base = vec_set(look->base[r]), first = vec_set(near || after ? distance : -distance);
        if (r > 0 && look->turns[r]) {
            columns_close(look, r - 1, key, &columns, &all);
            columns_open(look, r, key, &columns);
        }
        UNROLL
        for (int c = 0; c < COL_TILE; c++) {
            int64_t v = (column / LANES + c) % SUM_VECS;
            vec rest, weights = look_weights(false, look->weight[r], base, acc[r][c], &rest);
            vec number = vec_load(numbers + c * LANES);
            vec away = near ? vec_abs(vec_sub(first, number)) : vec_add(first, number);
            vec_store(group->p[r] + key + c * LANES, weights);
            columns.sum[c] = vec_add(columns.sum[c], weights);
            columns.most[c] = vec_max(weights, columns.most[c]);
            look->rest[r][v] = vec_fma(weights, rest, look->rest[r][v]);
            look->away[r][v] = vec_fma(weights, away, look->away[r][v]);
            if (near) look_near(look, r, v, away, weights);
        }
    }
    columns_close(look, rows - 1, key, &columns, &all);
    return vec_greater(all, vec_set(look->least_of_all)) != 0;
}

INLINE bool look_strip_rows(const int rows, const bool near, const look_call *call, row_group *group,
                            look_group *look, int64_t strip)
{
    bool found = false;
    for (int64_t column = 0; column < STRIP_KEYS; column += COL_TILE * LANES)
        found = look_block(rows, near, call, group, look, strip, column) || found;
    return found;
}

/* Returns whether there may be a link. */
static bool look_registers(const look_call *call, row_group *group, look_group *look, int64_t strip,
                           bool near)
{
    if (near) return look_strip_rows(ROW_TILE, true, call, group, look, strip);
    switch (group->rows) {
    case 1: return look_strip_rows(1, false, call, group, look, strip);
    case 2: return look_strip_rows(2, false, call, group, look, strip);
    case 3: return look_strip_rows(3, false, call, group, look, strip);
#    if ROW_TILE > 4
    case 4: return look_strip_rows(4, false, call, group, look, strip);
    case 5: return look_strip_rows(5, false, call, group, look, strip);
#    endif
    default: return look_strip_rows(ROW_TILE, false, call, group, look, strip);
    }
}

/* ---- from memory -------------------------------------------------------------------------------- */

/* Scores of a strip in memory, -inf where a row does not see a key. */
static void look_scores(const look_call *call, row_group *group, const look_group *look, int64_t strip)
{
    int64_t begin = strip * STRIP_KEYS, end = begin + STRIP_KEYS;
    const int64_t depth = call->shape->k_depth / UNIT_ELEMENTS;
    scores_start(group->rows, group);
    scores_kept(group, depth, (const unit *)call->tile->k + strip * depth * STRIP_KEYS, strip, strip + 1);
    for (int r = 0; r < group->rows; r++) {
        real *p = group->p[r];
        if (look->ruled) scores_rule(group, r, call->rule, strip, strip + 1);
        int64_t seen = lsp_max(begin, lsp_min(group->row_begin[r], end));
        for (int64_t j = begin; j < seen; j++) p[j] = -(real)INFINITY;
        for (int64_t j = lsp_max(begin, group->row_end[r]); j < end; j++) p[j] = -(real)INFINITY;
    }
}

/* Of a row that is far the base is subtracted first. */
INLINE vec look_stored(const look_group *look, int r, const real *scores, vec *rest)
{
    if (!look->far[r])
        return look_weights(true, look->weight[r], vec_set(look->base[r]), vec_load(scores), rest);
    vec s = vec_sub(vec_load(scores), vec_set(look->base[r]));
    return look_weights(true, look->weight[r], vec_zero(), s, rest);
}

/* Weights of a row in place of its scores of a strip. */
INLINE void look_row(const bool near, row_group *group, look_group *look, int r, int64_t strip)
{
    vec distance = vec_set(look_distance(group, r, strip));
    real *p = group->p[r] + strip * STRIP_KEYS, *sum = look->column_sum[r] + strip * STRIP_KEYS,
         *most = look->column_most[r] + strip * STRIP_KEYS;
    for (int i = 0; i < STRIP_KEYS; i += LANES) {
        int v = i / LANES % SUM_VECS;
        vec rest, weights = look_stored(look, r, p + i, &rest);
        vec away = vec_abs(vec_sub(distance, vec_load(strip_numbers + i)));
        vec_store(p + i, weights);
        vec_store(sum + i, vec_add(vec_load(sum + i), weights));
        vec_store(most + i, vec_max(weights, vec_load(most + i)));
        look->rest[r][v] = vec_fma(weights, rest, look->rest[r][v]);
        look->away[r][v] = vec_fma(weights, away, look->away[r][v]);
        if (near) look_near(look, r, v, away, weights);
    }
}

/* Weights take the place of the strip's scores. */
static void look_memory(const look_call *call, row_group *group, look_group *look, int64_t strip)
{
    int64_t begin = strip * STRIP_KEYS, end = begin + STRIP_KEYS;
    look_scores(call, group, look, strip);
    for (int r = 0; r < group->rows; r++) {
        int64_t position = group->position[r];
        if (position > begin - LSP_MAP_WINDOW && position < end + LSP_MAP_WINDOW)
            look_row(true, group, look, r, strip);
        else
            look_row(false, group, look, r, strip);
    }
}

/* ---- links -------------------------------------------------------------------------------------- */

/* Of equal weights those of lower rows count: what equals the weakest link may be one in rows up to its own. */
static void look_limits(const look_call *call, const row_group *group, look_group *look)
{
    const lsp_links *links = call->links;
    look->least_of_all = (real)INFINITY;
    for (int r = 0; r < group->rows; r++) {
        look->least[r] = links->most > 0 ? (real)0 : (real)INFINITY;
        if (links->most > 0 && links->count == links->most) {
            real weakest = (real)links->items[0].weight;
            look->least[r] = look->number[r] > links->items[0].row ? weakest : real_of(order_of(weakest) - 1);
        }
        if (look->least[r] < look->least_of_all) look->least_of_all = look->least[r];
    }
}

/* The strip's weights are in memory. */
static void look_links(const look_call *call, const row_group *group, look_group *look, int64_t strip)
{
    for (int r = 0; r < group->rows; r++)
        for (int i = 0; i < STRIP_KEYS; i += LANES) {
            const real *p = group->p[r] + strip * STRIP_KEYS + i;
            uint32_t which = vec_greater(vec_load(p), vec_set(look->least[r]));
            for (; which; which &= which - 1) {
                int lane = __builtin_ctz(which);
                lsp_link link = {(double)p[lane], look->number[r],
                                 call->tile->first + strip * STRIP_KEYS + i + lane};
                links_offer(call->links, link);
            }
        }
    look_limits(call, group, look);
}

static bool strip_has_link(const row_group *group, const look_group *look, int64_t strip)
{
    vec most = vec_zero();
    for (int r = 0; r < group->rows; r++)
        for (int i = 0; i < STRIP_KEYS; i += LANES)
            most = vec_max(vec_load(group->p[r] + strip * STRIP_KEYS + i), most);
    return vec_greater(most, vec_set(look->least_of_all)) != 0;
}

/* ---- groups ------------------------------------------------------------------------------------- */

/* What the rows of a group have in common; their sums start at zero. */
static void look_open(const look_call *call, const row_group *group, const int64_t *index, look_group *look)
{
    const real far = REAL_BITS == 32 ? (real)0x1p20 : (real)0x1p49;
    const double bound = REAL_BITS == 32 ? 0x1p100 : 0x1p900;
    const lsp_look_rows *rows = call->rows;
    look->ruled = call->rule->softcap != 0 || call->rule->slope != 0;
    look->plain = !look->ruled;
    look->whole_begin = 0, look->whole_end = call->shape->tile_keys;
    look->lowest_position = INT64_MAX, look->last_position = INT64_MIN;
    for (int r = 0; r < group->rows; r++) {
        look->base[r] = ((const real *)rows->base)[index[r]];
        look->weight[r] = ((const real *)rows->weight)[index[r]];
        look->far[r] = look->base[r] > far || look->base[r] < -far;
        look->plain = look->plain && !look->far[r] && rows->norm[index[r]] * call->tile->k_norm <= bound;
        look->number[r] = rows->number + index[r];
        look->first_key[r] = rows->first_key[index[r]] - call->tile->first;
        look->sums[r] = rows->sums + index[r] * LSP_MAP_FIGURES;
        int64_t grain = index[r] / rows->grain;
        look->column_sum[r] = call->sum + grain * call->shape->tile_keys;
        look->column_most[r] = call->most + grain * call->shape->tile_keys;
        look->turns[r] = r > 0 && look->column_sum[r] != look->column_sum[r - 1];
        look->whole_begin = lsp_max(look->whole_begin, group->row_begin[r]);
        look->whole_end = lsp_min(look->whole_end, group->row_end[r]);
        look->lowest_position = lsp_min(look->lowest_position, group->position[r]);
        look->last_position = lsp_max(look->last_position, group->position[r]);
        for (int v = 0; v < SUM_VECS; v++)
            look->rest[r][v] = look->away[r][v] = look->near[r][v] = look->self[r][v] = vec_zero();
    }
    look_limits(call, group, look);
}

/* Whether all rows see the whole strip. */
static bool strip_is_whole(const look_group *look, int64_t strip)
{
    return look->plain && strip * STRIP_KEYS >= look->whole_begin &&
           (strip + 1) * STRIP_KEYS <= look->whole_end;
}

/* Whether some of it may lie within a row's window. */
static bool strip_is_near(const look_group *look, int64_t strip)
{
    return strip * STRIP_KEYS < look->last_position + LSP_MAP_WINDOW &&
           look->lowest_position < (strip + 1) * STRIP_KEYS + LSP_MAP_WINDOW;
}

/* Of a tile whose weights are in memory. */
static void look_first(const row_group *group, look_group *look)
{
    for (int r = 0; r < group->rows; r++) {
        int64_t first = look->first_key[r];
        if (first >= group->row_begin[r] && first < group->row_end[r])
            look->sums[r][LSP_MAP_FIRST] = (double)group->p[r][first];
    }
}

static void look_advance(const look_call *call, row_group *group, const int64_t *index)
{
    look_group look;
    int64_t strip = group->begin / STRIP_KEYS, strip_end = lsp_ceil_div(group->end, STRIP_KEYS);
    look_open(call, group, index, &look);
    for (; strip < strip_end; strip++) {
        bool near = strip_is_near(&look, strip), found;
        if (strip_is_whole(&look, strip) && !(near && group->rows < ROW_TILE)) {
            found = look_registers(call, group, &look, strip, near);
        } else {
            look_memory(call, group, &look, strip);
            found = strip_has_link(group, &look, strip);
        }
        if (found) look_links(call, group, &look, strip);
    }
    look_first(group, &look);
    for (int r = 0; r < group->rows; r++) {
        look.sums[r][LSP_MAP_ENTROPY] += (double)lanes_sum(look.rest[r]);
        look.sums[r][LSP_MAP_DISTANCE] += (double)lanes_sum(look.away[r]);
        look.sums[r][LSP_MAP_NEAR] += (double)lanes_sum(look.near[r]);
        look.sums[r][LSP_MAP_SELF] += (double)lanes_sum(look.self[r]);
    }
    group->rows = 0;
}

static void look(const lsp_tile_shape *shape, const lsp_score_rule *rule, const lsp_key_tile *tile,
                 const lsp_look_rows *rows, const lsp_look_columns *columns, lsp_links *links, void *scratch)
{
    /* Neither output nor state: rows of no width, wherever they are said to be. */
    lsp_tile_shape narrow = *shape;
    narrow.d_v = 0;
    lsp_query_rows queries = {.rows = rows->rows,
                              .q = rows->q,
                              .sight = rows->sight,
                              .out = columns->sum,
                              .max = columns->sum,
                              .sum = columns->sum};
    look_call call = {shape, rule, tile, rows, columns->sum, columns->most, links};
    int64_t columns_count = lsp_ceil_div(rows->rows, rows->grain) * shape->tile_keys;
    for (int64_t j = 0; j < columns_count; j++) call.sum[j] = call.most[j] = (real)0;
    row_group group;
    int64_t index[ROW_TILE];
    row_group_start(&group, shape, scratch);
    group.factor = (real)1;
    for (int64_t row = 0; row < rows->rows; row++) {
        if (!(((const real *)rows->weight)[row] > (real)0)) continue;
        if (!row_group_take(&group, &narrow, tile, &queries, row)) continue;
        index[group.rows - 1] = row;
        if (group.rows == ROW_TILE) look_advance(&call, &group, index);
    }
    if (group.rows) look_advance(&call, &group, index);
}
#endif

#endif
