/* The weights of a group of rows over a key tile, looked at and not kept: sums and maxima of columns, sums of rows, and
 * the strongest links. What is subtracted from a score and multiplied with its power is known from a pass before.
 *
 * A strip of keys that all rows see, away from their positions, is summed up from registers; others, about one in a
 * hundred, go through memory and have the weights near the rows' positions picked out. Both add in the same order.
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
#    define POOL NULL
#else
#    define LOOK look
#    define POOL pool

/* The rows of a group, and their sums by lanes over the tile. */
typedef struct look_group {
    real base[ROW_TILE], weight[ROW_TILE];
    real least[ROW_TILE], least_of_all; /* what a weight must exceed to be a link */
    int64_t first_key[ROW_TILE];        /* in the tile */
    int64_t number[ROW_TILE];
    double *sums[ROW_TILE];
    vec rest[ROW_TILE][SUM_VECS], away[ROW_TILE][SUM_VECS], near[ROW_TILE][SUM_VECS],
        self[ROW_TILE][SUM_VECS];
    bool far, ruled;
    int64_t whole_begin, whole_end;         /* keys that all rows see */
    int64_t lowest_position, last_position; /* in the tile */
} look_group;

/* Rows of a call, of which groups are made. */
typedef struct look_call {
    const lsp_tile_shape *shape;
    const lsp_score_rule *rule;
    const lsp_key_tile *tile;
    const lsp_look_rows *rows;
    real *sum, *most; /* [tile_keys] of the columns */
    lsp_links *links;
} look_call;

/* Weights of LANES keys from their scores; *rest: how far the scores are below base. -inf gives 0, and something
 * finite. */
INLINE vec look_weights(real base, real weight, vec s, vec *rest)
{
    vec shift = vec_set((ROUND_SHIFT + EXPONENT_BIAS) - base);
    s = vec_max(s, vec_set(base - EXPONENT_BIAS));
    vec rounded = vec_add(s, shift), fraction = vec_sub(s, vec_sub(rounded, shift));
    vec tail = vec_polynomial(exp2_coefficients, EXP2_TERMS, fraction);
    vec power = vec_mul(vec_fma(tail, fraction, vec_set((real)1)), vec_exponent_from_low_bits(rounded));
    *rest = vec_sub(s, vec_set(base));
    return vec_mul(power, vec_set(weight));
}

/* Numbers of the keys of a strip from its first one. */
static const real strip_numbers[] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                     16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
                                     32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47,
                                     48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63};

/* A row's distance from the first key of a strip: whole numbers stay exact up to 2^24 in f32. */
INLINE real look_distance(const row_group *group, int r, int64_t strip)
{
    int64_t distance = group->position[r] - strip * STRIP_KEYS;
    return (real)lsp_max(-DISTANCE_LIMIT, lsp_min(DISTANCE_LIMIT, distance));
}

/* ---- from registers ----------------------------------------------------------------------------- */

/* Scores of `rows` rows (a constant) and COL_TILE vectors of keys, looked at in registers. Returns whether there may be
 * a link. */
INLINE bool look_block(const int rows, const look_call *call, row_group *group, look_group *look,
                       int64_t strip, int64_t column)
{
    int64_t depth = call->shape->k_depth, piece = score_piece(depth), key = strip * STRIP_KEYS + column;
    const unit *k = (const unit *)call->tile->k + strip * depth * STRIP_KEYS + column;
    register_tile acc;
    product(rows, COL_TILE, piece, group->q, k, STRIP_KEYS, acc);
    for (int64_t d = piece; d < depth; d += piece)
        scores_piece(rows, COL_TILE, group, d, lsp_min(depth - d, piece), k + d * STRIP_KEYS, key, NULL, acc);
    vec sum[COL_TILE], most[COL_TILE];
    UNROLL
    for (int c = 0; c < COL_TILE; c++) sum[c] = vec_load(call->sum + key + c * LANES), most[c] = vec_zero();
    UNROLL
    for (int r = 0; r < rows; r++) {
        real distance = look_distance(group, r, strip);
        UNROLL
        for (int c = 0; c < COL_TILE; c++) {
            int64_t v = (column / LANES + c) % SUM_VECS;
            vec rest, weights = look_weights(look->base[r], look->weight[r], acc[r][c], &rest);
            vec away = vec_abs(vec_sub(vec_set(distance), vec_load(strip_numbers + column + c * LANES)));
            sum[c] = vec_add(sum[c], weights);
            most[c] = vec_max(weights, most[c]);
            look->rest[r][v] = vec_fma(weights, rest, look->rest[r][v]);
            look->away[r][v] = vec_fma(weights, away, look->away[r][v]);
        }
    }
    vec all = vec_zero();
    UNROLL
    for (int c = 0; c < COL_TILE; c++) {
        vec_store(call->sum + key + c * LANES, sum[c]);
        vec_store(call->most + key + c * LANES, vec_max(most[c], vec_load(call->most + key + c * LANES)));
        all = vec_max(most[c], all);
    }
    return vec_greater(all, vec_set(look->least_of_all)) != 0;
}

