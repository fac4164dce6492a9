/* Modes panels and chain: K/V panels move from their owners while earlier ones are computed.
 *
 * A panel that every rank needs is broadcast with MPI_Ibcast (mode panels); one that only some need,
 * and every one in mode chain, goes along a chain of those ranks, in rank order from its owner.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "base/checked.h"
#include "base/memory.h"
#include "comm/chain.h"
#include "comm/gather_mode.h"
#include "comm/rows.h"

/* Panels on their way between two ranks differ in their tags: segments of two chains may interleave. */
enum { TAGS = 8192 };

static int tag_of(int64_t panel, int which)
{
    return (int)(panel % TAGS) * 2 + which;
}

typedef struct slot {
    bool busy, released, by_chain;
    char *k, *v; /* where the panel arrives (NULL when there is but one rank) */
    lsp_chain chain_k, chain_v;
    MPI_Request *requests; /* of the broadcasts */
    int request_count, request_most;
} slot;

typedef struct state {
    slot slots[LSP_GATHER_SLOTS];
    char *buffer;
} state;

static slot *slot_of(const lsp_gather *g, int64_t step)
{
    state *s = g->state;
    return &s->slots[step % LSP_GATHER_SLOTS];
}

static lsp_status create(lsp_gather *g)
{
    state *s = g->state = lsp_memory_zalloc(1, sizeof *s);
    if (!s) return lsp_context_fail(g->ctx, LSP_ERR_LIMIT, "not enough memory for panel slots");
    if (g->ranks == 1) return LSP_OK;
    int64_t rows = lsp_gather_panel_rows(&g->desc);
    int64_t k_bytes = lsp_round_up(rows * g->desc.k_row_bytes, 64);
    int64_t v_bytes = lsp_round_up(rows * g->desc.v_row_bytes, 64);
    int most = lsp_rows_pieces(k_bytes) + lsp_rows_pieces(v_bytes);
    s->buffer = lsp_memory_alloc(LSP_GATHER_SLOTS, (size_t)(k_bytes + v_bytes));
    bool ok = s->buffer != NULL;
    for (int i = 0; ok && i < LSP_GATHER_SLOTS; i++) {
        s->slots[i].k = s->buffer + i * (k_bytes + v_bytes);
        s->slots[i].v = s->slots[i].k + k_bytes;
        s->slots[i].requests = lsp_memory_alloc(most, sizeof(MPI_Request));
        s->slots[i].request_most = most;
        ok = s->slots[i].requests && lsp_chain_reserve(&s->slots[i].chain_k, k_bytes) == MPI_SUCCESS &&
             lsp_chain_reserve(&s->slots[i].chain_v, v_bytes) == MPI_SUCCESS;
    }
    return ok ? LSP_OK
              : lsp_context_fail(g->ctx, LSP_ERR_LIMIT, "not enough memory for %d panels of %lld bytes",
                                 (int)LSP_GATHER_SLOTS, (long long)(k_bytes + v_bytes));
}

static lsp_status start(lsp_gather *g)
{
    (void)g;
    return LSP_OK;
}

static bool everybody_needs(const lsp_gather *g, int64_t panel)
{
    for (int r = 0; r < g->ranks; r++)
        if (g->desc.panels[panel].owner != r && !lsp_gather_needed(g, panel, r)) return false;
    return true;
}

/* This rank's neighbours on the chain owner, owner + 1, ... (around), of the ranks that need the panel. */
static void find_neighbours(const lsp_gather *g, int64_t panel, int *previous, int *next)
{
    int owner = g->desc.panels[panel].owner;
    *previous = *next = -1;
    bool passed = g->rank == owner;
    int last = owner;
    for (int i = 1; i < g->ranks; i++) {
        int r = (owner + i) % g->ranks;
        if (r == g->rank) {
            *previous = last;
            passed = true;
        } else if (lsp_gather_needed(g, panel, r)) {
            if (passed) {
                *next = r;
                return;
            }
            last = r;
        }
    }
}

static void post_broadcast(lsp_gather *g, slot *s, const lsp_panel_spec *spec, char *k, char *v)
{
    int64_t k_bytes = spec->count * g->desc.k_row_bytes, v_bytes = spec->count * g->desc.v_row_bytes;
    int k_pieces = lsp_rows_pieces(k_bytes);
    s->request_count = k_pieces + lsp_rows_pieces(v_bytes);
    int code = lsp_rows_ibcast(k, k_bytes, spec->owner, g->comm, s->requests);
    if (code == MPI_SUCCESS) code = lsp_rows_ibcast(v, v_bytes, spec->owner, g->comm, s->requests + k_pieces);
    if (code != MPI_SUCCESS) s->request_count = 0; /* not all requests were made */
    lsp_gather_check(g, code, "the broadcast of a panel");
}

