/* longspan map: what each head attends to. SPDX-License-Identifier: BSD-3-Clause */
#include "app/map.h"

#include "app/checkpoint.h"
#include "app/launch.h"
#include "app/progress.h"
#include "app/watchdog.h"
#include "base/clock.h"
#include "base/memory.h"

#include <inttypes.h>
#include <stdio.h>

int64_t lsp_map_batch_of(const lsp_map_job *job, int64_t i)
{
    return i / job->input.desc.heads;
}

int64_t lsp_map_head_of(const lsp_map_job *job, int64_t i)
{
    int64_t head = i % job->input.desc.heads;
    return job->input.heads ? job->input.heads[head] : head;
}

/* ---- what is asked for ---------------------------------------------------------------------------- */

/* Labels name rows and keys of the whole; one file for both where they are as many. */
static lsp_status read_labels(lsp_map_job *job)
{
    lsp_app *app = job->app;
    const lsp_attention_desc *d = &job->input.desc;
    bool own_keys = lsp_options_is_set(app->options, LSP_KEY_MAP_LABELS_K);
    bool rows = lsp_options_is_set(app->options, LSP_KEY_MAP_LABELS);
    lsp_status status = lsp_labels_read(app, LSP_KEY_MAP_LABELS, d->n, "rows", &job->row_labels);
    if (status == LSP_OK && (own_keys || rows))
        status = lsp_labels_read(app, own_keys ? LSP_KEY_MAP_LABELS_K : LSP_KEY_MAP_LABELS, d->m,
                                 own_keys ? "keys" : "keys (map.labels_k names those of another number)",
                                 &job->key_labels);
    return status;
}

/* Everything that can be refused before time is spent. */
static lsp_status prepare(lsp_map_job *job)
{
    lsp_app *app = job->app;
    double begin = lsp_clock();
    lsp_watchdog_phase("open", false);
    lsp_status status = lsp_json_probe(app);
    if (status == LSP_OK) status = lsp_map_probe(app);
    if (status == LSP_OK) status = lsp_map_input_open(job);
    if (status == LSP_OK) status = read_labels(job);
    if (status != LSP_OK) return status;
    lsp_attention_desc *d = &job->input.desc;
    d->memory_limit = lsp_launch_memory_limit(app, &job->memory_source);
    d->d_v = 0; /* values are not read */
    job->options.pixels = lsp_options_int(app->options, LSP_KEY_MAP_PIXELS);
    job->options.links = lsp_options_int(app->options, LSP_KEY_MAP_LINKS);
    status = lsp_map_create(app->ctx, d, &job->options, &job->map);
    if (status != LSP_OK) return status;
    job->count = d->batch * d->heads;
    job->shape = lsp_map_get_shape(job->map);
    job->estimate = lsp_map_get_estimate(job->map);
    job->isa = lsp_map_get_isa(job->map);
    job->flops = job->estimate.flops;
    job->seconds[LSP_PHASE_READ] = lsp_clock() - begin;
    begin = lsp_clock();
    job->has_lse = lsp_options_yes(app->options, LSP_KEY_OUTPUT_LSE);
    status = lsp_map_output_create(job);
    job->seconds[LSP_PHASE_WRITE] = lsp_clock() - begin;
    return status;
}

/* ---- steps ----------------------------------------------------------------------------------------- */

/* Before and after computing: the better counts. */
static lsp_status measure_peak(lsp_map_job *job)
{
    double gflops = 0;
    lsp_status status =
        lsp_measure_fma_peak(job->app->ctx, job->isa, job->input.desc.compute, 0.008, &gflops);
    if (gflops > job->peak_gflops) job->peak_gflops = gflops;
    return status;
}

static lsp_status compute(lsp_map_job *job)
{
    lsp_attention_stats stats = {0};
    lsp_progress progress;
    const lsp_pause pause = lsp_keeper_ending(job->app);
    lsp_status status = measure_peak(job);
    if (status == LSP_OK) status = lsp_map_set_pause(job->map, &pause);
    if (status != LSP_OK) return status;
    lsp_watchdog_phase("compute", false); /* sums over ranks do not tell their progress */
    lsp_progress_start(job->app, job->flops, &progress);
    lsp_map_set_progress(job->map, lsp_progress_update, &progress);
    double begin = lsp_clock();
    status = lsp_map_execute(job->map, job->q, job->k, &stats);
    double total = lsp_clock() - begin;
    lsp_map_set_progress(job->map, NULL, NULL);
    lsp_progress_end(&progress);
    job->seconds[LSP_PHASE_GATHER] = stats.seconds_gather_exposed;
    job->seconds[LSP_PHASE_COMPUTE] = total - stats.seconds_gather_exposed;
    job->received = stats.bytes_received;
    for (int64_t i = 0; status == LSP_OK && i < job->count; i++)
        status =
            lsp_map_get_head(job->map, i / job->input.desc.heads, i % job->input.desc.heads, &job->heads[i]);
    return status == LSP_OK ? measure_peak(job) : status;
}

