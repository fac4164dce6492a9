/* Attention with the k largest weights of each row (source document, section 3.2).
 *
 * First pass, over K: maxima, sums and candidates of every row. Then the choice is made and the weights are known.
 * Second pass, over V: each row adds up its rows of V in the order of the keys, a key tile at a time, and tiles in
 * double. SPDX-License-Identifier: BSD-3-Clause */
#include "method/topk.h"

#include "base/checked.h"
#include "base/clock.h"
#include "base/convert.h"
#include "base/memory.h"
#include "method/method.h"
#include "method/sights.h"
#include "method/walk.h"

#include <math.h>
#include <string.h>

/* Of the work: the first pass. */
#define KEYS_SHARE 0.95

int64_t lsp_topk_most(const lsp_attention_desc *d)
{
    return lsp_min(d->topk, d->key_end - d->key_begin);
}

static lsp_status check(const lsp_attention_desc *d, lsp_error *error)
{
    if (d->topk < 1)
        return lsp_error_set(error, LSP_ERR_USAGE,
                             "topk is %lld: a row keeps one weight at least (attention.topk)",
                             (long long)d->topk);
    if (d->m > INT32_MAX)
        return lsp_error_set(error, LSP_ERR_LIMIT, "topk takes up to %d keys, not %lld: use another method",
                             (int)INT32_MAX, (long long)d->m);
    return LSP_OK;
}

/* ---- state ------------------------------------------------------------------------------------- */

static size_t element_size(const lsp_attention_desc *d)
{
    return lsp_dtype_size(lsp_dtype_result(d->compute));
}

static int64_t row_bytes(const lsp_problem *problem, const lsp_kernel *kernel)
{
    const lsp_attention_desc *d = &problem->desc;
    int64_t element = (int64_t)element_size(d), entry = element + (int64_t)sizeof(int32_t);
    return kernel->candidate_stride(lsp_topk_most(d)) * entry + entry + (int64_t)sizeof(int32_t) +
           4 * element + (d->d_v + 1) * (int64_t)sizeof(double);
}

static size_t scratch_bytes(const lsp_kernel *kernel, const lsp_tile_shape *shape)
{
    return kernel->select_bytes(shape);
}

static bool allocate(lsp_attention *plan, lsp_topk *t)
{
    const lsp_attention_desc *d = &plan->problem.desc;
    size_t element = element_size(d);
    int64_t rows = plan->query_rows, most = lsp_topk_most(d), stride = plan->kernel->candidate_stride(most),
            entries;
    if (!lsp_checked_mul(rows, stride, &entries)) return false;
    t->candidates = (lsp_candidates){.most = most,
                                     .stride = stride,
                                     .scores = lsp_memory_alloc(entries, element),
                                     .keys = lsp_memory_alloc(entries, sizeof(int32_t)),
                                     .counts = lsp_memory_alloc(rows, sizeof(int32_t)),
                                     .least = lsp_memory_alloc(rows, element)};
    t->recent =
        (lsp_row_state){.max = lsp_memory_alloc(rows, element), .sum = lsp_memory_alloc(rows, element)};
    plan->max = lsp_memory_alloc(rows, element);
    plan->sum = lsp_memory_alloc(rows, element);
    t->sums = lsp_memory_alloc(rows * d->d_v, sizeof *t->sums);
    t->added = lsp_memory_alloc(rows, sizeof *t->added);
    t->dropped = lsp_memory_alloc(rows, sizeof *t->dropped);
    t->lengths = lsp_memory_alloc(plan->problem.units, sizeof *t->lengths);
    return t->candidates.scores && t->candidates.keys && t->candidates.counts && t->candidates.least &&
           t->recent.max && t->recent.sum && plan->max && plan->sum && t->sums && t->added && t->dropped &&
           t->lengths;
}

static void touch_all(const lsp_attention *plan, const lsp_topk *t)
{
    const lsp_candidates *c = &t->candidates;
    lsp_attention_touch(plan, c->scores, plan->query_rows * c->stride, element_size(&plan->problem.desc));
    lsp_attention_touch(plan, c->keys, plan->query_rows * c->stride, sizeof *c->keys);
    lsp_attention_touch(plan, t->sums, plan->query_rows * plan->problem.desc.d_v, sizeof *t->sums);
}

