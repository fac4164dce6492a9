/* Inside of the gather: what a mode supplies. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_COMM_GATHER_MODE_H
#define LSP_COMM_GATHER_MODE_H

#include "comm/gather.h"

/* Panels on their way at once: one computed, two coming. */
enum { LSP_GATHER_SLOTS = 3 };

typedef struct lsp_gather_ops {
    /* Collective. Buffers of the mode (g->state). */
    lsp_status (*create)(lsp_gather *g);
    /* Collective. A pass begins: g->k, g->v are set. */
    lsp_status (*start)(lsp_gather *g);
    /* Local. Starts moving the panel of step `step`; false: its slot is still in use, try again. */
    bool (*post)(lsp_gather *g, int64_t step);
    /* Local. Whether a posted step's panel is here; then where. */
    bool (*arrived)(lsp_gather *g, int64_t step, lsp_panel *panel);
    /* Local. This rank is done with the step's panel; false: the wait function ended the wait for it. */
    bool (*release)(lsp_gather *g, int64_t step);
    /* Local. Lets MPI advance. */
    void (*progress)(lsp_gather *g);
    /* Local. Nothing that was posted is on its way any more. */
    bool (*idle)(const lsp_gather *g);
    /* Collective. */
    void (*destroy)(lsp_gather *g);
} lsp_gather_ops;

struct lsp_gather {
    lsp_context *ctx;
    MPI_Comm comm;
    int rank, ranks;
    lsp_gather_desc desc;
    const lsp_gather_ops *ops;
    void *state;                /* of the mode */
    int64_t *steps, step_count; /* panels that this rank takes part in, ascending */
    int64_t step_total;         /* step_count is less only while a pass is ended early */
    int64_t at, posted;         /* steps released; steps posted */
    const void *k, *v;          /* this rank's rows */
    lsp_status status;          /* first failure of the pass */
    lsp_gather_wait_fn wait;
    void *wait_user;
    lsp_status stopped; /* what the wait function answered, until lsp_gather_stop */
    double seconds_waited, bytes_received;
};

extern const lsp_gather_ops lsp_gather_panels_ops, lsp_gather_chain_ops, lsp_gather_all_ops,
    lsp_gather_node_ops;

/* Local. */
const lsp_panel_spec *lsp_gather_spec(const lsp_gather *g, int64_t step);
bool lsp_gather_needed(const lsp_gather *g, int64_t panel, int rank);
/* Local. Where this rank's own rows of a panel stand. */
const void *lsp_gather_own_k(const lsp_gather *g, const lsp_panel_spec *spec);
const void *lsp_gather_own_v(const lsp_gather *g, const lsp_panel_spec *spec);
/* Local. In loops that wait: false when the wait function ends the wait. */
bool lsp_gather_keep_waiting(lsp_gather *g);
/* Local. Keeps the first failure of the pass. */
void lsp_gather_check(lsp_gather *g, int mpi_code, const char *what);
/* Local. For tests: mode node takes at most `ranks` ranks for a node (0, the default: all that share
 * memory) in gathers created from now on, so that one machine has several. Returns the number before. */
int lsp_gather_node_set_ranks(int ranks);
/* Local. Rows of the largest panel. */
int64_t lsp_gather_panel_rows(const lsp_gather_desc *desc);

#endif
