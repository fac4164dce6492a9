/* What `auto` means for head groups and the gather mode. Pure arithmetic, the same answer on every rank; what
 * communication costs is from simulated clusters (tests/simulate/) and from MPI's own behaviour with sleeping ranks there.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_METHOD_CHOOSE_H
#define LSP_METHOD_CHOOSE_H

#include "method/problem.h"

/* Local. Groups of ranks over which heads are split; divides `ranks`. */
int lsp_choose_groups(const lsp_problem *problem, int ranks);

/* Local. How a group of `ranks` ranks gathers keys and values of `bytes` bytes. */
lsp_gather_mode lsp_choose_gather(const lsp_problem *problem, int ranks, int64_t bytes);

#endif
