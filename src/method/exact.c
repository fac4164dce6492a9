/* Exact attention: every panel of keys meets this rank's rows, in the panels' global order.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "base/checked.h"
#include "base/clock.h"
#include "method/chunk.h"
#include "method/method.h"
#include "method/sights.h"

#include <math.h>
#include <omp.h>
#include <string.h>

/* The panel that is being computed: tiles [tile_begin, tile_end) of the group, matrices that use them. */
typedef struct panel_work {
    lsp_panel panel;
    int64_t tile_begin, tile_end;
    int64_t unit_begin, unit_end;
    int64_t matrix_begin, chunks; /* chunks of each matrix, or of each unit */
    int64_t chunk_count;          /* of all */
} panel_work;

/* ---- one panel --------------------------------------------------------------------------------- */

static panel_work describe_panel(const lsp_attention *plan, lsp_panel panel, int64_t tile_begin,
                                 int64_t tile_end)
{
    panel_work w = {.panel = panel, .tile_begin = tile_begin, .tile_end = tile_end};
    w.unit_begin = lsp_partition_tile(&plan->partition, w.tile_begin).unit;
    w.unit_end = lsp_partition_tile(&plan->partition, w.tile_end - 1).unit + 1;
    w.matrix_begin = plan->unit_matrix[w.unit_begin];
    w.chunks = lsp_ceil_div(plan->rows, plan->chunk_rows);
    w.chunk_count = w.chunks * (plan->unit_tasks ? w.unit_end - w.unit_begin
                                                 : plan->unit_matrix[w.unit_end] - w.matrix_begin);
    return w;
}

/* A key tile as it stands in the panel: present keys from `offset` on. */
typedef struct stored_tile {
    int64_t first, offset, count;
    const char *k, *v;
} stored_tile;

static stored_tile tile_in_panel(const lsp_attention *plan, const panel_work *w, int64_t tile)
{
    const lsp_attention_desc *d = &plan->problem.desc;
    lsp_tile_place place = lsp_partition_tile(&plan->partition, tile);
    int64_t row = lsp_partition_tile_row(&plan->partition, tile) - plan->panels[w->panel.index].first;
    return (stored_tile){place.first, place.begin - place.first, place.end - place.begin,
                         (const char *)w->panel.k + (size_t)(row * d->d_k) * lsp_dtype_size(d->k_type),
                         (const char *)w->panel.v + (size_t)(row * d->d_v) * lsp_dtype_size(d->v_type)};
}

/* V stays where it is if it stands there as it would be packed, or if it is bf16 that few rows of several matrices meet. */
static void pack_values(const lsp_attention *plan, const stored_tile *from, void *packed,
                        lsp_tile_bounds *bounds)
{
    const lsp_kernel *kernel = plan->kernel;
    const lsp_tile_shape *shape = &plan->shape;
    const lsp_dtype type = plan->problem.desc.v_type;
    const bool leave = lsp_kernel_leaves_v(kernel, shape, from->v, type, from->offset, from->count),
               few = lsp_partition_few_rows(&plan->partition, plan->group_rank);
    bool stored = few && lsp_kernel_reads_v(kernel, shape, type, from->offset, from->count);
    if (leave || stored) bounds->v_max = kernel->pack_v(shape, from->v, type, 0, from->count, NULL);
    stored = stored && bounds->v_max < INFINITY;
    if (!leave && !stored)
        bounds->v_max = kernel->pack_v(shape, from->v, type, from->offset, from->count, packed);
    bounds->v = leave || stored ? from->v : packed;
    bounds->v_brain = stored;
}

/* Where keys lie with the rows a rank may hold a part of a tile, and must not take another bound for it than one that holds
 * all. */
static bool tile_has_bounds(const lsp_attention *plan, const stored_tile *from)
{
    return !lsp_mask_parts(&plan->problem.mask, from->first, from->first + plan->shape.tile_keys);
}

