/* The k largest scores of each row, of equal ones those of the lower keys, as tiles go by.
 *
 * Scores of some rows over some tiles are kept until all of them are there: what a row has to exceed is told from them
 * together, and its candidates come into a near cache once. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_SELECT_H
#define LSP_KERNEL_SELECT_H

#include "kernel/add_values.h"
#include "kernel/candidates.h"
#include "kernel/tile_scores.h"
#include "kernel/tile_softmax.h"

/* ---- room -------------------------------------------------------------------------------------- */

enum { HITS_OF_TILE = TILE_KEYS_MOST / LANES };

/* In the scratch: scores and hits of rows over all tiles of a call. */
typedef struct score_room {
    real *lines; /* [ROW_TILE][scores_stride] where scores become probabilities that nobody keeps */
    real *scores;
    int64_t line, stride; /* elements from row to row of both */
    hit_lanes *hits;      /* [LSP_SELECT_ROWS][LSP_SELECT_TILES][HITS_OF_TILE] */
    uint8_t *seen;        /* [LSP_SELECT_ROWS] a bit for each tile */
    real *limit;    /* [LSP_SELECT_ROWS] what hits exceed: the row's limit, or a guess of a higher one */
    int32_t *above; /* [LSP_SELECT_ROWS] candidates that do; all of them where nothing was guessed */
} score_room;

static size_t room_hits(void)
{
    return sizeof(hit_lanes) * LSP_SELECT_ROWS * LSP_SELECT_TILES * HITS_OF_TILE;
}

INLINE int64_t room_stride(const lsp_tile_shape *shape)
{
    return LSP_SELECT_TILES * shape->tile_keys + SUM_LANES;
}

static size_t select_bytes(const lsp_tile_shape *shape)
{
    size_t lines = scratch_bytes(shape), values = values_bytes(shape->d_v),
           all = lines + (size_t)(LSP_SELECT_ROWS * room_stride(shape)) * sizeof(real) + room_hits() +
                 LSP_SELECT_ROWS * (sizeof(real) + sizeof(int32_t) + 1);
    return all > values ? all : values;
}

static score_room room_in(const lsp_tile_shape *shape, void *scratch)
{
    char *scores = (char *)scratch + scratch_bytes(shape);
    int64_t stride = room_stride(shape);
    char *hits = scores + (size_t)(LSP_SELECT_ROWS * stride) * sizeof(real), *limit = hits + room_hits(),
         *above = limit + LSP_SELECT_ROWS * sizeof(real);
    return (score_room){.lines = scratch,
                        .scores = (real *)(void *)scores,
                        .line = scores_stride(shape),
                        .stride = stride,
                        .hits = (hit_lanes *)(void *)hits,
                        .limit = (real *)(void *)limit,
                        .above = (int32_t *)(void *)above,
                        .seen = (uint8_t *)above + LSP_SELECT_ROWS * sizeof(int32_t)};
}

INLINE hit_lanes *room_hits_of(const score_room *room, int64_t row, int tile)
{
    return room->hits + (row * LSP_SELECT_TILES + tile) * HITS_OF_TILE;
}

/* ---- scores ------------------------------------------------------------------------------------ */

/* Keys of the tile that no row of the group sees are in no strip that was computed. */
static void hide_rest(row_group *group, int r, int64_t tile_keys)
{
    int64_t begin = group->begin / STRIP_KEYS * STRIP_KEYS, end = lsp_round_up(group->end, STRIP_KEYS);
    for (int64_t j = 0; j < begin; j++) group->p[r][j] = -(real)INFINITY;
    for (int64_t j = end; j < tile_keys; j++) group->p[r][j] = -(real)INFINITY;
}

