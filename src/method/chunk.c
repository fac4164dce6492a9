/* Chunks of query rows: state, queries, sights and the end. SPDX-License-Identifier: BSD-3-Clause */
#include "method/chunk.h"
#include "method/sights.h"

#include "base/checked.h"

#include <math.h>
#include <omp.h>
#include <string.h>

static size_t element_size(const lsp_attention *plan)
{
    return lsp_dtype_size(lsp_dtype_result(plan->problem.desc.compute));
}

static void fill(lsp_dtype type, void *values, int64_t count, double value)
{
    if (type == LSP_F64)
        for (int64_t i = 0; i < count; i++) ((double *)values)[i] = value;
    else
        for (int64_t i = 0; i < count; i++) ((float *)values)[i] = (float)value;
}

static lsp_row_state state_at(const lsp_row_state *state, int64_t row, int64_t d_v, size_t element)
{
    size_t at = (size_t)row * element;
    return (lsp_row_state){(char *)state->out + at * (size_t)d_v, (char *)state->max + at,
                           (char *)state->sum + at};
}

/* Without the output, which is not read before there is something (lsp_query_rows). */
static void clear_state(const lsp_attention *plan, lsp_row_state state, int64_t rows)
{
    fill(plan->problem.desc.compute, state.sum, rows, -0.0);
    fill(plan->problem.desc.compute, state.max, rows, -INFINITY);
}

/* The output of rows that have met no key, so that what is saved of them is something. */
static void clear_out(const lsp_attention *plan, lsp_row_state state, int64_t rows)
{
    const size_t element = element_size(plan), bytes = (size_t)plan->problem.desc.d_v * element;
    for (int64_t r = 0; r < rows; r++) {
        const void *sum = (const char *)state.sum + (size_t)r * element;
        bool none = element == sizeof(double) ? signbit(*(const double *)sum) : signbit(*(const float *)sum);
        if (none) memset((char *)state.out + (size_t)r * bytes, 0, bytes);
    }
}

/* The rows and their state: their totals, and what the kernel adds to. */
static lsp_chunk locate(const lsp_attention *plan, int64_t row, int64_t rows)
{
    int64_t d_v = plan->problem.desc.d_v;
    lsp_chunk c = {.row = row, .rows = rows, .met = plan->met[row]};
    lsp_row_state whole = {plan->out, plan->max, plan->sum};
    c.total = c.recent = state_at(&whole, row, d_v, element_size(plan));
    if (plan->recent.out) c.recent = state_at(&plan->recent, row, d_v, element_size(plan));
    return c;
}

enum { LAST_PARTS = 4, PART_GRAIN = 24 }; /* whole groups of rows on every instruction set */

/* Chunks that come in parts. Not where chunks end with blocks of rows, or are short. */
static int64_t last_chunks(const lsp_attention *plan, int64_t chunks)
{
    const int threads = plan->ctx->layout.threads;
    const bool whole = threads == 1 || plan->unit_tasks || plan->problem.mask.block_size > 0 ||
                       plan->problem.row_grain > 1 || plan->chunk_rows < LAST_PARTS * PART_GRAIN;
    return whole ? 0 : lsp_min(chunks, threads);
}

int64_t lsp_chunk_tasks(const lsp_attention *plan, int64_t chunks)
{
    return chunks + last_chunks(plan, chunks) * (LAST_PARTS - 1);
}

lsp_chunk_task lsp_chunk_task_at(const lsp_attention *plan, int64_t chunks, int64_t task)
{
    const int64_t step = lsp_round_up(lsp_ceil_div(plan->chunk_rows, LAST_PARTS), PART_GRAIN),
                  whole = chunks - last_chunks(plan, chunks), of = lsp_ceil_div(plan->rows, plan->chunk_rows);
    lsp_chunk_task t = {task, 0, plan->chunk_rows};
    if (task >= whole) {
        const int64_t part = (task - whole) % LAST_PARTS;
        t.chunk = whole + (task - whole) / LAST_PARTS;
        t.begin = lsp_min(part * step, plan->chunk_rows), t.end = lsp_min(t.begin + step, plan->chunk_rows);
    }
    const int64_t first = t.chunk % of * plan->chunk_rows;
    t.begin = lsp_min(first + t.begin, plan->rows), t.end = lsp_min(first + t.end, plan->rows);
    return t;
}

int64_t lsp_chunk_alike(const lsp_attention *plan, int64_t matrix, int64_t matrices, int64_t begin,
                        int64_t end)
{
    int64_t rows = end - begin;
    for (int64_t i = matrix; i < matrix + matrices; i++) {
        int64_t row = plan->matrices[i].first + begin;
        rows = lsp_min(rows, lsp_attention_alike(plan, row, row + rows));
    }
    return rows;
}

