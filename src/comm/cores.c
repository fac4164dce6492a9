/* Affinity masks of a node's ranks, for any number of cores. SPDX-License-Identifier: BSD-3-Clause */
#ifndef _GNU_SOURCE
#    define _GNU_SOURCE
#endif
#include "comm/cores.h"

#include "base/checked.h"
#include "base/memory.h"

#include <errno.h>
#include <sched.h>
#include <string.h>

enum { FIRST_BYTES = 128, MOST_BYTES = 1 << 20 };

int lsp_cores_affinity(size_t first_bytes, unsigned char **set, size_t *bytes)
{
    for (size_t size = first_bytes; size <= MOST_BYTES; size = size > 0 ? 2 * size : sizeof(long)) {
        *set = lsp_memory_zalloc((int64_t)size, 1);
        if (!*set) return ENOMEM;
        *bytes = size;
        if (sched_getaffinity(0, size, (cpu_set_t *)(void *)*set) == 0) return 0;
        int reason = errno;
        lsp_memory_free(*set);
        *set = NULL;
        if (reason != EINVAL) return reason; /* EINVAL: the kernel's set is larger */
    }
    return EINVAL;
}

static int count_bits(const unsigned char *set, size_t bytes)
{
    int count = 0;
    for (size_t i = 0; i < bytes; i++) count += __builtin_popcount(set[i]);
    return count;
}

/* all: [ranks][bytes], one set after the other. */
static void compare_sets(const unsigned char *mine, const unsigned char *all, size_t bytes, int ranks,
                         unsigned char *together, int *sharers)
{
    *sharers = 0;
    for (int r = 0; r < ranks; r++) {
        bool shared = false;
        for (size_t i = 0; i < bytes; i++) {
            unsigned char theirs = all[(size_t)r * bytes + i];
            shared = shared || (mine[i] & theirs) != 0;
            together[i] = (unsigned char)(together[i] | theirs);
        }
        *sharers += shared;
    }
}

lsp_status lsp_cores_count(lsp_context *ctx, int *mine, int *sharers, int *node)
{
    unsigned char *set = NULL, *all = NULL;
    size_t bytes = 0;
    int ranks = ctx->layout.node_ranks, size = 0;
    lsp_status status = LSP_OK;
    int reason = lsp_cores_affinity(FIRST_BYTES, &set, &bytes);
    if (reason != 0)
        status = lsp_context_fail(ctx, LSP_ERR_LIMIT, "the cores of this process cannot be found: %s",
                                  strerror(reason));
    status = lsp_context_agree(ctx, status);
    int64_t common = (int64_t)bytes; /* ranks of one node have one kernel, hence one size; nodes may differ */
    if (status == LSP_OK) status = lsp_context_max_i64(ctx, &common, 1);
    /* This rank's set, what all have together, then everybody's. */
    if (status == LSP_OK) {
        all = lsp_memory_zalloc(ranks + 2, (size_t)common);
        bool ok = all && lsp_checked_int(common, &size);
        if (!ok) status = lsp_context_fail(ctx, LSP_ERR_LIMIT, "not enough memory for the table of cores");
    }
    status = lsp_context_agree(ctx, status);
    if (status == LSP_OK) {
        unsigned char *together = all + common, *everybody = together + common;
        memcpy(all, set, bytes);
        int mpi = MPI_Allgather(all, size, MPI_BYTE, everybody, size, MPI_BYTE, ctx->node_comm);
        compare_sets(all, everybody, (size_t)common, ranks, together, sharers);
        *mine = count_bits(all, (size_t)common);
        *node = count_bits(together, (size_t)common);
        status = lsp_context_mpi(ctx, mpi, "counting cores");
    }
    lsp_memory_free(set);
    lsp_memory_free(all);
    return status;
}
