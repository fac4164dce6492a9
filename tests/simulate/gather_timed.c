/* Attention's communication alone: the partition and the gather of Longspan as they are, computing replaced by its time. One
 * rank a node; simulated (smpi_side.c, smpirun) or with ranks that sleep (sleeping_side.c, mpirun).
 *
 *   gather_timed N M D HEADS GROUPS MODE FLOPS_PER_NODE [PANEL_ROWS [SLICES [SEGMENT [PANELS]]]]
 *
 * GROUPS 0: as Longspan chooses. MODE: all, chain or panels (that only with ranks that sleep: SMPI broadcasts without blocking
 * in a flat way, which real MPI does not). FLOPS_PER_NODE: what attention reaches on a node, by `longspan bench`. PANEL_ROWS
 * 0: as Longspan chooses. SLICES: times a panel that MPI gets to advance (0: once a key tile, as the main thread of a rank
 * does that has one chunk of rows). SEGMENT: bytes of the chain's messages (0: Longspan's). PANELS: of all panels
 * only so many take part, spread evenly over their owners (0: all; not in mode all).
 * Prints one line: ranks, groups, panels, seconds in all, waited (most and mean over ranks), computed, bytes received by a rank.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include "base/checked.h"
#include "base/memory.h"
#include "comm/chain.h"
#include "comm/gather.h"
#include "comm/rows.h"
#include "kernel/kernel.h"
#include "method/method.h"
#include "method/partition.h"
#include "side.h"

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The problem asks the registry of methods, which would bring all of them. */
const lsp_method_ops *lsp_method_get(lsp_method method)
{
    static const lsp_method_ops exact = {.name = "exact"};
    return method == LSP_METHOD_EXACT ? &exact : NULL;
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
    int64_t slices;
} run;

static int fail(const char *text)
{
    (void)fprintf(stderr, "gather_timed: error: %s\n", text);
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
    double later = 0; /* mode all: nothing moves any more while ranks compute, which is done at once then */
    bool all = r->partition.gather == LSP_GATHER_ALL;
    lsp_panel panel;
    lsp_status status = lsp_gather_start(r->gather, k, v);
    while (status == LSP_OK && lsp_gather_next(r->gather, &panel, &status)) {
        int64_t keys = r->panels[panel.index].count;
        double seconds = rows * (double)keys * 2 * (double)(d->d_k + d->d_v) / r->flops;
        int64_t slices = r->slices > 0 ? r->slices : lsp_ceil_div(keys, r->partition.tile_keys);
        for (int64_t i = 0; !all && i < slices; i++) {
            side_compute(seconds / (double)slices);
            lsp_gather_progress(r->gather);
        }
        if (all) later += seconds;
        r->seconds += seconds;
        lsp_gather_release(r->gather);
    }
    if (later > 0) side_compute(later);
    return status == LSP_OK ? lsp_gather_finish(r->gather) : status;
}

/* Leaves `wanted` of the panels. */
static void thin(run *r, int64_t wanted)
{
    if (wanted <= 0 || wanted >= r->panel_count || r->partition.gather == LSP_GATHER_ALL) return;
    for (int64_t i = 0; i < wanted; i++)
        r->panels[i] = r->panels[i * (r->panel_count / wanted) + i * (r->panel_count % wanted) / wanted];
    r->panel_count = wanted;
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

static const lsp_gather_mode modes[] = {LSP_GATHER_ALL, LSP_GATHER_CHAIN, LSP_GATHER_PANELS};
static const char *const mode_names[] = {"all", "chain", "panels"};

int main(int argc, char **argv)
{
    int mode = 0;
    MPI_Init(&argc, &argv);
    if (argc < 8)
        return fail("usage: gather_timed N M D HEADS GROUPS MODE FLOPS_PER_NODE [PANEL_ROWS [SLICES [SEGMENT "
                    "[PANELS]]]]");
    while (mode < 3 && strcmp(argv[6], mode_names[mode]) != 0) mode++;
    if (mode == 3) return fail("MODE is all, chain or panels");
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
                               .gather = modes[mode],
                               .head_groups = atoi(argv[5]),
                               .panel_rows = argc > 8 ? atoll(argv[8]) : 0};
    run r = {.flops = atof(argv[7]), .slices = argc > 9 ? atoll(argv[9]) : 0};
    if (argc > 10) (void)lsp_chain_set_segment_bytes(atoll(argv[10]));
    if (!(r.flops > 0) || r.slices < 0) return fail("FLOPS_PER_NODE must be positive, SLICES 0 or more");
    lsp_error error = {LSP_OK, ""};
    const lsp_context_options options = {.threads = 1};
    if (lsp_context_create(MPI_COMM_WORLD, &options, &r.ctx, error.text, sizeof error.text) != LSP_OK)
        return fail(error.text);
    if (prepare(&r, &desc, &error) != LSP_OK) return fail(error.text);
    if (argc > 11) thin(&r, atoll(argv[11]));
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
    lsp_gather_set_wait(r.gather, side_wait, NULL);
    if (lsp_context_barrier(r.ctx) != LSP_OK) return fail("a barrier failed");
    double begin = MPI_Wtime();
    if (pass(&r, k, v) != LSP_OK) return fail(lsp_context_message(r.ctx));
    double total = MPI_Wtime() - begin;
    int code = tell(&r, total);
    lsp_gather_destroy(&r.gather);
    MPI_Finalize();
    return code;
}
