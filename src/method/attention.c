/* Plans: decide, check, allocate. SPDX-License-Identifier: BSD-3-Clause */
#include "method/attention.h"

#include "base/checked.h"
#include "base/memory.h"
#include "method/method.h"

#include <string.h>

enum {
    CHUNK_MOST = 528,
    CHUNK_LEAST = 48,
    CHUNK_GRAIN =
        24, /* whole groups of rows on every instruction set; a larger one lets threads end at different times */
    CHUNK_WORTH_TILES = 528, /* with fewer rows, fetching the next key tile shows */
    CHUNKS_PER_THREAD = 4,
    NEAR_BYTES = 3 << 19 /* of a second-level cache of 2 MiB */
};

const char *lsp_gather_mode_name(lsp_gather_mode mode)
{
    const char *const names[] = {"auto", "panels", "all", "node", "chain"};
    return (int)mode >= 0 && mode <= LSP_GATHER_CHAIN ? names[mode] : "unknown";
}

const char *lsp_partition_kind_name(lsp_partition_kind kind)
{
    const char *const names[] = {"auto", "contiguous", "balanced", "cyclic"};
    return (int)kind >= 0 && kind <= LSP_PARTITION_CYCLIC ? names[kind] : "unknown";
}

int64_t lsp_attention_share_rows(int64_t rows, int64_t together, int threads)
{
    int64_t share = threads > 1 ? together / ((int64_t)threads * CHUNKS_PER_THREAD) : rows;
    return lsp_round_up(lsp_max(CHUNK_LEAST, lsp_min(share, CHUNK_MOST)), CHUNK_GRAIN);
}

/* Rows whose queries and output stay in the second-level cache beside a key tile and the next one. */
static int64_t near_rows(const lsp_partition *partition)
{
    const lsp_attention_desc *d = &partition->problem->desc;
    int64_t row_bytes = (d->d_k + d->d_v) * (int64_t)lsp_dtype_size(lsp_dtype_result(d->compute));
    int64_t rows = NEAR_BYTES / row_bytes - 2 * partition->tile_keys;
    return lsp_max(CHUNK_WORTH_TILES, rows) / CHUNK_LEAST * CHUNK_LEAST;
}

int64_t lsp_attention_chunk_rows(const lsp_partition *partition, int r, int threads)
{
    if (lsp_partition_unit_tasks(partition, r, threads)) return lsp_partition_unit_chunk(partition, r);
    /* All matrices of one unit are worked on together; a chunk never spans two. */
    const lsp_attention_desc *d = &partition->problem->desc;
    int64_t rows = partition->rows[r], together = rows * lsp_max(1, d->heads / d->kv_heads);
    int64_t share = lsp_min(lsp_attention_share_rows(rows, together, threads), near_rows(partition)),
            block = partition->problem->mask.block_size;
    if (block <= 0) return lsp_round_up(share, partition->problem->row_grain);
    /* Chunks and blocks end together: else a chunk would meet the keys of a block that it hardly sees. */
    return block > share ? lsp_ceil_div(block, lsp_ceil_div(block, share)) : share / block * block;
}

int64_t lsp_attention_room_rows(const lsp_partition *partition, int r, int threads)
{
    int64_t heads = lsp_partition_unit_tasks(partition, r, threads) ? lsp_partition_unit_heads(partition) : 1;
    return lsp_attention_chunk_rows(partition, r, threads) * heads;
}

lsp_tile_shape lsp_attention_shape(const lsp_problem *problem, const lsp_kernel *kernel)
{
    const lsp_attention_desc *d = &problem->desc;
    const lsp_method_ops *method = problem->ops;
    return kernel->shape(d->d_k, method->columns ? method->columns(d) : d->d_v);
}

int64_t lsp_attention_scratch_bytes(const lsp_problem *problem, const lsp_kernel *kernel,
                                    const lsp_tile_shape *shape)
{
    const lsp_method_ops *method = problem->ops;
    return (int64_t)(method->scratch_bytes ? method->scratch_bytes(kernel, shape)
                                           : kernel->scratch_bytes(shape));
}

/* ---- what every rank must agree on -------------------------------------------------------------- */

static lsp_status check_same(lsp_context *ctx, const lsp_problem *problem)
{
    uint64_t hash = lsp_problem_hash(problem);
    int64_t pair[2] = {(int64_t)(hash >> 1), -(int64_t)(hash >> 1)};
    lsp_status status = lsp_context_max_i64(ctx, pair, 2);
    if (status != LSP_OK) return status;
    if (pair[0] != -pair[1])
        return lsp_context_fail(ctx, LSP_ERR_USAGE,
                                "the ranks were given different descriptions of the attention");
    return LSP_OK;
}