/* Packs a tile of the panel as the index-th of plan->packed_k and packed_v. */
static void pack_tile(lsp_attention *plan, const stored_tile *from, int64_t index)
{
    const lsp_attention_desc *d = &plan->problem.desc;
    lsp_tile_bounds *bounds = &plan->bounds[index];
    bounds->k_norm = plan->kernel->pack_k(&plan->shape, from->k, d->k_type, from->offset, from->count,
                                          lsp_attention_packed_k(plan, index));
    pack_values(plan, from, lsp_attention_packed_v(plan, index), bounds);
    if (!tile_has_bounds(plan, from)) plan->bounds[index].k_norm = INFINITY;
}

static lsp_key_tile packed_tile(const lsp_attention *plan, int64_t first, int64_t index)
{
    const lsp_tile_bounds *bounds = &plan->bounds[index];
    return (lsp_key_tile){.k = lsp_attention_packed_k(plan, index),
                          .v = bounds->v,
                          .v_brain = bounds->v_brain,
                          .first = first,
                          .k_norm = bounds->k_norm,
                          .v_max = bounds->v_max};
}

/* Left to the kernel to pack, a strip at a time: for rows of one register tile that alone meet it. */
static lsp_key_tile stored_one(const lsp_attention *plan, const stored_tile *from)
{
    const lsp_attention_desc *d = &plan->problem.desc;
    const bool bounded = tile_has_bounds(plan, from);
    return (lsp_key_tile){.first = from->first,
                          .k_norm = bounded ? 0 : INFINITY,
                          .stored_k = {from->k, d->k_type, from->offset, from->count},
                          .stored_v = {from->v, d->v_type, from->offset, from->count}};
}

/* A tile in one of the thread's places, packed unless it still stands there, or as it is `stored`; the one after it is asked
 * for as it stands in the panel. */
static lsp_key_tile unit_tile(lsp_attention *plan, const panel_work *w, int64_t tile, bool stored, int thread)
{
    int64_t index = thread * plan->room_tiles + tile % plan->room_tiles;
    stored_tile from = tile_in_panel(plan, w, tile);
    if (stored) return stored_one(plan, &from);
    if (plan->held[index] != tile) pack_tile(plan, &from, index);
    plan->held[index] = tile;
    lsp_key_tile packed = packed_tile(plan, from.first, index);
    if (tile + 1 < w->tile_end) {
        stored_tile next = tile_in_panel(plan, w, tile + 1);
        packed.next_k = next.k, packed.next_v = next.v;
    }
    return packed;
}

/* What a task computed: pairs, and rows that have ended without a key. */
typedef struct task_done {
    double pairs;
    int64_t empty_rows;
} task_done;

/* The panel's tiles of a unit, and their keys. */
typedef struct tile_range {
    int64_t begin, end, key_begin, key_end;
} tile_range;

static tile_range tiles_of_unit(const lsp_attention *plan, const panel_work *w, int64_t unit)
{
    tile_range t = {.begin = w->tile_begin, .end = w->tile_end};
    lsp_partition_clip(&plan->partition, unit, &t.begin, &t.end);
    t.key_begin = lsp_partition_tile(&plan->partition, t.begin).begin;
    t.key_end = lsp_partition_tile(&plan->partition, t.end - 1).end;
    return t;
}

/* Whether no key after the panel's tiles of a unit is seen by the chunk. */
static bool has_met_all(const lsp_attention *plan, const tile_range *tiles, const lsp_chunk *c)
{
    return tiles->key_end == plan->problem.desc.key_end || c->state.sight[c->rows - 1].end <= tiles->key_end;
}

static int64_t leave(const lsp_pass *p, const tile_range *tiles, const lsp_chunk *c)
{
    if (has_met_all(p->plan, tiles, c)) return lsp_chunk_close(p, c);
    lsp_chunk_meet(p->plan, c, tiles->key_end);
    return 0;
}

/* Whether the chunk sees no tile after tile t. */
static bool is_last(const lsp_attention *plan, const lsp_chunk *c, const tile_range *tiles, int64_t t)
{
    if (t + 1 == tiles->end) return true;
    lsp_tile_place place = lsp_partition_tile(&plan->partition, t + 1);
    return !lsp_chunk_sees(c, &place);
}

