/* The bandwidth of reading memory. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_STUDY_BANDWIDTH_H
#define LSP_STUDY_BANDWIDTH_H

#include <longspan/context.h>
#include <stdint.h>

/* An array for each thread of this rank, touched by it. */
typedef struct lsp_bandwidth {
    int64_t words; /* of each array */
    uint64_t **arrays;
    uint64_t sum; /* of all passes: nothing may be left out as useless */
} lsp_bandwidth;

/* Collective. Arrays of `bytes` bytes (0: chosen, see lsp_measure_read_bandwidth). On failure too,
 * lsp_bandwidth_free is to be called. */
lsp_status lsp_bandwidth_create(lsp_context *ctx, int64_t bytes, lsp_bandwidth *bandwidth);

/* Collective. All threads of all ranks read their arrays once; the rate of all together, of the slowest rank. */
lsp_status lsp_bandwidth_pass(lsp_context *ctx, lsp_bandwidth *bandwidth, double *bytes_per_second);

/* Local. */
void lsp_bandwidth_free(lsp_context *ctx, lsp_bandwidth *bandwidth);

#endif
