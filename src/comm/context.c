/* The context: communicator, node, threads, and one verdict for all ranks.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "comm/context.h"

#include "base/checked.h"
#include "base/memory.h"
#include "comm/cores.h"
#include "comm/rows.h"

#include <omp.h>
#include <stdio.h>
#include <string.h>

enum { REDUCE_MOST = 1000 };

const char *lsp_version(void)
{
    return LSP_VERSION;
}

lsp_status lsp_context_fail(lsp_context *ctx, lsp_status code, const char *format, ...)
{
    if (ctx->broken) return LSP_ERR_RANK;
    va_list args;
    va_start(args, format);
    lsp_error_vset(&ctx->error, code, format, args);
    va_end(args);
    ctx->failed_rank = ctx->layout.rank;
    ctx->broken = code == LSP_ERR_RANK;
    return code;
}

lsp_status lsp_context_mpi(lsp_context *ctx, int mpi_code, const char *what)
{
    if (mpi_code == MPI_SUCCESS) return LSP_OK;
    char text[MPI_MAX_ERROR_STRING] = "unknown error";
    int length = 0;
    MPI_Error_string(mpi_code, text, &length);
    return lsp_context_fail(ctx, LSP_ERR_RANK,
                            "MPI failed in %s: %s; look at the nodes and their network, and start it again",
                            what, text);
}

bool lsp_context_deserted(const lsp_context *ctx)
{
    return ctx->broken && ctx->layout.ranks > 1;
}

/* ---- reductions -------------------------------------------------------------------------------- */

static lsp_status reduce(lsp_context *ctx, void *values, int count, MPI_Datatype type, MPI_Op op)
{
    if (count < 0 || count > REDUCE_MOST)
        return lsp_context_fail(ctx, LSP_ERR_USAGE, "a reduction takes 0 to %d values, not %d", REDUCE_MOST,
                                count);
    if (count == 0) return LSP_OK;
    if (ctx->broken) return LSP_ERR_RANK;
    return lsp_context_mpi(ctx, MPI_Allreduce(MPI_IN_PLACE, values, count, type, op, ctx->comm),
                           "a reduction over all ranks");
}

lsp_status lsp_context_sum_f64(lsp_context *ctx, double *values, int count)
{
    return reduce(ctx, values, count, MPI_DOUBLE, MPI_SUM);
}

lsp_status lsp_context_max_f64(lsp_context *ctx, double *values, int count)
{
    return reduce(ctx, values, count, MPI_DOUBLE, MPI_MAX);
}

lsp_status lsp_context_min_f64(lsp_context *ctx, double *values, int count)
{
    return reduce(ctx, values, count, MPI_DOUBLE, MPI_MIN);
}

lsp_status lsp_context_sum_i64(lsp_context *ctx, int64_t *values, int count)
{
    return reduce(ctx, values, count, MPI_INT64_T, MPI_SUM);
}

lsp_status lsp_context_max_i64(lsp_context *ctx, int64_t *values, int count)
{
    return reduce(ctx, values, count, MPI_INT64_T, MPI_MAX);
}

lsp_status lsp_context_min_i64(lsp_context *ctx, int64_t *values, int count)
{
    return reduce(ctx, values, count, MPI_INT64_T, MPI_MIN);
}

lsp_status lsp_context_sum_u64(lsp_context *ctx, uint64_t *values, int count)
{
    return reduce(ctx, values, count, MPI_UINT64_T, MPI_SUM);
}

lsp_status lsp_context_barrier(lsp_context *ctx)
{
    if (ctx->broken) return LSP_ERR_RANK;
    return lsp_context_mpi(ctx, MPI_Barrier(ctx->comm), "a barrier");
}

lsp_status lsp_context_broadcast(lsp_context *ctx, int root, void *data, int64_t bytes)
{
    if (ctx->broken) return LSP_ERR_RANK;
    return lsp_context_mpi(ctx, lsp_rows_bcast(data, bytes, root, ctx->comm), "a broadcast");
}

/* ---- one verdict ------------------------------------------------------------------------------- */

lsp_status lsp_context_agree(lsp_context *ctx, lsp_status mine)
{
    struct {
        int code, rank;
    } verdict = {(int)mine, ctx->layout.rank};
    if (ctx->broken) return LSP_ERR_RANK;
    int mpi = MPI_Allreduce(MPI_IN_PLACE, &verdict, 1, MPI_2INT, MPI_MAXLOC, ctx->comm);
    if (mpi != MPI_SUCCESS) return lsp_context_mpi(ctx, mpi, "the agreement of all ranks");
    if (verdict.code == LSP_OK) return LSP_OK;
    mpi = MPI_Bcast(&ctx->error, (int)sizeof ctx->error, MPI_BYTE, verdict.rank, ctx->comm);
    if (mpi != MPI_SUCCESS) return lsp_context_mpi(ctx, mpi, "telling all ranks of a failure");
    ctx->failed_rank = verdict.rank;
    return (lsp_status)verdict.code;
}

/* ---- where this rank stands -------------------------------------------------------------------- */

