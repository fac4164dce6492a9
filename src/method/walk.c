/* Panels and chunks of rows. SPDX-License-Identifier: BSD-3-Clause */
#include "method/walk.h"

#include "base/checked.h"
#include "method/chunk.h"
#include "method/sights.h"

#include <math.h>
#include <omp.h>

/* Chunks of the matrices that use a panel. */
typedef struct task_list {
    lsp_walk_panel panel;
    int64_t matrix_begin, chunks; /* chunks of each matrix */
    int64_t count;
} task_list;

static task_list list_tasks(const lsp_attention *plan, lsp_panel panel)
{
    task_list t = {.panel = {.panel = panel,
                             .tile_begin = plan->panel_tiles[panel.index],
                             .tile_end = plan->panel_tiles[panel.index + 1]}};
    int64_t unit_begin = lsp_partition_tile(&plan->partition, t.panel.tile_begin).unit;
    int64_t unit_end = lsp_partition_tile(&plan->partition, t.panel.tile_end - 1).unit + 1;
    t.matrix_begin = plan->unit_matrix[unit_begin];
    t.chunks = lsp_ceil_div(plan->rows, plan->chunk_rows);
    t.count = (plan->unit_matrix[unit_end] - t.matrix_begin) * t.chunks;
    return t;
}

/* ---- packing ----------------------------------------------------------------------------------- */

/* Rows of the panel before the tile's. */
static int64_t panel_row(const lsp_attention *plan, const lsp_walk_panel *panel, int64_t tile)
{
    return lsp_partition_tile_row(&plan->partition, tile) - plan->panels[panel->panel.index].first;
}

void lsp_walk_pack_k(lsp_attention *plan, const lsp_walk_panel *panel, int64_t tile)
{
    const lsp_attention_desc *d = &plan->problem.desc;
    lsp_tile_place place = lsp_partition_tile(&plan->partition, tile);
    size_t row_bytes = (size_t)d->d_k * lsp_dtype_size(d->k_type);
    const char *k = (const char *)panel->panel.k + (size_t)panel_row(plan, panel, tile) * row_bytes;
    int64_t index = tile - panel->tile_begin;
    double norm = plan->kernel->pack_k(&plan->shape, k, d->k_type, place.begin - place.first,
                                       place.end - place.begin, lsp_attention_packed_k(plan, index));
    /* Where keys lie with the rows a rank may hold a part of such a tile, and must not take another bound for it
     * than one that holds all. */
    plan->bounds[index].k_norm =
        lsp_mask_parts(&plan->problem.mask, place.first, place.first + plan->shape.tile_keys) ? INFINITY
                                                                                              : norm;
}

lsp_key_tile lsp_walk_tile(const lsp_walk_chunk *chunk, const lsp_attention *plan, int64_t tile,
                           int64_t first)
{
    int64_t index = tile - chunk->panel->tile_begin;
    lsp_key_tile t = {
        .k = lsp_attention_packed_k(plan, index), .first = first, .k_norm = plan->bounds[index].k_norm};
    if (tile + 1 < chunk->tile_end) t.next_k = lsp_attention_packed_k(plan, index + 1);
    return t;
}

void lsp_walk_pack_queries(const lsp_walk_chunk *chunk, const lsp_attention *plan, const void *q)
{
    const lsp_attention_desc *d = &plan->problem.desc;
    const char *from = (const char *)q + (size_t)(chunk->row * d->d_k) * lsp_dtype_size(d->q_type);
    plan->kernel->pack_queries(d->d_k, from, d->q_type, chunk->rows, d->scale * LSP_LOG2_E, chunk->room->q);
    plan->kernel->query_norms(d->d_k, chunk->rows, chunk->room->q, chunk->room->norm);
}

/* ---- chunks ------------------------------------------------------------------------------------ */

bool lsp_walk_sees(const lsp_walk_chunk *chunk, const lsp_attention *plan, int64_t tile,
                   lsp_tile_place *place)
{
    const lsp_sight *sight = chunk->room->sight;
    *place = lsp_partition_tile(&plan->partition, tile);
    /* Sights never go back: the chunk's ends tell whether any row sees the tile. */
    return sight[0].begin < place->end && sight[chunk->rows - 1].end > place->begin;
}

