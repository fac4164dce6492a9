/* Exact attention: every panel of keys meets this rank's rows, in the panels' global order.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "base/checked.h"
#include "base/clock.h"
#include "base/memory.h"
#include "method/attention.h"
#include "method/method.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#define LOG2_E 1.4426950408889634074

/* One execution. */
typedef struct pass {
    lsp_attention *plan;
    const char *q;
    char *out;
    void *lse;
    double factor; /* of the queries: scale * log2 e */
    double pairs_done;
    int64_t empty_rows;
} pass;

/* The panel that is being computed: tiles [tile_begin, tile_end) of the group, matrices that use them. */
typedef struct panel_work {
    lsp_panel panel;
    int64_t tile_begin, tile_end;
    int64_t matrix_begin, chunks; /* tasks: chunks of each matrix */
    int64_t task_count;
} panel_work;

static size_t element_size(const lsp_attention *plan)
{
    return lsp_dtype_size(lsp_dtype_result(plan->problem.desc.compute));
}

/* ---- state ------------------------------------------------------------------------------------- */

static void fill_minus_infinity(lsp_dtype type, void *values, int64_t begin, int64_t end)
{
    if (type == LSP_F64)
        for (int64_t i = begin; i < end; i++) ((double *)values)[i] = -INFINITY;
    else
        for (int64_t i = begin; i < end; i++) ((float *)values)[i] = -INFINITY;
}

/* The rows' totals from local row `row` on, and what the kernel adds to. */
static lsp_row_state state_at(const lsp_row_state *state, int64_t row, int64_t d_v, size_t element)
{
    size_t at = (size_t)row * element;
    return (lsp_row_state){(char *)state->out + at * (size_t)d_v, (char *)state->max + at,
                           (char *)state->sum + at};
}

static lsp_row_state total_at(const pass *p, int64_t row)
{
    lsp_row_state whole = {p->out, p->plan->max, p->plan->sum};
    return state_at(&whole, row, p->plan->problem.desc.d_v, element_size(p->plan));
}

static lsp_row_state recent_at(const pass *p, int64_t row)
{
    if (!p->plan->recent.out) return total_at(p, row);
    return state_at(&p->plan->recent, row, p->plan->problem.desc.d_v, element_size(p->plan));
}

static void clear_state(const lsp_attention *plan, lsp_row_state state, int64_t rows)
{
    size_t element = element_size(plan);
    memset(state.out, 0, (size_t)(rows * plan->problem.desc.d_v) * element);
    memset(state.sum, 0, (size_t)rows * element);
    fill_minus_infinity(plan->problem.desc.compute, state.max, 0, rows);
}

static void reset_state(const pass *p)
{
    lsp_attention *plan = p->plan;
    int64_t chunks = lsp_ceil_div(plan->query_rows, plan->chunk_rows);
#pragma omp parallel for schedule(static) num_threads(plan->ctx->layout.threads)
    for (int64_t c = 0; c < chunks; c++) {
        int64_t begin = c * plan->chunk_rows, rows = lsp_min(plan->chunk_rows, plan->query_rows - begin);
        clear_state(plan, total_at(p, begin), rows);
        if (plan->recent.out) clear_state(plan, recent_at(p, begin), rows);
    }
}

static int64_t finish_rows(const pass *p)
{
    lsp_attention *plan = p->plan;
    const lsp_attention_desc *d = &plan->problem.desc;
    size_t element = element_size(plan);
    int64_t chunks = lsp_ceil_div(plan->query_rows, plan->chunk_rows), empty = 0;
#pragma omp parallel for schedule(static) num_threads(plan->ctx->layout.threads) reduction(+ : empty)
    for (int64_t c = 0; c < chunks; c++) {
        int64_t begin = c * plan->chunk_rows, rows = lsp_min(plan->chunk_rows, plan->query_rows - begin);
        lsp_row_state total = total_at(p, begin), recent = recent_at(p, begin);
        uint64_t mode = lsp_fpmode_enter();
        if (plan->recent.out) plan->kernel->fold(d->d_v, rows, &recent, &total);
        empty += plan->kernel->finish(d->d_v, rows, total.out, total.max, total.sum,
                                      p->lse ? (char *)p->lse + (size_t)begin * element : NULL);
        lsp_fpmode_leave(mode);
    }
    return empty;
}

/* ---- one panel --------------------------------------------------------------------------------- */