static lsp_status find_node(lsp_context *ctx)
{
    lsp_context_layout *layout = &ctx->layout;
    int mpi =
        MPI_Comm_split_type(ctx->comm, MPI_COMM_TYPE_SHARED, layout->rank, MPI_INFO_NULL, &ctx->node_comm);
    if (mpi != MPI_SUCCESS) return lsp_context_mpi(ctx, mpi, "finding the ranks of this node");
    mpi = lsp_rows_adopt(ctx->node_comm, &layout->node_rank, &layout->node_ranks);
    int leader = layout->node_rank == 0, before = 0;
    if (mpi == MPI_SUCCESS) mpi = MPI_Exscan(&leader, &before, 1, MPI_INT, MPI_SUM, ctx->comm);
    if (layout->rank == 0) before = 0;
    layout->node = before;
    if (mpi == MPI_SUCCESS) mpi = MPI_Bcast(&layout->node, 1, MPI_INT, 0, ctx->node_comm);
    if (mpi == MPI_SUCCESS) mpi = MPI_Allreduce(&leader, &layout->nodes, 1, MPI_INT, MPI_SUM, ctx->comm);
    return lsp_context_mpi(ctx, mpi, "numbering the nodes");
}

static lsp_status check_threads(lsp_context *ctx, int asked)
{
    int provided = MPI_THREAD_SINGLE;
    lsp_status status = lsp_context_mpi(ctx, MPI_Query_thread(&provided), "asking for its thread support");
    if (status != LSP_OK) return status;
    if (asked < 0)
        return lsp_context_fail(ctx, LSP_ERR_USAGE, "threads must be 0 (automatic) or more, not %d", asked);
    if (provided < MPI_THREAD_FUNNELED && asked > 1)
        return lsp_context_fail(ctx, LSP_ERR_USAGE,
                                "%d threads a rank need MPI_Init_thread with MPI_THREAD_FUNNELED", asked);
    return LSP_OK;
}

static lsp_status settle_threads(lsp_context *ctx, int asked)
{
    int cores = 1, sharers = 1;
    lsp_status status = lsp_cores_count(ctx, &cores, &sharers, &ctx->layout.cores_node);
    if (status != LSP_OK) return status;
    int provided = MPI_THREAD_SINGLE;
    status = lsp_context_mpi(ctx, MPI_Query_thread(&provided), "asking for its thread support");
    if (status != LSP_OK) return status;
    int threads = asked > 0 ? asked : cores / (sharers > 0 ? sharers : 1);
    if (threads < 1) threads = 1;
    if (provided < MPI_THREAD_FUNNELED) threads = 1;
    ctx->layout.threads = threads;
    return lsp_context_mpi(
        ctx, MPI_Allreduce(&threads, &ctx->layout.threads_node, 1, MPI_INT, MPI_SUM, ctx->node_comm),
        "counting threads");
}

/* ---- life -------------------------------------------------------------------------------------- */

static lsp_status refuse(char *message, size_t size, lsp_status code, const char *text)
{
    if (message && size) (void)snprintf(message, size, "%s", text);
    return code;
}

lsp_status lsp_context_create(MPI_Comm comm, const lsp_context_options *options, lsp_context **out,
                              char *message, size_t message_size)
{
    *out = NULL;
    int initialised = 0;
    MPI_Initialized(&initialised);
    if (!initialised)
        return refuse(message, message_size, LSP_ERR_USAGE,
                      "MPI is not initialised: call MPI_Init_thread first");
    lsp_context *ctx = lsp_memory_zalloc(1, sizeof *ctx);
    MPI_Comm copy = MPI_COMM_NULL;
    int able = ctx != NULL, rank = 0, ranks = 0;
    int mpi = MPI_Comm_dup(comm, &copy);
    if (mpi == MPI_SUCCESS) mpi = lsp_rows_adopt(copy, &rank, &ranks);
    if (mpi == MPI_SUCCESS) mpi = MPI_Allreduce(MPI_IN_PLACE, &able, 1, MPI_INT, MPI_MIN, copy);
    if (mpi != MPI_SUCCESS || !able) {
        if (copy != MPI_COMM_NULL) MPI_Comm_free(&copy);
        lsp_memory_free(ctx);
        return mpi != MPI_SUCCESS
                   ? refuse(message, message_size, LSP_ERR_RANK,
                            "MPI failed in copying the communicator; look at the nodes and their network")
                   : refuse(message, message_size, LSP_ERR_LIMIT,
                            "not enough memory for a context; use more nodes, or fewer ranks a node");
    }
    ctx->comm = copy;
    ctx->node_comm = MPI_COMM_NULL;
    ctx->failed_rank = -1;
    ctx->layout.rank = rank;
    ctx->layout.ranks = ranks;
    int asked = options ? options->threads : 0;
    lsp_status status = lsp_context_agree(ctx, check_threads(ctx, asked));
    if (status == LSP_OK) status = find_node(ctx);
    if (status == LSP_OK) status = lsp_context_agree(ctx, settle_threads(ctx, asked));
    if (status == LSP_OK) {
        *out = ctx;
        return LSP_OK;
    }
    refuse(message, message_size, status, ctx->error.text);
    lsp_context_destroy(&ctx);
    return status;
}

lsp_status lsp_context_destroy(lsp_context **ctx)
{
    if (!ctx || !*ctx) return LSP_OK;
    if ((*ctx)->node_comm != MPI_COMM_NULL) MPI_Comm_free(&(*ctx)->node_comm);
    MPI_Comm_free(&(*ctx)->comm);
    lsp_memory_free(*ctx);
    *ctx = NULL;
    return LSP_OK;
}

const char *lsp_context_message(const lsp_context *ctx)
{
    return ctx->error.text;
}

int lsp_context_failed_rank(const lsp_context *ctx)
{
    return ctx->failed_rank;
}

lsp_context_layout lsp_context_get_layout(const lsp_context *ctx)
{
    return ctx->layout;
}