static lsp_status prepare(lsp_attention *plan)
{
    lsp_topk *t = plan->own = lsp_memory_zalloc(1, sizeof *t);
    lsp_status status = LSP_OK;
    if (!t || !allocate(plan, t))
        status =
            lsp_context_fail(plan->ctx, LSP_ERR_LIMIT,
                             "not enough memory for %lld candidates of each of %lld rows: use a smaller "
                             "attention.topk, more ranks, or fewer rows at a time",
                             (long long)plan->kernel->candidate_stride(lsp_topk_most(&plan->problem.desc)),
                             (long long)plan->query_rows);
    if (status == LSP_OK) touch_all(plan, t);
    status = lsp_context_agree(plan->ctx, status);
    return status == LSP_OK ? lsp_attention_create_gather(plan, false, true, &t->values) : status;
}

static void release(lsp_attention *plan)
{
    lsp_topk *t = plan->own;
    if (!t) return;
    lsp_gather_destroy(&t->values);
    void *const owned[] = {t->candidates.scores,
                           t->candidates.keys,
                           t->candidates.counts,
                           t->candidates.least,
                           t->recent.max,
                           t->recent.sum,
                           t->sums,
                           t->added,
                           t->dropped,
                           t->lengths};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) lsp_memory_free(owned[i]);
    lsp_memory_free(t);
    plan->own = NULL;
}

static void fill(lsp_dtype type, void *values, int64_t begin, int64_t end, double value)
{
    if (type == LSP_F64)
        for (int64_t i = begin; i < end; i++) ((double *)values)[i] = value;
    else
        for (int64_t i = begin; i < end; i++) ((float *)values)[i] = (float)value;
}

static void *at(const lsp_attention *plan, const void *values, int64_t index)
{
    return (char *)(uintptr_t)values + (size_t)index * element_size(&plan->problem.desc);
}

/* Rows as they are at first, or those of a loaded first pass. */
static void reset(const lsp_topk_pass *p, bool loaded)
{
    lsp_attention *plan = p->plan;
    lsp_topk *t = p->topk;
    lsp_dtype type = lsp_dtype_result(plan->problem.desc.compute);
    int64_t chunks = lsp_ceil_div(plan->query_rows, plan->chunk_rows), d_v = plan->problem.desc.d_v;
#pragma omp parallel for schedule(static) num_threads(plan->ctx->layout.threads)
    for (int64_t c = 0; c < chunks; c++) {
        int64_t begin = c * plan->chunk_rows, end = lsp_min(begin + plan->chunk_rows, plan->query_rows);
        memset(t->sums + begin * d_v, 0, (size_t)((end - begin) * d_v) * sizeof(double));
        if (loaded) continue;
        fill(type, plan->max, begin, end, -INFINITY);
        fill(type, plan->sum, begin, end, 0);
        fill(type, t->recent.max, begin, end, -INFINITY);
        fill(type, t->recent.sum, begin, end, 0);
        fill(type, t->candidates.least, begin, end, -INFINITY);
        memset(t->candidates.counts + begin, 0, (size_t)(end - begin) * sizeof(int32_t));
        memset(plan->met + begin, 0, (size_t)(end - begin) * sizeof *plan->met);
    }
}

/* ---- the choice -------------------------------------------------------------------------------- */

/* Scores of -inf (or NaN) are no candidates. Where a row has nothing better for its k places they belong to it all
 * the same, the lower keys first, with no weight. All keys up to the last that is added are in the row then. */
static void fill_places(const lsp_attention *plan, lsp_candidates *c, int64_t row, lsp_sight sight,
                        double weight)
{
    lsp_dtype type = lsp_dtype_result(plan->problem.desc.compute);
    int32_t *keys = c->keys + row * c->stride, *count = c->counts + row;
    int64_t wanted = lsp_min(c->most, sight.end - sight.begin), missing = wanted - *count, before = 0;
    if (missing <= 0) return;
    while (before < *count && keys[before] < sight.begin + before + missing) before++;
    char *weights = at(plan, c->scores, row * c->stride);
    size_t element = element_size(&plan->problem.desc);
    memmove(keys + before + missing, keys + before, (size_t)(*count - before) * sizeof *keys);
    memmove(weights + (size_t)(before + missing) * element, weights + (size_t)before * element,
            (size_t)(*count - before) * element);
    for (int64_t place = before + missing - 1; place >= 0; place--) {
        int32_t key = (int32_t)(sight.begin + place);
        if (before > 0 && keys[before - 1] == key) {
            before--;
            memmove(weights + (size_t)place * element, weights + (size_t)before * element, element);
        } else {
            fill(type, weights, place, place + 1, weight);
        }
        keys[place] = key;
    }
    *count = (int32_t)wanted;
}

