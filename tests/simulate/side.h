/* What gather_timed asks of the world that it runs in: SMPI's (smpi_side.c) or this machine's (sleeping_side.c).
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef SIMULATE_SIDE_H
#define SIMULATE_SIDE_H

#include <longspan/status.h>

/* Local. Lets `seconds` pass, as if this rank had computed. */
void side_compute(double seconds);

/* Local. What a waiting rank does between two looks (lsp_gather_wait_fn): time must pass. */
lsp_status side_wait(void *user);

#endif
