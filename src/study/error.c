/* The error of approximations on sampled rows. SPDX-License-Identifier: BSD-3-Clause */
#include "study/sample.h"

#include <longspan/study.h>
#include <math.h>

/* What exact attention sees, and inside of it what the method does. */
static void limit_kept(lsp_sample *s, const lsp_attention_desc *desc)
{
    lsp_attention_desc own = s->desc;
    own.method = desc->method;
    for (int64_t i = 0; i < s->count; i++) {
        lsp_reference_row row = s->rows[i];
        lsp_reference_place(&own, &row);
        s->rows[i].kept_first = row.first;
        s->rows[i].kept_stop = row.stop;
    }
}

/* Local; every rank has the same numbers. */
static void add_row(const lsp_sample *s, int64_t i, lsp_error_sample *result)
{
    const double *sums = s->sums + i * s->sums_count, *exact = sums + LSP_SUM_VALUES;
    double *out = s->scratch, difference = 0, size = 0, weight = sums[LSP_SUM_WEIGHT], dropped = 0;
    bool empty = lsp_sample_kind(s, i) == LSP_REFERENCE_EMPTY;
    lsp_sample_out(s, i, out);
    for (int64_t c = 0; c < s->desc.d_v; c++) {
        double value = empty ? 0 : exact[c] / weight;
        difference += (out[c] - value) * (out[c] - value);
        size += value * value;
    }
    if (!isfinite(size)) return;
    if (!empty) dropped = sums[LSP_SUM_DROPPED] / weight;
    double distance = sqrt(difference), error = difference == 0 ? 0 : distance / sqrt(size);
    result->rows++;
    result->dropped_mass_mean += dropped;
    result->dropped_mass_max = fmax(result->dropped_mass_max, dropped);
    result->out_error_mean += error;
    result->out_error_max = fmax(result->out_error_max, error);
    result->out_distance_mean += distance;
    result->out_distance_max = fmax(result->out_distance_max, distance);
}

lsp_status lsp_sample_error(lsp_context *ctx, const lsp_attention_desc *desc, const lsp_run *query_runs,
                            int64_t query_run_count, const lsp_run *key_runs, int64_t key_run_count,
                            const void *q, const void *k, const void *v, const void *out, int64_t rows,
                            uint64_t seed, lsp_error_sample *result)
{
    lsp_sample_source source = {query_runs, key_runs, query_run_count, key_run_count, q, k, v, out, NULL};
    lsp_attention_desc exact = *desc;
    exact.method = LSP_METHOD_EXACT;
    lsp_sample s = {.count = 0};
    lsp_status status = lsp_sample_make(ctx, &exact, &source, rows, seed, &s);
    if (status == LSP_OK) {
        limit_kept(&s, desc);
        status = lsp_sample_compute(&s);
    }
    if (status == LSP_OK) {
        *result = (lsp_error_sample){.rows = 0};
        for (int64_t i = 0; i < s.count; i++) {
            lsp_reference_kind kind = lsp_sample_kind(&s, i);
            if (kind == LSP_REFERENCE_ORDINARY || kind == LSP_REFERENCE_EMPTY) add_row(&s, i, result);
        }
        double rows_done = result->rows > 0 ? (double)result->rows : 1;
        result->dropped_mass_mean /= rows_done;
        result->out_error_mean /= rows_done;
        result->out_distance_mean /= rows_done;
    }
    lsp_sample_free(&s);
    return lsp_context_agree(ctx, status);
}
