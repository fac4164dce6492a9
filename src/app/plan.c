/* longspan plan: what a run takes, without running it. SPDX-License-Identifier: BSD-3-Clause */
#include "app/plan.h"

#include "app/format.h"
#include "app/launch.h"
#include "base/checked.h"
#include "base/memory.h"

#include <stdio.h>

/* ---- one setting --------------------------------------------------------------------------------- */

int lsp_plan_nodes(const lsp_plan_setting *s)
{
    return (s->ranks + s->ranks_per_node - 1) / s->ranks_per_node;
}

static lsp_status estimate_one(const lsp_plan_job *job, const lsp_attention_desc *d,
                               const lsp_plan_setting *s, lsp_estimate *e)
{
    char text[LSP_ERROR_TEXT] = "";
    lsp_status status =
        lsp_attention_estimate(d, s->ranks, s->ranks_per_node, s->threads, e, text, sizeof text);
    return status == LSP_OK ? LSP_OK : lsp_context_fail(job->app->ctx, status, "%s", text);
}

/* One head's matrix after the other: `heads` with these numbers. Method block keeps fewer pairs than the decomposition's
 * estimate, which knows the mask alone. */
static void add_heads(const lsp_estimate *head, double pairs, double pairs_max, double heads, lsp_estimate *e)
{
    double kept = head->pairs > 0 ? pairs / head->pairs : 1;
    lsp_estimate sum = *head;
    if (e->footprint.total > head->footprint.total) sum.footprint = e->footprint;
    sum.pairs = e->pairs + heads * pairs;
    sum.pairs_max = e->pairs_max + heads * pairs_max;
    sum.products = e->products + heads * kept * head->products;
    sum.dense = e->dense + heads * head->dense;
    sum.alone = e->alone + heads * head->alone;
    sum.converted = e->converted + heads * head->converted;
    sum.work = e->work + heads * (head->work + (kept - 1) * head->products);
    sum.bytes_received = e->bytes_received + heads * head->bytes_received;
    sum.bytes_received_max = e->bytes_received_max + heads * head->bytes_received_max;
    sum.flops = sum.products;
    *e = sum;
}

static lsp_status estimate_svd(const lsp_plan_job *job, const lsp_attention_desc *d,
                               const lsp_plan_setting *s, lsp_estimate *e)
{
    lsp_status status = LSP_OK;
    *e = (lsp_estimate){.pairs = 0};
    for (int64_t b = 0; status == LSP_OK && b < d->batch; b++) {
        lsp_estimate head, plain;
        lsp_attention_desc one = *d, operator;
        one.batch = one.heads = one.kv_heads = 1;
        one.kv_head_of = NULL;
        one.d_v = 1; /* values are not read: next to nothing stands for them */
        one.v_type = one.compute;
        one.head_groups = 1;
        if (one.key_lengths) one.key_lengths += b;
        operator= one;
        one.method = LSP_METHOD_LOWRANK;
        status = estimate_one(job, &one, s, &head);
        if (status == LSP_OK && d->method == LSP_METHOD_BLOCK)
            status = estimate_one(job, &operator, s, &plain);
        if (status != LSP_OK) return status;
        bool blocks = d->method == LSP_METHOD_BLOCK;
        add_heads(&head, blocks ? plain.pairs : head.pairs, blocks ? plain.pairs_max : head.pairs_max,
                  (double)d->heads, e);
    }
    return status;
}

/* A map walks twice over the keys, and reads no values. */
static void without_values(const lsp_attention_desc *d, lsp_estimate *e)
{
    double k = (double)(d->d_k * (int64_t)lsp_dtype_size(d->k_type)),
           v = (double)(d->d_v * (int64_t)lsp_dtype_size(d->v_type));
    e->flops = e->work = 4 * (double)d->d_k * e->pairs;
    e->bytes_received *= 2 * k / (k + v);
    e->bytes_received_max *= 2 * k / (k + v);
    e->footprint.total -= e->footprint.v + e->footprint.out;
    e->footprint.v = e->footprint.out = 0;
}