/* Scores and hits of a group, whose rows are index[], over a tile; its maxima and sums go on. */
static void select_advance(row_group *group, const int64_t *index, const lsp_tile_shape *shape,
                           const lsp_score_rule *rule, const lsp_key_tile *tile, int number,
                           const score_room *room)
{
    const int64_t vectors = shape->tile_keys / LANES;
    tile_scores(group, shape, rule, tile->k);
    for (int r = 0; r < group->rows; r++) {
        room->seen[index[r]] |= (uint8_t)(1U << number);
        hit_lanes *hits = room_hits_of(room, index[r], number);
        if (group->fused) {
            memcpy(hits, group->hits[r], sizeof group->hits[r]);
            continue;
        }
        hide_rest(group, r, shape->tile_keys);
        vec limit = vec_set(group->limit[r]);
        for (int64_t i = 0; i < vectors; i++)
            hits[i] = (hit_lanes)vec_greater(vec_load(group->p[r] + i * LANES), limit);
        memset(hits + vectors, 0, (size_t)(HITS_OF_TILE - vectors) * sizeof *hits);
        real *line = room->lines + r * room->line;
        memcpy(line, group->p[r], (size_t)shape->tile_keys * sizeof *line);
        group->p[r] = line;
    }
    tile_softmax(group);
    group->rows = 0;
}

/* What the rows after these ones will need: their candidates, a share with every group of a call. */
typedef struct rows_ahead {
    const char *scores, *keys;
    int64_t step, at, end; /* in candidates */
} rows_ahead;

static rows_ahead rows_ahead_start(const lsp_query_rows *rows, const lsp_candidates *c, int count)
{
    int64_t all = rows->rows * c->stride, groups = count * lsp_ceil_div(rows->rows, ROW_TILE);
    return (rows_ahead){.scores = (const char *)((const real *)c->scores + all),
                        .keys = (const char *)(c->keys + all),
                        .step = lsp_round_up(lsp_ceil_div(all, groups), CACHE_LINE),
                        .end = all};
}

INLINE void rows_ahead_ask(row_group *group, rows_ahead *ahead)
{
    int64_t step = lsp_min(ahead->step, ahead->end - ahead->at);
    group_ahead_set(&group->ahead, 0, ahead->scores + ahead->at * (int64_t)sizeof(real),
                    step * (int64_t)sizeof(real));
    group_ahead_set(&group->ahead, 1, ahead->keys + ahead->at * (int64_t)sizeof(int32_t),
                    step * (int64_t)sizeof(int32_t));
    ahead->at += step;
}

/* Place r of the group is for row `row`. */
INLINE void select_place(row_group *group, int64_t *index, const lsp_tile_shape *shape, int number,
                         const score_room *room, int r, int64_t row)
{
    index[r] = row;
    group->p[r] = room->scores + row * room->stride + number * shape->tile_keys;
    group->limit[r] = room->limit[row];
}

/* What the group's products ask for: a share of the next tile, and of candidates. */
INLINE void select_ask(row_group *group, tile_ahead *ahead, rows_ahead *next)
{
    rows_ahead_ask(group, next);
    const int64_t left = ahead->k_bytes - ahead->k_at, step = lsp_min(ahead->k_step, left), half = step / 2;
    group_ahead_set(&group->ahead, 2, ahead->k + ahead->k_at, half);
    group_ahead_set(&group->ahead, 3, ahead->k + ahead->k_at + half, step - half);
    ahead->k_at += step;
}

static void select_tile(row_group *group, const lsp_tile_shape *shape, const lsp_score_rule *rule,
                        const lsp_key_tile *tile, int number, const lsp_query_rows *rows,
                        const score_room *room, rows_ahead *next)
{
    /* No output: rows of no width, wherever they are said to be. */
    lsp_tile_shape narrow = *shape;
    lsp_query_rows states = *rows;
    narrow.d_v = 0;
    states.out = states.max;
    int64_t index[ROW_TILE];
    tile_ahead ahead = tile_ahead_start(shape, tile, rows->rows);
    int64_t row = 0,
            plain = rows_plain(&narrow, tile, rule, &states, false) ? rows->rows / ROW_TILE * ROW_TILE : 0;
    for (; row < plain; row += ROW_TILE) {
        row_group_plain(group, &narrow, tile, &states, row);
        for (int r = 0; r < ROW_TILE; r++) select_place(group, index, shape, number, room, r, row + r);
        select_ask(group, &ahead, next);
        select_advance(group, index, shape, rule, tile, number, room);
    }
    for (; row < rows->rows; row++) {
        int before = group->rows;
        row_group_add(group, &narrow, tile, rule, &states, row);
        if (group->rows > before) select_place(group, index, shape, number, room, before, row);
        if (group->rows < ROW_TILE) continue;
        select_ask(group, &ahead, next);
        select_advance(group, index, shape, rule, tile, number, room);
    }
    if (group->rows) select_advance(group, index, shape, rule, tile, number, room);
}