static panel_work describe_panel(const lsp_attention *plan, lsp_panel panel)
{
    panel_work w = {.panel = panel,
                    .tile_begin = plan->panel_tiles[panel.index],
                    .tile_end = plan->panel_tiles[panel.index + 1]};
    int64_t unit_begin = lsp_partition_tile(&plan->partition, w.tile_begin).unit;
    int64_t unit_end = lsp_partition_tile(&plan->partition, w.tile_end - 1).unit + 1;
    w.matrix_begin = plan->unit_matrix[unit_begin];
    w.chunks = lsp_ceil_div(plan->rows, plan->chunk_rows);
    w.task_count = (plan->unit_matrix[unit_end] - w.matrix_begin) * w.chunks;
    return w;
}

static void *packed_tile_k(const lsp_attention *plan, int64_t index)
{
    return (char *)plan->packed_k +
           (size_t)(index * plan->shape.tile_keys * plan->shape.k_depth) * (size_t)plan->kernel->packed_bytes;
}

static void *packed_tile_v(const lsp_attention *plan, int64_t index)
{
    return (char *)plan->packed_v + (size_t)(index * plan->shape.tile_keys * plan->shape.v_stride) *
                                        (size_t)plan->kernel->packed_bytes;
}

static void pack_tile(lsp_attention *plan, const panel_work *w, int64_t tile)
{
    const lsp_attention_desc *d = &plan->problem.desc;
    lsp_tile_place place = lsp_partition_tile(&plan->partition, tile);
    int64_t row = lsp_partition_tile_row(&plan->partition, tile) - plan->panels[w->panel.index].first;
    int64_t index = tile - w->tile_begin, offset = place.begin - place.first, count = place.end - place.begin;
    const char *k = (const char *)w->panel.k + (size_t)(row * d->d_k) * lsp_dtype_size(d->k_type);
    const char *v = (const char *)w->panel.v + (size_t)(row * d->d_v) * lsp_dtype_size(d->v_type);
    plan->bounds[index].k_norm =
        plan->kernel->pack_k(&plan->shape, k, d->k_type, offset, count, packed_tile_k(plan, index));
    plan->bounds[index].v_max =
        plan->kernel->pack_v(&plan->shape, v, d->v_type, offset, count, packed_tile_v(plan, index));
}

/* Fills the sights of local rows [begin, begin + rows); returns their pairs among keys [low, high). */
static double look(const lsp_attention *plan, int64_t batch, int64_t begin, int64_t rows, int64_t low,
                   int64_t high, lsp_sight *sight)
{
    int64_t range = 0, start = 0, pairs = 0;
    for (int64_t r = 0; r < rows; r++) {
        int64_t row = lsp_attention_global_row(plan, begin + r, &range, &start);
        sight[r] = lsp_mask_sight(&plan->problem.mask, batch, row);
        pairs += lsp_max(0, lsp_min(sight[r].end, high) - lsp_max(sight[r].begin, low));
    }
    return (double)pairs;
}

/* Whether any of local rows [begin, begin + rows) may see keys [low, high): sights never go back. */
static bool may_see(const lsp_attention *plan, int64_t batch, int64_t begin, int64_t rows, int64_t low,
                    int64_t high)
{
    int64_t range = 0, start = 0;
    int64_t first = lsp_attention_global_row(plan, begin, &range, &start);
    int64_t last = lsp_attention_global_row(plan, begin + rows - 1, &range, &start);
    return lsp_mask_sight(&plan->problem.mask, batch, first).begin < high &&
           lsp_mask_sight(&plan->problem.mask, batch, last).end > low;
}

static lsp_score_rule rule_of(const lsp_attention_desc *d, int64_t head)
{
    double slope = d->alibi_slopes ? d->alibi_slopes[head] : 0;
    return (lsp_score_rule){d->softcap * LOG2_E, slope * LOG2_E, d->scale * LOG2_E};
}