/* Rows of a chunk that have met the same keys, from those on. Returns the pairs met. */
static double run_rows(const lsp_walk *walk, lsp_walk_chunk chunk, int64_t begin)
{
    const lsp_attention *plan = walk->plan;
    const lsp_partition *partition = &plan->partition;
    int64_t batch = chunk.matrix->batch;
    while (chunk.tile_begin < chunk.tile_end &&
           lsp_partition_tile(partition, chunk.tile_begin).first < plan->met[chunk.row])
        chunk.tile_begin++;
    if (chunk.tile_begin == chunk.tile_end) return 0;
    chunk.low = lsp_partition_tile(partition, chunk.tile_begin).begin;
    chunk.high = lsp_partition_tile(partition, chunk.tile_end - 1).end;
    if (!lsp_attention_may_see(plan, batch, begin, chunk.rows, chunk.low, chunk.high)) return 0;
    double pairs =
        lsp_attention_look(plan, batch, begin, chunk.rows, chunk.low, chunk.high, chunk.room->sight);
    walk->compute(walk->user, &chunk);
    for (int64_t r = chunk.row; r < chunk.row + chunk.rows; r++) plan->met[r] = chunk.high;
    return pairs;
}

/* Returns the pairs met. */
static double run_task(const lsp_walk *walk, const task_list *tasks, int64_t task, lsp_thread_room *room,
                       bool main_thread)
{
    const lsp_attention *plan = walk->plan;
    const lsp_chunk_task rows = lsp_chunk_task_at(plan, tasks->count, task);
    const lsp_query_matrix *matrix = &plan->matrices[tasks->matrix_begin + rows.chunk / tasks->chunks];
    int64_t begin = rows.begin, end = rows.end;
    lsp_walk_chunk chunk = {.panel = &tasks->panel,
                            .matrix = matrix,
                            .tile_begin = tasks->panel.tile_begin,
                            .tile_end = tasks->panel.tile_end,
                            .room = room,
                            .main_thread = main_thread};
    lsp_partition_clip(&plan->partition, matrix->unit, &chunk.tile_begin, &chunk.tile_end);
    double pairs = 0;
    for (; begin < end; begin += chunk.rows) {
        chunk.row = matrix->first + begin;
        chunk.rows = lsp_attention_alike(plan, chunk.row, matrix->first + end);
        pairs += run_rows(walk, chunk, begin);
    }
    return pairs;
}

static void run_panel(lsp_walk *walk, const task_list *tasks)
{
    lsp_attention *plan = walk->plan;
    double done = 0, share = walk->progress_end - walk->progress_begin;
#pragma omp parallel num_threads(plan->ctx->layout.threads)
    {
        uint64_t mode = lsp_fpmode_enter();
        int thread = omp_get_thread_num();
#pragma omp for schedule(dynamic, 1)
        for (int64_t t = tasks->panel.tile_begin; t < tasks->panel.tile_end; t++)
            if (walk->pack) walk->pack(walk->user, &tasks->panel, t);
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < lsp_chunk_tasks(plan, tasks->count); task++) {
            if (lsp_pause_halted(plan)) continue;
            double pairs = run_task(walk, tasks, task, &plan->rooms[thread], thread == 0);
#pragma omp atomic
            done += pairs;
            if (thread == 0 && pairs > 0) lsp_pause_poll(plan); /* else ranks might rest for ever */
            if (thread == 0 && plan->progress && plan->pairs > 0) {
                double now;
#pragma omp atomic read
                now = done;
                plan->progress(plan->progress_user,
                               walk->progress_begin +
                                   share * (walk->met_pairs + walk->pairs + now) / plan->pairs);
            }
        }
        lsp_fpmode_leave(mode);
    }
    walk->pairs += done;
}

/* Rests in the middle of the panel where all ranks are to. */
static lsp_status pass_panel(lsp_walk *walk, lsp_panel panel)
{
    lsp_attention *plan = walk->plan;
    task_list tasks = list_tasks(plan, panel);
    if (lsp_attention_has_met(plan, tasks.panel.tile_begin, tasks.panel.tile_end)) return LSP_OK;
    lsp_status status = LSP_OK;
    for (bool halted = true; halted && status == LSP_OK;) {
        run_panel(walk, &tasks);
        halted = lsp_pause_halted(plan);
        status = lsp_pause_rest(plan);
    }
    return status;
}

lsp_status lsp_walk_run(lsp_walk *walk, const void *k, const void *v)
{
    lsp_panel panel;
    walk->pairs = 0;
    lsp_status status = lsp_gather_start(walk->gather, k, v);
    lsp_gather_set_wait(walk->gather, lsp_pause_wait, walk->plan);
    while (status == LSP_OK && lsp_gather_next(walk->gather, &panel, &status)) {
        status = pass_panel(walk, panel);
        if (status == LSP_OK) lsp_gather_release(walk->gather);
    }
    if (status == LSP_OK) status = lsp_gather_finish(walk->gather);
    return lsp_pause_meet(walk->plan, walk->gather, status);
}
