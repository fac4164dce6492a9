/* Attention's communication on a described cluster: the partition and the gather of Longspan as they are, run by SimGrid's SMPI;
 * computing is replaced by its time. One rank a node.
 *
 *   smpirun ... gather_simulated N M D HEADS GROUPS MODE FLOPS_PER_NODE [PANEL_ROWS [SLICES [SEGMENT]]]
 *
 * GROUPS 0: as Longspan chooses. MODE: all or chain (SMPI broadcasts without blocking in a flat way, which real MPI does not).
 * FLOPS_PER_NODE: what attention reaches on a node, by `longspan bench`. PANEL_ROWS 0: as Longspan chooses. SLICES: times a
 * panel that MPI gets to advance (8). SEGMENT: bytes of the chain's messages (0: Longspan's).
 * Prints one line: ranks, groups, panels, seconds in all, waited (most and mean over ranks), computed, bytes received by a rank.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include "base/memory.h"
#include "comm/chain.h"
#include "comm/gather.h"
#include "comm/rows.h"
#include "kernel/kernel.h"
#include "method/method.h"
#include "method/partition.h"

#include <mpi.h>
#include <smpi/smpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The problem asks the registry of methods, which would bring all of them. */
const lsp_method_ops *lsp_method_get(lsp_method method)
{
    static const lsp_method_ops exact = {.name = "exact"};
    return method == LSP_METHOD_EXACT ? &exact : NULL;
}

/* What a waiting rank does between two looks: simulated time must pass, and each look costs real time. */
int lsp_simulated_yield(void);
int lsp_simulated_yield(void)
{
    return usleep(20);
}

static bool needed(const void *user, int64_t panel, int rank)
{
    (void)user;
    (void)panel;
    (void)rank;
    return true; /* no mask */
}

typedef struct run {
    lsp_context *ctx;
    lsp_problem problem;
    lsp_partition partition;
    lsp_panel_spec *panels;
    int64_t *first_tiles, panel_count, *owned_first;
    int group, group_rank;
    lsp_gather *gather;
    double flops, seconds; /* of a node; of the pass on this rank */
    int slices;
} run;

static int fail(const char *text)
{
    (void)fprintf(stderr, "gather_simulated: error: %s\n", text);
    MPI_Abort(MPI_COMM_WORLD, 2);
    return 2;
}

static lsp_status prepare(run *r, const lsp_attention_desc *desc, lsp_error *error)
{
    lsp_context_layout at = lsp_context_get_layout(r->ctx);
    lsp_status status = lsp_problem_make(desc, &r->problem, error);
    if (status != LSP_OK) return status;
    lsp_tile_shape shape = lsp_kernel_get(LSP_ISA_PORTABLE, desc->compute)->shape(desc->d_k, desc->d_v);
    status = lsp_partition_make(&r->problem, &shape, at.ranks, &r->partition, error);
    if (status != LSP_OK) return status;
    const lsp_partition *p = &r->partition;
    r->group = at.rank / p->group_ranks;
    r->group_rank = at.rank % p->group_ranks;
    r->owned_first = lsp_memory_alloc(p->group_ranks + 1, sizeof *r->owned_first);
    for (int i = 0; i <= p->group_ranks; i++)
        r->owned_first[i] = lsp_partition_tile_row(p, lsp_partition_owned_tile(p, r->group, i));
    return lsp_partition_panels(p, r->group, &r->panels, &r->first_tiles, &r->panel_count, error);
}

static lsp_status pass(run *r, const void *k, const void *v)
{
    const lsp_attention_desc *d = &r->problem.desc;
    /* Rows of Q that meet a panel: those of the query heads of its K/V head. */
    double rows = (double)(r->partition.rows[r->group_rank] * (d->heads / d->kv_heads));
    lsp_panel panel;
    lsp_status status = lsp_gather_start(r->gather, k, v);
    while (status == LSP_OK && lsp_gather_next(r->gather, &panel, &status)) {
        double flops = rows * (double)r->panels[panel.index].count * 2 * (double)(d->d_k + d->d_v);
        for (int i = 0; i < r->slices; i++) {
            smpi_execute_benched(flops / r->flops / r->slices);
            lsp_gather_progress(r->gather);
        }
        r->seconds += flops / r->flops;
        lsp_gather_release(r->gather);
    }
    return status == LSP_OK ? lsp_gather_finish(r->gather) : status;
}