/* ---- candidates -------------------------------------------------------------------------------- */

/* Adds the scores of a vector whose bits are set in `hits`, at place `at`; its keys are from key + *step on. Returns the
 * place after. (*step in memory: vectors from there take no port that compressing takes.) */
INLINE int32_t add_hits(const candidate_row *row, int32_t at, const real *scores, int32_t key,
                        const int32_t *step, uint32_t hits)
{
#ifdef VEC_HAS_COMPRESS
    vec_compress(row->scores + at, vec_load(scores), hits);
    run_compress(row->keys + at, key, step, hits);
    return at + __builtin_popcount(hits);
#else
    key += *step;
    for (; hits; hits &= hits - 1) {
        int i = __builtin_ctz(hits);
        row->scores[at] = scores[i];
        row->keys[at++] = key + i;
    }
    return at;
#endif
}

/* Adds what is above the row's limit among `count` scores of keys `key`, `key` + 1, ...; sorts out whenever there is no
 * room. */
static void add_scores(const candidate_row *to, const lsp_candidates *c, const real *scores, int32_t key,
                       int64_t count)
{
    candidate_row row = *to; /* a copy: no store below can change it */
    int32_t at = *row.count, most = (int32_t)c->stride - 2 * LANES;
    vec limit = vec_set(*row.least);
    for (int64_t i = 0; i < count; i += LANES) {
        if (at > most) {
            *row.count = at;
            sort_out(&row, c->most, candidate_spare(c->most));
            at = *row.count;
            limit = vec_set(*row.least);
        }
        int32_t step = (int32_t)i;
        at = add_hits(&row, at, scores + i, key, &step, vec_greater(vec_load(scores + i), limit));
    }
    *row.count = at;
}

/* The same of a tile whose hits are known, and for all of which there is room. */
static void add_tile(const candidate_row *to, const real *scores, int32_t key, const hit_lanes *hits)
{
    candidate_row row = *to;
    int32_t at = *row.count;
    enum { PART = 64 / sizeof(hit_lanes), DENSE = PART / 4 * 3 }; /* of 64 bytes */
    int32_t steps[HITS_OF_TILE];
    for (int i = 0; i < HITS_OF_TILE; i++) steps[i] = i * LANES;
    for (int part = 0; part < HITS_OF_TILE; part += PART) {
#ifdef VEC_HAS_COMPRESS
        uint64_t vectors = bits_of_hits(hits + part);
#else
        uint64_t vectors = 0;
        for (int i = 0; i < PART; i++) vectors |= (uint64_t)(hits[part + i] != 0) << i;
#endif
        if (__builtin_popcountll(vectors) >= DENSE) {
            for (int i = part; i < part + PART; i++)
                at = add_hits(&row, at, scores + i * LANES, key, steps + i, hits[i]);
            continue;
        }
        for (; vectors; vectors &= vectors - 1) {
            int i = part + __builtin_ctzll(vectors);
            at = add_hits(&row, at, scores + i * LANES, key, steps + i, hits[i]);
        }
    }
    *row.count = at;
}

static int32_t count_hits(const hit_lanes *hits, int64_t count)
{
    int32_t sum = 0;
    for (int64_t i = 0; i < count; i += (int64_t)(sizeof(uint64_t) / sizeof *hits)) {
        uint64_t word;
        memcpy(&word, hits + i, sizeof word);
        sum += __builtin_popcountll(word);
    }
    return sum;
}

