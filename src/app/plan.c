/* longspan plan: what a run takes, without running it. SPDX-License-Identifier: BSD-3-Clause */
#include "app/format.h"
#include "app/launch.h"
#include "app/report.h"
#include "app/weights.h"
#include "base/checked.h"

#include <inttypes.h>
#include <stdio.h>

typedef struct plan_state {
    lsp_app *app;
    lsp_input input;
    lsp_estimate estimate;
    int ranks, ranks_per_node;
    double memory_per_node, memory_limit; /* bytes; limit 0: not known */
    const char *limit_source;
    double flops_per_rank, bandwidth, latency;
    double compute_seconds, gather_seconds;
    double input_bytes, output_bytes;
} plan_state;

static lsp_status take_ranks(plan_state *s)
{
    lsp_app *app = s->app;
    /* The same on every rank also where nodes differ. */
    int64_t here = lsp_collect_max_i64(app, app->layout.node_ranks);
    int64_t ranks = lsp_options_int(app->options, LSP_KEY_PLAN_RANKS);
    int64_t per_node = lsp_options_int(app->options, LSP_KEY_PLAN_RANKS_PER_NODE);
    if (ranks == 0) ranks = app->layout.ranks;
    if (per_node == 0) per_node = here;
    per_node = lsp_min(per_node, ranks);
    if (!lsp_checked_int(ranks, &s->ranks) || !lsp_checked_int(per_node, &s->ranks_per_node))
        return lsp_context_fail(app->ctx, LSP_ERR_USAGE, "plan.ranks is too large");
    return LSP_OK;
}

static lsp_status take_machine(plan_state *s)
{
    lsp_app *app = s->app;
    s->memory_limit = lsp_options_real(app->options, LSP_KEY_PLAN_MEMORY_PER_NODE);
    s->limit_source = "plan.memory_per_node";
    if (s->memory_limit <= 0) s->memory_limit = (double)lsp_launch_memory_limit(app, &s->limit_source);
    s->bandwidth = lsp_options_real(app->options, LSP_KEY_PLAN_BANDWIDTH);
    s->latency = lsp_options_real(app->options, LSP_KEY_PLAN_LATENCY);
    s->flops_per_rank = lsp_options_real(app->options, LSP_KEY_PLAN_FLOPS_PER_RANK);
    if (s->flops_per_rank > 0) return LSP_OK;
    double gflops = 0;
    lsp_status status =
        lsp_measure_fma_peak(app->ctx, s->input.desc.isa, s->input.desc.compute, 0.01, &gflops);
    s->flops_per_rank = 0.8 * gflops * 1e9 / app->layout.ranks;
    return status;
}

static lsp_status estimate(plan_state *s)
{
    char message[LSP_ERROR_TEXT] = "";
    const lsp_attention_desc *d = &s->input.desc;
    s->input.desc.keep_values = true; /* as attend does with its default of verify.rows */
    lsp_status status = lsp_attention_estimate(d, s->ranks, s->ranks_per_node, s->app->layout.threads,
                                               &s->estimate, message, sizeof message);
    if (status != LSP_OK) status = lsp_context_fail(s->app->ctx, status, "%s", message);
    status = lsp_context_agree(s->app->ctx, status);
    if (status != LSP_OK) return status;
    const lsp_estimate *e = &s->estimate;
    s->memory_per_node = (double)e->footprint.total * s->ranks_per_node;
    s->compute_seconds = e->pairs > 0 ? e->pairs_max / e->pairs * e->work / s->flops_per_rank : 0;
    /* Within one node no link is crossed. */
    if (s->ranks > s->ranks_per_node)
        s->gather_seconds =
            e->bytes_received_max * s->ranks_per_node / s->bandwidth + (double)e->panels * s->latency;
    double rows = (double)d->batch * (double)d->heads * (double)(d->row_end - d->row_begin);
    double keys = (double)d->batch * (double)d->kv_heads * (double)(d->key_end - d->key_begin);
    double size = (double)lsp_dtype_size(lsp_dtype_result(d->compute));
    bool lse = lsp_options_yes(s->app->options, LSP_KEY_OUTPUT_LSE);
    s->input_bytes = rows * (double)d->d_k * (double)lsp_dtype_size(d->q_type) +
                     keys * (double)d->d_k * (double)lsp_dtype_size(d->k_type) +
                     keys * (double)d->d_v * (double)lsp_dtype_size(d->v_type);
    s->output_bytes = rows * size * ((double)d->d_v + (lse ? 1 : 0));
    lsp_weights weights;
    status = lsp_weights_open(s->app, d, &weights);
    if (status == LSP_OK) s->output_bytes += lsp_weights_bytes(&weights, d);
    lsp_weights_free(&weights);
    return status;
}