static lsp_status choose_kernel(lsp_attention *plan)
{
    lsp_context *ctx = plan->ctx;
    lsp_isa asked = plan->problem.desc.isa;
    int64_t isa = asked == LSP_ISA_AUTO ? lsp_isa_best() : asked;
    lsp_status status = lsp_context_min_i64(ctx, &isa, 1);
    if (status != LSP_OK) return status;
    plan->kernel = lsp_kernel_get((lsp_isa)isa, plan->problem.desc.compute);
    if (!plan->kernel)
        return lsp_context_fail(
            ctx, LSP_ERR_USAGE,
            "this machine cannot run the %s kernels; its best is %s: leave compute.isa at auto",
            lsp_isa_name((lsp_isa)isa), lsp_isa_name(lsp_isa_best()));
    plan->shape = lsp_attention_shape(&plan->problem, plan->kernel);
    return LSP_OK;
}

/* What else makes a plan of whole heads smaller: the full decomposition takes as much for any rank. */
static const char *other_remedy(const lsp_problem *p)
{
    if (!p->whole_heads) return "";
    return p->desc.svd == LSP_SVD_FULL ? ", or attention.svd = krylov"
                                       : ", or a smaller attention.rank or attention.steps";
}

static lsp_status check_memory(lsp_attention *plan)
{
    int64_t limit = plan->problem.desc.memory_limit;
    const lsp_footprint *f = &plan->estimate.footprint;
    lsp_context_layout at = plan->ctx->layout;
    if (limit <= 0 || f->total <= limit / at.node_ranks) return LSP_OK;
    const double mib = 1 << 20;
    return lsp_context_fail(
        plan->ctx, LSP_ERR_LIMIT,
        "not enough memory: a rank needs %.1f MiB (Q %.1f, K and V %.1f, output %.1f, panels %.1f, "
        "packed %.1f, work %.1f) and %d ranks share a node with %.1f MiB: use more nodes, or "
        "fewer rows or heads at a time (input.rows, input.heads)%s",
        (double)f->total / mib, (double)f->q / mib, (double)(f->k + f->v) / mib,
        (double)(f->out + f->lse) / mib, (double)f->panels / mib, (double)f->packed / mib,
        (double)f->work / mib, at.node_ranks, (double)limit / mib, other_remedy(&plan->problem));
}

/* ---- runs and matrices -------------------------------------------------------------------------- */

static bool list_queries(lsp_attention *plan)
{
    const lsp_partition *p = &plan->partition;
    int64_t first = p->range_first[plan->group_rank], ranges = p->range_first[plan->group_rank + 1] - first;
    plan->rows = p->rows[plan->group_rank];
    int64_t count = lsp_partition_matrices(p, plan->group), units = plan->unit_end - plan->unit_begin, at = 0;
    plan->matrices = lsp_memory_alloc(count, sizeof *plan->matrices);
    plan->unit_matrix = lsp_memory_zalloc(units + 1, sizeof *plan->unit_matrix);
    plan->query_runs = lsp_memory_alloc(count * ranges, sizeof *plan->query_runs);
    if (!plan->matrices || !plan->unit_matrix || !plan->query_runs) return false;
    for (int64_t u = 0; u < units; u++) {
        int64_t kv_heads = plan->problem.desc.kv_heads, unit = plan->unit_begin + u, kv = unit % kv_heads;
        plan->unit_matrix[u] = at;
        for (int64_t i = plan->problem.query_first[kv]; i < plan->problem.query_first[kv + 1]; i++, at++) {
            lsp_query_matrix m = {unit / kv_heads, plan->problem.query_heads[i], u, at * plan->rows};
            plan->matrices[at] = m;
            for (int64_t r = first; r < first + ranges; r++) {
                lsp_range range = p->ranges[r];
                if (range.end > range.begin)
                    plan->query_runs[plan->query_run_count++] =
                        (lsp_run){m.batch, m.head, range.begin, range.end - range.begin};
            }
        }
    }
    plan->unit_matrix[units] = at;
    plan->matrix_count = at;
    plan->query_rows = at * plan->rows;
    return true;
}

