/* Reductions of any size, and of blocks that a function joins. SPDX-License-Identifier: BSD-3-Clause */
#include "base/checked.h"
#include "comm/context.h"
#include "comm/rows.h"

#include <stdlib.h>

enum { JOIN_TAG = 7301, PIECES_AT_ONCE = 16 };

static lsp_status reduce_many(lsp_context *ctx, void *values, int64_t count, size_t size, MPI_Datatype type,
                              MPI_Op op)
{
    const int64_t most = 1 << 20; /* MPI may take as much room again */
    int code = MPI_SUCCESS;
    for (int64_t i = 0; code == MPI_SUCCESS && i < count; i += most) {
        int piece = (int)lsp_min(most, count - i);
        code = MPI_Allreduce(MPI_IN_PLACE, (char *)values + (size_t)i * size, piece, type, op, ctx->comm);
    }
    return lsp_context_mpi(ctx, code, "a reduction over all ranks");
}

lsp_status lsp_context_sum_many_i64(lsp_context *ctx, int64_t *values, int64_t count)
{
    return reduce_many(ctx, values, count, sizeof *values, MPI_INT64_T, MPI_SUM);
}

lsp_status lsp_context_max_many_f64(lsp_context *ctx, double *values, int64_t count)
{
    return reduce_many(ctx, values, count, sizeof *values, MPI_DOUBLE, MPI_MAX);
}

/* Sends or receives one block. */
static int move_block(lsp_context *ctx, void *block, int64_t bytes, int other, bool send)
{
    MPI_Request requests[PIECES_AT_ONCE];
    int pieces = lsp_rows_pieces(bytes);
    if (pieces > PIECES_AT_ONCE) return MPI_ERR_COUNT;
    int code = send ? lsp_rows_isend(block, bytes, other, JOIN_TAG, ctx->comm, requests)
                    : lsp_rows_irecv(block, bytes, other, JOIN_TAG, ctx->comm, requests);
    return code == MPI_SUCCESS ? MPI_Waitall(pieces, requests, MPI_STATUSES_IGNORE) : code;
}

lsp_status lsp_context_join(lsp_context *ctx, void *block, void *room, int64_t bytes,
                            void (*join)(void *user, void *into, const void *from), void *user)
{
    int rank = ctx->layout.rank, ranks = ctx->layout.ranks, code = MPI_SUCCESS;
    for (int step = 1; code == MPI_SUCCESS && step < ranks; step *= 2) {
        if (rank % (2 * step) != 0) {
            code = move_block(ctx, block, bytes, rank - step, true);
            break;
        }
        if (rank + step >= ranks) continue;
        code = move_block(ctx, room, bytes, rank + step, false);
        if (code == MPI_SUCCESS) join(user, block, room);
    }
    lsp_status status = lsp_context_mpi(ctx, code, "joining blocks of all ranks");
    return status == LSP_OK ? lsp_context_broadcast(ctx, 0, block, bytes) : status;
}
