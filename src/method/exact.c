/* Exact attention: every panel of keys meets this rank's rows, in the panels' global order.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "base/checked.h"
#include "base/clock.h"
#include "method/method.h"
#include "method/walk.h"

#include <math.h>
#include <string.h>

/* One execution. */
typedef struct pass {
    lsp_attention *plan;
    const void *q;
    char *out;
    void *lse;
    int64_t empty_rows;
} pass;

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

static void pack(void *user, const lsp_walk_panel *panel, int64_t tile)
{
    const pass *p = user;
    lsp_walk_pack_k(p->plan, panel, tile);
    lsp_walk_pack_v(p->plan, panel, tile);
}

static void compute(void *user, const lsp_walk_chunk *chunk)
{
    const pass *p = user;
    lsp_attention *plan = p->plan;
    int64_t rows = chunk->rows, fold_keys = LSP_FOLD_TILES * plan->shape.tile_keys;
    lsp_walk_pack_queries(chunk, plan, p->q);
    lsp_row_state total = total_at(p, chunk->row), recent = recent_at(p, chunk->row);
    lsp_query_rows state = {rows,       chunk->room->q, chunk->room->norm, chunk->room->sight,
                            recent.out, recent.max,     recent.sum};
    lsp_score_rule rule = lsp_walk_rule(plan, chunk->matrix->head);
    for (int64_t t = chunk->tile_begin; t < chunk->tile_end; t++) {
        lsp_tile_place place;
        if (!lsp_walk_sees(chunk, plan, t, &place)) continue;
        if (plan->recent.out && place.first % fold_keys == 0)
            plan->kernel->fold(plan->problem.desc.d_v, rows, &recent, &total);
        lsp_key_tile tile = lsp_walk_tile(chunk, plan, t, place.first, true);
        plan->kernel->attend(&plan->shape, &rule, &tile, &state, chunk->room->scratch);
        if (chunk->main_thread) lsp_gather_progress(plan->gather);
    }
}

/* ---- the whole --------------------------------------------------------------------------------- */

lsp_status lsp_exact_execute(lsp_attention *plan, const lsp_method_arrays *arrays, lsp_attention_stats *stats)
{
    double begin = lsp_clock();
    pass p = {.plan = plan, .q = arrays->q, .out = arrays->out, .lse = arrays->lse};
    lsp_walk walk = {.plan = plan,
                     .gather = plan->gather,
                     .user = &p,
                     .pack = pack,
                     .compute = compute,
                     .progress_end = 1};
    reset_state(&p);
    lsp_status status = lsp_walk_run(&walk, arrays->k, arrays->v);
    if (status == LSP_OK) p.empty_rows = finish_rows(&p);
    double total = lsp_clock() - begin, waited = lsp_gather_seconds_waited(plan->gather);
    *stats = (lsp_attention_stats){.seconds_total = total,
                                   .seconds_compute = total - waited,
                                   .seconds_gather_exposed = waited,
                                   .bytes_received = lsp_gather_bytes_received(plan->gather),
                                   .pairs = walk.pairs,
                                   .empty_rows = p.empty_rows};
    return lsp_context_agree(plan->ctx, status);
}

const lsp_method_ops lsp_method_exact = {.name = "exact", .execute = lsp_exact_execute};
