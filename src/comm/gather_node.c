/* Mode node: one copy of a panel per node in a shared window (MPI-3); the first rank of each node, its
 * leader, passes panels between nodes along a chain of leaders.
 *
 * A slot's life, in counters of steps (step + 1 when reached; steps are the same on all ranks of a
 * node): the owner (on its own node) or the leader fills it; all ranks of the node read it; the leader
 * sends it on; when all have released it and it is sent, the slot is free for step + slots.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "base/checked.h"
#include "base/memory.h"
#include "comm/chain.h"
#include "comm/gather_mode.h"
#include "comm/rows.h"

#include <sched.h>
#include <stdatomic.h>
#include <string.h>

enum { TAGS = 8192, LINE = 64, FILLED = 0, SENT = 1, RELEASED = 2 };

typedef _Atomic int64_t counter;

typedef struct state {
    MPI_Comm node, leaders; /* leaders: MPI_COMM_NULL on other ranks */
    int node_rank, node_ranks;
    int *node_of; /* [ranks]: number of the node of each rank, which is its leader's rank in leaders */
    int nodes, my_node;
    MPI_Win window;
    char *base; /* slots, then counters */
    int64_t k_bytes, v_bytes;
    lsp_chain chain_k[LSP_GATHER_SLOTS], chain_v[LSP_GATHER_SLOTS]; /* of the leader */
    int64_t carrying[LSP_GATHER_SLOTS];                             /* step that the leader moves; -1: none */
    bool carry_fills[LSP_GATHER_SLOTS];                             /* it arrives from another node */
    int64_t to_fill;  /* steps below are filled or were not this rank's to fill */
    int64_t to_carry; /* steps below are carried or were not this leader's to carry */
} state;

static char *slot_data(const state *s, int64_t step)
{
    return s->base + (step % LSP_GATHER_SLOTS) * (s->k_bytes + s->v_bytes);
}

/* Counters lie a cache line apart: filled, sent, then released by each rank of the node. */
static counter *slot_counter(const state *s, int64_t step, int which)
{
    int64_t index = (step % LSP_GATHER_SLOTS) * (RELEASED + s->node_ranks) + which;
    return (counter *)(void *)(s->base + LSP_GATHER_SLOTS * (s->k_bytes + s->v_bytes) + index * LINE);
}

static bool node_needs(const lsp_gather *g, int64_t panel, int node)
{
    const state *s = g->state;
    for (int r = 0; r < g->ranks; r++)
        if (s->node_of[r] == node && lsp_gather_needed(g, panel, r)) return true;
    return false;
}

static int owner_node(const lsp_gather *g, int64_t step)
{
    const state *s = g->state;
    return s->node_of[lsp_gather_spec(g, step)->owner];
}

/* The panel comes to this node, or leaves from it. */
static bool node_takes_part(const lsp_gather *g, int64_t step)
{
    const state *s = g->state;
    return owner_node(g, step) == s->my_node || node_needs(g, g->steps[step], s->my_node);
}

static bool slot_free(const state *s, int64_t step)
{
    int64_t before = step - LSP_GATHER_SLOTS + 1;
    if (before <= 0) return true;
    if (atomic_load_explicit(slot_counter(s, step, SENT), memory_order_acquire) < before) return false;
    for (int r = 0; r < s->node_ranks; r++)
        if (atomic_load_explicit(slot_counter(s, step, RELEASED + r), memory_order_acquire) < before)
            return false;
    return true;
}

/* ---- life -------------------------------------------------------------------------------------- */

static int ranks_most; /* of a node; 0: as many as there are */

int lsp_gather_node_set_ranks(int ranks)
{
    int before = ranks_most;
    ranks_most = ranks > 0 ? ranks : 0;
    return before;
}

/* The ranks that share this rank's memory, in parts of at most ranks_most. */
static int find_node(lsp_gather *g, state *s)
{
    int code = MPI_Comm_split_type(g->comm, MPI_COMM_TYPE_SHARED, g->rank, MPI_INFO_NULL, &s->node);
    if (code != MPI_SUCCESS || ranks_most == 0) return code;
    MPI_Comm whole = s->node;
    int rank = 0, ranks = 0;
    s->node = MPI_COMM_NULL;
    code = lsp_rows_adopt(whole, &rank, &ranks);
    if (code == MPI_SUCCESS) code = MPI_Comm_split(whole, rank / ranks_most, rank, &s->node);
    MPI_Comm_free(&whole);
    return code;
}

static int find_nodes(lsp_gather *g, state *s)
{
    int code = find_node(g, s), leaders = 0;
    if (code == MPI_SUCCESS) code = lsp_rows_adopt(s->node, &s->node_rank, &s->node_ranks);
    if (code != MPI_SUCCESS) return code;
    code = MPI_Comm_split(g->comm, s->node_rank == 0 ? 0 : MPI_UNDEFINED, g->rank, &s->leaders);
    if (code == MPI_SUCCESS && s->leaders != MPI_COMM_NULL)
        code = lsp_rows_adopt(s->leaders, &s->my_node, &leaders);
    if (code == MPI_SUCCESS) code = MPI_Bcast(&s->my_node, 1, MPI_INT, 0, s->node);
    if (code == MPI_SUCCESS) code = MPI_Allgather(&s->my_node, 1, MPI_INT, s->node_of, 1, MPI_INT, g->comm);
    for (int r = 0; r < g->ranks; r++) s->nodes = s->node_of[r] >= s->nodes ? s->node_of[r] + 1 : s->nodes;
    return code;
}