static void clear(lsp_attention *plan, lsp_chunk *c)
{
    if (c->met != LSP_ROW_FRESH) return;
    clear_state(plan, c->total, c->rows);
    if (plan->recent.out) clear_state(plan, c->recent, c->rows);
    lsp_chunk_meet(plan, c, 0);
    c->met = 0;
}

void lsp_chunk_meet(const lsp_attention *plan, const lsp_chunk *c, int64_t high)
{
    for (int64_t r = c->row; r < c->row + c->rows; r++) plan->met[r] = high;
}

/* What complete rows have besides their output, which is there. */
static int64_t restore(const lsp_pass *p, const lsp_chunk *c)
{
    lsp_attention *plan = p->plan;
    if (c->met != LSP_ROW_FINAL) return 0;
    return plan->kernel->finish(0, c->rows, c->total.out, c->total.max, c->total.sum,
                                p->lse ? (char *)p->lse + (size_t)c->row * element_size(plan) : NULL);
}

void lsp_chunk_begin(lsp_pass *p)
{
    lsp_attention *plan = p->plan;
    for (int64_t i = 0; plan->unit_tasks && i < plan->ctx->layout.threads * plan->room_tiles; i++)
        plan->held[i] = -1;
    for (int64_t row = 0; !plan->loaded && row < plan->query_rows; row++) plan->met[row] = LSP_ROW_FRESH;
    for (int64_t row = 0, rows; plan->loaded && row < plan->query_rows; row += rows) {
        rows = lsp_attention_alike(plan, row, plan->query_rows);
        lsp_chunk c = locate(plan, row, rows);
        p->empty_rows += restore(p, &c);
    }
    plan->loaded = false;
}

double lsp_chunk_open(const lsp_pass *p, int64_t matrix, int64_t begin, int64_t rows, int64_t low,
                      int64_t high, lsp_thread_room *room, int64_t at, lsp_chunk *chunk)
{
    lsp_attention *plan = p->plan;
    const lsp_attention_desc *d = &plan->problem.desc;
    const lsp_query_matrix *of = &plan->matrices[matrix];
    lsp_sight *sight = room->sight + at;
    char *q = (char *)room->q + (size_t)(at * plan->shape.k_depth) * (size_t)plan->kernel->packed_bytes;
    lsp_chunk c = locate(plan, of->first + begin, rows);
    clear(plan, &c);
    double pairs = lsp_attention_look(plan, of->batch, begin, rows, lsp_max(low, c.met), high, sight);
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
    if (tile->first < chunk->met) return;
    if (plan->recent.out && tile->first % (LSP_FOLD_TILES * plan->shape.tile_keys) == 0)
        plan->kernel->fold(plan->problem.desc.d_v, chunk->rows, &chunk->recent, &chunk->total);
    plan->kernel->attend(&plan->shape, &chunk->rule, tile, &chunk->state, room->scratch);
}

int64_t lsp_chunk_close(const lsp_pass *p, const lsp_chunk *c)
{
    lsp_attention *plan = p->plan;
    int64_t d_v = plan->problem.desc.d_v;
    lsp_chunk_meet(plan, c, LSP_ROW_FINAL);
    if (plan->recent.out) plan->kernel->fold(d_v, c->rows, &c->recent, &c->total);
    return plan->kernel->finish(d_v, c->rows, c->total.out, c->total.max, c->total.sum,
                                p->lse ? (char *)p->lse + (size_t)c->row * element_size(plan) : NULL);
}

int64_t lsp_chunk_close_rest(const lsp_pass *p)
{
    lsp_attention *plan = p->plan;
    int64_t chunks = lsp_ceil_div(plan->query_rows, plan->chunk_rows), empty = 0;
#pragma omp parallel for schedule(static) num_threads(plan->ctx->layout.threads) reduction(+ : empty)
    for (int64_t i = 0; i < chunks; i++) {
        int64_t end = lsp_min(plan->query_rows, (i + 1) * plan->chunk_rows);
        uint64_t mode = lsp_fpmode_enter();
        for (int64_t row = i * plan->chunk_rows, rows; row < end; row += rows) {
            rows = lsp_attention_alike(plan, row, end);
            lsp_chunk c = locate(plan, row, rows);
            if (c.met == LSP_ROW_FINAL) continue;
            clear(plan, &c);
            empty += lsp_chunk_close(p, &c);
        }
        lsp_fpmode_leave(mode);
    }
    return empty;
}

void lsp_chunk_settle(lsp_attention *plan)
{
    for (int64_t row = 0, rows; row < plan->query_rows; row += rows) {
        rows = lsp_attention_alike(plan, row, plan->query_rows);
        lsp_chunk c = locate(plan, row, rows);
        clear(plan, &c);
        if (c.met != LSP_ROW_FINAL) clear_out(plan, c.total, rows);
        if (c.met != LSP_ROW_FINAL && plan->recent.out) clear_out(plan, c.recent, rows);
    }
}