static void post_chain(lsp_gather *g, slot *s, int64_t panel, char *k, char *v)
{
    const lsp_panel_spec *spec = &g->desc.panels[panel];
    int previous, next;
    find_neighbours(g, panel, &previous, &next);
    int code = lsp_chain_start(&s->chain_k, k, spec->count * g->desc.k_row_bytes, previous, next,
                               tag_of(panel, 0), g->comm);
    if (code == MPI_SUCCESS)
        code = lsp_chain_start(&s->chain_v, v, spec->count * g->desc.v_row_bytes, previous, next,
                               tag_of(panel, 1), g->comm);
    lsp_gather_check(g, code, "passing on a panel");
}

static bool post(lsp_gather *g, int64_t step)
{
    slot *s = slot_of(g, step);
    if (s->busy) return false;
    const lsp_panel_spec *spec = lsp_gather_spec(g, step);
    s->busy = true;
    s->released = false;
    s->request_count = 0;
    if (g->ranks == 1) return true;
    bool own = spec->owner == g->rank;
    /* Sends do not change the owner's rows; MPI_Ibcast has no const for its root. */
    char *k = own ? (char *)(uintptr_t)lsp_gather_own_k(g, spec) : s->k;
    char *v = own ? (char *)(uintptr_t)lsp_gather_own_v(g, spec) : s->v;
    s->by_chain = g->desc.mode == LSP_GATHER_CHAIN || !everybody_needs(g, g->steps[step]);
    if (s->by_chain)
        post_chain(g, s, g->steps[step], k, v);
    else
        post_broadcast(g, s, spec, k, v);
    return true;
}

/* Drops completed requests; true when the slot's messages are all done. */
static bool advance(lsp_gather *g, slot *s)
{
    if (s->by_chain) {
        int code = lsp_chain_progress(&s->chain_k);
        if (code == MPI_SUCCESS) code = lsp_chain_progress(&s->chain_v);
        lsp_gather_check(g, code, "passing on a panel");
        return lsp_chain_idle(&s->chain_k) && lsp_chain_idle(&s->chain_v);
    }
    if (s->request_count == 0) return true;
    int done = 0;
    lsp_gather_check(g, MPI_Testall(s->request_count, s->requests, &done, MPI_STATUSES_IGNORE),
                     "the broadcast of a panel");
    if (done) s->request_count = 0;
    return done != 0;
}

static void progress(lsp_gather *g)
{
    state *s = g->state;
    for (int i = 0; i < LSP_GATHER_SLOTS; i++) {
        slot *one = &s->slots[i];
        if (one->busy && advance(g, one) && one->released) one->busy = false;
    }
}

static bool arrived(lsp_gather *g, int64_t step, lsp_panel *panel)
{
    const lsp_panel_spec *spec = lsp_gather_spec(g, step);
    slot *s = slot_of(g, step);
    bool own = spec->owner == g->rank;
    panel->k = own ? lsp_gather_own_k(g, spec) : s->k;
    panel->v = own ? lsp_gather_own_v(g, spec) : s->v;
    if (own) return true;
    if (s->by_chain) return lsp_chain_arrived(&s->chain_k) && lsp_chain_arrived(&s->chain_v);
    return s->request_count == 0;
}

static bool release(lsp_gather *g, int64_t step)
{
    slot_of(g, step)->released = true;
    progress(g);
    return true;
}

static bool idle(const lsp_gather *g)
{
    const state *s = g->state;
    for (int i = 0; i < LSP_GATHER_SLOTS; i++)
        if (s->slots[i].busy) return false;
    return true;
}

static void destroy(lsp_gather *g)
{
    state *s = g->state;
    for (int i = 0; i < LSP_GATHER_SLOTS; i++) {
        lsp_chain_free(&s->slots[i].chain_k);
        lsp_chain_free(&s->slots[i].chain_v);
        lsp_memory_free(s->slots[i].requests);
    }
    lsp_memory_free(s->buffer);
    lsp_memory_free(s);
}

const lsp_gather_ops lsp_gather_panels_ops = {create, start, post, arrived, release, progress, idle, destroy};
const lsp_gather_ops lsp_gather_chain_ops = {create, start, post, arrived, release, progress, idle, destroy};
