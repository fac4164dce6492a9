/* Exact attention and approximations of it on the same operands. SPDX-License-Identifier: BSD-3-Clause */
#include "base/checked.h"
#include "base/clock.h"
#include "base/memory.h"
#include "comm/exchange.h"
#include "method/attention.h"
#include "study/compare_certificate.h"
#include "study/compare_inside.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

lsp_compare_options lsp_compare_defaults(void)
{
    return (lsp_compare_options){.repeats = 3, .verify_rows = 16};
}

/* ---- what is to be compared ---------------------------------------------------------------------- */

/* The comparison's description with the method of another. */
static lsp_attention_desc with_method(const lsp_compare *c, const lsp_attention_desc *desc)
{
    lsp_attention_desc own = c->desc;
    own.method = desc->method;
    own.block_size = desc->block_size;
    own.topk = desc->topk;
    own.renormalize = desc->renormalize;
    own.rank = desc->rank;
    own.tolerance = desc->tolerance;
    own.svd = desc->svd;
    own.oversample = desc->oversample;
    own.steps = desc->steps;
    own.seed = desc->seed;
    own.allow_leak = desc->allow_leak;
    own.keep_values = c->options.verify_rows > 0;
    return own;
}

/* Bytes that a rank holds beside what a plan counts: operands of the caller, exact's output in blocks, another one that
 * is compared with it, and messages. */
static int64_t bytes_beside(const lsp_compare *c, const lsp_estimate *own)
{
    const lsp_footprint *f = &c->estimate.footprint;
    int64_t kept = lsp_compare_rows_bytes(&c->desc, c->ctx->layout.ranks);
    int64_t operands = own ? f->q + f->k + f->v : 0, moved = own ? own->footprint.out : f->out;
    return operands + 2 * kept + (c->ctx->layout.ranks > 1 ? moved : 0);
}

/* Local. own NULL: exact. */
static lsp_status check_memory(const lsp_compare *c, const lsp_estimate *own)
{
    int64_t limit = c->desc.memory_limit, beside = bytes_beside(c, own);
    int64_t plan = (own ? own : &c->estimate)->footprint.total;
    int node_ranks = c->ctx->layout.node_ranks;
    const double mib = 1 << 20;
    if (limit <= 0 || plan + beside <= limit / node_ranks) return LSP_OK;
    return lsp_context_fail(
        c->ctx, LSP_ERR_LIMIT,
        "not enough memory: a rank needs %.1f MiB, and %.1f MiB for what is compared with it, and "
        "%d ranks share a node with %.1f MiB: use more nodes, or fewer rows or heads at a time "
        "(input.rows, input.heads)",
        (double)plan / mib, (double)beside / mib, node_ranks, (double)limit / mib);
}

lsp_status lsp_compare_check(const lsp_compare *c, const lsp_attention_desc *desc, lsp_estimate *estimate)
{
    lsp_attention_desc own = with_method(c, desc);
    lsp_estimate found;
    char text[LSP_ERROR_TEXT];
    const lsp_context_layout *at = &c->ctx->layout;
    if (own.method == LSP_METHOD_EXACT)
        return lsp_context_fail(c->ctx, LSP_ERR_USAGE,
                                "compare: method exact is what others are compared with; name another");
    lsp_status status =
        lsp_attention_estimate(&own, at->ranks, at->node_ranks, at->threads, &found, text, sizeof text);
    if (status != LSP_OK) return lsp_context_fail(c->ctx, status, "%s", text);
    status = check_memory(c, &found);
    if (status == LSP_OK && estimate) *estimate = found;
    return status;
}

static lsp_status check_options(lsp_context *ctx, const lsp_compare_options *o)
{
    if (o->repeats >= 1 && o->repeats <= LSP_COMPARE_REPEATS && o->verify_rows >= 0 &&
        o->verify_tolerance >= 0)
        return LSP_OK;
    return lsp_context_fail(ctx, LSP_ERR_USAGE,
                            "compare: %" PRId64 " repeats, %" PRId64
                            " rows to verify, tolerance %g; repeats are 1 to "
                            "%d, the others not negative",
                            o->repeats, o->verify_rows, o->verify_tolerance, LSP_COMPARE_REPEATS);
}

/* ---- life ---------------------------------------------------------------------------------------- */

/* The plan's own list goes with it. */
static lsp_run *copy_runs(const lsp_run *runs, int64_t count)
{
    lsp_run *copy = lsp_memory_alloc(count, sizeof *copy);
    if (copy && count > 0) memcpy(copy, runs, (size_t)count * sizeof *copy);
    return copy;
}

