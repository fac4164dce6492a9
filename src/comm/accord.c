/* Rounds of a nonblocking reduction. SPDX-License-Identifier: BSD-3-Clause */
#include "comm/accord.h"

#include "base/clock.h"
#include "base/memory.h"

#include <string.h>

static const double pause_seconds = 0.01; /* between two rounds that nobody hurries */

struct lsp_accord {
    lsp_context *ctx;
    MPI_Comm comm;
    MPI_Request request;
    bool under_way;
    double next; /* lsp_clock() */
    int64_t said[LSP_ACCORD_NUMBERS], heard[LSP_ACCORD_NUMBERS];
};

lsp_status lsp_accord_create(lsp_context *ctx, lsp_accord **out)
{
    lsp_accord *accord = lsp_memory_zalloc(1, sizeof *accord);
    lsp_status status =
        accord ? LSP_OK : lsp_context_fail(ctx, LSP_ERR_LIMIT, "not enough memory for an accord");
    if (accord) *accord = (lsp_accord){.ctx = ctx, .comm = MPI_COMM_NULL};
    *out = accord;
    status = lsp_context_agree(ctx, status);
    if (status == LSP_OK) {
        status = lsp_context_mpi(ctx, MPI_Comm_dup(ctx->comm, &accord->comm), "copying the communicator");
        if (status == LSP_OK)
            status = lsp_context_mpi(ctx, MPI_Comm_set_errhandler(accord->comm, MPI_ERRORS_RETURN),
                                     "copying the communicator");
        status = lsp_context_agree(ctx, status);
    }
    if (status != LSP_OK) lsp_accord_destroy(out);
    return status;
}

bool lsp_accord_step(lsp_accord *a, const int64_t mine[LSP_ACCORD_NUMBERS], bool hurried,
                     int64_t all[LSP_ACCORD_NUMBERS], lsp_status *status)
{
    int code = MPI_SUCCESS, ended = 0;
    *status = a->ctx->broken ? LSP_ERR_RANK : LSP_OK;
    if (a->ctx->broken) return false;
    if (!a->under_way) {
        if (!hurried && lsp_clock() < a->next) return false;
        memcpy(a->said, mine, sizeof a->said);
        code =
            MPI_Iallreduce(a->said, a->heard, LSP_ACCORD_NUMBERS, MPI_INT64_T, MPI_MAX, a->comm, &a->request);
        a->under_way = code == MPI_SUCCESS;
    }
    if (code == MPI_SUCCESS) code = MPI_Test(&a->request, &ended, MPI_STATUS_IGNORE);
    *status = lsp_context_mpi(a->ctx, code, "the accord of all ranks");
    if (*status != LSP_OK || !ended) return false;
    a->under_way = false;
    a->next = lsp_clock() + pause_seconds;
    memcpy(all, a->heard, sizeof a->heard);
    return true;
}

void lsp_accord_destroy(lsp_accord **accord)
{
    lsp_accord *a = accord ? *accord : NULL;
    if (!a) return;
    if (a->comm != MPI_COMM_NULL) (void)MPI_Comm_free(&a->comm);
    lsp_memory_free(a);
    *accord = NULL;
}
