/* What a machine does in a second: measured here on a small piece of the planned run, from a report of `longspan bench`, or
 * as plan.flops_per_rank says. SPDX-License-Identifier: BSD-3-Clause */
#include "app/format.h"
#include "app/plan.h"
#include "app/report_file.h"
#include "base/checked.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Of the FMA peak, where nothing else is known: exact attention in f32 with d = 64, and a layer's projections. */
static const double kernel_share = 0.82, project_share = 0.8;

/* The peaks of the core that the model's constants come from, f32. */
static double reference_peak(lsp_isa isa)
{
    switch (isa) {
    case LSP_ISA_AVX512: return 179e9;
    case LSP_ISA_AVX2: return 96e9;
    case LSP_ISA_PORTABLE: return 32.5e9;
    case LSP_ISA_AUTO: break;
    }
    return reference_peak(lsp_isa_best());
}

static double narrow(lsp_dtype compute)
{
    return compute == LSP_F64 ? 2 : 1;
}

/* Rates that follow from those of kernels and peaks: of a thread, in the run's type. */
static void derive(lsp_plan_job *job, lsp_isa isa, double kernel, double peak)
{
    lsp_plan_rates *r = &job->rates;
    double f32 = peak * narrow(job->items[0].desc.compute);
    r->kernel = kernel;
    r->peak = peak;
    if (r->dense <= 0) r->dense = f32 / 2;
    r->project = project_share * peak;
    r->slowness = reference_peak(isa) / f32;
}

static void take_given(lsp_plan_job *job)
{
    lsp_options *o = job->app->options;
    lsp_plan_rates *r = &job->rates;
    r->link = lsp_options_real(o, LSP_KEY_PLAN_BANDWIDTH);
    r->latency = lsp_options_real(o, LSP_KEY_PLAN_LATENCY);
    r->read = lsp_options_real(o, LSP_KEY_PLAN_READ_BANDWIDTH);
    r->write = lsp_options_real(o, LSP_KEY_PLAN_WRITE_BANDWIDTH);
}

/* plan.flops_per_rank: nothing is measured, so that the plan is the same anywhere. */
static void take_flops(lsp_plan_job *job, double flops)
{
    const lsp_attention_desc *d = &job->items[0].desc;
    double kernel = flops / job->asked.setting.threads;
    derive(job, LSP_ISA_AVX512, kernel, kernel / kernel_share);
    job->rates.slowness = 1;
    if (job->rates.memory <= 0) job->rates.memory = 12e9 * job->cores;
    (void)snprintf(job->source, sizeof job->source, "plan.flops_per_rank, %s", lsp_dtype_name(d->compute));
}

/* ---- a report of bench --------------------------------------------------------------------------- */

static lsp_status refuse(lsp_plan_job *job, const char *file, const char *why)
{
    return lsp_context_fail(job->app->ctx, LSP_ERR_CONTENT,
                            "%s cannot be planned with: %s; --plan.bench takes what --report.json=FILE of "
                            "`longspan bench` wrote",
                            file, why);
}

static bool has_text(const cJSON *object, const char *name, const char *wanted)
{
    const char *text = lsp_report_file_text(object, name);
    return text && strcmp(text, wanted) == 0;
}

/* Peak of a thread: of the best instruction set (they come first), with the most threads. */
static double find_peak(const cJSON *json, lsp_dtype type, double ranks, lsp_isa asked, lsp_isa *isa)
{
    const cJSON *peaks = cJSON_GetObjectItemCaseSensitive(json, "fma_peak"), *peak = NULL;
    double found = 0, most = 0;
    lsp_isa best = LSP_ISA_AUTO;
    cJSON_ArrayForEach(peak, peaks)
    {
        double threads = lsp_report_file_number(peak, "threads"),
               rate = lsp_report_file_number(peak, "gflops");
        lsp_isa of = LSP_ISA_AUTO;
        for (int i = LSP_ISA_PORTABLE; i <= LSP_ISA_AVX512; i++)
            if (has_text(peak, "isa", lsp_isa_name((lsp_isa)i))) of = (lsp_isa)i;
        if (!has_text(peak, "dtype", lsp_dtype_name(type)) || !(threads > 0 && rate > 0)) continue;
        if (asked != LSP_ISA_AUTO && of != asked) continue;
        if (of < best || (of == best && threads <= most)) continue;
        best = of;
        most = threads;
        found = rate * 1e9 / (threads * ranks);
    }
    *isa = best;
    return found;
}

