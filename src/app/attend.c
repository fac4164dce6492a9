/* longspan attend: from Q, K and V in files to out and lse in a file.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include "app/certificate.h"
#include "app/checkpoint.h"
#include "app/completed.h"
#include "app/launch.h"
#include "app/operands.h"
#include "app/progress.h"
#include "app/recheck.h"
#include "app/report.h"
#include "app/result.h"
#include "app/runs.h"
#include "app/watchdog.h"
#include "base/clock.h"
#include "base/memory.h"

#include <inttypes.h>
#include <stdio.h>

typedef struct attend_state {
    lsp_app *app;
    lsp_input input;
    lsp_attention *plan;
    lsp_output *output;
    lsp_operands operands;
    lsp_weights weights;
    lsp_report report;
    lsp_keeper keeper;
    char id[LSP_STATE_ID]; /* of the run; "" without checkpoints */
    bool completed;        /* by another run: nothing is to be done */
} attend_state;

/* Adds whose limit it was to the library's text, which knows the number only. */
static lsp_status name_limit(attend_state *s)
{
    char text[LSP_ERROR_TEXT];
    (void)snprintf(text, sizeof text, "%s", lsp_context_message(s->app->ctx));
    return lsp_context_fail(s->app->ctx, LSP_ERR_LIMIT, "%s (the limit is that of %s)", text,
                            s->report.memory_source);
}

/* The plan stands. */
static lsp_status look_for_result(attend_state *s)
{
    lsp_context *ctx = s->app->ctx;
    if (!s->keeper.base) return LSP_OK;
    char *marks = lsp_completed_marks(&s->keeper);
    lsp_status status = marks ? lsp_checkpoint_id(s->plan, marks, s->id)
                              : lsp_context_fail(ctx, LSP_ERR_LIMIT, "no memory for the marks of a run");
    lsp_memory_free(marks);
    status = lsp_context_agree(ctx, status);
    return status == LSP_OK ? lsp_completed_take(&s->keeper, s->id, &s->completed) : status;
}

/* Everything that can be refused before time is spent: input, options, memory, output, report. */
static lsp_status prepare(attend_state *s)
{
    lsp_app *app = s->app;
    lsp_report *report = &s->report;
    double begin = lsp_clock();
    lsp_watchdog_phase("open", false);
    lsp_status status = lsp_app_require(app, LSP_KEY_OUTPUT_FILE);
    if (status == LSP_OK) status = lsp_json_probe(app);
    if (status == LSP_OK) status = lsp_input_open(app, &s->input);
    if (status == LSP_OK)
        status = lsp_keeper_open(app, &s->input, lsp_method_can_rest(s->input.desc.method), &s->keeper);
    if (status != LSP_OK) return status;
    report->memory_limit = lsp_launch_memory_limit(app, &report->memory_source);
    s->input.desc.memory_limit = report->memory_limit;
    s->input.desc.keep_values = lsp_options_int(app->options, LSP_KEY_VERIFY_ROWS) > 0;
    status = lsp_attention_create(app->ctx, &s->input.desc, &s->plan);
    if (status == LSP_ERR_LIMIT) status = name_limit(s);
    if (status == LSP_OK) status = look_for_result(s);
    if (status != LSP_OK || s->completed) return status;
    report->estimate = lsp_attention_get_estimate(s->plan);
    report->isa = lsp_attention_get_isa(s->plan);
    report->flops = report->estimate.flops;
    report->seconds[LSP_PHASE_READ] = lsp_clock() - begin;
    begin = lsp_clock();
    report->has_lse = lsp_options_yes(app->options, LSP_KEY_OUTPUT_LSE);
    status = lsp_weights_open(app, &s->input.desc, &s->weights);
    if (status == LSP_OK)
        status = lsp_result_create(app, &s->input, report->has_lse, &s->weights, &s->output);
    report->seconds[LSP_PHASE_WRITE] = lsp_clock() - begin;
    return status;
}