static bool list_keys(lsp_attention *plan)
{
    const lsp_partition *p = &plan->partition;
    const lsp_attention_desc *d = &plan->problem.desc;
    plan->owned_first = lsp_memory_alloc((int64_t)p->group_ranks + 1, sizeof *plan->owned_first);
    if (!plan->owned_first) return false;
    for (int r = 0; r <= p->group_ranks; r++)
        plan->owned_first[r] = lsp_partition_tile_row(p, lsp_partition_owned_tile(p, plan->group, r));
    plan->key_rows = plan->owned_first[plan->group_rank + 1] - plan->owned_first[plan->group_rank];
    int64_t units = plan->unit_end - plan->unit_begin;
    plan->key_runs = lsp_memory_alloc(units, sizeof *plan->key_runs);
    if (!plan->key_runs) return false;
    for (int64_t u = 0; u < units; u++) {
        int64_t unit = plan->unit_begin + u, begin, end;
        lsp_partition_owned_keys(p, plan->group, plan->group_rank, u, &begin, &end);
        if (begin < end)
            plan->key_runs[plan->key_run_count++] =
                (lsp_run){unit / d->kv_heads, unit % d->kv_heads, begin, end - begin};
    }
    return true;
}

int64_t lsp_attention_global_row(const lsp_attention *plan, int64_t row, int64_t *range, int64_t *range_start)
{
    const lsp_range *ranges = plan->partition.ranges + plan->partition.range_first[plan->group_rank];
    while (row >= *range_start + (ranges[*range].end - ranges[*range].begin)) {
        *range_start += ranges[*range].end - ranges[*range].begin;
        (*range)++;
    }
    return ranges[*range].begin + (row - *range_start);
}

/* ---- memory ------------------------------------------------------------------------------------ */

bool lsp_attention_folds(const lsp_problem *problem, int64_t tile_keys)
{
    return problem->desc.compute == LSP_F32 && lsp_problem_reach(problem) > LSP_FOLD_TILES * tile_keys;
}

static bool allocate_state(lsp_attention *plan, size_t element)
{
    int64_t rows = plan->query_rows;
    if (plan->problem.ops->prepare) return true;
    plan->max = lsp_memory_alloc(rows, element);
    plan->sum = lsp_memory_alloc(rows, element);
    if (!plan->max || !plan->sum) return false;
    if (!lsp_attention_folds(&plan->problem, plan->shape.tile_keys)) return true;
    plan->recent = (lsp_row_state){lsp_memory_alloc(rows * plan->problem.desc.d_v, element),
                                   lsp_memory_alloc(rows, element), lsp_memory_alloc(rows, element)};
    return plan->recent.out && plan->recent.max && plan->recent.sum;
}

void lsp_attention_touch(const lsp_attention *plan, void *values, int64_t count, size_t size)
{
    enum { PAGE = 4096 };
    char *bytes = values;
    int64_t pages = lsp_ceil_div(count * (int64_t)size, PAGE);
#pragma omp parallel for schedule(static) num_threads(plan->ctx->layout.threads)
    for (int64_t page = 0; page < pages; page++) bytes[page * PAGE] = 0;
}

static lsp_status allocate(lsp_attention *plan)
{
    const lsp_attention_desc *d = &plan->problem.desc;
    const lsp_tile_shape *shape = &plan->shape;
    size_t element = lsp_dtype_size(lsp_dtype_result(d->compute)),
           packed = (size_t)plan->kernel->packed_bytes;
    int threads = plan->ctx->layout.threads;
    plan->unit_tasks = lsp_partition_unit_tasks(&plan->partition, plan->group_rank, threads);
    int64_t tiles = lsp_partition_packed_tiles(&plan->partition, plan->group_rank, threads);
    plan->room_tiles = tiles / threads;
    plan->chunk_rows = lsp_attention_chunk_rows(&plan->partition, plan->group_rank, threads);
    int64_t room_rows = lsp_attention_room_rows(&plan->partition, plan->group_rank, threads);
    int64_t scratch = lsp_attention_scratch_bytes(&plan->problem, plan->kernel, shape);
    plan->met = lsp_memory_alloc(plan->query_rows, sizeof *plan->met);
    plan->packed_k = lsp_memory_alloc(tiles * shape->tile_keys * shape->k_depth, packed);
    plan->packed_v = lsp_memory_alloc(tiles * shape->tile_keys * shape->v_stride, packed);
    plan->bounds = lsp_memory_alloc(tiles, sizeof *plan->bounds);
    plan->held = lsp_memory_alloc(tiles, sizeof *plan->held);
    plan->rooms = lsp_memory_zalloc(threads, sizeof *plan->rooms);
    bool ok = plan->met && plan->packed_k && plan->packed_v && plan->bounds && plan->held && plan->rooms &&
              allocate_state(plan, element);
    for (int t = 0; ok && t < threads; t++) {
        lsp_thread_room *room = &plan->rooms[t];
        room->q = lsp_memory_alloc(room_rows * shape->k_depth, packed);
        room->norm = lsp_memory_alloc(room_rows, sizeof *room->norm);
        room->sight = lsp_memory_alloc(room_rows, sizeof *room->sight);
        room->scratch = lsp_memory_alloc(scratch, 1);
        ok = room->q && room->norm && room->sight && room->scratch;
        if (ok) lsp_attention_touch(plan, room->q, room_rows * shape->k_depth, packed);
        if (ok) lsp_attention_touch(plan, room->scratch, scratch, 1);
    }
    if (ok) lsp_attention_touch(plan, plan->packed_k, tiles * shape->tile_keys * shape->k_depth, packed);
    return ok ? LSP_OK
              : lsp_context_fail(plan->ctx, LSP_ERR_LIMIT, "not enough memory for the plan's work space");
}

