/* Reports as JSON. SPDX-License-Identifier: BSD-3-Clause */
#include "app/certificate.h"
#include "app/report.h"
#include "app/whole_file.h"
#include "base/memory.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

enum { SCHEMA = 1 };

void lsp_json_add_number(cJSON *object, const char *name, double value)
{
    if (isfinite(value)) {
        (void)cJSON_AddNumberToObject(object, name, value);
    } else {
        (void)cJSON_AddNullToObject(object, name);
    }
}

/* cJSON leaves out what it has no memory for, and most of its callers cannot see it. */
static bool starved;

static void *json_alloc(size_t bytes)
{
    void *pointer = lsp_memory_alloc((int64_t)bytes, 1);
    if (!pointer) starved = true;
    return pointer;
}

void lsp_json_prepare(void)
{
    cJSON_Hooks hooks = {json_alloc, lsp_memory_free};
    cJSON_InitHooks(&hooks);
}

bool lsp_json_starved(void)
{
    return starved;
}

void lsp_json_add_item(cJSON *array, cJSON *item)
{
    if (!cJSON_AddItemToArray(array, item)) cJSON_Delete(item);
}

cJSON *lsp_json_begin(const lsp_app *app)
{
    cJSON *object = cJSON_CreateObject();
    lsp_json_add_number(object, "schema", SCHEMA);
    (void)cJSON_AddStringToObject(object, "command", app->command->name);
    (void)cJSON_AddStringToObject(object, "version", lsp_version());
    lsp_json_add_number(object, "ranks", app->layout.ranks);
    lsp_json_add_number(object, "threads", app->layout.threads);
    lsp_json_add_number(object, "nodes", app->layout.nodes);
    return object;
}

void lsp_json_add_shape(cJSON *object, const lsp_attention_desc *desc)
{
    cJSON *shape = cJSON_AddObjectToObject(object, "shape");
    lsp_json_add_number(shape, "batch", (double)desc->batch);
    lsp_json_add_number(shape, "heads", (double)desc->heads);
    lsp_json_add_number(shape, "kv_heads", (double)desc->kv_heads);
    lsp_json_add_number(shape, "n", (double)desc->n);
    lsp_json_add_number(shape, "m", (double)desc->m);
    lsp_json_add_number(shape, "d_k", (double)desc->d_k);
    lsp_json_add_number(shape, "d_v", (double)desc->d_v);
}

void lsp_json_add_checksum(cJSON *object, const char *name, uint64_t checksum)
{
    char text[20];
    (void)snprintf(text, sizeof text, "%016" PRIx64, checksum);
    (void)cJSON_AddStringToObject(object, name, text);
}

void lsp_json_add_verify(cJSON *object, const lsp_verify_result *result)
{
    if (!result) {
        (void)cJSON_AddNullToObject(object, "verify");
        return;
    }
    cJSON *verify = cJSON_AddObjectToObject(object, "verify");
    lsp_json_add_number(verify, "rows", (double)result->rows);
    lsp_json_add_number(verify, "max_rel_err", result->max_rel_err);
    (void)cJSON_AddBoolToObject(verify, "passed", result->passed);
    lsp_json_add_number(verify, "max_lse_err", result->max_lse_err);
    lsp_json_add_number(verify, "tolerance", result->tolerance);
    lsp_json_add_number(verify, "max_abs_score", result->max_abs_score);
    lsp_json_add_number(verify, "near_ties", (double)result->near_ties);
}

/* ---- a run of attention ------------------------------------------------------------------------------ */

void lsp_json_add_part(cJSON *object, const lsp_attention_desc *desc)
{
    cJSON *part = cJSON_AddObjectToObject(object, "part");
    lsp_json_add_number(part, "row_begin", (double)desc->row_begin);
    lsp_json_add_number(part, "row_end", (double)desc->row_end);
    lsp_json_add_number(part, "key_begin", (double)desc->key_begin);
    lsp_json_add_number(part, "key_end", (double)desc->key_end);
}

void lsp_json_add_times(cJSON *object, const lsp_phase_name *names, const lsp_statistic *of, int count)
{
    cJSON *seconds = cJSON_AddObjectToObject(object, "seconds");
    for (int i = 0; i < count; i++) lsp_json_add_number(seconds, names[i].json, of[i].max);
    cJSON *phases = cJSON_AddObjectToObject(object, "phases");
    for (int i = 0; i < count; i++) {
        cJSON *phase = cJSON_AddObjectToObject(phases, names[i].json);
        lsp_json_add_number(phase, "min", of[i].min);
        lsp_json_add_number(phase, "mean", of[i].mean);
        lsp_json_add_number(phase, "max", of[i].max);
        lsp_json_add_number(phase, "max_rank", of[i].max_rank);
    }
}