static lsp_status create(lsp_gather *g)
{
    state *s = g->state = lsp_memory_zalloc(1, sizeof *s);
    if (s) {
        s->node = s->leaders = MPI_COMM_NULL;
        s->window = MPI_WIN_NULL;
        s->node_of = lsp_memory_zalloc(g->ranks, sizeof *s->node_of);
    }
    lsp_status status =
        s && s->node_of ? LSP_OK : lsp_context_fail(g->ctx, LSP_ERR_LIMIT, "not enough memory for a gather");
    status = lsp_context_agree(g->ctx, status);
    if (status != LSP_OK) return status;
    status = lsp_context_mpi(g->ctx, find_nodes(g, s), "finding the nodes of a group");
    status = lsp_context_agree(g->ctx, status);
    if (status != LSP_OK) return status;
    int64_t rows = lsp_gather_panel_rows(&g->desc);
    s->k_bytes = lsp_round_up(rows * g->desc.k_row_bytes, LINE);
    s->v_bytes = lsp_round_up(rows * g->desc.v_row_bytes, LINE);
    int chains = MPI_SUCCESS;
    for (int slot = 0; chains == MPI_SUCCESS && s->node_rank == 0 && slot < LSP_GATHER_SLOTS; slot++) {
        chains = lsp_chain_reserve(&s->chain_k[slot], s->k_bytes);
        if (chains == MPI_SUCCESS) chains = lsp_chain_reserve(&s->chain_v[slot], s->v_bytes);
    }
    if (chains != MPI_SUCCESS)
        status = lsp_context_fail(g->ctx, LSP_ERR_LIMIT, "not enough memory for a gather");
    status = lsp_context_agree(g->ctx, status);
    if (status != LSP_OK) return status;
    int64_t bytes = LSP_GATHER_SLOTS * (s->k_bytes + s->v_bytes + (RELEASED + s->node_ranks) * LINE) + LINE;
    void *mine = NULL;
    int code = MPI_Win_allocate_shared(s->node_rank == 0 ? (MPI_Aint)bytes : 0, 1, MPI_INFO_NULL, s->node,
                                       &mine, &s->window);
    if (code == MPI_SUCCESS) {
        MPI_Aint size = 0;
        int unit = 1;
        code = MPI_Win_shared_query(s->window, 0, &size, &unit, &mine);
        s->base = (char *)(((uintptr_t)mine + LINE - 1) / LINE * LINE);
    }
    if (code == MPI_SUCCESS) return LSP_OK;
    return lsp_context_fail(g->ctx, LSP_ERR_LIMIT,
                            "not enough shared memory (/dev/shm) for %lld bytes of panels: use "
                            "compute.gather=panels or a smaller compute.panel_rows",
                            (long long)bytes);
}

static lsp_status start(lsp_gather *g)
{
    state *s = g->state;
    /* Nobody may still be reading counters of the pass before when they are set back. */
    int code = MPI_Barrier(s->node);
    for (int step = 0; step < LSP_GATHER_SLOTS; step++) {
        s->carrying[step] = -1;
        for (int which = 0; s->node_rank == 0 && which < RELEASED + s->node_ranks; which++)
            atomic_store(slot_counter(s, step, which), 0);
    }
    s->to_fill = s->to_carry = 0;
    if (code == MPI_SUCCESS) code = MPI_Barrier(s->node);
    return lsp_context_mpi(g->ctx, code, "starting a pass over panels");
}

/* ---- moving ------------------------------------------------------------------------------------ */

/* The owner copies its rows into its node's slot. */
static void fill_own(lsp_gather *g, state *s)
{
    for (; s->to_fill < g->posted; s->to_fill++) {
        const lsp_panel_spec *spec = lsp_gather_spec(g, s->to_fill);
        if (spec->owner != g->rank) continue;
        if (!slot_free(s, s->to_fill)) return;
        char *data = slot_data(s, s->to_fill);
        memcpy(data, lsp_gather_own_k(g, spec), (size_t)(spec->count * g->desc.k_row_bytes));
        memcpy(data + s->k_bytes, lsp_gather_own_v(g, spec), (size_t)(spec->count * g->desc.v_row_bytes));
        atomic_store_explicit(slot_counter(s, s->to_fill, FILLED), s->to_fill + 1, memory_order_release);
    }
}

static void find_neighbours(const lsp_gather *g, const state *s, int64_t step, int *previous, int *next)
{
    int first = owner_node(g, step), last = first;
    bool passed = s->my_node == first;
    *previous = *next = -1;
    for (int i = 1; i < s->nodes; i++) {
        int node = (first + i) % s->nodes;
        if (node == s->my_node) {
            *previous = last;
            passed = true;
        } else if (node_needs(g, g->steps[step], node)) {
            if (passed) {
                *next = node;
                return;
            }
            last = node;
        }
    }
}

