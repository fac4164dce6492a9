/* First pass of the method topk: over K, for maxima, sums and candidates of every row.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "method/topk.h"

#include "base/checked.h"
#include "method/sights.h"

static void *at(const lsp_attention *plan, const void *values, int64_t index)
{
    size_t element = lsp_dtype_size(lsp_dtype_result(plan->problem.desc.compute));
    return (char *)(uintptr_t)values + (size_t)index * element;
}

lsp_row_state lsp_topk_totals(const lsp_topk_pass *p, int64_t row)
{
    return (lsp_row_state){NULL, at(p->plan, p->plan->max, row), at(p->plan, p->plan->sum, row)};
}

lsp_row_state lsp_topk_recent(const lsp_topk_pass *p, int64_t row)
{
    return (lsp_row_state){NULL, at(p->plan, p->topk->recent.max, row),
                           at(p->plan, p->topk->recent.sum, row)};
}

lsp_candidates lsp_topk_candidates(const lsp_topk_pass *p, int64_t row)
{
    lsp_candidates c = p->topk->candidates;
    c.scores = at(p->plan, c.scores, row * c.stride);
    c.keys += row * c.stride;
    c.counts += row;
    c.least = at(p->plan, c.least, row);
    return c;
}

void lsp_topk_pack(void *user, const lsp_walk_panel *panel, int64_t tile)
{
    lsp_walk_pack_k(((const lsp_topk_pass *)user)->plan, panel, tile);
}

/* Some rows of a chunk, which meet some tiles together. Folds as the exact method does, so that lse has the same bits. */
typedef struct near_rows {
    int64_t rows;
    lsp_query_rows state;
    lsp_row_state total, recent;
    lsp_candidates candidates;
    lsp_score_rule rule;
    bool first; /* of the chunk: they ask for the tiles to come, the others find them in a near cache */
} near_rows;

static near_rows take_rows(const lsp_topk_pass *p, const lsp_walk_chunk *chunk, int64_t begin)
{
    const lsp_attention *plan = p->plan;
    const lsp_thread_room *room = chunk->room;
    int64_t row = chunk->row + begin;
    near_rows near = {.rows = lsp_min(LSP_SELECT_ROWS, chunk->rows - begin), .first = begin == 0};
    near.total = lsp_topk_totals(p, row), near.recent = lsp_topk_recent(p, row);
    lsp_row_state now = lsp_attention_folds(&plan->problem, plan->shape.tile_keys) ? near.recent : near.total;
    const char *q = room->q;
    q += (size_t)(begin * plan->shape.k_depth) * (size_t)plan->kernel->packed_bytes;
    near.state =
        (lsp_query_rows){near.rows, q, room->norm + begin, room->sight + begin, NULL, now.max, now.sum};
    near.candidates = lsp_topk_candidates(p, row);
    near.rule = lsp_attention_rule(&plan->problem.desc, chunk->matrix->head);
    return near;
}

/* Some tiles from `tile` on, not beyond `tile_end` nor where sums are folded; returns the tile after. */
static int64_t choose_some(const lsp_topk_pass *p, const lsp_walk_chunk *chunk, const near_rows *near,
                           int64_t tile, int64_t tile_end)
{
    const lsp_attention *plan = p->plan;
    const int64_t fold_keys = LSP_FOLD_TILES * plan->shape.tile_keys;
    const bool folds = lsp_attention_folds(&plan->problem, plan->shape.tile_keys);
    lsp_key_tile tiles[LSP_SELECT_TILES];
    int count = 0;
    for (; tile < tile_end && count < LSP_SELECT_TILES; tile++) {
        lsp_tile_place place;
        if (!lsp_walk_sees(chunk, plan, tile, &place)) continue;
        if (folds && place.first % fold_keys == 0) {
            if (count > 0) break;
            plan->kernel->fold(0, near->rows, &near->recent, &near->total);
        }
        tiles[count] = lsp_walk_tile(chunk, plan, tile, place.first);
        if (!near->first) tiles[count].next_k = NULL;
        count++;
    }
    bool last = tile == chunk->tile_end && chunk->high == plan->problem.desc.key_end;
    if (count > 0)
        plan->kernel->select(&plan->shape, &near->rule, tiles, count, &near->state, &near->candidates, last,
                             chunk->room->scratch);
    if (chunk->main_thread) lsp_gather_progress(plan->gather);
    return tile;
}

/* Tiles that all rows of a chunk meet before the next ones: they stay in a second-level cache meanwhile. */
static int64_t near_tiles(const lsp_attention *plan)
{
    enum { NEAR_KEYS = 1 << 20 };
    int64_t tile = plan->shape.tile_keys * plan->shape.k_depth * plan->kernel->packed_bytes;
    return lsp_max(1, NEAR_KEYS / tile);
}

void lsp_topk_choose(void *user, const lsp_walk_chunk *chunk)
{
    const lsp_topk_pass *p = user;
    int64_t tiles = near_tiles(p->plan);
    lsp_walk_pack_queries(chunk, p->plan, p->arrays->q);
    for (int64_t begin = chunk->tile_begin, end; begin < chunk->tile_end; begin = end) {
        end = lsp_min(begin + tiles, chunk->tile_end);
        for (int64_t r = 0; r < chunk->rows; r += LSP_SELECT_ROWS) {
            near_rows near = take_rows(p, chunk, r);
            for (int64_t t = begin; t < end;) t = choose_some(p, chunk, &near, t, end);
        }
    }
}
