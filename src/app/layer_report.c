/* What a run of a layer tells. SPDX-License-Identifier: BSD-3-Clause */
#include "app/layer.h"

#include "app/format.h"

#include <inttypes.h>
#include <stdio.h>

static const lsp_phase_name phase_names[LSP_LAYER_PHASES] = {{"read", "read"},
                                                             {"project", "projections"},
                                                             {"exchange", "exchange"},
                                                             {"compute", "attention"},
                                                             {"gather_exposed", "exposed gather"},
                                                             {"execute", "layer in memory"},
                                                             {"verify", "verify"},
                                                             {"write", "write"},
                                                             {"total", "total"}};

void lsp_layer_report_collect(lsp_app *app, lsp_layer_report *report)
{
    lsp_collect_statistics(app, report->seconds, LSP_LAYER_PHASES, report->phases);
    report->received_all = lsp_collect_sum_f64(app, report->received);
    report->project_flops = lsp_collect_sum_f64(app, report->project_flops);
    report->empty_rows = lsp_collect_sum_i64(app, report->empty_rows);
    report->rss_max = lsp_collect_max_i64(app, lsp_memory_peak());
    double compute = report->phases[LSP_LAYER_COMPUTE].max, project = report->phases[LSP_LAYER_PROJECT].max;
    double flops = report->flops * (1 - report->keeper->first.done); /* of this run */
    report->gflops = compute > 0 ? flops / compute * 1e-9 : 0;
    report->project_gflops = project > 0 ? report->project_flops / project * 1e-9 : 0;
    report->efficiency = report->peak_gflops > 0 ? report->gflops / report->peak_gflops : 0;
}

/* ---- for people ---------------------------------------------------------------------------------- */

/* "12 heads of 64 (4 of k and v)". */
static void print_head(const lsp_app *app, const lsp_layer_report *report)
{
    const lsp_layer_input *in = report->input;
    const lsp_layer_desc *desc = &in->desc;
    const lsp_attention_desc *a = &desc->attention;
    char rule[LSP_RULE_TEXT], keys[LSP_RULE_TEXT], batch[32] = "";
    if (a->batch > 1) (void)snprintf(batch, sizeof batch, "%" PRId64 " x ", a->batch);
    (void)printf("longspan %s layer: %s attention, %s%" PRId64 " x %" PRId64 ", %" PRId64
                 " head%s of %" PRId64 " (%" PRId64 " of k and v), %s%" PRId64 " key%s\n",
                 lsp_version(), lsp_method_name(a->method), batch, a->n, desc->d_model, a->heads,
                 a->heads == 1 ? "" : "s", a->d_k, a->kv_heads, desc->cross ? "a context of " : "", a->m,
                 a->m == 1 ? "" : "s");
    (void)printf("  input    %s (%s), weights %s%s%s (%s), computed in %s: %s", in->x.file,
                 lsp_dtype_name(desc->x_type), in->weights_file, *in->weights_group ? ":" : "",
                 in->weights_group, lsp_dtype_name(in->weights.type), lsp_dtype_name(a->compute),
                 lsp_summary_rule(a, rule));
    if (desc->rope_base > 0)
        (void)printf(", rotary positions (base %g, %s)", desc->rope_base,
                     desc->rope_pairing == LSP_ROPE_HALF ? "half" : "interleaved");
    if (desc->qk_norm) (void)printf(", q and k normalised");
    (void)printf("\n");
    lsp_summary_machine(app, report->isa);
    (void)printf("  split    rows %s, %s\n", lsp_partition_kind_name(report->estimate.partition),
                 lsp_summary_keys(&report->estimate, app->layout.ranks, keys));
}