/* The tile after tile t: the next that the chunk sees, or the first one, where the next chunk probably begins. */
static int64_t tile_after(const lsp_attention *plan, const lsp_chunk *c, const tile_range *tiles, int64_t t)
{
    if (!is_last(plan, c, tiles, t)) return t + 1;
    return c->state.sight[c->rows - 1].begin <= tiles->key_begin ? tiles->begin : t;
}

/* Rows of one matrix that have met the same keys against the panel's tiles of its unit. */
static task_done run_rows(const lsp_pass *p, const panel_work *w, int64_t index, int64_t begin, int64_t rows,
                          int thread)
{
    lsp_attention *plan = p->plan;
    lsp_thread_room *room = &plan->rooms[thread];
    const lsp_query_matrix *matrix = &plan->matrices[index];
    tile_range tiles = tiles_of_unit(plan, w, matrix->unit);
    task_done done = {0, 0};
    if (plan->met[matrix->first + begin] >= tiles.key_end ||
        !lsp_attention_may_see(plan, matrix->batch, begin, rows, tiles.key_begin, tiles.key_end))
        return done;
    lsp_chunk c;
    done.pairs = lsp_chunk_open(p, index, begin, rows, tiles.key_begin, tiles.key_end, room, 0, &c);
    for (int64_t t = tiles.begin; t < tiles.end; t++) {
        lsp_tile_place place = lsp_partition_tile(&plan->partition, t);
        if (!lsp_chunk_sees(&c, &place)) continue;
        int64_t next = tile_after(plan, &c, &tiles, t);
        lsp_key_tile tile = packed_tile(plan, place.first, t - w->tile_begin);
        if (next != t)
            tile.next_k = lsp_attention_packed_k(plan, next - w->tile_begin),
            tile.next_v = plan->bounds[next - w->tile_begin].v;
        lsp_chunk_attend(plan, &c, &tile, room);
        if (thread == 0) lsp_gather_progress(plan->gather);
    }
    done.empty_rows = leave(p, &tiles, &c);
    return done;
}

/* The queries that the thread probably packs after those of rows [begin, begin + rows) of a unit's first matrix. */
static void ask_queries(const lsp_pass *p, const panel_work *w, int64_t unit, int64_t begin, int64_t rows,
                        lsp_key_tile *tile)
{
    const lsp_attention *plan = p->plan;
    const lsp_attention_desc *d = &plan->problem.desc;
    int64_t row = begin + rows;
    if (row >= plan->rows) row = 0, unit++;
    if (unit >= w->unit_end) return;
    size_t bytes = (size_t)d->d_k * lsp_dtype_size(d->q_type);
    tile->next_q = p->q + (size_t)(plan->matrices[plan->unit_matrix[unit]].first + row) * bytes;
    tile->next_q_bytes = lsp_min(rows, plan->rows - row) * (int64_t)bytes;
}

/* The same of all matrices of a unit, its tiles packed one by one. */
static task_done run_unit_rows(const lsp_pass *p, const panel_work *w, int64_t unit, int64_t begin,
                               int64_t rows, int thread)
{
    lsp_attention *plan = p->plan;
    lsp_thread_room *room = &plan->rooms[thread];
    tile_range tiles = tiles_of_unit(plan, w, unit);
    int64_t first = plan->unit_matrix[unit], matrices = plan->unit_matrix[unit + 1] - first,
            least = LSP_ROW_FINAL;
    lsp_chunk chunks[LSP_UNIT_HEADS];
    task_done done = {0, 0};
    for (int64_t i = first; i < first + matrices; i++)
        least = lsp_min(least, plan->met[plan->matrices[i].first + begin]);
    if (least >= tiles.key_end || !lsp_attention_may_see(plan, plan->matrices[first].batch, begin, rows,
                                                         tiles.key_begin, tiles.key_end))
        return done;
    const bool stored = matrices == 1 && rows <= plan->kernel->row_tile &&
                        lsp_partition_few_rows(&plan->partition, plan->group_rank);
    for (int64_t i = 0; i < matrices; i++)
        done.pairs += lsp_chunk_open(p, first + i, begin, rows, tiles.key_begin, tiles.key_end, room,
                                     i * rows, &chunks[i]);
    for (int64_t t = tiles.begin; t < tiles.end; t++) {
        /* The matrices of a unit have the same rows, and so the same sights. */
        lsp_tile_place place = lsp_partition_tile(&plan->partition, t);
        if (place.first < least || !lsp_chunk_sees(&chunks[0], &place)) continue;
        lsp_key_tile tile = unit_tile(plan, w, t, stored, thread);
        if (is_last(plan, &chunks[0], &tiles, t)) ask_queries(p, w, unit, begin, rows, &tile);
        for (int64_t i = 0; i < matrices; i++) lsp_chunk_attend(plan, &chunks[i], &tile, room);
        if (thread == 0) lsp_gather_progress(plan->gather);
    }
    for (int64_t i = 0; i < matrices; i++)
        if (chunks[i].met < tiles.key_end) done.empty_rows += leave(p, &tiles, &chunks[i]);
    return done;
}