static lsp_status read_operands(attend_state *s)
{
    lsp_operands *o = &s->operands;
    double begin = lsp_clock();
    lsp_watchdog_phase("read", false);
    lsp_status status =
        lsp_attention_runs(s->plan, LSP_QUERIES, &o->query_runs, &o->query_run_count, &o->query_rows);
    if (status == LSP_OK)
        status = lsp_attention_runs(s->plan, LSP_KEYS, &o->key_runs, &o->key_run_count, &o->key_rows);
    status = lsp_context_agree(s->app->ctx, status);
    if (status == LSP_OK) status = lsp_operands_read(s->app, &s->input, s->report.has_lse, o);
    s->keeper.beats = true;
    if (status == LSP_OK) status = lsp_keeper_attach(&s->keeper, s->plan, o->out);
    s->report.nonfinite = o->nonfinite;
    s->report.seconds[LSP_PHASE_READ] += lsp_clock() - begin;
    return status;
}

/* The FMA peak, measured before and after the computation: the better counts, as something else may have
 * run in one of these moments. */
static lsp_status measure_peak(attend_state *s)
{
    const double seconds = 0.008;
    double gflops = 0;
    lsp_status status =
        lsp_measure_fma_peak(s->app->ctx, s->report.isa, s->input.desc.compute, seconds, &gflops);
    if (gflops > s->report.peak_gflops) s->report.peak_gflops = gflops;
    return status;
}

static lsp_status compute(attend_state *s)
{
    lsp_operands *o = &s->operands;
    lsp_status status = measure_peak(s);
    if (status != LSP_OK) return status;
    lsp_attention_stats stats = {0};
    lsp_progress progress;
    lsp_progress_start(s->app, s->report.flops, &progress);
    lsp_attention_set_progress(s->plan, lsp_progress_update, &progress);
    lsp_watchdog_phase("compute",
                       lsp_method_can_rest(s->input.desc.method)); /* others do not tell their progress */
    status = lsp_attention_execute(s->plan, o->q, o->k, o->v, o->out, o->lse, &stats);
    lsp_attention_set_progress(s->plan, NULL, NULL);
    lsp_progress_end(&progress);
    lsp_watchdog_phase("verify", false);
    s->report.seconds[LSP_PHASE_COMPUTE] = stats.seconds_compute;
    s->report.seconds[LSP_PHASE_GATHER] = stats.seconds_gather_exposed;
    s->report.received = stats.bytes_received;
    s->report.empty_rows = stats.empty_rows;
    return status == LSP_OK ? measure_peak(s) : status;
}

/* LSP_OK also when the check does not pass: the report tells. */
static lsp_status verify(attend_state *s)
{
    lsp_app *app = s->app;
    const lsp_operands *o = &s->operands;
    int64_t rows = lsp_options_int(app->options, LSP_KEY_VERIFY_ROWS);
    if (rows == 0) return lsp_certificate_make(app, &s->input.desc, s->plan, o, rows, &s->report.certificate);
    double begin = lsp_clock();
    lsp_status status = lsp_recheck_rows(app, &s->input.desc, s->plan, o, &s->report.verify);
    s->report.verified = status == LSP_OK;
    if (status == LSP_OK)
        status = lsp_certificate_make(app, &s->input.desc, s->plan, o, rows, &s->report.certificate);
    s->report.seconds[LSP_PHASE_VERIFY] = lsp_clock() - begin;
    return status;
}

