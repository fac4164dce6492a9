/* Cores: which ones this process may use, and with whom it shares them.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_COMM_CORES_H
#define LSP_COMM_CORES_H

#include "comm/context.h"

#include <stddef.h>

/* Local. The set of cores that this process may run on, one bit each as the kernel numbers them:
 * *bytes bytes, freed with lsp_memory_free. The first attempt has room for 8 * first_bytes cores (a
 * multiple of 8 bytes, or 0), and it grows until the kernel's set fits. Returns 0 or an errno. */
int lsp_cores_affinity(size_t first_bytes, unsigned char **set, size_t *bytes);

/* Collective. Cores this process may run on, how many ranks of its node (this one too) share some of
 * them, and the cores of all of the node's ranks together. */
lsp_status lsp_cores_count(lsp_context *ctx, int *mine, int *sharers, int *node);

#endif