/* Keys that a row sees of `count` tiles. */
INLINE double keys_seen(const lsp_tile_shape *shape, const lsp_key_tile *tiles, int count, lsp_sight sight)
{
    int64_t begin = lsp_max(sight.begin, tiles[0].first),
            end = lsp_min(sight.end, tiles[count - 1].first + shape->tile_keys);
    return (double)lsp_max(0, end - begin);
}

/* Before the tiles: where a row's candidates and what may be expected have not room enough, a limit that leaves it. Hits
 * are of that then; whether it left k of both is known when all of them are. */
static void guess_before(const lsp_tile_shape *shape, const lsp_key_tile *tiles, int count,
                         const lsp_query_rows *rows, const lsp_candidates *c, const score_room *room)
{
    for (int64_t r = 0; r < rows->rows; r++) {
        candidate_row row = candidates_of(c, r);
        room->limit[r] = *row.least, room->above[r] = *row.count;
        double met = (double)lsp_max(0, tiles[0].first - rows->sight[r].begin);
        if (*row.count == 0 || met <= 0) continue;
        double hits = (double)*row.count * keys_seen(shape, tiles, count, rows->sight[r]) / met;
        if ((double)*row.count + hits + 2 * LANES > (double)c->stride)
            room->limit[r] = guess_higher(&row, c, hits, &room->above[r]);
    }
}

/* After the first of the tiles: the same for rows without candidates, from its scores. */
static void guess_first(const lsp_tile_shape *shape, const lsp_key_tile *tiles, int count,
                        const lsp_query_rows *rows, const lsp_candidates *c, const score_room *room)
{
    const double wanted = (double)c->most + 0.375 * (double)(c->stride - c->most - 2 * LANES);
    double before = 0, quantile = 0;
    for (int64_t r = 0; r < rows->rows; r++) {
        double keys = keys_seen(shape, tiles, count, rows->sight[r]);
        if (c->counts[r] > 0 || room->limit[r] > -(real)INFINITY || !(room->seen[r] & 1) || keys < 2 * wanted)
            continue;
        if (keys > before || keys < before) quantile = normal_quantile(wanted / keys);
        before = keys;
        const real *scores = room->scores + r * room->stride;
        real limit = guess_limit(scores, (int32_t)shape->tile_keys, wanted / keys, quantile);
        if (!(limit > -(real)INFINITY)) continue;
        room->limit[r] = limit;
        hit_lanes *hits = room_hits_of(room, r, 0);
        for (int64_t i = 0; i < shape->tile_keys / LANES; i++)
            hits[i] = (hit_lanes)vec_greater(vec_load(scores + i * LANES), vec_set(limit));
    }
}

/* Of a row whose hits are of a guessed limit: makes that its limit, if it leaves k, and room. */
static bool accept_guess(const candidate_row *row, const lsp_candidates *c, real limit, int32_t above,
                         int32_t hits)
{
    if (above + hits < c->most || above + hits + 2 * LANES > c->stride) return false;
    *row->least = limit;
    if (above < *row->count) keep_above(row, (int32_t)lsp_round_up(*row->count, LANES), limit, 0);
    return true;
}

