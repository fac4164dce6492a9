/* What all ranks want, found out while they compute: rounds of a reduction that nobody waits for.
 *
 * A rank takes part in a round when it says its numbers; a round ends when all have. All ranks learn the same of
 * every round, so that what follows from it may be collective. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_COMM_ACCORD_H
#define LSP_COMM_ACCORD_H

#include "comm/context.h"

#include <stdbool.h>

enum { LSP_ACCORD_NUMBERS = 2 };

typedef struct lsp_accord lsp_accord;

/* Collective. Takes a communicator of its own. */
lsp_status lsp_accord_create(lsp_context *ctx, lsp_accord **out);

/* Local (main thread). Begins a round with `mine` unless one is under way; an unhurried rank leaves some milliseconds
 * between two. True when a round has ended: all[] is the largest that a rank said, the same on every rank. Rounds end
 * with one that tells every rank to begin no other. *status: LSP_ERR_RANK when MPI fails. */
bool lsp_accord_step(lsp_accord *accord, const int64_t mine[LSP_ACCORD_NUMBERS], bool hurried,
                     int64_t all[LSP_ACCORD_NUMBERS], lsp_status *status);

/* Collective. No round may be under way. NULL is allowed. */
void lsp_accord_destroy(lsp_accord **accord);

#endif
