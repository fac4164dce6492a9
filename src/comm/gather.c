/* The walk over panels, the same for every mode. SPDX-License-Identifier: BSD-3-Clause */
#include "comm/gather.h"

#include "base/checked.h"
#include "base/clock.h"
#include "base/memory.h"
#include "comm/gather_mode.h"
#include "comm/rows.h"

#include <sched.h>

static const lsp_gather_ops *ops_of(lsp_gather_mode mode)
{
    switch (mode) {
    case LSP_GATHER_AUTO:
    case LSP_GATHER_PANELS: return &lsp_gather_panels_ops;
    case LSP_GATHER_ALL: return &lsp_gather_all_ops;
    case LSP_GATHER_NODE: return &lsp_gather_node_ops;
    case LSP_GATHER_CHAIN: return &lsp_gather_chain_ops;
    }
    return &lsp_gather_panels_ops;
}

const lsp_panel_spec *lsp_gather_spec(const lsp_gather *g, int64_t step)
{
    return &g->desc.panels[g->steps[step]];
}

bool lsp_gather_needed(const lsp_gather *g, int64_t panel, int rank)
{
    return g->desc.needed(g->desc.needed_user, panel, rank);
}

const void *lsp_gather_own_k(const lsp_gather *g, const lsp_panel_spec *spec)
{
    return (const char *)g->k + (spec->first - g->desc.owned_first[g->rank]) * g->desc.k_row_bytes;
}

const void *lsp_gather_own_v(const lsp_gather *g, const lsp_panel_spec *spec)
{
    return (const char *)g->v + (spec->first - g->desc.owned_first[g->rank]) * g->desc.v_row_bytes;
}

void lsp_gather_check(lsp_gather *g, int mpi_code, const char *what)
{
    if (mpi_code != MPI_SUCCESS && g->status == LSP_OK) g->status = lsp_context_mpi(g->ctx, mpi_code, what);
}

int64_t lsp_gather_panel_rows(const lsp_gather_desc *desc)
{
    int64_t most = 0;
    for (int64_t p = 0; p < desc->panel_count; p++) most = lsp_max(most, desc->panels[p].count);
    return most;
}

int64_t lsp_gather_bytes(const lsp_gather_desc *desc, int ranks, int rank, int node_ranks)
{
    if (ranks == 1) return 0;
    int64_t row = desc->k_row_bytes + desc->v_row_bytes;
    switch (desc->mode) {
    case LSP_GATHER_ALL: return desc->owned_first[ranks] * row;
    case LSP_GATHER_NODE: /* one copy a node, counted at its first rank */
        return rank % node_ranks == 0 ? LSP_GATHER_SLOTS * lsp_gather_panel_rows(desc) * row : 0;
    case LSP_GATHER_AUTO:
    case LSP_GATHER_PANELS:
    case LSP_GATHER_CHAIN: break;
    }
    return LSP_GATHER_SLOTS * lsp_gather_panel_rows(desc) * row;
}

/* ---- life -------------------------------------------------------------------------------------- */

static lsp_status list_steps(lsp_gather *g)
{
    g->steps = lsp_memory_alloc(g->desc.panel_count, sizeof *g->steps);
    if (!g->steps) return lsp_context_fail(g->ctx, LSP_ERR_LIMIT, "not enough memory for the list of panels");
    /* In mode node every rank of a node walks all panels, so that slots mean the same to all of them;
     * in mode all nothing moves later. */
    bool every = g->desc.mode == LSP_GATHER_NODE;
    for (int64_t p = 0; p < g->desc.panel_count; p++)
        if (every || g->desc.panels[p].owner == g->rank || lsp_gather_needed(g, p, g->rank))
            g->steps[g->step_count++] = p;
    g->step_total = g->step_count;
    return LSP_OK;
}

lsp_status lsp_gather_create(lsp_context *ctx, int group, const lsp_gather_desc *desc, lsp_gather **out)
{
    *out = NULL;
    lsp_gather *g = lsp_memory_zalloc(1, sizeof *g);
    lsp_status status = g ? LSP_OK : lsp_context_fail(ctx, LSP_ERR_LIMIT, "not enough memory for a gather");
    status = lsp_context_agree(ctx, status);
    if (status != LSP_OK) {
        lsp_memory_free(g);
        return status;
    }
    g->ctx = ctx;
    g->comm = MPI_COMM_NULL;
    g->desc = *desc;
    g->ops = ops_of(desc->mode);
    status = lsp_context_mpi(ctx, MPI_Comm_split(ctx->comm, group, ctx->layout.rank, &g->comm),
                             "splitting ranks into groups");
    if (status == LSP_OK)
        status =
            lsp_context_mpi(ctx, lsp_rows_adopt(g->comm, &g->rank, &g->ranks), "splitting ranks into groups");
    if (status == LSP_OK) status = list_steps(g);
    status = lsp_context_agree(ctx, status);
    if (status == LSP_OK) status = lsp_context_agree(ctx, g->ops->create(g));
    *out = g;
    if (status != LSP_OK) lsp_gather_destroy(out);
    return status;
}