static void print_bytes(const char *name, double bytes)
{
    char text[LSP_FORMAT_SIZE];
    (void)printf("  %-22s %s\n", name, lsp_format_bytes(bytes, text));
}

static void print_seconds(const char *name, double seconds)
{
    char text[LSP_FORMAT_SIZE];
    (void)printf("  %-22s %s\n", name, lsp_format_seconds(seconds, text));
}

static void print_memory(const plan_state *s)
{
    const lsp_footprint *f = &s->estimate.footprint;
    char limit[LSP_FORMAT_SIZE], need[LSP_FORMAT_SIZE];
    (void)printf("\n  bytes of the rank that needs most\n");
    print_bytes("  q", (double)f->q);
    print_bytes("  k, v", (double)(f->k + f->v));
    print_bytes("  out, lse", (double)(f->out + f->lse));
    print_bytes("  panels", (double)f->panels);
    print_bytes("  packed panel, work", (double)(f->packed + f->work));
    print_bytes("  total", (double)f->total);
    (void)printf("  %-22s %s", "memory of a node", lsp_format_bytes(s->memory_per_node, need));
    if (s->memory_limit > 0)
        (void)printf(" of %s (%s)\n", lsp_format_bytes(s->memory_limit, limit), s->limit_source);
    else
        (void)printf(", of an unknown limit (give plan.memory_per_node)\n");
}

static void print(const plan_state *s)
{
    const lsp_attention_desc *d = &s->input.desc;
    const lsp_estimate *e = &s->estimate;
    char text[LSP_FORMAT_SIZE], rule[LSP_RULE_TEXT], keys[LSP_RULE_TEXT];
    (void)printf("longspan %s plan: batch %" PRId64 ", heads %" PRId64 " (%" PRId64 " of k and v), %" PRId64
                 " x %" PRId64 ", d_k %" PRId64 ", d_v %" PRId64 ", %s, computed in %s\n",
                 lsp_version(), d->batch, d->heads, d->kv_heads, d->n, d->m, d->d_k, d->d_v,
                 lsp_summary_rule(d, rule), lsp_dtype_name(d->compute));
    (void)printf("  %d ranks, %d on a node, %d threads each; rows %s, %s\n", s->ranks, s->ranks_per_node,
                 s->app->layout.threads, lsp_partition_kind_name(e->partition),
                 lsp_summary_keys(e, s->ranks, keys));
    if (e->idle_ranks > 0)
        (void)printf("  %" PRId64 " ranks are idle: they have no query row\n", e->idle_ranks);
    print_memory(s);
    (void)printf("  %-22s %.3g pairs, %.3g flops\n", "operations", e->pairs, e->work);
    print_bytes("gathered, all ranks", e->bytes_received);
    print_bytes("gathered, most by one", e->bytes_received_max);
    print_bytes("input read", s->input_bytes);
    print_bytes("output file", s->output_bytes);
    (void)printf("  %-22s %s a rank\n", "speed assumed", lsp_format_rate(s->flops_per_rank, text));
    print_seconds("computing", s->compute_seconds);
    print_seconds("gathering, overlapped", s->gather_seconds);
    lsp_summary_unused(s->app);
}