static lsp_status estimate_item(const lsp_plan_job *job, const lsp_attention_desc *d,
                                const lsp_plan_setting *s, lsp_estimate *e)
{
    if (job->kind == LSP_PLAN_SVD) return estimate_svd(job, d, s, e);
    lsp_status status = estimate_one(job, d, s, e);
    if (status == LSP_OK && job->kind == LSP_PLAN_MAP) without_values(d, e);
    return status;
}

static void add_time(const lsp_plan_time *one, double repeats, bool first, lsp_plan_time *all)
{
    for (int part = 0; part < LSP_PLAN_PARTS; part++) {
        bool repeated = part == LSP_PLAN_COMPUTE || part == LSP_PLAN_GATHER;
        double seconds = one->seconds[part] * (repeated ? repeats : 1);
        /* The input is read once; every method is verified, and the peak measured after it. */
        if (part == LSP_PLAN_READ && !first) seconds = 0;
        all->seconds[part] += seconds;
        all->total += seconds;
    }
    all->gather += one->gather * repeats;
    if (first) all->limit = one->limit;
}

/* The layer's own arrays: X, Y, and the heads' rows on both sides of the exchange. */
static int64_t layer_bytes(const lsp_plan_job *job, const lsp_attention_desc *d, int ranks)
{
    int64_t element = (int64_t)lsp_dtype_size(lsp_dtype_result(d->compute)), d_model = job->d_model;
    int64_t x = lsp_ceil_div(d->batch * d->n, ranks), keys = lsp_ceil_div(d->batch * d->m, ranks);
    int64_t weights = d_model * d->d_k * (2 * d->heads + 2 * d->kv_heads);
    return element * (2 * x * d_model + (job->layer.desc.cross ? keys * d_model : 0) + weights +
                      d->d_k * (x * d->heads + 2 * keys * d->kv_heads));
}

lsp_status lsp_plan_try(const lsp_plan_job *job, const lsp_plan_setting *setting, lsp_plan_outcome *o)
{
    *o = (lsp_plan_outcome){.setting = *setting};
    for (int64_t i = 0; i < job->count; i++) {
        lsp_attention_desc d = job->items[i].desc;
        lsp_estimate e;
        if (setting->panel_rows > 0) d.panel_rows = setting->panel_rows;
        lsp_status status = estimate_item(job, &d, setting, &e);
        if (status != LSP_OK) return status;
        lsp_plan_run run = {.kind = job->kind,
                            .desc = &d,
                            .ranks = setting->ranks,
                            .ranks_per_node = setting->ranks_per_node,
                            .threads = setting->threads,
                            .verify_rows = job->verify_rows,
                            .input_bytes = job->input_bytes,
                            .output_bytes = job->output_bytes,
                            .d_model = job->d_model,
                            .cross = job->layer.desc.cross};
        lsp_plan_time time = lsp_plan_predict(&run, &e, &job->rates);
        add_time(&time, job->items[i].repeats, i == 0, &o->time);
        if (job->kind == LSP_PLAN_LAYER) e.footprint.total += layer_bytes(job, &d, setting->ranks);
        if (i == 0 || e.footprint.total > o->estimate.footprint.total) {
            lsp_footprint most = e.footprint;
            if (i == 0) o->estimate = e;
            o->estimate.footprint = most;
        }
    }
    o->node_bytes = (double)o->estimate.footprint.total * setting->ranks_per_node;
    return LSP_OK;
}

/* ---- the command --------------------------------------------------------------------------------- */