/* The share of the peak that attention reached with this mask, in the measurement with the nearest number of columns; of
 * those the one on most threads. 0: there is none. */
static double find_share(const cJSON *json, const lsp_attention_desc *d, const char *mask)
{
    const cJSON *cells = cJSON_GetObjectItemCaseSensitive(json, "cells"), *cell = NULL;
    double found = 0, nearest = INFINITY, most = 0;
    cJSON_ArrayForEach(cell, cells)
    {
        const cJSON *shape = cJSON_GetObjectItemCaseSensitive(cell, "shape");
        double columns = lsp_report_file_number(shape, "d_k") + lsp_report_file_number(shape, "d_v");
        double share = lsp_report_file_number(cell, "efficiency_median"),
               threads = lsp_report_file_number(cell, "threads");
        if (!has_text(cell, "limit", "fma") || !has_text(cell, "mask", mask)) continue;
        if (!has_text(cell, "dtype", lsp_dtype_name(d->compute)) || !(share > 0) || !(columns > 0)) continue;
        double distance = fabs(log(columns / (double)(d->d_k + d->d_v)));
        if (distance > nearest || (distance == nearest && threads <= most)) continue;
        nearest = distance;
        most = threads;
        found = share;
    }
    return found;
}

static double find_memory(const cJSON *json, double nodes)
{
    const cJSON *reads = cJSON_GetObjectItemCaseSensitive(json, "read_bandwidth"), *read = NULL;
    double found = 0;
    cJSON_ArrayForEach(read, reads)
    {
        double rate = lsp_report_file_number(read, "gbytes_per_second") * 1e9 / nodes;
        if (rate > found) found = rate;
    }
    return found;
}

/* Rank 0. */
static lsp_status read_bench(lsp_plan_job *job, const char *file, const lsp_attention_desc *d)
{
    static const char *const masks[] = {"none", "causal", "window"};
    cJSON *json = NULL;
    lsp_isa isa = LSP_ISA_AUTO, unused = LSP_ISA_AUTO;
    lsp_status status = lsp_report_file_read(job->app, file, "plan.bench", &json);
    if (status != LSP_OK) return status;
    double ranks = lsp_report_file_number(json, "ranks"), nodes = lsp_report_file_number(json, "nodes");
    double peak = find_peak(json, d->compute, ranks, d->isa, &isa),
           share = find_share(json, d, masks[d->mask]);
    if (!(share > 0)) share = find_share(json, d, masks[LSP_MASK_NONE]);
    job->rates.dense = find_peak(json, LSP_F64, ranks, d->isa, &unused);
    job->rates.memory = find_memory(json, nodes);
    if (!has_text(json, "command", "bench"))
        status = refuse(job, file, "its command is not bench");
    else if (!(ranks >= 1 && nodes >= 1 && peak > 0 && job->rates.dense > 0 && job->rates.memory > 0))
        status = refuse(job, file, "it lacks the peaks of this type (and instruction set), or the bandwidth");
    else if (!(share > 0))
        status =
            refuse(job, file, "it has no measurement without a mask of this type (bench.types, bench.masks)");
    const char *processor = lsp_report_file_text(json, "processor");
    if (status == LSP_OK) {
        derive(job, isa, share * peak, peak);
        (void)snprintf(job->source, sizeof job->source, "%s (%.80s)", file,
                       processor ? processor : "unknown");
    }
    cJSON_Delete(json);
    return status;
}

static lsp_status take_bench(lsp_plan_job *job, const char *file, const lsp_attention_desc *d)
{
    lsp_app *app = job->app;
    lsp_status status = LSP_OK;
    if (app->layout.rank == 0) status = read_bench(job, file, d);
    status = lsp_context_agree(app->ctx, status);
    if (status != LSP_OK) return status;
    lsp_collect_broadcast(app->comm, &job->rates, sizeof job->rates);
    lsp_collect_broadcast(app->comm, job->source, sizeof job->source);
    return LSP_OK;
}

/* ---- measured ------------------------------------------------------------------------------------ */

