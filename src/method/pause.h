/* Resting in the middle of an execution: when all ranks do, and how they come to it.
 *
 * The main thread polls between chunks of rows and in every wait. When a round of the accord tells that some rank
 * wants something, threads take no further chunk, and all ranks meet in `rest`. What each row has met stands in
 * plan->met. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_METHOD_PAUSE_H
#define LSP_METHOD_PAUSE_H

#include "comm/accord.h"
#include "comm/gather.h"

#include <longspan/checkpoint.h>

typedef struct lsp_pausing {
    lsp_pause asked; /* want is NULL: executions never rest */
    lsp_accord *accord;
    _Atomic bool halted; /* all ranks are on their way to rest */
    lsp_want want;       /* that they halted for */
    lsp_status stopped;  /* what the execution was ended with, on all ranks */
    double seconds;      /* rested in this execution */
    double waited;       /* of them, while the gather waited */
} lsp_pausing;

/* Local. Nothing has been rested for in this execution. */
void lsp_pause_begin(lsp_attention *plan);

/* Local (main thread). Between chunks of rows. */
void lsp_pause_poll(lsp_attention *plan);

/* Local, any thread. Whether to take no further chunk. */
bool lsp_pause_halted(lsp_attention *plan);

/* Collective where halted (every rank comes to it), else local: rests. Not LSP_OK: what the execution ends with. */
lsp_status lsp_pause_rest(lsp_attention *plan);

/* Local. Polls and rests: for the waits of a gather; user is the plan. */
lsp_status lsp_pause_wait(void *user);

/* Collective. Waits for all ranks to come here with `mine`, the status of their pass, and rests with those that have not.
 * Where the pass was to be ended early, ends that of `gather`. */
lsp_status lsp_pause_meet(lsp_attention *plan, lsp_gather *gather, lsp_status mine);

/* Collective. */
void lsp_pause_release(lsp_attention *plan);

#endif