void lsp_gather_destroy(lsp_gather **gather)
{
    lsp_gather *g = gather ? *gather : NULL;
    if (!g) return;
    if (g->state) g->ops->destroy(g);
    if (g->comm != MPI_COMM_NULL) MPI_Comm_free(&g->comm);
    lsp_memory_free(g->steps);
    lsp_memory_free(g);
    *gather = NULL;
}

/* ---- a pass ------------------------------------------------------------------------------------ */

static void post_ahead(lsp_gather *g)
{
    int64_t end = lsp_min(g->at + LSP_GATHER_SLOTS, g->step_count);
    while (g->status == LSP_OK && g->posted < end && g->ops->post(g, g->posted)) g->posted++;
}

void lsp_gather_progress(lsp_gather *g)
{
    g->ops->progress(g);
    post_ahead(g);
}

lsp_status lsp_gather_start(lsp_gather *g, const void *k, const void *v)
{
    double begin = lsp_clock();
    g->k = k;
    g->v = v;
    g->at = g->posted = 0;
    g->status = g->stopped = LSP_OK;
    g->bytes_received = 0;
    lsp_status status = g->ops->start(g);
    if (status == LSP_OK) post_ahead(g);
    g->seconds_waited = lsp_clock() - begin;
    return status == LSP_OK ? g->status : status;
}

void lsp_gather_set_wait(lsp_gather *g, lsp_gather_wait_fn wait, void *user)
{
    g->wait = wait;
    g->wait_user = user;
}

bool lsp_gather_keep_waiting(lsp_gather *g)
{
    if (g->wait && g->stopped == LSP_OK) g->stopped = g->wait(g->wait_user);
    return g->stopped == LSP_OK;
}

/* Waits for the step g->at; in an oversubscribed run another rank may need the core to answer. */
static bool wait_step(lsp_gather *g, bool needed, lsp_panel *panel)
{
    double begin = 0;
    bool here = false;
    for (int64_t tries = 0; g->status == LSP_OK; tries++) {
        lsp_gather_progress(g);
        here = g->posted > g->at && (!needed || g->ops->arrived(g, g->at, panel));
        if (here) break;
        if (!lsp_gather_keep_waiting(g)) break;
        if (tries == 0) begin = lsp_clock();
        if (tries > 64) sched_yield();
    }
    if (begin > 0) g->seconds_waited += lsp_clock() - begin;
    return here && g->status == LSP_OK;
}

bool lsp_gather_next(lsp_gather *g, lsp_panel *panel, lsp_status *status)
{
    *status = LSP_OK;
    while (g->at < g->step_count && g->stopped == LSP_OK) {
        int64_t index = g->steps[g->at];
        bool needed = lsp_gather_needed(g, index, g->rank);
        if (!wait_step(g, needed, panel)) break;
        panel->index = index;
        panel->own = g->desc.panels[index].owner == g->rank;
        if (needed) {
            if (!panel->own && g->desc.mode != LSP_GATHER_ALL)
                g->bytes_received +=
                    (double)(g->desc.panels[index].count * (g->desc.k_row_bytes + g->desc.v_row_bytes));
            return true;
        }
        lsp_gather_release(g);
    }
    *status = g->status != LSP_OK ? g->status : g->stopped;
    return false;
}

void lsp_gather_release(lsp_gather *g)
{
    if (!g->ops->release(g, g->at)) return;
    g->at++;
    post_ahead(g);
}

lsp_status lsp_gather_finish(lsp_gather *g)
{
    double begin = lsp_clock();
    while (g->status == LSP_OK && !g->ops->idle(g) && lsp_gather_keep_waiting(g)) {
        lsp_gather_progress(g);
        sched_yield();
    }
    g->seconds_waited += lsp_clock() - begin;
    return g->status != LSP_OK ? g->status : g->stopped;
}

lsp_status lsp_gather_stop(lsp_gather *g)
{
    /* What any rank has begun, all that take part in it go through. */
    int64_t last = g->posted > 0 ? g->steps[g->posted - 1] : -1;
    lsp_status status = lsp_context_max_i64(g->ctx, &last, 1);
    if (status != LSP_OK) return status;
    lsp_gather_wait_fn wait = g->wait;
    lsp_panel panel;
    g->wait = NULL;
    g->stopped = LSP_OK;
    g->step_count = 0;
    while (g->step_count < g->step_total && g->steps[g->step_count] <= last) g->step_count++;
    while (lsp_gather_next(g, &panel, &status)) lsp_gather_release(g);
    if (status == LSP_OK) status = lsp_gather_finish(g);
    g->step_count = g->step_total;
    g->wait = wait;
    return status;
}

double lsp_gather_seconds_waited(const lsp_gather *g)
{
    return g->seconds_waited;
}

double lsp_gather_bytes_received(const lsp_gather *g)
{
    return g->bytes_received;
}