INLINE bool look_plain_rows(const int rows, const look_call *call, row_group *group, look_group *look,
                            int64_t strip)
{
    bool found = false;
    for (int64_t column = 0; column < STRIP_KEYS; column += COL_TILE * LANES)
        found = look_block(rows, call, group, look, strip, column) || found;
    return found;
}

static bool look_plain(const look_call *call, row_group *group, look_group *look, int64_t strip)
{
    switch (group->rows) {
    case 1: return look_plain_rows(1, call, group, look, strip);
    case 2: return look_plain_rows(2, call, group, look, strip);
    case 3: return look_plain_rows(3, call, group, look, strip);
#    if ROW_TILE > 4
    case 4: return look_plain_rows(4, call, group, look, strip);
    case 5: return look_plain_rows(5, call, group, look, strip);
#    endif
    default: return look_plain_rows(ROW_TILE, call, group, look, strip);
    }
}

/* ---- from memory -------------------------------------------------------------------------------- */

/* Scores of a strip in memory, -inf where a row does not see a key. */
static void look_scores(const look_call *call, row_group *group, const look_group *look, int64_t strip)
{
    int64_t begin = strip * STRIP_KEYS, end = begin + STRIP_KEYS;
    const unit *k = call->tile->k;
    switch (group->rows) {
    case 1: scores_rows(1, SCORES_KEEP, group, call->shape, k, strip, strip + 1); break;
    case 2: scores_rows(2, SCORES_KEEP, group, call->shape, k, strip, strip + 1); break;
    case 3: scores_rows(3, SCORES_KEEP, group, call->shape, k, strip, strip + 1); break;
#    if ROW_TILE > 4
    case 4: scores_rows(4, SCORES_KEEP, group, call->shape, k, strip, strip + 1); break;
    case 5: scores_rows(5, SCORES_KEEP, group, call->shape, k, strip, strip + 1); break;
#    endif
    default: scores_rows(ROW_TILE, SCORES_KEEP, group, call->shape, k, strip, strip + 1);
    }
    for (int r = 0; r < group->rows; r++) {
        real *p = group->p[r];
        if (look->ruled) scores_rule(group, r, call->rule, strip, strip + 1);
        int64_t seen = lsp_max(begin, lsp_min(group->row_begin[r], end));
        for (int64_t j = begin; j < seen; j++) p[j] = -(real)INFINITY;
        for (int64_t j = lsp_max(begin, group->row_end[r]); j < end; j++) p[j] = -(real)INFINITY;
    }
}

/* A base that does not fit beside ROUND_SHIFT is subtracted first. */
INLINE vec look_memory(const look_group *look, int r, const real *scores, vec *rest)
{
    if (!look->far) return look_weights(look->base[r], look->weight[r], vec_load(scores), rest);
    vec s = vec_sub(vec_load(scores), vec_set(look->base[r]));
    return look_weights((real)0, look->weight[r], s, rest);
}

