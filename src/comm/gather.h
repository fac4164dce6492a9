/* Gathering K/V panels: one interface over the gather modes.
 *
 * The keys of a group of ranks form one sequence of flattened rows, cut into panels; each panel has
 * one owner, who holds its rows. Every rank walks the panels that it needs in global order:
 *
 *     while (lsp_gather_next(g, &panel)) { compute; lsp_gather_progress(g) now and then; lsp_gather_release(g); }
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_COMM_GATHER_H
#define LSP_COMM_GATHER_H

#include "comm/context.h"

#include <longspan/attention.h>

typedef struct lsp_panel_spec {
    int64_t first, count; /* flattened rows [first, first + count) of the group's keys */
    int owner;            /* rank in the group's communicator */
} lsp_panel_spec;

/* Whether a rank of the group needs a panel; must answer the same on every rank. The owner always has it. */
typedef bool (*lsp_panel_needed_fn)(const void *user, int64_t panel, int rank);

typedef struct lsp_gather_desc {
    lsp_gather_mode mode;         /* not AUTO */
    const lsp_panel_spec *panels; /* [panel_count], ascending; borrowed while the gather lives */
    int64_t panel_count;
    const int64_t *owned_first; /* [ranks + 1] flattened row where each rank's keys start */
    int64_t k_row_bytes, v_row_bytes;
    lsp_panel_needed_fn needed;
    const void *needed_user;
} lsp_gather_desc;

typedef struct lsp_panel {
    int64_t index;     /* in desc.panels */
    const void *k, *v; /* the panel's rows, valid until release */
    bool own;
} lsp_panel;

typedef struct lsp_gather lsp_gather;

/* Local. Bytes of buffers that the mode takes on one rank. node_ranks: ranks that share a node. */
int64_t lsp_gather_bytes(const lsp_gather_desc *desc, int ranks, int rank, int node_ranks);

/* Collective over the context. The ranks that pass the same `group` (0 or more) gather among themselves,
 * numbered in the context's order. Allocates buffers. */
lsp_status lsp_gather_create(lsp_context *ctx, int group, const lsp_gather_desc *desc, lsp_gather **out);

/* Collective. Starts a pass over all panels; k and v are this rank's rows. */
lsp_status lsp_gather_start(lsp_gather *gather, const void *k, const void *v);

/* Local, but waits for the owner. The next panel that this rank needs; false at the end, on failure and when the wait
 * function ended the wait (then *status). */
bool lsp_gather_next(lsp_gather *gather, lsp_panel *panel, lsp_status *status);

/* Local. Lets MPI advance; called by the main thread between tiles. */
void lsp_gather_progress(lsp_gather *gather);

/* Local. The panel from lsp_gather_next is no longer used. */
void lsp_gather_release(lsp_gather *gather);

/* Collective. Ends the pass: waits until this rank's sends are done. Ends early as lsp_gather_next. */
lsp_status lsp_gather_finish(lsp_gather *gather);

/* Called over and over while a rank waits inside of next, release and finish. Anything but LSP_OK ends the wait; then
 * lsp_gather_stop ends the pass. All that this rank took from next before is computed by then. */
typedef lsp_status (*lsp_gather_wait_fn)(void *user);

/* Local. NULL: none. */
void lsp_gather_set_wait(lsp_gather *gather, lsp_gather_wait_fn wait, void *user);

/* Collective over the context. Ends a pass early: brings all ranks to the same panel, so that nothing is on its way
 * any more. Panels that come meanwhile are lost. */
lsp_status lsp_gather_stop(lsp_gather *gather);

/* Local. Of the last pass: seconds waited in next and start; bytes received from other ranks. */
double lsp_gather_seconds_waited(const lsp_gather *gather);
double lsp_gather_bytes_received(const lsp_gather *gather);

/* Collective. */
void lsp_gather_destroy(lsp_gather **gather);

#endif