/* LSP_OK also when the check does not pass: the report tells. */
static lsp_status verify(lsp_map_job *job)
{
    lsp_app *app = job->app;
    int64_t rows = lsp_options_int(app->options, LSP_KEY_VERIFY_ROWS);
    double tolerance = lsp_options_real(app->options, LSP_KEY_VERIFY_TOLERANCE), begin = lsp_clock();
    if (rows == 0) return LSP_OK;
    lsp_watchdog_phase("verify", false);
    lsp_status status = lsp_map_verify(job->map, job->q, job->k, rows, 0, tolerance, &job->check);
    job->verified = status == LSP_OK;
    job->seconds[LSP_PHASE_VERIFY] = lsp_clock() - begin;
    return status;
}

/* ---- the end --------------------------------------------------------------------------------------- */

static void collect(lsp_map_job *job)
{
    lsp_app *app = job->app;
    job->seconds[LSP_PHASE_TOTAL] = lsp_clock() - app->started;
    lsp_collect_statistics(app, job->seconds, LSP_PHASE_COUNT, job->phases);
    double seconds = job->phases[LSP_PHASE_COMPUTE].max;
    job->gflops = seconds > 0 ? job->flops / seconds * 1e-9 : 0;
    job->received_all = lsp_collect_sum_f64(app, job->received);
    lsp_statistic project;
    lsp_collect_statistics(app, &job->project_seconds, 1, &project);
    job->project_seconds = project.max;
    job->rss_max = lsp_collect_max_i64(app, lsp_memory_peak());
}

static void print_last_line(const lsp_map_job *job)
{
    char where[LSP_ERROR_TEXT] = "no output was asked for";
    if (job->written) (void)snprintf(where, sizeof where, "the result is in %s", job->written);
    if (!job->verified)
        (void)printf("longspan: PASSED, not verified (verify.rows = 0); %s\n", where);
    else if (job->check.passed)
        (void)printf("longspan: PASSED, %" PRId64 " sampled rows verified; %s\n", job->check.rows, where);
    else
        (void)printf("longspan: FAILED, the result differs from the reference; no output was written\n");
}

static lsp_status report(lsp_map_job *job)
{
    lsp_app *app = job->app;
    const lsp_map_check *c = &job->check;
    bool failed = job->verified && !c->passed;
    collect(job);
    if (app->layout.rank == 0) lsp_map_print(job);
    lsp_status status = lsp_json_write(app, lsp_map_json(job));
    if (app->layout.rank == 0) print_last_line(job);
    if (status != LSP_OK || !failed) return status;
    return lsp_context_fail(app->ctx, LSP_ERR_VERIFY,
                            "verification failed: the %s of row %" PRId64 " of head %" PRId64
                            ", batch %" PRId64 " is off by %.3e (tolerance %.1e), pictures by %.1e of their "
                            "rows; nothing was written; try --compute.isa=portable, --compute.dtype=f64",
                            lsp_map_figure_name(c->worst_figure), c->worst[2], c->worst[1], c->worst[0],
                            c->max_error, c->tolerance, c->map_sum_error);
}

lsp_status lsp_map_run(lsp_app *app)
{
    lsp_map_job job = {.app = app};
    lsp_status status = prepare(&job);
    lsp_watchdog_phase("read", false);
    if (status == LSP_OK) status = lsp_map_input_read(&job);
    if (status == LSP_OK) status = compute(&job);
    if (status == LSP_OK) status = verify(&job);
    bool failed = job.verified && !job.check.passed;
    double begin = lsp_clock();
    lsp_watchdog_phase("write", false);
    if (status == LSP_OK && !failed) status = lsp_map_draw(&job);
    if (status == LSP_OK && !failed) status = lsp_map_output_write(&job);
    job.seconds[LSP_PHASE_WRITE] += lsp_clock() - begin;
    if (job.output) (void)lsp_output_discard(&job.output);
    if (status == LSP_OK) status = report(&job);
    lsp_labels_free(&job.row_labels);
    lsp_labels_free(&job.key_labels);
    lsp_memory_free(job.heads);
    lsp_memory_free(job.q);
    lsp_memory_free(job.k);
    (void)lsp_map_destroy(&job.map);
    lsp_map_input_close(&job);
    return status;
}