static void print_result(const lsp_layer_report *r)
{
    char one[LSP_FORMAT_SIZE], two[LSP_FORMAT_SIZE];
    (void)printf("  speed    attention %s", lsp_format_rate(r->gflops * 1e9, one));
    if (r->peak_gflops > 0) (void)printf(", %.1f %%", 100 * r->efficiency);
    (void)printf("; projections %s", lsp_format_rate(r->project_gflops * 1e9, one));
    if (r->peak_gflops > 0)
        (void)printf(", %.1f %% of the FMA peak (%s)", 100 * r->project_gflops / r->peak_gflops,
                     lsp_format_rate(r->peak_gflops * 1e9, two));
    (void)printf("\n");
    lsp_summary_memory(r->rss_max, r->received_all);
    if (r->empty_rows > 0)
        (void)printf("  empty    %" PRId64 " rows of heads see no key: their output is 0\n", r->empty_rows);
    lsp_summary_nonfinite(r->input->nonfinite);
    if (r->verified)
        (void)printf(
            "  verify   %" PRId64 " rows in double precision, %s: relative error %.2e at most (tolerance "
            "%.1e)\n",
            r->verify.rows,
            r->end_to_end ? "from x and the weights to y" : "projections and attention each on its own",
            r->verify.max_rel_err, r->verify.tolerance);
    lsp_certificate_print(&r->certificate);
    lsp_keeper_print(r->keeper);
    if (r->output) (void)printf("  output   %s: /y xxh64 %016" PRIx64 "\n", r->output, r->checksum);
}

void lsp_layer_report_print(lsp_app *app, const lsp_layer_report *report)
{
    print_head(app, report);
    lsp_summary_times(phase_names, report->phases, LSP_LAYER_PHASES);
    print_result(report);
    lsp_summary_unused(app);
    if (report->estimate.idle_ranks > 0)
        (void)printf("  NOTE     %" PRId64 " of %d ranks have no query row; start fewer ranks\n",
                     report->estimate.idle_ranks, app->layout.ranks);
    lsp_summary_verdict(report->verified ? &report->verify : NULL, report->output);
}

/* ---- JSON ---------------------------------------------------------------------------------------- */

static void add_layer(cJSON *object, const lsp_layer_input *in)
{
    const lsp_layer_desc *desc = &in->desc;
    cJSON *layer = cJSON_AddObjectToObject(object, "layer");
    lsp_json_add_number(layer, "d_model", (double)desc->d_model);
    lsp_json_add_number(layer, "head_dim", (double)desc->attention.d_k);
    (void)cJSON_AddBoolToObject(layer, "cross", desc->cross);
    (void)cJSON_AddBoolToObject(layer, "qkv_bias", in->weights.qkv_bias != NULL);
    (void)cJSON_AddBoolToObject(layer, "out_bias", in->weights.out_bias != NULL);
    lsp_json_add_number(layer, "rope_base", desc->rope_base);
    (void)cJSON_AddBoolToObject(layer, "qk_norm", desc->qk_norm);
}

cJSON *lsp_layer_report_json(const lsp_app *app, const lsp_layer_report *r)
{
    const lsp_attention_desc *a = &r->input->desc.attention;
    cJSON *object = lsp_json_begin(app);
    (void)cJSON_AddStringToObject(object, "isa", lsp_isa_name(r->isa));
    lsp_json_add_shape(object, a);
    add_layer(object, r->input);
    lsp_json_add_plan(object, a, &r->estimate);
    lsp_json_add_times(object, phase_names, r->phases, LSP_LAYER_PHASES);
    lsp_json_add_number(object, "flops", r->flops);
    lsp_json_add_number(object, "gflops", r->gflops);
    lsp_json_add_number(object, "project_flops", r->project_flops);
    lsp_json_add_number(object, "project_gflops", r->project_gflops);
    lsp_json_add_number(object, "fma_peak_gflops", r->peak_gflops);
    lsp_json_add_number(object, "efficiency", r->efficiency);
    lsp_json_add_bytes(object, r->received_all, r->rss_max);
    lsp_json_add_number(object, "empty_rows", (double)r->empty_rows);
    lsp_json_add_number(object, "nonfinite", (double)r->input->nonfinite);
    lsp_json_add_verify(object, r->verified ? &r->verify : NULL);
    if (r->verified)
        (void)cJSON_AddBoolToObject(cJSON_GetObjectItem(object, "verify"), "end_to_end", r->end_to_end);
    lsp_certificate_add_json(object, &r->certificate);
    lsp_keeper_add_json(object, r->keeper);
    lsp_json_add_output(object, r->output, r->checksum);
    return object;
}