static lsp_status keep_runs(lsp_compare *c)
{
    const lsp_run *queries = NULL, *keys = NULL;
    (void)lsp_attention_runs(c->plan, LSP_QUERIES, &queries, &c->query_run_count, &c->query_rows);
    (void)lsp_attention_runs(c->plan, LSP_KEYS, &keys, &c->key_run_count, &c->key_rows);
    c->query_runs = copy_runs(queries, c->query_run_count);
    c->key_runs = copy_runs(keys, c->key_run_count);
    if (c->query_runs && c->key_runs && lsp_compare_describe(c))
        return lsp_compare_rows_make(c->ctx, &c->desc, &c->rows);
    return lsp_context_fail(c->ctx, LSP_ERR_LIMIT, "compare: no memory for the lists of rows");
}

lsp_status lsp_compare_create(lsp_context *ctx, const lsp_attention_desc *desc,
                              const lsp_compare_options *options, lsp_compare **out)
{
    lsp_compare *c = lsp_memory_zalloc(1, sizeof *c);
    lsp_status status = LSP_OK;
    *out = NULL;
    if (!c) status = lsp_context_fail(ctx, LSP_ERR_LIMIT, "compare: no memory for its state");
    status = lsp_context_agree(ctx, status);
    if (status == LSP_OK) {
        c->ctx = ctx;
        c->desc = *desc;
        c->desc.method = LSP_METHOD_EXACT;
        if (c->desc.row_end == 0) c->desc.row_end = desc->n;
        if (c->desc.key_end == 0) c->desc.key_end = desc->m;
        c->options = options ? *options : lsp_compare_defaults();
        status = lsp_context_agree(ctx, check_options(ctx, &c->options));
    }
    if (status == LSP_OK) status = lsp_attention_create(ctx, &c->desc, &c->plan);
    if (status == LSP_OK) {
        c->estimate = lsp_attention_get_estimate(c->plan);
        status = check_memory(c, NULL);
        if (status == LSP_OK) status = keep_runs(c);
        status = lsp_context_agree(ctx, status);
    }
    *out = c;
    if (status != LSP_OK) (void)lsp_compare_destroy(out);
    return status;
}

lsp_status lsp_compare_destroy(lsp_compare **compare)
{
    lsp_compare *c = compare ? *compare : NULL;
    if (!c) return LSP_OK;
    (void)lsp_attention_destroy(&c->plan);
    lsp_compare_rows_free(&c->rows);
    lsp_memory_free(c->query_runs);
    lsp_memory_free(c->key_runs);
    lsp_memory_free(c->identity);
    lsp_memory_free(c);
    *compare = NULL;
    return LSP_OK;
}

lsp_status lsp_compare_runs(const lsp_compare *c, lsp_operand operand, const lsp_run **runs,
                            int64_t *run_count, int64_t *rows)
{
    bool keys = operand == LSP_KEYS;
    *runs = keys ? c->key_runs : c->query_runs;
    *run_count = keys ? c->key_run_count : c->query_run_count;
    *rows = keys ? c->key_rows : c->query_rows;
    return LSP_OK;
}

void lsp_compare_set_progress(lsp_compare *c, lsp_progress_fn progress, void *user)
{
    c->progress = progress;
    c->user = user;
}

void lsp_compare_set_pause(lsp_compare *c, const lsp_pause *pause)
{
    c->pause = pause ? *pause : (lsp_pause){.want = NULL};
}

/* ---- one method ---------------------------------------------------------------------------------- */

/* A plan and its arrays; q, k, v are the caller's own where the plan wants them as they are. */
typedef struct work {
    lsp_attention_desc desc;
    lsp_attention *plan;
    const lsp_run *query_runs, *key_runs;
    int64_t query_run_count, key_run_count, query_rows, key_rows;
    const void *q, *k, *v;
    void *own_q, *own_k, *own_v, *out, *lse;
} work;

static void work_free(work *w)
{
    void *const arrays[] = {w->own_q, w->own_k, w->own_v, w->out, w->lse};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) lsp_memory_free(arrays[i]);
    (void)lsp_attention_destroy(&w->plan);
}

static lsp_status no_operands(const lsp_compare *c)
{
    return lsp_context_fail(
        c->ctx, LSP_ERR_LIMIT,
        "compare: no memory for the operands and the output of a method; use more nodes, or fewer "
        "rows or heads at a time");
}

