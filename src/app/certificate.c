/* SPDX-License-Identifier: BSD-3-Clause */
#include "app/certificate.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

lsp_status lsp_certificate_make(lsp_app *app, const lsp_attention_desc *desc, const lsp_operands *o,
                                int64_t rows, lsp_certificate *certificate)
{
    *certificate = (lsp_certificate){.method = desc->method};
    if (desc->method == LSP_METHOD_EXACT || rows == 0) return LSP_OK;
    lsp_status status =
        lsp_sample_error(app->ctx, desc, o->query_runs, o->query_run_count, o->key_runs, o->key_run_count,
                         o->q, o->k, o->v, o->out, rows, 0, &certificate->sample);
    certificate->sampled = status == LSP_OK;
    return status;
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
    if (c->sampled)
        (void)printf("  error    against exact attention: %.3g on average, %.3g at most, relative (a sample "
                     "of %" PRId64 " rows)\n",
                     s->out_error_mean, s->out_error_max, s->rows);
}

/* JSON has no infinities: those become null. */
static void add_number(cJSON *object, const char *name, double value)
{
    if (isfinite(value))
        (void)cJSON_AddNumberToObject(object, name, value);
    else
        (void)cJSON_AddNullToObject(object, name);
}

void lsp_certificate_add_json(cJSON *object, const lsp_certificate *c)
{
    if (c->method == LSP_METHOD_EXACT || (c->method == LSP_METHOD_BLOCK && !c->sampled)) {
        (void)cJSON_AddNullToObject(object, "certificate");
        return;
    }
    cJSON *to = cJSON_AddObjectToObject(object, "certificate");
    if (c->method == LSP_METHOD_BLOCK) {
        add_number(to, "dropped_mass_mean", c->sample.dropped_mass_mean);
        add_number(to, "dropped_mass_max", c->sample.dropped_mass_max);
    }
    add_number(to, "sampled", c->sampled ? (double)c->sample.rows : 0);
    if (!c->sampled) return;
    add_number(to, "out_error_mean", c->sample.out_error_mean);
    add_number(to, "out_error_max", c->sample.out_error_max);
}