static lsp_status take_setting(lsp_plan_job *job, lsp_plan_setting *s)
{
    lsp_app *app = job->app;
    lsp_options *o = app->options;
    /* The same on every rank also where nodes differ. */
    int64_t here = lsp_collect_max_i64(app, app->layout.node_ranks);
    int64_t cores_here = lsp_collect_max_i64(app, app->layout.cores_node);
    int64_t ranks = lsp_options_int(o, LSP_KEY_PLAN_RANKS);
    int64_t per_node = lsp_options_int(o, LSP_KEY_PLAN_RANKS_PER_NODE);
    int64_t threads = lsp_options_int(o, LSP_KEY_PLAN_THREADS);
    int64_t cores = lsp_options_int(o, LSP_KEY_PLAN_CORES_PER_NODE);
    bool given = per_node > 0 || threads > 0;
    if (ranks == 0) ranks = app->layout.ranks;
    if (per_node == 0) per_node = here;
    if (threads == 0) threads = lsp_collect_max_i64(app, app->layout.threads);
    if (cores == 0) cores = given ? per_node * threads : lsp_max(cores_here, per_node * threads);
    per_node = lsp_min(per_node, ranks);
    int64_t sockets = lsp_options_int(o, LSP_KEY_PLAN_SOCKETS_PER_NODE);
    if (sockets == 0) sockets = given ? per_node : lsp_collect_max_i64(app, lsp_launch_sockets());
    *s = (lsp_plan_setting){.panel_rows = 0};
    if (lsp_checked_int(ranks, &s->ranks) && lsp_checked_int(per_node, &s->ranks_per_node) &&
        lsp_checked_int(threads, &s->threads) && lsp_checked_int(cores, &job->cores) &&
        lsp_checked_int(lsp_min(sockets, cores), &job->sockets))
        return LSP_OK;
    return lsp_context_fail(app->ctx, LSP_ERR_USAGE, "plan.ranks or plan.threads is too large");
}

static void take_memory(lsp_plan_job *job)
{
    job->memory_limit = lsp_options_real(job->app->options, LSP_KEY_PLAN_MEMORY_PER_NODE);
    job->limit_source = "plan.memory_per_node";
    if (job->memory_limit <= 0)
        job->memory_limit = (double)lsp_launch_memory_limit(job->app, &job->limit_source);
}

static lsp_status report(lsp_plan_job *job)
{
    lsp_app *app = job->app;
    char need[LSP_FORMAT_SIZE], limit[LSP_FORMAT_SIZE], time[LSP_FORMAT_SIZE];
    bool fits = job->memory_limit <= 0 || job->asked.node_bytes <= job->memory_limit;
    lsp_status status = LSP_OK;
    char *submit = lsp_plan_submit(job);
    if (!submit) status = lsp_context_fail(app->ctx, LSP_ERR_LIMIT, "no memory for the plan's text");
    status = lsp_context_agree(app->ctx, status);
    if (status == LSP_OK && app->layout.rank == 0) lsp_plan_print(job, submit);
    if (status == LSP_OK) status = lsp_json_write(app, lsp_plan_json(job, submit));
    lsp_memory_free(submit);
    if (status != LSP_OK) return status;
    if (app->layout.rank == 0) {
        (void)printf("longspan: %s, about %s\n",
                     !fits                   ? "FAILED, does not fit"
                     : job->memory_limit > 0 ? "PASSED, fits"
                                             : "PASSED, memory not checked",
                     lsp_format_seconds(job->asked.time.total, time));
    }
    if (fits) return LSP_OK;
    return lsp_context_fail(app->ctx, LSP_ERR_LIMIT,
                            "the run needs %s on a node, and %s leaves %s; use more nodes (plan.ranks, "
                            "plan.ranks_per_node), or fewer rows or heads at a time",
                            lsp_format_bytes(job->asked.node_bytes, need), job->limit_source,
                            lsp_format_bytes(job->memory_limit, limit));
}

lsp_status lsp_plan_run_command(lsp_app *app)
{
    lsp_plan_job job = {.app = app};
    lsp_plan_setting setting;
    lsp_status status = lsp_json_probe(app);
    if (status == LSP_OK) status = lsp_plan_input_open(&job);
    if (status == LSP_OK) status = take_setting(&job, &setting);
    if (status == LSP_OK) {
        take_memory(&job);
        job.asked.setting = setting;
        status = lsp_plan_rates_take(&job);
    }
    if (status == LSP_OK) status = lsp_context_agree(app->ctx, lsp_plan_try(&job, &setting, &job.asked));
    if (status == LSP_OK) status = lsp_context_agree(app->ctx, lsp_plan_advise(&job));
    if (status == LSP_OK) status = report(&job);
    lsp_plan_input_close(&job);
    return status;
}
