/* A plan in words and as JSON. SPDX-License-Identifier: BSD-3-Clause */
#include "app/format.h"
#include "app/plan.h"

#include <inttypes.h>
#include <stdio.h>

static const struct {
    const char *json, *text;
} parts[LSP_PLAN_PARTS] = {{"read", "read"},       {"project", "projections"},
                           {"compute", "compute"}, {"gather_exposed", "exposed gather"},
                           {"verify", "verify"},   {"write", "write"},
                           {"other", "other"}};

/* ---- for people ---------------------------------------------------------------------------------- */

static void print_bytes(const char *name, double bytes)
{
    char text[LSP_FORMAT_SIZE];
    (void)printf("  %-22s %s\n", name, lsp_format_bytes(bytes, text));
}

static void print_head(const lsp_plan_job *job)
{
    const lsp_attention_desc *d = &job->items[0].desc;
    const lsp_plan_setting *s = &job->asked.setting;
    const lsp_estimate *e = &job->asked.estimate;
    char rule[LSP_RULE_TEXT], keys[LSP_RULE_TEXT], why[64] = "";
    int nodes = lsp_plan_nodes(s);
    if (job->why) (void)snprintf(why, sizeof why, " (by %s)", job->why);
    (void)printf(
        "longspan %s plan of `%s`%s: %s attention, batch %" PRId64 ", heads %" PRId64 " (%" PRId64
        " of k and v), %" PRId64 " x %" PRId64 ", d_k %" PRId64 ", d_v %" PRId64 ", %s, computed in %s\n",
        lsp_version(), job->as.command->name, why, lsp_method_name(d->method), d->batch, d->heads,
        d->kv_heads, d->n, d->m, d->d_k, d->d_v, lsp_summary_rule(d, rule), lsp_dtype_name(d->compute));
    if (job->count > 1)
        (void)printf("  beside it %" PRId64
                     " approximations, each executed %.0f times; counts are of exact\n",
                     job->count - 1, job->items[0].repeats);
    (void)printf("  %d rank%s, %d on a node (%d node%s), %d thread%s each; rows %s, %s\n", s->ranks,
                 s->ranks == 1 ? "" : "s", s->ranks_per_node, nodes, nodes == 1 ? "" : "s", s->threads,
                 s->threads == 1 ? "" : "s", lsp_partition_kind_name(e->partition),
                 lsp_summary_keys(e, s->ranks, keys));
    if (e->idle_ranks > 0)
        (void)printf("  %" PRId64 " ranks are idle: they have no query row\n", e->idle_ranks);
}

static void print_memory(const lsp_plan_job *job)
{
    const lsp_footprint *f = &job->asked.estimate.footprint;
    int64_t rest = f->total - (f->q + f->k + f->v + f->out + f->lse + f->panels + f->packed + f->work);
    char limit[LSP_FORMAT_SIZE], need[LSP_FORMAT_SIZE];
    (void)printf("\n  bytes of the rank that needs most\n");
    print_bytes("  q", (double)f->q);
    print_bytes("  k, v", (double)(f->k + f->v));
    print_bytes("  out, lse", (double)(f->out + f->lse));
    print_bytes("  panels", (double)f->panels);
    print_bytes("  packed panel, work", (double)(f->packed + f->work));
    if (rest > 0) print_bytes("  the layer's own", (double)rest);
    print_bytes("  total", (double)f->total);
    (void)printf("  %-22s %s", "memory of a node", lsp_format_bytes(job->asked.node_bytes, need));
    if (job->memory_limit > 0)
        (void)printf(" of %s (%s)\n", lsp_format_bytes(job->memory_limit, limit), job->limit_source);
    else
        (void)printf(", of an unknown limit (give plan.memory_per_node)\n");
}

static double project_flops(const lsp_plan_job *job)
{
    lsp_plan_run run = {.desc = &job->items[0].desc, .d_model = job->d_model, .cross = job->layer.desc.cross};
    return job->kind == LSP_PLAN_LAYER ? lsp_plan_project_flops(&run) : 0;
}

