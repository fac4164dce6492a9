/* SPDX-License-Identifier: BSD-3-Clause */
#include "app/certificate.h"

#include "app/lowrank.h"
#include "app/report.h"

#include <inttypes.h>
#include <stdio.h>

lsp_status lsp_certificate_make(lsp_app *app, const lsp_attention_desc *desc, const lsp_attention *plan,
                                const lsp_operands *o, int64_t rows, lsp_certificate *certificate)
{
    *certificate = (lsp_certificate){.method = desc->method};
    lsp_status status = LSP_OK;
    if (desc->method == LSP_METHOD_TOPK)
        status = lsp_context_agree(app->ctx, lsp_topk_get_certificate(plan, &certificate->topk));
    if (desc->method == LSP_METHOD_LOWRANK)
        status = lsp_context_agree(app->ctx, lsp_lowrank_certificate_make(desc, plan, certificate));
    if (status != LSP_OK || desc->method == LSP_METHOD_EXACT || rows == 0) return status;
    status = lsp_sample_error(app->ctx, desc, o->query_runs, o->query_run_count, o->key_runs,
                              o->key_run_count, o->q, o->k, o->v, o->out, rows, 0, &certificate->sample);
    certificate->sampled = status == LSP_OK;
    return status;
}

static void print_topk(const lsp_topk_certificate *t)
{
    (void)printf("  dropped  %.3g of the softmax mass on average, %.3g at most (all rows); rows below",
                 t->dropped_mass_mean, t->dropped_mass_max);
    double limit = 1e-6, rows = 0;
    for (int bin = 0; bin < LSP_TOPK_BINS - 1; bin++, limit *= 10) {
        rows += (double)t->histogram[bin];
        if (bin % 2 == 1)
            (void)printf("%s %.0e: %.1f %%", bin > 1 ? "," : "", limit,
                         t->rows > 0 ? 100 * rows / (double)t->rows : 100);
    }
    (void)printf("\n  bound    no row of the output is further than %.3g from exact attention\n",
                 t->out_error_bound);
}

void lsp_certificate_print(const lsp_certificate *c)
{
    const lsp_error_sample *s = &c->sample;
    if (c->method == LSP_METHOD_EXACT) return;
    if (c->method == LSP_METHOD_BLOCK) {
        if (!c->sampled) {
            (void)printf("  error    unknown: no row was sampled (verify.rows = 0)\n");
            return;
        }
        (void)printf("  dropped  %.3g of the softmax mass on average, %.3g at most (a sample of %" PRId64
                     " rows)\n",
                     s->dropped_mass_mean, s->dropped_mass_max, s->rows);
    }
    if (c->method == LSP_METHOD_TOPK) print_topk(&c->topk);
    if (c->method == LSP_METHOD_LOWRANK) lsp_lowrank_certificate_print(c);
    if (c->sampled)
        (void)printf("  error    against exact attention: %.3g on average, %.3g at most, relative (a sample "
                     "of %" PRId64 " rows)\n",
                     s->out_error_mean, s->out_error_max, s->rows);
}

static void add_topk(cJSON *to, const lsp_topk_certificate *t)
{
    lsp_json_add_number(to, "dropped_mass_mean", t->dropped_mass_mean);
    lsp_json_add_number(to, "dropped_mass_max", t->dropped_mass_max);
    lsp_json_add_number(to, "out_error_bound", t->out_error_bound);
    lsp_json_add_number(to, "rows", (double)t->rows);
    lsp_json_add_number(to, "kept", (double)t->kept);
    cJSON *histogram = cJSON_AddArrayToObject(to, "dropped_mass_histogram");
    static const double below[LSP_TOPK_BINS] = {1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1};
    for (int bin = 0; bin < LSP_TOPK_BINS; bin++) {
        cJSON *entry = cJSON_CreateObject();
        lsp_json_add_number(entry, "below", below[bin]);
        lsp_json_add_number(entry, "rows", (double)t->histogram[bin]);
        lsp_json_add_item(histogram, entry);
    }
}

void lsp_certificate_add_json(cJSON *object, const lsp_certificate *c)
{
    if (c->method == LSP_METHOD_EXACT || (c->method == LSP_METHOD_BLOCK && !c->sampled)) {
        (void)cJSON_AddNullToObject(object, "certificate");
        return;
    }
    cJSON *to = cJSON_AddObjectToObject(object, "certificate");
    if (c->method == LSP_METHOD_BLOCK) {
        lsp_json_add_number(to, "dropped_mass_mean", c->sample.dropped_mass_mean);
        lsp_json_add_number(to, "dropped_mass_max", c->sample.dropped_mass_max);
    }
    if (c->method == LSP_METHOD_TOPK) add_topk(to, &c->topk);
    if (c->method == LSP_METHOD_LOWRANK) lsp_lowrank_certificate_add_json(to, c);
    lsp_json_add_number(to, "sampled", c->sampled ? (double)c->sample.rows : 0);
    if (!c->sampled) return;
    lsp_json_add_number(to, "out_error_mean", c->sample.out_error_mean);
    lsp_json_add_number(to, "out_error_max", c->sample.out_error_max);
    lsp_json_add_number(to, "out_distance_max", c->sample.out_distance_max);
}