/* Row `row` takes what it saw of the tiles, which are one after the other. */
static void take_row(const lsp_tile_shape *shape, const lsp_key_tile *tiles, const lsp_candidates *c,
                     int64_t row, const score_room *room)
{
    candidate_row to = candidates_of(c, row);
    uint32_t seen = room->seen[row];
    if (!seen) return;
    int first = __builtin_ctz(seen), end = 32 - __builtin_clz(seen);
    const real *scores = room->scores + row * room->stride, *begin = scores + first * shape->tile_keys;
    int64_t count = (end - first) * shape->tile_keys;
    int32_t hits = count_hits(room_hits_of(room, row, first), (int64_t)(end - first) * HITS_OF_TILE);
    bool guessed = room->limit[row] > *to.least, fits;
    if (!guessed && !hits) return;
    if (guessed && accept_guess(&to, c, room->limit[row], room->above[row], hits)) {
        fits = true;
    } else {
        if (guessed) hits = count_above(begin, (int32_t)count, *to.least);
        fits = !guessed && *to.count + hits + 2 * LANES <= c->stride;
        if (!fits && *to.count == 0) open_limit(&to, c, begin, count);
        if (!fits && *to.count > 0 && *to.count + hits + 2 * LANES > c->stride)
            raise_limit(&to, c, begin, count, hits);
    }
    for (int t = first; t < end; t++) {
        if (fits)
            add_tile(&to, scores + t * shape->tile_keys, (int32_t)tiles[t].first, room_hits_of(room, row, t));
        else
            add_scores(&to, c, scores + t * shape->tile_keys, (int32_t)tiles[t].first, shape->tile_keys);
    }
}

/* `select` is a function of POSIX. */
static void select_keys(const lsp_tile_shape *shape, const lsp_score_rule *rule, const lsp_key_tile *tiles,
                        int count, const lsp_query_rows *rows, const lsp_candidates *candidates, bool last,
                        void *scratch)
{
    score_room room = room_in(shape, scratch);
    row_group group;
    row_group_start(&group, shape, scratch);
    group.sifts = true;
    memset(group.hits, 0, sizeof group.hits);
    memset(room.seen, 0, LSP_SELECT_ROWS);
    guess_before(shape, tiles, count, rows, candidates, &room);
    rows_ahead next = rows_ahead_start(rows, candidates, count);
    for (int t = 0; t < count; t++) {
        select_tile(&group, shape, rule, &tiles[t], t, rows, &room, &next);
        if (t == 0 && count > 1) guess_first(shape, tiles, count, rows, candidates, &room);
    }
    for (int64_t r = 0; r < rows->rows; r++) {
        take_row(shape, tiles, candidates, r, &room);
        candidate_row row = candidates_of(candidates, r);
        if (last && *row.count > candidates->most) sort_out(&row, candidates->most, 0);
    }
}

/* ---- the end ------------------------------------------------------------------------------------ */

/* Sum of `count` numbers in double, in lanes that are the same on every instruction set. */
static double sum_of(const real *values, int64_t count)
{
    double lanes[SUM_LANES] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + SUM_LANES <= count; i += SUM_LANES) {
        UNROLL
        for (int lane = 0; lane < SUM_LANES; lane++) lanes[lane] += (double)values[i + lane];
    }
    for (int lane = 0; i + lane < count; lane++) lanes[lane] += (double)values[i + lane];
    for (int lane = 0; lane < SUM_LANES; lane++) sum += lanes[lane];
    return sum;
}

static void weigh(const lsp_score_rule *rule, int64_t rows, const lsp_candidates *c, const void *max,
                  const void *sum, bool renormalize, double *kept)
{
    const real scale = POWER_UNIT / SUM_UNIT;
    bool ruled = rule->softcap != 0 || rule->slope != 0;
    vec factor = vec_set(ruled ? (real)1 : score_factor(rule));
    for (int64_t r = 0; r < rows; r++) {
        candidate_row row = candidates_of(c, r);
        if (*row.count > c->most) sort_out(&row, c->most, 0);
        real top = ((const real *)max)[r], total = ((const real *)sum)[r] * scale;
        vec base = vec_set(top == -(real)INFINITY ? (real)0 : -top);
        for (int32_t i = 0; i < *row.count; i += LANES)
            vec_store(row.scores + i,
                      vec_power(false, vec_fma(vec_load(row.scores + i), factor, base), vec_zero()));
        double own = sum_of(row.scores, *row.count);
        vec divisor = vec_set(renormalize && total == total ? (real)own : total);
        for (int32_t i = 0; i < *row.count; i += LANES)
            vec_store(row.scores + i, vec_div(vec_load(row.scores + i), divisor));
        kept[r] = own / (double)total;
    }
}

#endif