/* Collective. One operand in the plan's runs: `from` itself, or a copy in *own. */
static lsp_status bring(const lsp_compare *c, const lsp_exchange *way, int64_t rows, int64_t row_bytes,
                        const void *from, void **own, const void **operand)
{
    *operand = from;
    if (lsp_exchange_is_none(way)) return LSP_OK;
    *own = lsp_memory_alloc(rows, (size_t)row_bytes);
    *operand = *own;
    lsp_status status = lsp_context_agree(c->ctx, *own ? LSP_OK : no_operands(c));
    return status == LSP_OK ? lsp_exchange_rows(way, row_bytes, from, *own) : status;
}

static lsp_status bring_operands(const lsp_compare *c, work *w)
{
    const lsp_attention_desc *d = &w->desc;
    lsp_exchange *queries = NULL, *keys = NULL;
    lsp_status status = lsp_exchange_create(c->ctx, c->query_runs, c->query_run_count, w->query_runs,
                                            w->query_run_count, &queries);
    if (status == LSP_OK)
        status =
            lsp_exchange_create(c->ctx, c->key_runs, c->key_run_count, w->key_runs, w->key_run_count, &keys);
    if (status == LSP_OK)
        status = bring(c, queries, w->query_rows, d->d_k * (int64_t)lsp_dtype_size(d->q_type), c->q,
                       &w->own_q, &w->q);
    if (status == LSP_OK)
        status =
            bring(c, keys, w->key_rows, d->d_k * (int64_t)lsp_dtype_size(d->k_type), c->k, &w->own_k, &w->k);
    if (status == LSP_OK)
        status =
            bring(c, keys, w->key_rows, d->d_v * (int64_t)lsp_dtype_size(d->v_type), c->v, &w->own_v, &w->v);
    lsp_exchange_destroy(&queries);
    lsp_exchange_destroy(&keys);
    return status;
}

/* Collective. The plan's runs are known; q, k, v as it wants them, room for the output. */
static lsp_status prepare(const lsp_compare *c, work *w)
{
    size_t size = lsp_dtype_size(lsp_dtype_result(w->desc.compute));
    (void)lsp_attention_runs(w->plan, LSP_QUERIES, &w->query_runs, &w->query_run_count, &w->query_rows);
    (void)lsp_attention_runs(w->plan, LSP_KEYS, &w->key_runs, &w->key_run_count, &w->key_rows);
    lsp_status status = bring_operands(c, w);
    if (status != LSP_OK) return status;
    w->out = lsp_memory_alloc(w->query_rows, (size_t)w->desc.d_v * size);
    w->lse = lsp_memory_alloc(w->query_rows, size);
    return lsp_context_agree(c->ctx, w->out && w->lse ? LSP_OK : no_operands(c));
}