static void print_counts(const lsp_plan_job *job)
{
    const lsp_estimate *e = &job->asked.estimate;
    const lsp_plan_rates *r = &job->rates;
    char kernel[LSP_FORMAT_SIZE], dense[LSP_FORMAT_SIZE], memory[LSP_FORMAT_SIZE];
    (void)printf("\n  %-22s %.3g pairs, %.3g flops\n", "operations", e->pairs, e->work);
    if (job->kind == LSP_PLAN_LAYER) (void)printf("  %-22s %.3g flops\n", "projections", project_flops(job));
    print_bytes("gathered, all ranks", e->bytes_received);
    print_bytes("gathered, most by one", e->bytes_received_max);
    print_bytes("input read", job->input_bytes);
    print_bytes("output file", job->output_bytes);
    (void)printf("  %-22s %s: kernels %s, %.0f %% of the FMA peak, f64 %s a thread; memory %s/s\n", "rates",
                 job->source, lsp_format_rate(r->kernel, kernel), 100 * r->kernel / r->peak,
                 lsp_format_rate(r->dense, dense), lsp_format_bytes(r->memory, memory));
}

static void print_time(const lsp_plan_job *job)
{
    const lsp_plan_time *t = &job->asked.time;
    char text[LSP_FORMAT_SIZE];
    (void)printf("\n  seconds, predicted                 share\n");
    for (int i = 0; i < LSP_PLAN_PARTS; i++) {
        if (i == LSP_PLAN_PROJECT && job->kind != LSP_PLAN_LAYER) continue;
        (void)printf("  %-18s %14.4f  %5.1f %%\n", parts[i].text, t->seconds[i],
                     100 * t->seconds[i] / t->total);
    }
    (void)printf("  %-18s %14.4f  (the start of processes not counted)\n", "total", t->total);
    if (t->gather > 0)
        (void)printf("  %-18s %14.4f  if nothing of it were hidden\n", "gather alone", t->gather);
    static const char *const remedies[] = {
        [LSP_LIMIT_COMPUTE] = "more cores make it shorter",
        [LSP_LIMIT_MEMORY] = "memory bandwidth: more nodes make it shorter, more cores do not",
        [LSP_LIMIT_LINK] = "fewer nodes, higher panels or compute.gather = node wait less",
        [LSP_LIMIT_FILE] = "reading and writing; a faster file system makes it shorter"};
    (void)printf("\n  limit    %s: %s\n", lsp_plan_limit_name(t->limit), remedies[t->limit]);
    const lsp_plan_outcome *a = &job->advised;
    (void)printf("  advice   %d rank%s a node, %d thread%s each", a->setting.ranks_per_node,
                 a->setting.ranks_per_node == 1 ? "" : "s", a->setting.threads,
                 a->setting.threads == 1 ? "" : "s");
    (void)printf(", panels of %" PRId64 " keys%s: %s\n", a->estimate.panel_keys,
                 a->setting.panel_rows > 0 ? " (compute.panel_rows)" : "",
                 lsp_format_seconds(a->time.total, text));
}

void lsp_plan_print(const lsp_plan_job *job, const char *submit)
{
    print_head(job);
    print_memory(job);
    print_counts(job);
    print_time(job);
    (void)printf("  submit   %s\n", submit);
    lsp_summary_unused(job->app);
}

/* ---- JSON ---------------------------------------------------------------------------------------- */

typedef struct number {
    const char *name;
    double value;
} number;

static void add_numbers(cJSON *to, const number *numbers, size_t count)
{
    for (size_t i = 0; i < count; i++) lsp_json_add_number(to, numbers[i].name, numbers[i].value);
}