static lsp_status write_output(attend_state *s)
{
    lsp_app *app = s->app;
    lsp_operands *o = &s->operands;
    double begin = lsp_clock();
    lsp_watchdog_phase("write", false);
    lsp_run *runs = lsp_runs_map(o->query_runs, o->query_run_count, NULL, -s->input.desc.row_begin);
    lsp_status status = LSP_OK;
    if (!runs) status = lsp_context_fail(app->ctx, LSP_ERR_LIMIT, "no memory for the list of rows");
    status = lsp_context_agree(app->ctx, status);
    if (status == LSP_OK)
        status = lsp_output_write(s->output, LSP_RESULT_OUT, runs, o->query_run_count, o->out);
    if (status == LSP_OK && s->report.has_lse)
        status = lsp_output_write(s->output, LSP_RESULT_LSE, runs, o->query_run_count, o->lse);
    lsp_memory_free(runs);
    if (status == LSP_OK) status = lsp_weights_write(app, &s->weights, &s->input.desc, s->plan, o, s->output);
    if (status == LSP_OK) status = lsp_result_describe(app, &s->input, s->report.isa, s->output);
    if (status == LSP_OK) status = lsp_completed_sign(s->output, s->id);
    if (status == LSP_OK) status = lsp_output_checksum(s->output, LSP_RESULT_OUT, &s->report.out_checksum);
    if (status == LSP_OK && s->report.has_lse)
        status = lsp_output_checksum(s->output, LSP_RESULT_LSE, &s->report.lse_checksum);
    if (status == LSP_OK) status = lsp_output_commit(&s->output);
    if (status == LSP_OK) s->report.output = lsp_options_text(app->options, LSP_KEY_OUTPUT_FILE);
    s->report.seconds[LSP_PHASE_WRITE] += lsp_clock() - begin;
    return status;
}

/* Collective. Prints and writes the report of a run that came to its end, passed or not. */
static lsp_status report_run(attend_state *s)
{
    lsp_app *app = s->app;
    lsp_report *report = &s->report;
    report->seconds[LSP_PHASE_TOTAL] = lsp_clock() - app->started;
    report->certificate.head_of = s->input.heads;
    lsp_report_collect(app, report);
    if (app->layout.rank == 0) lsp_summary_print(app, report);
    lsp_status status = lsp_json_write(app, lsp_json_report(app, report));
    if (app->layout.rank == 0 && status == LSP_OK)
        lsp_summary_verdict(report->verified ? &report->verify : NULL, report->output);
    if (status != LSP_OK || !report->verified || report->verify.passed) return status;
    const lsp_verify_result *v = &report->verify;
    return lsp_context_fail(
        app->ctx, LSP_ERR_VERIFY,
        "verification failed: row %" PRId64 " of head %" PRId64 ", batch %" PRId64
        " has relative error %.3e (tolerance %.1e), lse is off by up to %.3e; nothing was "
        "written; try --compute.isa=portable, --compute.dtype=f64",
        v->worst[2], v->worst[1], v->worst[0], v->max_rel_err, v->tolerance, v->max_lse_err);
}

static lsp_status make_result(attend_state *s)
{
    lsp_status status = read_operands(s);
    if (status == LSP_OK) status = compute(s);
    if (status == LSP_OK) status = verify(s);
    bool failed = s->report.verified && !s->report.verify.passed;
    return status == LSP_OK && !failed ? write_output(s) : status;
}

lsp_status lsp_attend_run(lsp_app *app)
{
    attend_state s = {.app = app};
    s.report.input = &s.input;
    s.report.keeper = &s.keeper;
    lsp_status status = prepare(&s);
    bool goes_on = status == LSP_OK && !s.completed;
    if (goes_on) status = make_result(&s);
    if (s.output) (void)lsp_output_discard(&s.output);
    /* Also after a failed verification: what it was computed from is not to be gone on from. */
    if (goes_on && status == LSP_OK) status = lsp_keeper_finish(&s.keeper);
    if (goes_on && status == LSP_OK) status = report_run(&s);
    lsp_weights_free(&s.weights);
    lsp_operands_free(&s.operands);
    (void)lsp_attention_destroy(&s.plan);
    lsp_keeper_close(&s.keeper);
    lsp_input_close(&s.input);
    return status;
}
