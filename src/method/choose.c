/* Head groups and gather mode. SPDX-License-Identifier: BSD-3-Clause */
#include "method/choose.h"

#include "base/checked.h"

enum {
    ROWS_WORTH_A_RANK = 512, /* with fewer rows a rank, splitting heads pays before splitting rows */
    ALL_BYTES = 8 << 20,     /* K and V of a group up to here are gathered at once, ... */
    /* ... and up to this times the ranks: a chain first passes a segment along all ranks and around. Simulated (README), both
     * cost the same at 1 MiB a rank; over TCP an allgather took 1.5 times what was simulated. */
    ALL_BYTES_A_RANK = 512 << 10,
    ALL_BYTES_MOST = 256 << 20, /* they stand in the memory of every rank */
    RANKS_OF_A_CHAIN =
        5 /* to fewer Open MPI's MPI_Ibcast sends straight from the owner, to more in segments of 32 KiB */
};

/* Every matrix of K and V meets as many pairs as any other. */
static bool work_alike(const lsp_problem *p)
{
    if (p->key_lengths && p->desc.batch > 1) return false;
    for (int64_t kv = 0; kv < p->desc.kv_heads; kv++)
        if (p->query_first[kv + 1] - p->query_first[kv] != p->query_first[1] - p->query_first[0])
            return false;
    return true;
}

int lsp_choose_groups(const lsp_problem *p, int ranks)
{
    if (p->whole_heads) return 1;
    int64_t rows = p->desc.row_end - p->desc.row_begin;
    /* A rank receives and packs the keys of its group's heads alone, and has as many rows more for each of them: nothing is
     * lost by more groups as long as these have equal work. */
    bool alike = work_alike(p);
    int groups = 1;
    for (int g = 1; g <= ranks; g++) {
        if (ranks % g != 0 || p->units % g != 0) continue;
        groups = g;
        if (!alike && rows / (ranks / g) >= ROWS_WORTH_A_RANK) break;
    }
    return groups;
}

lsp_gather_mode lsp_choose_gather(const lsp_problem *p, int ranks, int64_t bytes)
{
    /* Panels that few need go to these alone. */
    if (p->desc.mask == LSP_MASK_WINDOW || p->documents || p->mask.block_size > 0) return LSP_GATHER_PANELS;
    int64_t at_once = lsp_min(ALL_BYTES_MOST, lsp_max(ALL_BYTES, (int64_t)ranks * ALL_BYTES_A_RANK));
    if (bytes <= at_once) return LSP_GATHER_ALL;
    return ranks >= RANKS_OF_A_CHAIN ? LSP_GATHER_CHAIN : LSP_GATHER_PANELS;
}
