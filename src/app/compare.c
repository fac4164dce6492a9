/* longspan compare: exact attention and its approximations on the same input.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include "app/compare.h"
#include "app/format.h"
#include "app/launch.h"
#include "app/plot.h"
#include "app/progress.h"
#include "app/watchdog.h"
#include "base/clock.h"
#include "base/memory.h"

#include <inttypes.h>
#include <stdio.h>

enum { PLOT_WIDTH = 1080, PLOT_HEIGHT = 720 };

/* Adds what it was about to a failure's text, and whose the limit was. */
static lsp_status name_failure(lsp_compare_job *job, const lsp_compare_item *item, lsp_status status)
{
    char text[LSP_ERROR_TEXT], name[LSP_COMPARE_NAME];
    lsp_context *ctx = job->app->ctx;
    if (status == LSP_OK) return LSP_OK;
    (void)snprintf(text, sizeof text, "%s", lsp_context_message(ctx));
    (void)lsp_compare_name(item, name);
    if (status == LSP_ERR_LIMIT)
        return lsp_context_fail(ctx, status, "%s: %s (the limit is that of %s)", name, text,
                                job->memory_source);
    return lsp_context_fail(ctx, status, "%s: %s", name, text);
}

/* Everything that can be refused before time is spent: input, methods, memory, report, picture. */
static lsp_status prepare(lsp_compare_job *job)
{
    lsp_app *app = job->app;
    lsp_watchdog_phase("open", false);
    lsp_status status = lsp_json_probe(app);
    if (status == LSP_OK) status = lsp_plot_probe(app);
    if (status == LSP_OK) status = lsp_input_open(app, &job->input);
    if (status == LSP_OK) status = lsp_keeper_open(app, &job->input, 1, &job->keeper);
    if (status != LSP_OK) return status;
    job->input.desc.memory_limit = lsp_launch_memory_limit(app, &job->memory_source);
    status = lsp_context_agree(app->ctx, lsp_compare_items(job));
    if (status != LSP_OK) return status;
    job->options = lsp_compare_defaults();
    job->options.repeats = lsp_options_int(app->options, LSP_KEY_COMPARE_REPEATS);
    job->options.verify_rows = lsp_options_int(app->options, LSP_KEY_VERIFY_ROWS);
    job->options.verify_tolerance = lsp_options_real(app->options, LSP_KEY_VERIFY_TOLERANCE);
    status = lsp_compare_create(app->ctx, &job->input.desc, &job->options, &job->compare);
    if (status == LSP_ERR_LIMIT) return name_failure(job, &job->items[0], status);
    for (int64_t i = 0; status == LSP_OK && i < job->count; i++) {
        lsp_compare_item *item = &job->items[i];
        lsp_estimate estimate = {.work = 0};
        if (i > 0) status = name_failure(job, item, lsp_compare_check(job->compare, &item->desc, &estimate));
        item->work = estimate.work;
        job->work += estimate.work;
    }
    status = lsp_context_agree(app->ctx, status);
    return status == LSP_OK ? lsp_compare_state_open(job) : status;
}

static lsp_status read_operands(lsp_compare_job *job)
{
    lsp_operands *o = &job->operands;
    lsp_status status =
        lsp_compare_runs(job->compare, LSP_QUERIES, &o->query_runs, &o->query_run_count, &o->query_rows);
    if (status == LSP_OK)
        status = lsp_compare_runs(job->compare, LSP_KEYS, &o->key_runs, &o->key_run_count, &o->key_rows);
    status = lsp_context_agree(job->app->ctx, status);
    lsp_watchdog_phase("read", false);
    if (status == LSP_OK) status = lsp_operands_read_inputs(job->app, &job->input, o);
    return status == LSP_OK ? lsp_compare_state_load(job) : status;
}

static lsp_status measure_peak(lsp_compare_job *job)
{
    double gflops = 0;
    lsp_status status =
        lsp_measure_fma_peak(job->app->ctx, job->results[0].isa, job->input.desc.compute, 0.008, &gflops);
    if (gflops > job->peak_gflops) job->peak_gflops = gflops;
    return status;
}

/* Where the progress of one item stands in that of all. */
typedef struct item_progress {
    lsp_progress all;
    double before, share;
} item_progress;

static void tell(void *user, double done)
{
    item_progress *p = user;
    lsp_progress_update(&p->all, p->before + p->share * done);
}