/* Rows [begin, begin + rows) of a matrix. */
static void settle(const lsp_topk_pass *p, const lsp_query_matrix *matrix, int64_t begin, int64_t rows)
{
    lsp_attention *plan = p->plan;
    const lsp_attention_desc *d = &plan->problem.desc;
    int64_t first = matrix->first + begin, range = 0, start = 0;
    lsp_row_state total = lsp_topk_totals(p, first), recent = lsp_topk_recent(p, first);
    lsp_candidates c = lsp_topk_candidates(p, first);
    lsp_score_rule rule = lsp_attention_rule(&plan->problem.desc, matrix->head);
    double *dropped = p->topk->dropped + first;
    if (lsp_attention_folds(&plan->problem, plan->shape.tile_keys))
        plan->kernel->fold(0, rows, &recent, &total);
    plan->kernel->weigh(&rule, rows, &c, total.max, total.sum, d->renormalize, dropped);
    for (int64_t r = 0; r < rows; r++) {
        int64_t row = lsp_attention_global_row(plan, begin + r, &range, &start);
        lsp_sight sight = lsp_mask_sight(&plan->problem.mask, matrix->batch, row);
        double sum;
        lsp_convert_load(lsp_dtype_result(d->compute), total.sum, r, 1, &sum);
        bool whole = sight.end - sight.begin <= c.most || sum == 0;
        /* Rounding may let the kept weights add up to more than the sum. */
        dropped[r] = isnan(sum) ? NAN : whole ? 0 : fmax(0, 1 - dropped[r]);
        fill_places(plan, &c, r, sight, isnan(sum) ? NAN : 0);
    }
}

/* Of all rows; `loaded`: they are chosen already, and only what is not saved is missing. */
static int64_t settle_all(const lsp_topk_pass *p, bool loaded)
{
    lsp_attention *plan = p->plan;
    int64_t chunks = lsp_ceil_div(plan->rows, plan->chunk_rows), tasks = plan->matrix_count * chunks,
            empty = 0;
#pragma omp parallel for schedule(dynamic, 1) num_threads(plan->ctx->layout.threads) reduction(+ : empty)
    for (int64_t task = 0; task < tasks; task++) {
        const lsp_query_matrix *matrix = &plan->matrices[task / chunks];
        int64_t begin = task % chunks * plan->chunk_rows,
                rows = lsp_min(plan->chunk_rows, plan->rows - begin);
        int64_t first = matrix->first + begin;
        uint64_t mode = lsp_fpmode_enter();
        if (!loaded) settle(p, matrix, begin, rows);
        memset(p->topk->added + first, 0, (size_t)rows * sizeof *p->topk->added);
        lsp_row_state total = lsp_topk_totals(p, first);
        empty += plan->kernel->finish(0, rows, total.max, total.max, total.sum,
                                      p->arrays->lse ? at(plan, p->arrays->lse, first) : NULL);
        lsp_fpmode_leave(mode);
    }
    return empty;
}

/* ---- second pass ------------------------------------------------------------------------------- */

/* The first of ascending keys [begin, end) that is not below `key`: it is not far from `begin`, and entries beyond
 * it are not wanted in a cache yet. */
static int64_t find_key(const int32_t *keys, int64_t begin, int64_t end, int64_t key)
{
    int64_t step = 32;
    for (; begin + step < end && keys[begin + step] < key; step *= 2) begin += step + 1;
    for (int64_t count = lsp_min(step, end - begin); count > 0;) {
        int64_t half = count / 2;
        bool below = keys[begin + half] < key;
        begin = below ? begin + half + 1 : begin;
        count = below ? count - half - 1 : half;
    }
    return begin;
}

/* Bytes of V that a chunk's rows meet before the next ones: they stay in a second-level cache meanwhile. */
enum { NEAR_VALUES = 1 << 20 };

/* Keys come in ascending order: a row goes on where it was left. */
static void add_values(void *user, const lsp_walk_chunk *chunk)
{
    const lsp_topk_pass *p = user;
    const lsp_attention *plan = p->plan;
    const lsp_attention_desc *d = &plan->problem.desc;
    const lsp_panel *panel = &chunk->panel->panel;
    const lsp_candidates c = lsp_topk_candidates(p, chunk->row);
    int32_t *next = p->topk->added + chunk->row;
    const size_t row_bytes = (size_t)d->d_v * lsp_dtype_size(d->v_type);
    const int64_t step = lsp_max(1, NEAR_VALUES / (plan->shape.tile_keys * (int64_t)row_bytes));
    lsp_value_rows rows = {
        chunk->rows, c.stride, c.keys, c.counts, c.scores, next, p->topk->sums + chunk->row * d->d_v};
    for (int64_t r = 0; r < chunk->rows; r++)
        next[r] = (int32_t)find_key(c.keys + r * c.stride, next[r], c.counts[r], chunk->low);
    for (int64_t t = chunk->tile_begin, end; t < chunk->tile_end; t = end) {
        end = lsp_min(t + step, chunk->tile_end);
        int64_t row = lsp_partition_tile_row(&plan->partition, t) - plan->panels[panel->index].first;
        lsp_value_tile tile = {.v = (const char *)panel->v + (size_t)row * row_bytes,
                               .type = d->v_type,
                               .d_v = d->d_v,
                               .first = lsp_partition_tile(&plan->partition, t).begin,
                               .end = lsp_partition_tile(&plan->partition, end - 1).end,
                               .tile_keys = plan->shape.tile_keys};
        plan->kernel->add_values(&tile, &rows, chunk->room->scratch);
        if (chunk->main_thread) lsp_gather_progress(p->topk->values);
    }
}

