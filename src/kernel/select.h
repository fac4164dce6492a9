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
                 LSP_SELECT_ROWS;
    return all > values ? all : values;
}

static score_room room_in(const lsp_tile_shape *shape, void *scratch)
{
    char *scores = (char *)scratch + scratch_bytes(shape);
    int64_t stride = room_stride(shape);
    char *hits = scores + (size_t)(LSP_SELECT_ROWS * stride) * sizeof(real);
    return (score_room){.lines = scratch,
                        .scores = (real *)(void *)scores,
                        .line = scores_stride(shape),
                        .stride = stride,
                        .hits = (hit_lanes *)(void *)hits,
                        .seen = (uint8_t *)hits + room_hits()};
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

static void select_tile(row_group *group, const lsp_tile_shape *shape, const lsp_score_rule *rule,
                        const lsp_key_tile *tile, int number, const lsp_query_rows *rows,
                        const lsp_candidates *candidates, const score_room *room)
{
    /* No output: rows of no width, wherever they are said to be. */
    lsp_tile_shape narrow = *shape;
    lsp_query_rows states = *rows;
    narrow.d_v = 0;
    states.out = states.max;
    int64_t index[ROW_TILE];
    tile_ahead ahead = tile_ahead_start(shape, tile, rows->rows);
    for (int64_t row = 0; row < rows->rows; row++) {
        int before = group->rows;
        row_group_add(group, &narrow, tile, rule, &states, row);
        if (group->rows > before) {
            index[before] = row;
            group->p[before] = room->scores + row * room->stride + number * shape->tile_keys;
            group->limit[before] = ((const real *)candidates->least)[row];
        }
        if (group->rows < ROW_TILE) continue;
        tile_ahead_prefetch(&ahead);
        select_advance(group, index, shape, rule, tile, number, room);
    }
    if (group->rows) select_advance(group, index, shape, rule, tile, number, room);
}

/* ---- candidates -------------------------------------------------------------------------------- */

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
        at = add_hits(&row, at, scores + i, key + (int32_t)i, vec_greater(vec_load(scores + i), limit));
    }
    *row.count = at;
}

/* The same of a tile whose hits are known, and for all of which there is room. */
static void add_tile(const candidate_row *to, const real *scores, int32_t key, const hit_lanes *hits)
{
    candidate_row row = *to;
    int32_t at = *row.count;
    enum { PART = 64 / sizeof(hit_lanes) }; /* of 64 bytes */
    for (int part = 0; part < HITS_OF_TILE; part += PART) {
#ifdef VEC_HAS_COMPRESS
        uint64_t vectors = bits_of_hits(hits + part);
#else
        uint64_t vectors = 0;
        for (int i = 0; i < PART; i++) vectors |= (uint64_t)(hits[part + i] != 0) << i;
#endif
        for (; vectors; vectors &= vectors - 1) {
            int i = part + __builtin_ctzll(vectors);
            at = add_hits(&row, at, scores + i * LANES, key + i * LANES, hits[i]);
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

/* Row `row` takes what it saw of the tiles, which are one after the other. */
static void take_row(const lsp_tile_shape *shape, const lsp_key_tile *tiles, const lsp_candidates *c,
                     int64_t row, const score_room *room)
{
    candidate_row to = candidates_of(c, row);
    uint32_t seen = room->seen[row];
    if (!seen) return;
    int first = __builtin_ctz(seen), end = 32 - __builtin_clz(seen);
    const real *scores = room->scores + row * room->stride;
    int32_t hits = count_hits(room_hits_of(room, row, first), (int64_t)(end - first) * HITS_OF_TILE);
    if (!hits) return;
    const real *begin = scores + first * shape->tile_keys;
    int64_t count = (end - first) * shape->tile_keys;
    bool fits = *to.count + hits + 2 * LANES <= c->stride;
    if (!fits && *to.count == 0) open_limit(&to, c, begin, count);
    if (!fits && *to.count > 0) raise_limit(&to, c, begin, count, hits);
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
    for (int t = 0; t < count; t++) select_tile(&group, shape, rule, &tiles[t], t, rows, candidates, &room);
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
    bool ruled = rule->softcap != 0 || rule->slope != 0;
    vec factor = vec_set(ruled ? (real)1 : score_factor(rule));
    for (int64_t r = 0; r < rows; r++) {
        candidate_row row = candidates_of(c, r);
        if (*row.count > c->most) sort_out(&row, c->most, 0);
        real top = ((const real *)max)[r], total = ((const real *)sum)[r];
        vec base = vec_set(top == -(real)INFINITY ? (real)0 : -top);
        for (int32_t i = 0; i < *row.count; i += LANES)
            vec_store(row.scores + i,
                      vec_exp2(false, vec_fma(vec_load(row.scores + i), factor, base), vec_zero()));
        double own = sum_of(row.scores, *row.count);
        vec divisor = vec_set(renormalize && total == total ? (real)own : total);
        for (int32_t i = 0; i < *row.count; i += LANES)
            vec_store(row.scores + i, vec_div(vec_load(row.scores + i), divisor));
        kept[r] = own / (double)total;
    }
}

#endif