static lsp_status run_item(lsp_compare_job *job, lsp_compare_item *item)
{
    const lsp_operands *o = &job->operands;
    lsp_watchdog_phase(lsp_method_name(item->desc.method), false); /* also brings rows and judges */
    lsp_status status = item == job->items
                            ? lsp_compare_exact(job->compare, o->q, o->k, o->v, item->result, item->heads)
                            : lsp_compare_method(job->compare, &item->desc, item->result, item->heads);
    if (status == LSP_ERR_LIMIT) return name_failure(job, item, status);
    if (status == LSP_OK && item->result->verified && !item->result->verify.passed) job->passed = false;
    return status;
}

static lsp_status compute(lsp_compare_job *job)
{
    item_progress progress = {.before = 0};
    lsp_status status = job->done > 0 ? measure_peak(job) : LSP_OK;
    for (int64_t i = 0; i < job->done; i++)
        progress.before += job->work > 0 ? job->items[i].work / job->work : 0;
    lsp_progress_start(job->app, job->work * (double)job->options.repeats, &progress.all);
    lsp_compare_set_progress(job->compare, tell, &progress);
    while (status == LSP_OK && job->done < job->count) {
        lsp_compare_item *item = &job->items[job->done];
        progress.share = job->work > 0 ? item->work / job->work : 0;
        status = run_item(job, item);
        progress.before += progress.share;
        if (status != LSP_OK) break;
        job->done++;
        status = measure_peak(job);
        if (status == LSP_OK) status = lsp_compare_state_rest(job);
    }
    lsp_progress_end(&progress.all);
    return status;
}

/* The first item that did not pass. */
static lsp_status fail_verification(const lsp_compare_job *job)
{
    for (int64_t i = 0; i < job->count; i++) {
        const lsp_compare_item *item = &job->items[i];
        const lsp_verify_result *v = &item->result->verify;
        char name[LSP_COMPARE_NAME];
        if (!item->result->verified || v->passed) continue;
        return lsp_context_fail(
            job->app->ctx, LSP_ERR_VERIFY,
            "%s: verification failed: row %" PRId64 " of head %" PRId64 ", batch %" PRId64
            " has relative error %.3e (tolerance %.1e), lse is off by up to %.3e: the comparison "
            "means nothing; try --compute.isa=portable, --compute.dtype=f64",
            lsp_compare_name(item, name), v->worst[2], v->worst[1], v->worst[0], v->max_rel_err, v->tolerance,
            v->max_lse_err);
    }
    return LSP_OK;
}

static void print_last_line(const lsp_compare_job *job)
{
    if (!job->passed) {
        (void)printf("longspan: FAILED, a result differs from the reference\n");
        return;
    }
    int64_t front = 0;
    for (int64_t i = 0; i < job->count; i++) front += job->front[i];
    (void)printf("longspan: PASSED, %" PRId64 " of %" PRId64 " beaten by no other", front, job->count);
    if (job->options.verify_rows == 0)
        (void)printf(", not verified (verify.rows = 0)\n");
    else
        (void)printf(", %" PRId64 " sampled rows of each verified\n", job->results[0].verify.rows);
}

static lsp_status report(lsp_compare_job *job)
{
    lsp_app *app = job->app;
    lsp_watchdog_phase("report", false);
    lsp_compare_front(job->results, job->count, job->front);
    job->rss_max = lsp_collect_max_i64(app, lsp_memory_peak());
    if (app->layout.rank == 0) lsp_compare_print(job);
    lsp_status status = lsp_json_write(app, app->layout.rank == 0 ? lsp_compare_json(job) : NULL);
    if (status == LSP_OK) status = lsp_plot_make(app, PLOT_WIDTH, PLOT_HEIGHT, lsp_compare_plot, job);
    if (status == LSP_OK && app->layout.rank == 0) print_last_line(job);
    /* The result is there. */
    if (status == LSP_OK) status = lsp_keeper_finish(&job->keeper);
    return status == LSP_OK ? fail_verification(job) : status;
}

lsp_status lsp_compare_run(lsp_app *app)
{
    lsp_compare_job job = {.app = app, .passed = true};
    double begin = lsp_clock();
    lsp_status status = prepare(&job);
    if (status == LSP_OK) status = read_operands(&job);
    job.read = lsp_clock() - begin;
    begin = lsp_clock();
    if (status == LSP_OK) status = compute(&job);
    job.compared = lsp_clock() - begin;
    if (status == LSP_OK) status = report(&job);
    (void)lsp_compare_destroy(&job.compare);
    lsp_operands_free(&job.operands);
    lsp_memory_free(job.heads);
    lsp_memory_free(job.front);
    lsp_memory_free(job.results);
    lsp_memory_free(job.items);
    lsp_memory_free(job.marks);
    lsp_keeper_close(&job.keeper);
    lsp_input_close(&job.input);
    return status;
}