void lsp_json_add_phases(cJSON *object, const lsp_statistic *phases)
{
    lsp_json_add_times(object, lsp_phase_names, phases, LSP_PHASE_COUNT);
}

void lsp_json_add_plan(cJSON *object, const lsp_attention_desc *desc, const lsp_estimate *estimate)
{
    char text[LSP_RULE_TEXT];
    (void)cJSON_AddStringToObject(object, "method", lsp_method_name(desc->method));
    (void)cJSON_AddStringToObject(object, "dtype", lsp_dtype_name(desc->compute));
    (void)cJSON_AddStringToObject(object, "rule", lsp_summary_rule(desc, text));
    (void)cJSON_AddStringToObject(object, "gather", lsp_gather_mode_name(estimate->gather));
    (void)cJSON_AddStringToObject(object, "partition", lsp_partition_kind_name(estimate->partition));
    lsp_json_add_number(object, "head_groups", estimate->head_groups);
    lsp_json_add_number(object, "panels", (double)estimate->panels);
    lsp_json_add_number(object, "panel_rows", (double)estimate->panel_keys);
}

void lsp_json_add_bytes(cJSON *object, double received, int64_t rss_max)
{
    cJSON *bytes = cJSON_AddObjectToObject(object, "bytes");
    lsp_json_add_number(bytes, "gathered", received);
    lsp_json_add_number(bytes, "peak_rss_max", (double)rss_max);
}

void lsp_json_add_output(cJSON *object, const char *file, uint64_t checksum)
{
    if (file) {
        lsp_json_add_checksum(object, "output_xxh64", checksum);
        (void)cJSON_AddStringToObject(object, "output", file);
    } else {
        (void)cJSON_AddNullToObject(object, "output_xxh64"); /* failed its verification */
    }
}

cJSON *lsp_json_report(const lsp_app *app, const lsp_report *report)
{
    const lsp_attention_desc *desc = &report->input->desc;
    cJSON *object = lsp_json_begin(app);
    (void)cJSON_AddStringToObject(object, "isa", lsp_isa_name(report->isa));
    lsp_json_add_shape(object, desc);
    lsp_json_add_part(object, desc);
    lsp_json_add_plan(object, desc, &report->estimate);
    lsp_json_add_phases(object, report->phases);
    lsp_json_add_number(object, "flops", report->flops);
    lsp_json_add_number(object, "gflops", report->gflops);
    lsp_json_add_number(object, "fma_peak_gflops", report->peak_gflops);
    lsp_json_add_number(object, "efficiency", report->efficiency);
    lsp_json_add_bytes(object, report->received_all, report->rss_max);
    lsp_json_add_number(object, "empty_rows", (double)report->empty_rows);
    lsp_json_add_number(object, "nonfinite", (double)report->nonfinite);
    lsp_json_add_verify(object, report->verified ? &report->verify : NULL);
    lsp_certificate_add_json(object, &report->certificate);
    lsp_keeper_add_json(object, report->keeper);
    lsp_json_add_output(object, report->output, report->out_checksum);
    if (report->output && report->has_lse) lsp_json_add_checksum(object, "lse_xxh64", report->lse_checksum);
    return object;
}

/* ---- writing ----------------------------------------------------------------------------------------- */

lsp_status lsp_json_probe(lsp_app *app)
{
    return lsp_whole_probe(app, LSP_KEY_REPORT_JSON, "the report");
}

static bool write_text(FILE *stream, const void *text)
{
    return text && fputs(text, stream) >= 0 && fputc('\n', stream) != EOF;
}

lsp_status lsp_json_write(lsp_app *app, cJSON *object)
{
    const char *file = lsp_options_text(app->options, LSP_KEY_REPORT_JSON);
    bool writes = *file && app->layout.rank == 0;
    char *text = writes && object ? cJSON_Print(object) : NULL;
    lsp_status status = LSP_OK;
    if (writes && (!text || starved))
        status = lsp_context_fail(app->ctx, LSP_ERR_LIMIT,
                                  "no memory for the report %s; use more nodes, or fewer ranks a node", file);
    status = lsp_context_agree(app->ctx, status);
    if (status == LSP_OK) status = lsp_whole_write(app, LSP_KEY_REPORT_JSON, "the report", write_text, text);
    cJSON_free(text);
    cJSON_Delete(object);
    return status;
}
