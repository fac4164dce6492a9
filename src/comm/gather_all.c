/* Mode all: one allgather of K and V before computing; panels are views of it.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "base/checked.h"
#include "base/memory.h"
#include "comm/gather_mode.h"
#include "comm/rows.h"

typedef struct state {
    char *k, *v; /* all rows of the group; NULL when there is but one rank */
    int64_t *counts;
    int *room; /* of an allgather */
} state;

static lsp_status create(lsp_gather *g)
{
    state *s = g->state = lsp_memory_zalloc(1, sizeof *s);
    if (!s) return lsp_context_fail(g->ctx, LSP_ERR_LIMIT, "not enough memory for a gather");
    if (g->ranks == 1) return LSP_OK;
    int64_t rows = g->desc.owned_first[g->ranks];
    s->k = lsp_memory_alloc(rows, (size_t)g->desc.k_row_bytes);
    s->v = lsp_memory_alloc(rows, (size_t)g->desc.v_row_bytes);
    s->counts = lsp_memory_alloc(g->ranks, sizeof *s->counts);
    s->room = lsp_memory_alloc(2 * (int64_t)g->ranks, sizeof *s->room);
    if (!s->k || !s->v || !s->counts || !s->room)
        return lsp_context_fail(g->ctx, LSP_ERR_LIMIT,
                                "not enough memory for %lld gathered key rows on every rank: use "
                                "compute.gather=panels",
                                (long long)rows);
    for (int r = 0; r < g->ranks; r++) s->counts[r] = g->desc.owned_first[r + 1] - g->desc.owned_first[r];
    return LSP_OK;
}

static lsp_status start(lsp_gather *g)
{
    state *s = g->state;
    if (g->ranks == 1) return LSP_OK;
    int code =
        lsp_rows_allgather(g->k, s->k, s->counts, g->desc.owned_first, g->desc.k_row_bytes, s->room, g->comm);
    if (code == MPI_SUCCESS)
        code = lsp_rows_allgather(g->v, s->v, s->counts, g->desc.owned_first, g->desc.v_row_bytes, s->room,
                                  g->comm);
    int64_t foreign = g->desc.owned_first[g->ranks] - s->counts[g->rank];
    g->bytes_received = (double)foreign * (double)(g->desc.k_row_bytes + g->desc.v_row_bytes);
    return lsp_context_mpi(g->ctx, code, "the allgather of K and V");
}

static bool post(lsp_gather *g, int64_t step)
{
    (void)g;
    (void)step;
    return true;
}

static bool arrived(lsp_gather *g, int64_t step, lsp_panel *panel)
{
    state *s = g->state;
    const lsp_panel_spec *spec = lsp_gather_spec(g, step);
    panel->k = s->k ? s->k + spec->first * g->desc.k_row_bytes : (const char *)lsp_gather_own_k(g, spec);
    panel->v = s->v ? s->v + spec->first * g->desc.v_row_bytes : (const char *)lsp_gather_own_v(g, spec);
    return true;
}

static bool release(lsp_gather *g, int64_t step)
{
    (void)g;
    (void)step;
    return true;
}

static void progress(lsp_gather *g)
{
    (void)g;
}

static bool idle(const lsp_gather *g)
{
    (void)g;
    return true;
}

static void destroy(lsp_gather *g)
{
    state *s = g->state;
    lsp_memory_free(s->k);
    lsp_memory_free(s->v);
    lsp_memory_free(s->counts);
    lsp_memory_free(s->room);
    lsp_memory_free(s);
}

const lsp_gather_ops lsp_gather_all_ops = {create, start, post, arrived, release, progress, idle, destroy};