static void add_bytes(cJSON *json, const lsp_plan_job *job)
{
    const lsp_estimate *e = &job->asked.estimate;
    const lsp_footprint *f = &e->footprint;
    const number bytes[] = {{"q", (double)f->q},
                            {"k", (double)f->k},
                            {"v", (double)f->v},
                            {"out", (double)f->out},
                            {"lse", (double)f->lse},
                            {"panels", (double)f->panels},
                            {"packed", (double)f->packed},
                            {"work", (double)f->work},
                            {"total", (double)f->total},
                            {"node", job->asked.node_bytes},
                            {"node_limit", job->memory_limit},
                            {"gathered", e->bytes_received},
                            {"gathered_max", e->bytes_received_max},
                            {"input", job->input_bytes},
                            {"output", job->output_bytes}};
    add_numbers(cJSON_AddObjectToObject(json, "bytes"), bytes, sizeof bytes / sizeof *bytes);
}

static void add_time(cJSON *to, const lsp_plan_time *t)
{
    for (int i = 0; i < LSP_PLAN_PARTS; i++) lsp_json_add_number(to, parts[i].json, t->seconds[i]);
    lsp_json_add_number(to, "total", t->total);
}

static void add_plan(cJSON *json, const lsp_plan_job *job, const char *submit)
{
    const lsp_plan_rates *r = &job->rates;
    const lsp_plan_outcome *a = &job->advised;
    cJSON *plan = cJSON_AddObjectToObject(json, "plan");
    (void)cJSON_AddStringToObject(plan, "command", job->as.command->name);
    add_time(cJSON_AddObjectToObject(plan, "seconds"), &job->asked.time);
    (void)cJSON_AddStringToObject(plan, "limit", lsp_plan_limit_name(job->asked.time.limit));
    const number rates[] = {{"kernel", r->kernel},    {"peak", r->peak},     {"dense", r->dense},
                            {"project", r->project},  {"memory", r->memory}, {"link", r->link},
                            {"latency", r->latency},  {"read", r->read},     {"write", r->write},
                            {"slowness", r->slowness}};
    cJSON *of = cJSON_AddObjectToObject(plan, "rates");
    add_numbers(of, rates, sizeof rates / sizeof *rates);
    (void)cJSON_AddStringToObject(of, "source", job->source);
    const number suggest[] = {{"nodes", lsp_plan_nodes(&a->setting)},
                              {"ranks_per_node", a->setting.ranks_per_node},
                              {"threads", a->setting.threads},
                              {"panel_rows", (double)a->estimate.panel_keys},
                              {"total", a->time.total}};
    add_numbers(cJSON_AddObjectToObject(plan, "suggest"), suggest, sizeof suggest / sizeof *suggest);
    (void)cJSON_AddStringToObject(plan, "sbatch", submit);
}

cJSON *lsp_plan_json(const lsp_plan_job *job, const char *submit)
{
    const lsp_estimate *e = &job->asked.estimate;
    const lsp_plan_setting *s = &job->asked.setting;
    cJSON *json = lsp_json_begin(job->app);
    lsp_json_add_shape(json, &job->items[0].desc);
    (void)cJSON_AddStringToObject(json, "method", lsp_method_name(job->items[0].desc.method));
    add_bytes(json, job);
    const number numbers[] = {{"planned_ranks", s->ranks},
                              {"planned_ranks_per_node", s->ranks_per_node},
                              {"planned_threads", s->threads},
                              {"idle_ranks", (double)e->idle_ranks},
                              {"panels", (double)e->panels},
                              {"panel_rows", (double)e->panel_keys},
                              {"pairs", e->pairs},
                              {"flops", e->flops},
                              {"work", e->work},
                              {"project_flops", project_flops(job)},
                              {"flops_per_rank", job->rates.kernel * s->threads}};
    add_numbers(json, numbers, sizeof numbers / sizeof *numbers);
    (void)cJSON_AddStringToObject(json, "gather", lsp_gather_mode_name(e->gather));
    (void)cJSON_AddStringToObject(json, "partition", lsp_partition_kind_name(e->partition));
    cJSON *seconds = cJSON_AddObjectToObject(json, "seconds");
    lsp_json_add_number(seconds, "compute", job->asked.time.seconds[LSP_PLAN_COMPUTE]);
    lsp_json_add_number(seconds, "gather", job->asked.time.gather);
    add_plan(json, job, submit);
    return json;
}