/* A chunk of rows of one matrix or, in unit tasks, of all matrices of a unit. Its rows have met the same keys, unless
 * they come from a saved state. */
static task_done run_task(const lsp_pass *p, const panel_work *w, int64_t task, int thread)
{
    const lsp_attention *plan = p->plan;
    const lsp_chunk_task of = lsp_chunk_task_at(plan, w->chunk_count, task);
    bool unit_tasks = plan->unit_tasks;
    int64_t unit = w->unit_begin + of.chunk / w->chunks, begin = of.begin, end = of.end;
    int64_t first = unit_tasks ? plan->unit_matrix[unit] : w->matrix_begin + of.chunk / w->chunks;
    int64_t matrices = unit_tasks ? plan->unit_matrix[unit + 1] - first : 1;
    task_done all = {0, 0};
    for (int64_t rows; matrices > 0 && begin < end; begin += rows) {
        rows = lsp_chunk_alike(plan, first, matrices, begin, end);
        task_done some = unit_tasks ? run_unit_rows(p, w, unit, begin, rows, thread)
                                    : run_rows(p, w, first, begin, rows, thread);
        all.pairs += some.pairs;
        all.empty_rows += some.empty_rows;
    }
    return all;
}

/* Every task that is not done yet, until all ranks are to rest. */
static void compute_tiles(lsp_pass *p, const panel_work *w)
{
    lsp_attention *plan = p->plan;
    double done = 0;
#pragma omp parallel num_threads(plan->ctx->layout.threads)
    {
        uint64_t mode = lsp_fpmode_enter();
        int thread = omp_get_thread_num();
        if (!plan->unit_tasks) {
#pragma omp for schedule(dynamic, 1)
            for (int64_t t = w->tile_begin; t < w->tile_end; t++) {
                stored_tile from = tile_in_panel(plan, w, t);
                pack_tile(plan, &from, t - w->tile_begin);
            }
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < lsp_chunk_tasks(plan, w->chunk_count); task++) {
            if (lsp_pause_halted(plan)) continue;
            task_done result = run_task(p, w, task, thread);
#pragma omp atomic
            p->empty_rows += result.empty_rows;
#pragma omp atomic
            done += result.pairs;
            /* Not after what was met before: ranks that rest whenever they are asked would never get on. */
            if (thread == 0 && result.pairs > 0) lsp_pause_poll(plan);
            if (thread == 0 && plan->progress && plan->pairs > 0) {
                double now;
#pragma omp atomic read
                now = done;
                plan->progress(plan->progress_user, (plan->met_pairs + p->pairs_done + now) / plan->pairs);
            }
        }
        lsp_fpmode_leave(mode);
    }
    p->pairs_done += done;
}

/* Where rows see a block of keys alone, packing is a good part of the work: a thread by itself takes as many tiles at a
 * time as stay in a second-level cache until they are used. */