/* Weights take the place of the strip's scores. */
static void look_strip(const look_call *call, row_group *group, look_group *look, int64_t strip)
{
    look_scores(call, group, look, strip);
    vec window = vec_set((real)LSP_MAP_WINDOW - (real)0.5), half = vec_set((real)0.5), none = vec_zero();
    for (int r = 0; r < group->rows; r++) {
        vec distance = vec_set(look_distance(group, r, strip));
        for (int i = 0; i < STRIP_KEYS; i += LANES) {
            int64_t key = strip * STRIP_KEYS + i;
            int v = i / LANES % SUM_VECS;
            vec rest, weights = look_memory(look, r, group->p[r] + key, &rest);
            vec away = vec_abs(vec_sub(distance, vec_load(strip_numbers + i)));
            vec_store(group->p[r] + key, weights);
            vec_store(call->sum + key, vec_add(vec_load(call->sum + key), weights));
            vec_store(call->most + key, vec_max(weights, vec_load(call->most + key)));
            look->rest[r][v] = vec_fma(weights, rest, look->rest[r][v]);
            look->away[r][v] = vec_fma(weights, away, look->away[r][v]);
            look->near[r][v] = vec_add(look->near[r][v], vec_select_less(away, window, weights, none));
            look->self[r][v] = vec_add(look->self[r][v], vec_select_less(away, half, weights, none));
        }
        int64_t first = look->first_key[r];
        if (first >= group->row_begin[r] && first < group->row_end[r] && first / STRIP_KEYS == strip)
            look->sums[r][LSP_MAP_FIRST] = (double)group->p[r][first];
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

/* Weights of a strip that was looked at in registers, once more, for links alone. */
static void look_again(const look_call *call, row_group *group, look_group *look, int64_t strip)
{
    look_scores(call, group, look, strip);
    for (int r = 0; r < group->rows; r++)
        for (int i = 0; i < STRIP_KEYS; i += LANES) {
            real *p = group->p[r] + strip * STRIP_KEYS + i;
            vec rest;
            vec_store(p, look_memory(look, r, p, &rest));
        }
    look_links(call, group, look, strip);
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
    const lsp_look_rows *rows = call->rows;
    look->ruled = call->rule->softcap != 0 || call->rule->slope != 0;
    look->far = false;
    look->whole_begin = 0, look->whole_end = call->shape->tile_keys;
    look->lowest_position = INT64_MAX, look->last_position = INT64_MIN;
    for (int r = 0; r < group->rows; r++) {
        look->base[r] = ((const real *)rows->base)[index[r]];
        look->weight[r] = ((const real *)rows->weight)[index[r]];
        look->far = look->far || look->base[r] > far || look->base[r] < -far;
        look->number[r] = rows->number + index[r];
        look->first_key[r] = rows->first_key[index[r]] - call->tile->first;
        look->sums[r] = rows->sums + index[r] * LSP_MAP_FIGURES;
        look->whole_begin = lsp_max(look->whole_begin, group->row_begin[r]);
        look->whole_end = lsp_min(look->whole_end, group->row_end[r]);
        look->lowest_position = lsp_min(look->lowest_position, group->position[r]);
        look->last_position = lsp_max(look->last_position, group->position[r]);
        for (int v = 0; v < SUM_VECS; v++)
            look->rest[r][v] = look->away[r][v] = look->near[r][v] = look->self[r][v] = vec_zero();
    }
    look_limits(call, group, look);
}

/* Whether all rows see the whole strip, and none of it lies in a row's window or is its first key. */
static bool strip_is_plain(const row_group *group, const look_group *look, int64_t strip)
{
    int64_t begin = strip * STRIP_KEYS, end = begin + STRIP_KEYS;
    if (look->ruled || look->far || begin < look->whole_begin || end > look->whole_end) return false;
    if (begin - LSP_MAP_WINDOW < look->last_position && look->lowest_position < end + LSP_MAP_WINDOW)
        return false;
    for (int r = 0; r < group->rows; r++)
        if (look->first_key[r] >= begin && look->first_key[r] < end) return false;
    return true;
}

static void look_advance(const look_call *call, row_group *group, const int64_t *index)
{
    look_group look;
    int64_t strip = group->begin / STRIP_KEYS, strip_end = lsp_ceil_div(group->end, STRIP_KEYS);
    look_open(call, group, index, &look);
    for (; strip < strip_end; strip++) {
        if (strip_is_plain(group, &look, strip)) {
            if (look_plain(call, group, &look, strip)) look_again(call, group, &look, strip);
        } else {
            look_strip(call, group, &look, strip);
            if (strip_has_link(group, &look, strip)) look_links(call, group, &look, strip);
        }
    }
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
    for (int64_t j = 0; j < shape->tile_keys; j++) call.sum[j] = call.most[j] = (real)0;
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

/* ---- pixels ------------------------------------------------------------------------------------- */

static void pool(const lsp_look_columns *columns, int64_t begin, int64_t end, double scale,
                 const lsp_look_pixels *to)
{
    enum { PIECE = 64 };
    const real *sum = columns->sum, *most = columns->most;
    int64_t left = to->first_left, pixel = 0, fixed[PIECE];
    for (int64_t at = begin; at < end; at += PIECE) {
        int64_t count = lsp_min(PIECE, end - at);
        for (int64_t j = 0; j < count; j++) {
            fixed[j] = (int64_t)((double)sum[at + j] * scale + 0.5);
            to->mass[at + j] += fixed[j];
        }
        for (int64_t j = 0; j < count;) {
            int64_t stop = lsp_min(count, j + left), total = 0;
            double peak = to->peaks[pixel];
            left -= stop - j;
            for (; j < stop; j++) {
                total += fixed[j];
                peak = (double)most[at + j] > peak ? (double)most[at + j] : peak;
            }
            to->sums[pixel] += total, to->peaks[pixel] = peak;
            if (left == 0) pixel++, left = to->width;
        }
    }
}
#endif

#endif
