/* Chunks of query rows: state, queries, sights and the end. SPDX-License-Identifier: BSD-3-Clause */
#include "method/chunk.h"
#include "method/sights.h"

#include "base/checked.h"

#include <math.h>
#include <omp.h>
#include <string.h>

enum { UNTOUCHED = 0, OPEN = 1, CLOSED = 2 };

static size_t element_size(const lsp_attention *plan)
{
    return lsp_dtype_size(lsp_dtype_result(plan->problem.desc.compute));
}

static int64_t chunk_count(const lsp_attention *plan)
{
    return lsp_ceil_div(plan->rows, plan->chunk_rows);
}

static void fill_minus_infinity(lsp_dtype type, void *values, int64_t begin, int64_t end)
{
    if (type == LSP_F64)
        for (int64_t i = begin; i < end; i++) ((double *)values)[i] = -INFINITY;
    else
        for (int64_t i = begin; i < end; i++) ((float *)values)[i] = -INFINITY;
}

static lsp_row_state state_at(const lsp_row_state *state, int64_t row, int64_t d_v, size_t element)
{
    size_t at = (size_t)row * element;
    return (lsp_row_state){(char *)state->out + at * (size_t)d_v, (char *)state->max + at,
                           (char *)state->sum + at};
}

static void clear_state(const lsp_attention *plan, lsp_row_state state, int64_t rows)
{
    size_t element = element_size(plan);
    memset(state.out, 0, (size_t)(rows * plan->problem.desc.d_v) * element);
    memset(state.sum, 0, (size_t)rows * element);
    fill_minus_infinity(plan->problem.desc.compute, state.max, 0, rows);
}

/* The chunk's rows and state: the rows' totals, and what the kernel adds to. */
static lsp_chunk locate(const lsp_pass *p, int64_t matrix, int64_t part)
{
    lsp_attention *plan = p->plan;
    int64_t begin = part * plan->chunk_rows, d_v = plan->problem.desc.d_v;
    lsp_chunk c = {.index = matrix * chunk_count(plan) + part,
                   .row = plan->matrices[matrix].first + begin,
                   .rows = lsp_min(plan->chunk_rows, plan->rows - begin)};
    lsp_row_state whole = {p->out, plan->max, plan->sum};
    c.total = c.recent = state_at(&whole, c.row, d_v, element_size(plan));
    if (plan->recent.out) c.recent = state_at(&plan->recent, c.row, d_v, element_size(plan));
    return c;
}

static void start(const lsp_attention *plan, const lsp_chunk *c)
{
    if (plan->chunk_stage[c->index] != UNTOUCHED) return;
    clear_state(plan, c->total, c->rows);
    if (plan->recent.out) clear_state(plan, c->recent, c->rows);
    plan->chunk_stage[c->index] = OPEN;
}

void lsp_chunk_begin(const lsp_pass *p)
{
    lsp_attention *plan = p->plan;
    memset(plan->chunk_stage, UNTOUCHED, (size_t)(plan->matrix_count * chunk_count(plan)));
    for (int64_t i = 0; plan->unit_tasks && i < plan->ctx->layout.threads * plan->room_tiles; i++)
        plan->held[i] = -1;
}

double lsp_chunk_open(const lsp_pass *p, int64_t matrix, int64_t part, int64_t low, int64_t high,
                      lsp_thread_room *room, int64_t at, lsp_chunk *chunk)
{
    lsp_attention *plan = p->plan;
    const lsp_attention_desc *d = &plan->problem.desc;
    const lsp_query_matrix *of = &plan->matrices[matrix];
    lsp_sight *sight = room->sight + at;
    char *q = (char *)room->q + (size_t)(at * plan->shape.k_depth) * (size_t)plan->kernel->packed_bytes;
    lsp_chunk c = locate(p, matrix, part);
    start(plan, &c);
    double pairs = lsp_attention_look(plan, of->batch, part * plan->chunk_rows, c.rows, low, high, sight);
    plan->kernel->pack_queries(d->d_k, p->q + (size_t)(c.row * d->d_k) * lsp_dtype_size(d->q_type), d->q_type,
                               c.rows, p->factor, q);
    plan->kernel->query_norms(d->d_k, c.rows, q, room->norm + at);
    c.rule = lsp_attention_rule(d, of->head);
    c.state = (lsp_query_rows){c.rows, q, room->norm + at, sight, c.recent.out, c.recent.max, c.recent.sum};
    *chunk = c;
    return pairs;
}

/* Sights never go back: the chunk's ends tell. */
bool lsp_chunk_sees(const lsp_chunk *chunk, const lsp_tile_place *place)
{
    const lsp_sight *sight = chunk->state.sight;
    return sight[0].begin < place->end && sight[chunk->rows - 1].end > place->begin;
}

void lsp_chunk_attend(const lsp_attention *plan, const lsp_chunk *chunk, const lsp_key_tile *tile,
                      lsp_thread_room *room)
{
    if (plan->recent.out && tile->first % (LSP_FOLD_TILES * plan->shape.tile_keys) == 0)
        plan->kernel->fold(plan->problem.desc.d_v, chunk->rows, &chunk->recent, &chunk->total);
    plan->kernel->attend(&plan->shape, &chunk->rule, tile, &chunk->state, room->scratch);
}

int64_t lsp_chunk_close(const lsp_pass *p, const lsp_chunk *c)
{
    lsp_attention *plan = p->plan;
    int64_t d_v = plan->problem.desc.d_v;
    plan->chunk_stage[c->index] = CLOSED;
    if (plan->recent.out) plan->kernel->fold(d_v, c->rows, &c->recent, &c->total);
    return plan->kernel->finish(d_v, c->rows, c->total.out, c->total.max, c->total.sum,
                                p->lse ? (char *)p->lse + (size_t)c->row * element_size(plan) : NULL);
}

int64_t lsp_chunk_close_rest(const lsp_pass *p)
{
    lsp_attention *plan = p->plan;
    int64_t parts = chunk_count(plan), chunks = plan->matrix_count * parts, empty = 0;
#pragma omp parallel for schedule(static) num_threads(plan->ctx->layout.threads) reduction(+ : empty)
    for (int64_t i = 0; i < chunks; i++) {
        if (plan->chunk_stage[i] == CLOSED) continue;
        uint64_t mode = lsp_fpmode_enter();
        lsp_chunk c = locate(p, i / parts, i % parts);
        start(plan, &c);
        empty += lsp_chunk_close(p, &c);
        lsp_fpmode_leave(mode);
    }
    return empty;
}