/* A small piece of the run: for each thread as many rows as a chunk has, and keys of some milliseconds. */
static lsp_attention_desc piece_of(const lsp_plan_job *job, const lsp_attention_desc *d)
{
    enum { ROWS = 1024, KEYS_LEAST = 512, KEYS_MOST = 4096 };
    const double flops = 2e9;
    const lsp_context_layout *l = &job->app->layout;
    double keys = flops / narrow(d->compute) / (ROWS * 2.0 * (double)(d->d_k + d->d_v));
    lsp_attention_desc piece = {.batch = 1,
                                .heads = 1,
                                .kv_heads = 1,
                                .n = (int64_t)ROWS * l->threads * l->ranks,
                                .m = lsp_min(KEYS_MOST, lsp_max(KEYS_LEAST, (int64_t)keys)),
                                .d_k = d->d_k,
                                .d_v = d->d_v,
                                .q_type = d->q_type,
                                .k_type = d->k_type,
                                .v_type = d->v_type,
                                .compute = d->compute,
                                .isa = d->isa,
                                .scale = d->scale,
                                .softcap = d->softcap,
                                .gather = LSP_GATHER_ALL,
                                .head_groups = 1};
    bool window = d->mask == LSP_MASK_WINDOW && d->window_left + d->window_right < KEYS_MOST / 2;
    if (!window) return piece;
    piece.m = lsp_max(piece.n, KEYS_MOST); /* rows of a window need keys about them */
    piece.mask = LSP_MASK_WINDOW;
    piece.window_left = d->window_left;
    piece.window_right = d->window_right;
    return piece;
}

/* The least share of the peak that the kernels reach when nothing else runs: a pair takes its flops and an exponential. */
static double least_share(const lsp_attention_desc *piece)
{
    const double exponential = 46, least = 0.85;
    double flops = 2 * (double)(piece->d_k + piece->d_v);
    return piece->mask == LSP_MASK_NONE && piece->softcap == 0 ? least * flops / (flops + exponential) : 0;
}

/* The share of the peak is that of the best moments, the speed that of the middle ones: where something else runs too,
 * all that is planned is slower alike. */
static lsp_status measure(lsp_plan_job *job, const lsp_attention_desc *d)
{
    const lsp_bench_options options = {.seconds = 0.3, .limit = LSP_BENCH_FMA};
    lsp_app *app = job->app;
    const lsp_attention_desc piece = piece_of(job, d);
    lsp_bench_result result;
    double wide = 0, memory = 0, threads = (double)app->layout.threads * app->layout.ranks;
    lsp_status status = lsp_bench_attention(app->ctx, &piece, &options, &result);
    if (status == LSP_OK) status = lsp_measure_fma_peak(app->ctx, d->isa, LSP_F64, 0.02, &wide);
    if (status == LSP_OK) status = lsp_measure_read_bandwidth(app->ctx, 64 << 20, 0.02, &memory, NULL);
    if (status != LSP_OK) return status;
    double kernel = result.work / result.seconds_median / threads, best = result.limit_best / threads;
    double peak = kernel / fmax(result.share_best, least_share(&piece));
    job->rates.dense = wide * 1e9 / threads * peak / best;
    job->rates.memory = memory / app->layout.nodes;
    derive(job, result.isa, kernel, peak);
    (void)snprintf(job->source, sizeof job->source, "measured here, %s", lsp_isa_name(result.isa));
    return LSP_OK;
}

/* The kernels of the run: products of a decomposition have as many columns as its blocks, in turns. */
static lsp_status find_kernel(const lsp_plan_job *job, lsp_attention_desc *d)
{
    enum { COLUMNS_MOST = 256 };
    *d = job->items[0].desc;
    bool krylov = (job->kind == LSP_PLAN_SVD || d->method == LSP_METHOD_LOWRANK) && d->svd == LSP_SVD_KRYLOV;
    if (!krylov) return LSP_OK;
    lsp_plan_outcome o;
    lsp_plan_job counted = *job;
    counted.rates = (lsp_plan_rates){1, 1, 1, 1, 1, 1, 0, 0, 1, 1};
    lsp_status status = lsp_plan_try(&counted, &job->asked.setting, &o);
    d->d_v = lsp_max(1, lsp_min(COLUMNS_MOST, o.estimate.columns));
    d->v_type = d->compute;
    return status;
}

lsp_status lsp_plan_rates_take(lsp_plan_job *job)
{
    lsp_options *options = job->app->options;
    double flops = lsp_options_real(options, LSP_KEY_PLAN_FLOPS_PER_RANK);
    const char *file = lsp_options_text(options, LSP_KEY_PLAN_BENCH);
    lsp_attention_desc d;
    lsp_status status = lsp_context_agree(job->app->ctx, find_kernel(job, &d));
    take_given(job);
    if (status == LSP_OK && *file) status = take_bench(job, file, &d);
    if (status == LSP_OK && flops <= 0 && !*file) status = measure(job, &d);
    if (status == LSP_OK && flops > 0) take_flops(job, flops);
    return status;
}