/* The leader starts to carry the next step; false: it has to wait. */
static bool carry(lsp_gather *g, state *s, int64_t step)
{
    int slot = (int)(step % LSP_GATHER_SLOTS);
    if (!node_takes_part(g, step)) {
        if (!slot_free(s, step)) return false;
        atomic_store_explicit(slot_counter(s, step, SENT), step + 1, memory_order_release);
        return true;
    }
    if (s->carrying[slot] >= 0 || !slot_free(s, step)) return false;
    bool ours = owner_node(g, step) == s->my_node;
    if (ours && atomic_load_explicit(slot_counter(s, step, FILLED), memory_order_acquire) != step + 1)
        return false;
    int previous, next, tag = (int)(g->steps[step] % TAGS) * 2;
    find_neighbours(g, s, step, &previous, &next);
    const lsp_panel_spec *spec = lsp_gather_spec(g, step);
    char *data = slot_data(s, step);
    int code = lsp_chain_start(&s->chain_k[slot], data, spec->count * g->desc.k_row_bytes, previous, next,
                               tag, s->leaders);
    if (code == MPI_SUCCESS)
        code = lsp_chain_start(&s->chain_v[slot], data + s->k_bytes, spec->count * g->desc.v_row_bytes,
                               previous, next, tag + 1, s->leaders);
    lsp_gather_check(g, code, "passing a panel between nodes");
    s->carrying[slot] = step;
    s->carry_fills[slot] = !ours;
    return true;
}

static void advance(lsp_gather *g, state *s, int slot)
{
    int64_t step = s->carrying[slot];
    lsp_chain *k = &s->chain_k[slot], *v = &s->chain_v[slot];
    int code = lsp_chain_progress(k);
    if (code == MPI_SUCCESS) code = lsp_chain_progress(v);
    lsp_gather_check(g, code, "passing a panel between nodes");
    if (s->carry_fills[slot] && lsp_chain_arrived(k) && lsp_chain_arrived(v)) {
        atomic_store_explicit(slot_counter(s, step, FILLED), step + 1, memory_order_release);
        s->carry_fills[slot] = false;
    }
    if (lsp_chain_idle(k) && lsp_chain_idle(v)) {
        atomic_store_explicit(slot_counter(s, step, SENT), step + 1, memory_order_release);
        s->carrying[slot] = -1;
    }
}

static void progress(lsp_gather *g)
{
    state *s = g->state;
    fill_own(g, s);
    if (s->node_rank != 0) return;
    while (g->status == LSP_OK && s->to_carry < g->posted && carry(g, s, s->to_carry)) s->to_carry++;
    for (int slot = 0; slot < LSP_GATHER_SLOTS; slot++)
        if (s->carrying[slot] >= 0 && g->status == LSP_OK) advance(g, s, slot);
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
    bool own = spec->owner == g->rank;
    panel->k = own ? lsp_gather_own_k(g, spec) : slot_data(s, step);
    panel->v = own ? lsp_gather_own_v(g, spec) : slot_data(s, step) + s->k_bytes;
    return own || atomic_load_explicit(slot_counter(s, step, FILLED), memory_order_acquire) == step + 1;
}

/* An owner releases a step only after it has filled it: its slot would be taken otherwise. */
static bool release(lsp_gather *g, int64_t step)
{
    state *s = g->state;
    bool own = lsp_gather_spec(g, step)->owner == g->rank;
    while (own && g->status == LSP_OK && s->to_fill <= step) {
        progress(g);
        if (s->to_fill > step) break;
        if (!lsp_gather_keep_waiting(g)) return false;
        sched_yield();
    }
    atomic_store_explicit(slot_counter(s, step, RELEASED + s->node_rank), step + 1, memory_order_release);
    return true;
}

static bool idle(const lsp_gather *g)
{
    const state *s = g->state;
    if (s->to_fill < g->step_count) return false;
    if (s->node_rank != 0) return true;
    if (s->to_carry < g->step_count) return false;
    for (int slot = 0; slot < LSP_GATHER_SLOTS; slot++)
        if (s->carrying[slot] >= 0) return false;
    return true;
}

static void destroy(lsp_gather *g)
{
    state *s = g->state;
    for (int slot = 0; slot < LSP_GATHER_SLOTS; slot++) {
        lsp_chain_free(&s->chain_k[slot]);
        lsp_chain_free(&s->chain_v[slot]);
    }
    if (s->window != MPI_WIN_NULL && !lsp_context_deserted(g->ctx)) MPI_Win_free(&s->window);
    if (s->leaders != MPI_COMM_NULL) MPI_Comm_free(&s->leaders);
    if (s->node != MPI_COMM_NULL) MPI_Comm_free(&s->node);
    lsp_memory_free(s->node_of);
    lsp_memory_free(s);
}

const lsp_gather_ops lsp_gather_node_ops = {create, start, post, arrived, release, progress, idle, destroy};
