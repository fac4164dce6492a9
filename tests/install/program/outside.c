/* Longspan from outside: what a program may call, through the public header and an installed library.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "outside.h"

#include <stdio.h>

int main(int argc, char **argv)
{
    int provided;
    char message[512];
    lsp_context *ctx = NULL;
    MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
    if (lsp_context_create(MPI_COMM_WORLD, NULL, &ctx, message, sizeof message)) {
        fprintf(stderr, "outside: context: %s\n", message);
        MPI_Abort(MPI_COMM_WORLD, 1);
    }

    long long rows = try_exact(ctx);
    MPI_Allreduce(MPI_IN_PLACE, &rows, 1, MPI_LONG_LONG, MPI_SUM, MPI_COMM_WORLD);
    expect("rows", (double)rows, HEADS * ROWS, 0);
    try_topk(ctx);
    try_compare(ctx);
    try_operator(ctx);
    try_svd(ctx);

    lsp_context_layout layout = lsp_context_get_layout(ctx);
    if (layout.rank == 0)
        printf("outside: longspan %s, %d ranks, %lld rows: attention, topk, compare, operator, svd\n",
               lsp_version(), layout.ranks, rows);
    lsp_context_destroy(&ctx);
    MPI_Finalize();
    return 0;
}