static void store_out(const lsp_topk_pass *p)
{
    const lsp_attention *plan = p->plan;
    int64_t d_v = plan->problem.desc.d_v;
#pragma omp parallel for schedule(static) num_threads(plan->ctx->layout.threads)
    for (int64_t row = 0; row < plan->query_rows; row++) {
        double *sums = p->topk->sums + row * d_v;
        bool broken = isnan(p->topk->dropped[row]);
        /* One NaN and one zero, as the other methods. */
        for (int64_t c = 0; c < d_v; c++) sums[c] = broken || isnan(sums[c]) ? NAN : sums[c] + 0.0;
        lsp_convert_store(lsp_dtype_result(plan->problem.desc.compute), sums, d_v, p->arrays->out, row * d_v);
    }
}

/* ---- the whole --------------------------------------------------------------------------------- */

static lsp_status execute(lsp_attention *plan, const lsp_method_arrays *arrays, lsp_attention_stats *stats)
{
    double begin = lsp_clock();
    lsp_topk *t = plan->own;
    lsp_topk_pass p = {plan, t, arrays};
    lsp_walk keys = {.plan = plan,
                     .gather = plan->gather,
                     .user = &p,
                     .pack = lsp_topk_pack,
                     .compute = lsp_topk_choose,
                     .progress_end = KEYS_SHARE};
    lsp_walk values = {.plan = plan,
                       .gather = t->values,
                       .user = &p,
                       .compute = add_values,
                       .progress_begin = KEYS_SHARE,
                       .progress_end = 1};
    int64_t empty_rows = 0;
    bool loaded = plan->loaded, chosen = loaded && plan->phase == LSP_TOPK_VALUES;
    lsp_status status = LSP_OK;
    plan->loaded = false;
    keys.met_pairs = loaded && !chosen ? plan->met_pairs : 0;
    values.met_pairs = chosen ? plan->met_pairs : 0;
    if (!chosen) {
        plan->phase = LSP_TOPK_KEYS;
        reset(&p, loaded);
        /* A gather of one operand takes no rows of the other, but wants an address. */
        status = lsp_walk_run(&keys, arrays->k, arrays->k);
    }
    if (status == LSP_OK) empty_rows = settle_all(&p, chosen);
    if (status == LSP_OK && !chosen) memset(plan->met, 0, (size_t)plan->query_rows * sizeof *plan->met);
    plan->phase = LSP_TOPK_VALUES;
    status = lsp_context_agree(plan->ctx, status);
    if (status == LSP_OK) status = lsp_walk_run(&values, arrays->v, arrays->v);
    if (status == LSP_OK) store_out(&p);
    status = lsp_context_agree(plan->ctx, status);
    if (status == LSP_OK) status = lsp_topk_certify(plan, t, arrays->v);
    t->done = status == LSP_OK;
    double total = lsp_clock() - begin,
           waited = lsp_gather_seconds_waited(plan->gather) + lsp_gather_seconds_waited(t->values);
    *stats = (lsp_attention_stats){.seconds_total = total,
                                   .seconds_compute = total - waited,
                                   .seconds_gather_exposed = waited,
                                   .bytes_received = lsp_gather_bytes_received(plan->gather) +
                                                     lsp_gather_bytes_received(t->values),
                                   .pairs = keys.pairs,
                                   .empty_rows = empty_rows};
    return status;
}

const lsp_method_ops lsp_method_topk = {.name = "topk",
                                        .check = check,
                                        .keys_alone = true,
                                        .prepare = prepare,
                                        .release = release,
                                        .row_bytes = row_bytes,
                                        .scratch_bytes = scratch_bytes,
                                        .first_phase = KEYS_SHARE,
                                        .state = lsp_topk_state,
                                        .execute = execute};