static bool panel_needed(const void *user, int64_t panel, int rank)
{
    const lsp_attention *plan = user;
    return lsp_partition_sees(&plan->partition, plan->group, rank, plan->panel_tiles[panel],
                              plan->panel_tiles[panel + 1]);
}

lsp_status lsp_attention_create_gather(lsp_attention *plan, bool keys, bool values, lsp_gather **gather)
{
    const lsp_attention_desc *d = &plan->problem.desc;
    lsp_gather_desc desc = {.mode = plan->partition.gather,
                            .panels = plan->panels,
                            .panel_count = plan->panel_count,
                            .owned_first = plan->owned_first,
                            .k_row_bytes = keys ? d->d_k * (int64_t)lsp_dtype_size(d->k_type) : 0,
                            .v_row_bytes = values ? d->d_v * (int64_t)lsp_dtype_size(d->v_type) : 0,
                            .needed = panel_needed,
                            .needed_user = plan};
    return lsp_gather_create(plan->ctx, plan->group, &desc, gather);
}

/* ---- life -------------------------------------------------------------------------------------- */

static lsp_status decide(lsp_attention *plan)
{
    lsp_context *ctx = plan->ctx;
    lsp_context_layout at = ctx->layout;
    lsp_status status = lsp_context_agree(ctx, choose_kernel(plan));
    if (status != LSP_OK) return status;
    status = lsp_partition_make(&plan->problem, &plan->shape, at.ranks, &plan->partition, &ctx->error);
    status = lsp_context_agree(ctx, status);
    if (status != LSP_OK) return status;
    int64_t node[2] = {at.threads, at.node_ranks};
    status = lsp_context_max_i64(ctx, node, 2);
    if (status == LSP_OK) {
        status = lsp_estimate_fill(&plan->partition, plan->kernel, (int)node[1], (int)node[0],
                                   &plan->estimate, &ctx->error);
        if (status == LSP_OK) status = check_memory(plan);
    }
    return lsp_context_agree(ctx, status);
}

static lsp_status settle(lsp_attention *plan)
{
    lsp_context *ctx = plan->ctx;
    plan->group = ctx->layout.rank / plan->partition.group_ranks;
    plan->group_rank = ctx->layout.rank % plan->partition.group_ranks;
    lsp_partition_units(&plan->partition, plan->group, &plan->unit_begin, &plan->unit_end);
    lsp_status status = LSP_OK;
    if (!list_queries(plan) || !list_keys(plan))
        status = lsp_context_fail(ctx, LSP_ERR_LIMIT, "not enough memory for the lists of rows");
    if (status == LSP_OK)
        status = lsp_partition_panels(&plan->partition, plan->group, &plan->panels, &plan->panel_tiles,
                                      &plan->panel_count, &ctx->error);
    const lsp_partition *p = &plan->partition;
    for (int64_t i = p->range_first[plan->group_rank]; i < p->range_first[plan->group_rank + 1]; i++)
        for (int64_t m = 0; status == LSP_OK && m < plan->matrix_count; m++)
            plan->pairs += lsp_mask_pairs(&plan->problem.mask, plan->matrices[m].batch, p->ranges[i].begin,
                                          p->ranges[i].end);
    const lsp_method_ops *method = plan->problem.ops;
    if (status == LSP_OK && !method->whole_heads) status = allocate(plan);
    status = lsp_context_agree(ctx, status);
    if (status == LSP_OK && !method->whole_heads)
        status = lsp_attention_create_gather(plan, true, !method->keys_alone, &plan->gather);
    return status == LSP_OK && method->prepare ? method->prepare(plan) : status;
}

