/* One buffer passed along a chain of ranks in segments: each forwards a segment as soon as it has it.
 *
 * Nothing in it is a collective: only the ranks of the chain take part. MPI advances in
 * lsp_chain_progress. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_COMM_CHAIN_H
#define LSP_COMM_CHAIN_H

#include <mpi.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct lsp_chain {
    char *data;
    int64_t bytes, segment_bytes;
    int segments, received, forwarded; /* segments there, segments handed to the next rank */
    int previous, next, tag;           /* ranks in comm; -1: none */
    MPI_Comm comm;
    MPI_Request *receives, *sends; /* [segments each] */
    int capacity;
    int64_t waiting_send; /* first send not known to be complete */
} lsp_chain;

/* Local. Bytes of one segment: chosen so that a chain of many ranks fills quickly and latency does
 * not matter much; never above the count limit. */
int64_t lsp_chain_segment_bytes(void);

/* Local. For simulations and tests: another size from now on (0: the built-in one). Returns the size before. */
int64_t lsp_chain_set_segment_bytes(int64_t bytes);

/* Local. Room for messages of up to `bytes` bytes (they are not to become longer); MPI_ERR_NO_MEM, MPI_ERR_COUNT. Starting
 * needs no memory then: a rank without could not tell the others any more. */
int lsp_chain_reserve(lsp_chain *chain, int64_t bytes);

/* Local. Starts passing `bytes` of `data` from `previous` (-1: this rank has them) to `next` (-1: the
 * end). Returns an MPI code. The chain must be idle, and have room. */
int lsp_chain_start(lsp_chain *chain, void *data, int64_t bytes, int previous, int next, int tag,
                    MPI_Comm comm);

/* Local. Advances; returns an MPI code. */
int lsp_chain_progress(lsp_chain *chain);

/* Local. All segments are here / nothing is left to do. */
bool lsp_chain_arrived(const lsp_chain *chain);
bool lsp_chain_idle(const lsp_chain *chain);

/* Local. Frees the request arrays; the chain must be idle. */
void lsp_chain_free(lsp_chain *chain);

#endif