static void tell(void *user, double done)
{
    const lsp_compare *c = user;
    if (c->progress) c->progress(c->user, ((double)c->execution + done) / (double)c->options.repeats);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Collective. The same for every method: executions one after the other, each from a barrier to the slowest rank's end. */
static lsp_status measure(lsp_compare *c, work *w, lsp_compare_result *result)
{
    double seconds[LSP_COMPARE_REPEATS];
    lsp_attention_set_progress(w->plan, tell, c);
    bool rests = c->pause.want && lsp_method_can_rest(w->desc.method);
    lsp_status status = rests ? lsp_attention_set_pause(w->plan, &c->pause) : LSP_OK;
    for (c->execution = 0; status == LSP_OK && c->execution < c->options.repeats; c->execution++) {
        lsp_attention_stats stats = {0};
        status = lsp_context_barrier(c->ctx);
        double begin = lsp_clock();
        if (status == LSP_OK)
            status = lsp_attention_execute(w->plan, w->q, w->k, w->v, w->out, w->lse, &stats);
        double most[3] = {lsp_clock() - begin - w->plan->pausing.seconds, stats.seconds_compute,
                          stats.seconds_gather_exposed};
        if (status == LSP_OK) status = lsp_context_max_f64(c->ctx, most, 3);
        if (status == LSP_OK) status = lsp_context_sum_f64(c->ctx, &stats.bytes_received, 1);
        if (status == LSP_OK) status = lsp_context_sum_i64(c->ctx, &stats.empty_rows, 1);
        seconds[c->execution] = most[0];
        result->bytes_received = stats.bytes_received;
        result->empty_rows = stats.empty_rows;
        if (c->execution > 0 && most[0] >= result->seconds) continue;
        result->seconds = most[0];
        result->seconds_compute = most[1];
        result->seconds_gather = most[2];
    }
    lsp_attention_set_progress(w->plan, NULL, NULL);
    if (status == LSP_OK) {
        qsort(seconds, (size_t)c->options.repeats, sizeof *seconds, by_size);
        result->repeats = c->options.repeats;
        result->seconds_median = seconds[c->options.repeats / 2];
    }
    return lsp_context_agree(c->ctx, status);
}

/* Collective. Executes, and checks that sampled rows are what the method should give. */
static lsp_status run(lsp_compare *c, work *w, lsp_compare_result *result)
{
    result->method = w->desc.method;
    result->estimate = lsp_attention_get_estimate(w->plan);
    result->isa = lsp_attention_get_isa(w->plan);
    lsp_status status = prepare(c, w);
    if (status == LSP_OK) status = measure(c, w, result);
    if (status != LSP_OK) return status;
    return lsp_compare_verify(c->ctx, w->plan, &w->desc, &c->options, w->q, w->k, w->v, w->out, w->lse,
                              result);
}

lsp_status lsp_compare_exact(lsp_compare *c, const void *q, const void *k, const void *v,
                             lsp_compare_result *result, lsp_compare_head *heads)
{
    lsp_status status = LSP_OK;
    if (!c->plan)
        status = lsp_context_fail(c->ctx, LSP_ERR_USAGE, "compare: exact attention was computed already");
    status = lsp_context_agree(c->ctx, status);
    if (status != LSP_OK) return status;
    c->q = q;
    c->k = k;
    c->v = v;
    work w = {.desc = c->desc, .plan = c->plan};
    lsp_compare_result found = {.repeats = 0};
    c->plan = NULL; /* the work's to destroy */
    status = run(c, &w, &found);
    if (status == LSP_OK)
        status =
            lsp_compare_rows_bring(&c->rows, w.query_runs, w.query_run_count, w.out, false, &c->rows.out);
    if (status == LSP_OK)
        status = lsp_compare_rows_bring(&c->rows, w.query_runs, w.query_run_count, w.lse, true, &c->rows.lse);
    if (status == LSP_OK) status = lsp_compare_rows_measure(&c->rows, w.key_runs, w.key_run_count, v);
    if (status == LSP_OK) status = lsp_compare_rows_judge(&c->rows, c->rows.out, NULL, &found, heads);
    if (status == LSP_OK) status = lsp_compare_certify(c->ctx, w.plan, &w.desc, &found, heads);
    work_free(&w);
    if (status == LSP_OK) *result = found;
    return status;
}

/* Collective. What the rows show, and what the method tells of itself. */
static lsp_status judge(const lsp_compare *c, const work *w, lsp_compare_result *result,
                        lsp_compare_head *heads)
{
    void *out = NULL, *lse = NULL;
    bool block = w->desc.method == LSP_METHOD_BLOCK;
    lsp_status status =
        lsp_compare_rows_bring(&c->rows, w->query_runs, w->query_run_count, w->out, false, &out);
    if (status == LSP_OK && block)
        status = lsp_compare_rows_bring(&c->rows, w->query_runs, w->query_run_count, w->lse, true, &lse);
    if (status == LSP_OK) status = lsp_compare_rows_judge(&c->rows, out, lse, result, heads);
    lsp_memory_free(out);
    lsp_memory_free(lse);
    return status == LSP_OK ? lsp_compare_certify(c->ctx, w->plan, &w->desc, result, heads) : status;
}

lsp_status lsp_compare_method(lsp_compare *c, const lsp_attention_desc *desc, lsp_compare_result *result,
                              lsp_compare_head *heads)
{
    lsp_status status = LSP_OK;
    if (!c->rows.out)
        status = lsp_context_fail(c->ctx, LSP_ERR_USAGE,
                                  "compare: there is nothing to compare with: lsp_compare_exact comes first");
    if (status == LSP_OK) status = lsp_compare_check(c, desc, NULL);
    status = lsp_context_agree(c->ctx, status);
    if (status != LSP_OK) return status;
    work w = {.desc = with_method(c, desc)};
    lsp_compare_result found = {.repeats = 0};
    status = lsp_attention_create(c->ctx, &w.desc, &w.plan);
    if (status == LSP_OK) status = run(c, &w, &found);
    if (status == LSP_OK) status = judge(c, &w, &found, heads);
    work_free(&w);
    if (status == LSP_OK) *result = found;
    return status;
}

/* ---- the best ------------------------------------------------------------------------------------ */

static double number_or_infinity(double value)
{
    return isnan(value) ? INFINITY : value;
}

void lsp_compare_front(const lsp_compare_result *results, int64_t count, bool *front)
{
    for (int64_t i = 0; i < count; i++) {
        double error = number_or_infinity(results[i].out_error), seconds = results[i].seconds;
        front[i] = true;
        for (int64_t j = 0; j < count; j++) {
            double other = number_or_infinity(results[j].out_error), time = results[j].seconds;
            if (other <= error && time <= seconds && (other < error || time < seconds)) front[i] = false;
        }
    }
}