static int64_t tiles_together(const lsp_attention *plan)
{
    enum { NEAR_TILES = 1 << 20 };
    const lsp_tile_shape *s = &plan->shape;
    int64_t tile = s->tile_keys * (s->k_depth + s->v_stride) * plan->kernel->packed_bytes;
    if (plan->problem.mask.block_size <= 0 || plan->unit_tasks || plan->ctx->layout.threads > 1)
        return INT64_MAX;
    return lsp_max(1, NEAR_TILES / tile);
}

/* Tiles of a panel; rests in the middle where all ranks are to. */
static lsp_status pass_tiles(lsp_pass *p, const panel_work *w)
{
    lsp_attention *plan = p->plan;
    lsp_status status = LSP_OK;
    for (bool halted = true; halted && status == LSP_OK;) {
        compute_tiles(p, w);
        halted = lsp_pause_halted(plan);
        status = lsp_pause_rest(plan);
    }
    return status;
}

static lsp_status pass_panel(lsp_pass *p, lsp_panel panel)
{
    lsp_attention *plan = p->plan;
    int64_t begin = plan->panel_tiles[panel.index], end = plan->panel_tiles[panel.index + 1];
    if (lsp_attention_has_met(plan, begin, end)) return LSP_OK;
    lsp_status status = LSP_OK;
    int64_t step = lsp_min(tiles_together(plan), end - begin);
    for (int64_t t = begin; t < end && status == LSP_OK; t += step) {
        panel_work w = describe_panel(plan, panel, t, lsp_min(t + step, end));
        status = pass_tiles(p, &w);
    }
    return status;
}

/* ---- the whole --------------------------------------------------------------------------------- */

lsp_status lsp_exact_execute(lsp_attention *plan, const lsp_method_arrays *arrays, lsp_attention_stats *stats)
{
    double begin = lsp_clock();
    lsp_pass p = {
        .plan = plan, .q = arrays->q, .lse = arrays->lse, .factor = plan->problem.desc.scale * LSP_LOG2_E};
    lsp_panel panel;
    lsp_status status = lsp_gather_start(plan->gather, arrays->k, arrays->v);
    lsp_gather_set_wait(plan->gather, lsp_pause_wait, plan);
    lsp_chunk_begin(&p);
    while (status == LSP_OK && lsp_gather_next(plan->gather, &panel, &status)) {
        status = pass_panel(&p, panel);
        if (status == LSP_OK) lsp_gather_release(plan->gather);
    }
    if (status == LSP_OK) p.empty_rows += lsp_chunk_close_rest(&p);
    if (status == LSP_OK) status = lsp_gather_finish(plan->gather);
    const lsp_pausing *rested = &plan->pausing;
    double total = lsp_clock() - begin, waited = lsp_gather_seconds_waited(plan->gather) - rested->waited;
    *stats = (lsp_attention_stats){.seconds_total = total,
                                   .seconds_compute = total - waited - rested->seconds,
                                   .seconds_gather_exposed = waited,
                                   .bytes_received = lsp_gather_bytes_received(plan->gather),
                                   .pairs = p.pairs_done,
                                   .empty_rows = p.empty_rows};
    return lsp_context_agree(plan->ctx, lsp_pause_meet(plan, plan->gather, status));
}

int lsp_exact_state(lsp_attention *plan, lsp_state_rows *arrays)
{
    lsp_dtype type = lsp_dtype_result(plan->problem.desc.compute);
    int64_t d_v = plan->problem.desc.d_v;
    lsp_chunk_settle(plan);
    const lsp_state_rows all[] = {{"/met", LSP_I64, 1, plan->met},
                                  {"/out", type, d_v, plan->out},
                                  {"/max", type, 1, plan->max},
                                  {"/sum", type, 1, plan->sum},
                                  {"/recent_out", type, d_v, plan->recent.out},
                                  {"/recent_max", type, 1, plan->recent.max},
                                  {"/recent_sum", type, 1, plan->recent.sum}};
    int count = plan->recent.out ? 7 : 4;
    memcpy(arrays, all, (size_t)count * sizeof *arrays);
    return count;
}

const lsp_method_ops lsp_method_exact = {
    .name = "exact", .state = lsp_exact_state, .execute = lsp_exact_execute};