/* One chunk of rows of one matrix against the panel's tiles of its unit; returns the pairs computed. */
static double run_task(const pass *p, const panel_work *w, int64_t task, lsp_thread_room *room,
                       bool main_thread)
{
    lsp_attention *plan = p->plan;
    const lsp_attention_desc *d = &plan->problem.desc;
    const lsp_query_matrix *matrix = &plan->matrices[w->matrix_begin + task / w->chunks];
    int64_t begin = task % w->chunks * plan->chunk_rows, rows = lsp_min(plan->chunk_rows, plan->rows - begin);
    int64_t tile_begin = w->tile_begin, tile_end = w->tile_end;
    lsp_partition_clip(&plan->partition, matrix->unit, &tile_begin, &tile_end);
    int64_t low = lsp_partition_tile(&plan->partition, tile_begin).begin;
    int64_t high = lsp_partition_tile(&plan->partition, tile_end - 1).end;
    if (!may_see(plan, matrix->batch, begin, rows, low, high)) return 0;
    double pairs = look(plan, matrix->batch, begin, rows, low, high, room->sight);
    int64_t row = matrix->first + begin;
    plan->kernel->pack_queries(d->d_k, p->q + (size_t)(row * d->d_k) * lsp_dtype_size(d->q_type), d->q_type,
                               rows, p->factor, room->q);
    lsp_row_state total = total_at(p, row), recent = recent_at(p, row);
    plan->kernel->query_norms(d->d_k, rows, room->q, room->norm);
    lsp_query_rows state = {rows, room->q, room->norm, room->sight, recent.out, recent.max, recent.sum};
    lsp_score_rule rule = rule_of(d, matrix->head);
    for (int64_t t = tile_begin; t < tile_end; t++) {
        lsp_tile_place place = lsp_partition_tile(&plan->partition, t);
        int64_t first = place.first, index = t - w->tile_begin;
        /* Sights never go back: the chunk's ends tell whether any row sees the tile. */
        if (room->sight[0].begin >= place.end || room->sight[rows - 1].end <= place.begin) continue;
        if (plan->recent.out && first % (LSP_FOLD_TILES * plan->shape.tile_keys) == 0)
            plan->kernel->fold(d->d_v, rows, &recent, &total);
        lsp_key_tile tile = {packed_tile_k(plan, index),
                             packed_tile_v(plan, index),
                             first,
                             plan->bounds[index].k_norm,
                             plan->bounds[index].v_max,
                             NULL,
                             NULL};
        if (t + 1 < tile_end)
            tile.next_k = packed_tile_k(plan, index + 1), tile.next_v = packed_tile_v(plan, index + 1);
        plan->kernel->attend(&plan->shape, &rule, &tile, &state, room->scratch);
        if (main_thread) lsp_gather_progress(plan->gather);
    }
    return pairs;
}

static void compute_panel(pass *p, lsp_panel panel)
{
    lsp_attention *plan = p->plan;
    panel_work w = describe_panel(plan, panel);
    double done = 0;
#pragma omp parallel num_threads(plan->ctx->layout.threads)
    {
        uint64_t mode = lsp_fpmode_enter();
        int thread = omp_get_thread_num();
#pragma omp for schedule(dynamic, 1)
        for (int64_t t = w.tile_begin; t < w.tile_end; t++) pack_tile(plan, &w, t);
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < w.task_count; task++) {
            double pairs = run_task(p, &w, task, &plan->rooms[thread], thread == 0);
#pragma omp atomic
            done += pairs;
            if (thread == 0 && plan->progress && plan->pairs > 0) {
                double now;
#pragma omp atomic read
                now = done;
                plan->progress(plan->progress_user, (p->pairs_done + now) / plan->pairs);
            }
        }
        lsp_fpmode_leave(mode);
    }
    p->pairs_done += done;
}

/* ---- the whole --------------------------------------------------------------------------------- */

lsp_status lsp_exact_execute(lsp_attention *plan, const lsp_method_arrays *arrays, lsp_attention_stats *stats)
{
    double begin = lsp_clock();
    pass p = {.plan = plan,
              .q = arrays->q,
              .out = arrays->out,
              .lse = arrays->lse,
              .factor = plan->problem.desc.scale * LOG2_E};
    lsp_panel panel;
    lsp_status status = lsp_gather_start(plan->gather, arrays->k, arrays->v);
    reset_state(&p);
    while (status == LSP_OK && lsp_gather_next(plan->gather, &panel, &status)) {
        compute_panel(&p, panel);
        lsp_gather_release(plan->gather);
    }
    if (status == LSP_OK) p.empty_rows = finish_rows(&p);
    if (status == LSP_OK) status = lsp_gather_finish(plan->gather);
    double total = lsp_clock() - begin, waited = lsp_gather_seconds_waited(plan->gather);
    *stats = (lsp_attention_stats){.seconds_total = total,
                                   .seconds_compute = total - waited,
                                   .seconds_gather_exposed = waited,
                                   .bytes_received = lsp_gather_bytes_received(plan->gather),
                                   .pairs = p.pairs_done,
                                   .empty_rows = p.empty_rows};
    return lsp_context_agree(plan->ctx, status);
}

const lsp_method_ops lsp_method_exact = {.name = "exact", .execute = lsp_exact_execute};
