/* Inside of the context: for the floors above comm. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_COMM_CONTEXT_H
#define LSP_COMM_CONTEXT_H

#include "base/error.h"

#include <longspan/context.h>
#include <mpi.h>
#include <stdint.h>

struct lsp_context {
    MPI_Comm comm;      /* our copy of the caller's */
    MPI_Comm node_comm; /* the ranks of this node */
    lsp_context_layout layout;
    lsp_error error;
    int failed_rank;
    bool broken; /* MPI has failed on this rank: see lsp_context_mpi */
};

/* Local. Checks an MPI return code; on failure records what (with MPI's text) as LSP_ERR_RANK.
 *
 * The other ranks may be anywhere then, waiting for this one: from now on the context is broken, nothing collective is
 * begun any more on this rank, all of it returns LSP_ERR_RANK at once, and the text stays. What could be removed by this
 * rank alone is. */
lsp_status lsp_context_mpi(lsp_context *ctx, int mpi_code, const char *what);

/* Local. Whether the context is broken and there are other ranks: then nothing may be called that waits for them. */
bool lsp_context_deserted(const lsp_context *ctx);

/* Collective. Reductions of small arrays (count below 1000) in place; element-wise. */
lsp_status lsp_context_sum_f64(lsp_context *ctx, double *values, int count);
lsp_status lsp_context_max_f64(lsp_context *ctx, double *values, int count);
lsp_status lsp_context_min_f64(lsp_context *ctx, double *values, int count);
lsp_status lsp_context_sum_i64(lsp_context *ctx, int64_t *values, int count);
lsp_status lsp_context_max_i64(lsp_context *ctx, int64_t *values, int count);
lsp_status lsp_context_min_i64(lsp_context *ctx, int64_t *values, int count);
/* Sum modulo 2^64. */
lsp_status lsp_context_sum_u64(lsp_context *ctx, uint64_t *values, int count);

/* Collective. The same of any number of values. */
lsp_status lsp_context_sum_many_i64(lsp_context *ctx, int64_t *values, int64_t count);
lsp_status lsp_context_max_many_f64(lsp_context *ctx, double *values, int64_t count);

/* Collective. Joins the blocks of all ranks, of `bytes` bytes each, into one that every rank then has: join(user, into,
 * from) adds block `from` to `into`. The result must not depend on the order. room: for one more block. */
lsp_status lsp_context_join(lsp_context *ctx, void *block, void *room, int64_t bytes,
                            void (*join)(void *user, void *into, const void *from), void *user);

/* Collective. Broadcast of bytes from a rank (checked counts). */
lsp_status lsp_context_broadcast(lsp_context *ctx, int root, void *data, int64_t bytes);

/* Collective. */
lsp_status lsp_context_barrier(lsp_context *ctx);

#endif