static cJSON *to_json(const plan_state *s)
{
    const lsp_estimate *e = &s->estimate;
    cJSON *json = lsp_json_begin(s->app);
    lsp_json_add_shape(json, &s->input.desc);
    const lsp_footprint *f = &e->footprint;
    const struct {
        const char *name;
        double value;
    } bytes[] = {{"q", (double)f->q},
                 {"k", (double)f->k},
                 {"v", (double)f->v},
                 {"out", (double)f->out},
                 {"lse", (double)f->lse},
                 {"panels", (double)f->panels},
                 {"packed", (double)f->packed},
                 {"work", (double)f->work},
                 {"total", (double)f->total},
                 {"node", s->memory_per_node},
                 {"node_limit", s->memory_limit},
                 {"gathered", e->bytes_received},
                 {"gathered_max", e->bytes_received_max},
                 {"input", s->input_bytes},
                 {"output", s->output_bytes}},
      numbers[] = {{"planned_ranks", s->ranks},
                   {"planned_ranks_per_node", s->ranks_per_node},
                   {"idle_ranks", (double)e->idle_ranks},
                   {"panels", (double)e->panels},
                   {"panel_rows", (double)e->panel_keys},
                   {"pairs", e->pairs},
                   {"flops", e->flops},
                   {"work", e->work},
                   {"flops_per_rank", s->flops_per_rank}};
    cJSON *object = cJSON_AddObjectToObject(json, "bytes");
    for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++)
        (void)cJSON_AddNumberToObject(object, bytes[i].name, bytes[i].value);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        (void)cJSON_AddNumberToObject(json, numbers[i].name, numbers[i].value);
    (void)cJSON_AddStringToObject(json, "gather", lsp_gather_mode_name(e->gather));
    (void)cJSON_AddStringToObject(json, "partition", lsp_partition_kind_name(e->partition));
    cJSON *seconds = cJSON_AddObjectToObject(json, "seconds");
    (void)cJSON_AddNumberToObject(seconds, "compute", s->compute_seconds);
    (void)cJSON_AddNumberToObject(seconds, "gather", s->gather_seconds);
    return json;
}

static lsp_status report(plan_state *s)
{
    lsp_app *app = s->app;
    char need[LSP_FORMAT_SIZE], limit[LSP_FORMAT_SIZE], time[LSP_FORMAT_SIZE];
    bool fits = s->memory_limit <= 0 || s->memory_per_node <= s->memory_limit;
    double seconds = s->compute_seconds > s->gather_seconds ? s->compute_seconds : s->gather_seconds;
    if (app->layout.rank == 0) print(s);
    lsp_status status = lsp_json_write(app, to_json(s));
    if (status != LSP_OK) return status;
    if (app->layout.rank == 0) {
        (void)printf("longspan: %s, about %s without reading and writing\n",
                     !fits                 ? "FAILED, does not fit"
                     : s->memory_limit > 0 ? "PASSED, fits"
                                           : "PASSED, memory not checked",
                     lsp_format_seconds(seconds, time));
    }
    if (fits) return LSP_OK;
    return lsp_context_fail(app->ctx, LSP_ERR_LIMIT,
                            "the run needs %s on a node, and %s leaves %s; use more nodes (plan.ranks, "
                            "plan.ranks_per_node), or fewer rows or heads at a time",
                            lsp_format_bytes(s->memory_per_node, need), s->limit_source,
                            lsp_format_bytes(s->memory_limit, limit));
}

lsp_status lsp_plan_run(lsp_app *app)
{
    plan_state s = {.app = app};
    bool from_shape = lsp_options_is_set(app->options, LSP_KEY_SHAPE_N);
    lsp_status status = lsp_json_probe(app);
    if (status == LSP_OK)
        status = from_shape ? lsp_input_from_shape(app, &s.input) : lsp_input_open(app, &s.input);
    if (status == LSP_OK) status = take_ranks(&s);
    if (status == LSP_OK) status = take_machine(&s);
    if (status == LSP_OK) status = estimate(&s);
    if (status == LSP_OK) status = report(&s);
    lsp_input_close(&s.input);
    return status;
}