static int tell(const run *r, double total)
{
    lsp_context_layout at = lsp_context_get_layout(r->ctx);
    double most[3] = {total, lsp_gather_seconds_waited(r->gather), r->seconds};
    double mean = most[1];
    if (lsp_context_max_f64(r->ctx, most, 3) != LSP_OK || lsp_context_sum_f64(r->ctx, &mean, 1) != LSP_OK)
        return fail("a reduction failed");
    if (at.rank == 0)
        (void)printf("ranks %d groups %d panels %lld total %.6f waited_max %.6f waited_mean %.6f compute "
                     "%.6f bytes %.0f\n",
                     at.ranks, r->partition.groups, (long long)r->panel_count, most[0], most[1],
                     mean / at.ranks, most[2], lsp_gather_bytes_received(r->gather));
    return 0;
}

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    if (argc < 8)
        return fail(
            "usage: gather_simulated N M D HEADS GROUPS MODE FLOPS_PER_NODE [PANEL_ROWS [SLICES [SEGMENT]]]");
    lsp_attention_desc desc = {.batch = 1,
                               .heads = atoll(argv[4]),
                               .kv_heads = atoll(argv[4]),
                               .n = atoll(argv[1]),
                               .m = atoll(argv[2]),
                               .d_k = atoll(argv[3]),
                               .d_v = atoll(argv[3]),
                               .q_type = LSP_F32,
                               .k_type = LSP_F32,
                               .v_type = LSP_F32,
                               .compute = LSP_F32,
                               .gather = strcmp(argv[6], "all") == 0 ? LSP_GATHER_ALL : LSP_GATHER_CHAIN,
                               .head_groups = atoi(argv[5]),
                               .panel_rows = argc > 8 ? atoll(argv[8]) : 0};
    run r = {.flops = atof(argv[7]), .slices = argc > 9 ? atoi(argv[9]) : 8};
    if (strcmp(argv[6], "all") != 0 && strcmp(argv[6], "chain") != 0) return fail("MODE is all or chain");
    if (argc > 10) (void)lsp_chain_set_segment_bytes(atoll(argv[10]));
    if (!(r.flops > 0) || r.slices < 1) return fail("FLOPS_PER_NODE and SLICES must be positive");
    lsp_error error = {LSP_OK, ""};
    const lsp_context_options options = {.threads = 1};
    if (lsp_context_create(MPI_COMM_WORLD, &options, &r.ctx, error.text, sizeof error.text) != LSP_OK)
        return fail(error.text);
    if (prepare(&r, &desc, &error) != LSP_OK) return fail(error.text);
    int64_t row_bytes = desc.d_k * (int64_t)sizeof(float);
    const lsp_gather_desc gather = {.mode = r.partition.gather,
                                    .panels = r.panels,
                                    .panel_count = r.panel_count,
                                    .owned_first = r.owned_first,
                                    .k_row_bytes = row_bytes,
                                    .v_row_bytes = row_bytes,
                                    .needed = needed};
    int64_t own = r.owned_first[r.group_rank + 1] - r.owned_first[r.group_rank];
    void *k = lsp_memory_alloc(own, (size_t)row_bytes), *v = lsp_memory_alloc(own, (size_t)row_bytes);
    if (lsp_gather_create(r.ctx, r.group, &gather, &r.gather) != LSP_OK)
        return fail(lsp_context_message(r.ctx));
    if (lsp_context_barrier(r.ctx) != LSP_OK) return fail("a barrier failed");
    double begin = MPI_Wtime();
    if (pass(&r, k, v) != LSP_OK) return fail(lsp_context_message(r.ctx));
    double total = MPI_Wtime() - begin;
    int code = tell(&r, total);
    lsp_gather_destroy(&r.gather);
    MPI_Finalize();
    return code;
}