lsp_status lsp_attention_create_kind(lsp_context *ctx, const lsp_attention_desc *desc,
                                     const lsp_plan_kind *kind, lsp_attention **out)
{
    *out = NULL;
    lsp_attention *plan = lsp_memory_zalloc(1, sizeof *plan);
    lsp_status status = LSP_OK;
    if (plan) {
        plan->ctx = ctx;
        status = lsp_problem_make(desc, &plan->problem, &ctx->error);
    } else {
        status = lsp_context_fail(ctx, LSP_ERR_LIMIT, "not enough memory for a plan");
    }
    status = lsp_context_agree(ctx, status);
    if (status == LSP_OK && kind) {
        plan->problem.ops = kind->ops;
        plan->problem.options = kind->options;
        plan->problem.row_grain = kind->row_grain;
    }
    if (status == LSP_OK) status = lsp_context_agree(ctx, check_same(ctx, &plan->problem));
    if (status == LSP_OK) status = decide(plan);
    if (status == LSP_OK) status = settle(plan);
    *out = plan;
    if (status != LSP_OK) lsp_attention_destroy(out);
    return status;
}

lsp_status lsp_attention_create(lsp_context *ctx, const lsp_attention_desc *desc, lsp_attention **out)
{
    return lsp_attention_create_kind(ctx, desc, NULL, out);
}

lsp_status lsp_attention_destroy(lsp_attention **out)
{
    lsp_attention *plan = out ? *out : NULL;
    if (!plan) return LSP_OK;
    const lsp_method_ops *method = plan->problem.ops;
    if (method && method->release) method->release(plan);
    lsp_gather_destroy(&plan->gather);
    lsp_pause_release(plan);
    for (int t = 0; plan->rooms && t < plan->ctx->layout.threads; t++) {
        lsp_memory_free(plan->rooms[t].q);
        lsp_memory_free(plan->rooms[t].norm);
        lsp_memory_free(plan->rooms[t].sight);
        lsp_memory_free(plan->rooms[t].scratch);
    }
    void *const owned[] = {plan->rooms,       plan->max,       plan->sum,         plan->bounds,
                           plan->packed_k,    plan->packed_v,  plan->owned_first, plan->panels,
                           plan->panel_tiles, plan->key_runs,  plan->query_runs,  plan->matrices,
                           plan->unit_matrix, plan->met,       plan->held,        plan->recent.out,
                           plan->recent.max,  plan->recent.sum};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) lsp_memory_free(owned[i]);
    lsp_partition_free(&plan->partition);
    lsp_problem_free(&plan->problem);
    lsp_memory_free(plan);
    *out = NULL;
    return LSP_OK;
}

lsp_status lsp_attention_execute(lsp_attention *plan, const void *q, const void *k, const void *v, void *out,
                                 void *lse, lsp_attention_stats *stats)
{
    lsp_method_arrays arrays = {q, k, v, out, lse};
    lsp_attention_stats own;
    lsp_pause_begin(plan);
    plan->out = out;
    return plan->problem.ops->execute(plan, &arrays, stats ? stats : &own);
}

/* ---- questions --------------------------------------------------------------------------------- */

lsp_status lsp_attention_runs(const lsp_attention *plan, lsp_operand operand, const lsp_run **runs,
                              int64_t *run_count, int64_t *rows)
{
    bool keys = operand == LSP_KEYS;
    *runs = keys ? plan->key_runs : plan->query_runs;
    *run_count = keys ? plan->key_run_count : plan->query_run_count;
    *rows = keys ? plan->key_rows : plan->query_rows;
    return LSP_OK;
}

lsp_estimate lsp_attention_get_estimate(const lsp_attention *plan)
{
    return plan->estimate;
}

lsp_isa lsp_attention_get_isa(const lsp_attention *plan)
{
    return plan->kernel->isa;
}

void lsp_attention_set_progress(lsp_attention *plan, lsp_progress_fn progress, void *user)
{
    plan->progress = progress;
    plan->progress_user = user;
}
