/* longspan layer: from rows and weights in files to the layer's output in a file.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "app/layer.h"

#include "app/completed.h"
#include "app/launch.h"
#include "app/operands.h"
#include "app/progress.h"
#include "app/result.h"
#include "app/watchdog.h"
#include "base/clock.h"
#include "base/memory.h"

#include <inttypes.h>
#include <stdio.h>

typedef struct layer_state {
    lsp_app *app;
    lsp_layer_input input;
    lsp_layer *layer;
    lsp_output *output;
    lsp_run *runs, *context_runs; /* in the files: a batch stands where a tensor has its heads */
    int64_t run_count, context_run_count, rows, context_rows;
    void *x, *context, *y;
    lsp_layer_report report;
    lsp_keeper keeper;
    char id[LSP_STATE_ID]; /* of the run; "" without checkpoints */
    bool completed;        /* by another run: nothing is to be done */
} layer_state;

/* Adds whose limit it was to the library's text, which knows the number only. */
static lsp_status name_limit(layer_state *s)
{
    char text[LSP_ERROR_TEXT];
    (void)snprintf(text, sizeof text, "%s", lsp_context_message(s->app->ctx));
    return lsp_context_fail(s->app->ctx, LSP_ERR_LIMIT, "%s (the limit is that of %s)", text,
                            s->report.memory_source);
}

static lsp_status create_output(layer_state *s)
{
    lsp_app *app = s->app;
    const lsp_layer_input *in = &s->input;
    const char *inputs[] = {in->x.file, in->weights_file, in->context.file};
    lsp_status status = lsp_result_check_target(app, inputs, in->desc.cross ? 3 : 2);
    if (status != LSP_OK) return status;
    const lsp_attention_desc *a = &in->desc.attention;
    lsp_output_dataset y = {.name = "/y",
                            .type = lsp_dtype_result(a->compute),
                            .axes = in->x.shape.axes,
                            .view = LSP_VIEW_ROWS,
                            .layout = LSP_BHND,
                            .units = "as x"};
    const int64_t dims[] = {a->batch, a->n, in->desc.d_model};
    const char *const axes[] = {"batch", "row", "column"};
    for (int i = 0; i < y.axes; i++) {
        y.dims[i] = dims[3 - y.axes + i];
        y.axis_names[i] = axes[3 - y.axes + i];
    }
    return lsp_output_create(app->ctx, lsp_options_text(app->options, LSP_KEY_OUTPUT_FILE),
                             lsp_options_yes(app->options, LSP_KEY_OUTPUT_OVERWRITE), &y, 1, &s->output);
}

/* Attention is what takes long, and what is saved; a run that goes on projects again. */
static lsp_status open_keeper(layer_state *s)
{
    static const char *const names[LSP_WEIGHT_COUNT] = {
        "the projection's weights", "its bias",      "the output's weights",
        "the output's bias",        "the norm of q", "the norm of k"};
    lsp_layer_input *in = &s->input;
    const lsp_layer_desc *d = &in->desc;
    lsp_kept_source sources[2 + LSP_WEIGHT_COUNT] = {{"input.x", &in->x}, {"input.context", &in->context}};
    for (int i = 0; i < LSP_WEIGHT_COUNT; i++) sources[2 + i] = (lsp_kept_source){names[i], &in->parts[i]};
    char lines[500];
    (void)snprintf(lines, sizeof lines,
                   "a layer = d_model %" PRId64 "\nlayer.rope_base = %.17g\nlayer.rope_pairing = %s\n"
                   "layer.qk_norm = %s\nlayer.qk_norm_eps = %.17g\n",
                   d->d_model, d->rope_base, d->rope_pairing == LSP_ROPE_HALF ? "half" : "interleaved",
                   d->qk_norm ? "yes" : "no", d->qk_norm_eps);
    const lsp_kept kept = {lines, sources, 2 + LSP_WEIGHT_COUNT, &in->desc.attention.isa};
    return lsp_keeper_open_kept(s->app, &kept, lsp_method_can_rest(d->attention.method), &s->keeper);
}

/* The plan stands. */
static lsp_status look_for_result(layer_state *s)
{
    lsp_context *ctx = s->app->ctx;
    if (!s->keeper.base) return LSP_OK;
    char *marks = lsp_completed_marks(&s->keeper);
    lsp_status status = marks ? lsp_checkpoint_id(lsp_layer_attention(s->layer), marks, s->id)
                              : lsp_context_fail(ctx, LSP_ERR_LIMIT, "no memory for the marks of a run");
    lsp_memory_free(marks);
    status = lsp_context_agree(ctx, status);
    return status == LSP_OK ? lsp_completed_take(&s->keeper, s->id, &s->completed) : status;
}

/* Everything that can be refused before time is spent. */
static lsp_status prepare(layer_state *s)
{
    lsp_app *app = s->app;
    lsp_layer_report *report = &s->report;
    double begin = lsp_clock();
    lsp_watchdog_phase("open", false);
    lsp_status status = lsp_app_require(app, LSP_KEY_OUTPUT_FILE);
    if (status == LSP_OK) status = lsp_json_probe(app);
    if (status == LSP_OK) status = lsp_layer_input_open(app, &s->input);
    if (status == LSP_OK) status = open_keeper(s);
    if (status != LSP_OK) return status;
    s->input.desc.attention.memory_limit = lsp_launch_memory_limit(app, &report->memory_source);
    s->input.desc.attention.keep_values = lsp_options_int(app->options, LSP_KEY_VERIFY_ROWS) > 0;
    status = lsp_layer_create(app->ctx, &s->input.desc, &s->input.weights, &s->layer);
    if (status == LSP_ERR_LIMIT) status = name_limit(s);
    if (status == LSP_OK) status = look_for_result(s);
    if (status != LSP_OK || s->completed) return status;
    const lsp_attention *plan = lsp_layer_attention(s->layer);
    report->estimate = lsp_attention_get_estimate(plan);
    report->isa = lsp_attention_get_isa(plan);
    report->flops = report->estimate.flops;
    report->seconds[LSP_LAYER_READ] = lsp_clock() - begin;
    begin = lsp_clock();
    status = create_output(s);
    report->seconds[LSP_LAYER_WRITE] = lsp_clock() - begin;
    return status;
}

/* Runs as the file has them (lsp_memory_free). */
static lsp_run *take_runs(const layer_state *s, lsp_layer_operand operand, int64_t *count, int64_t *rows)
{
    const lsp_run *runs = NULL;
    lsp_layer_runs(s->layer, operand, &runs, count, rows);
    lsp_run *mapped = lsp_memory_alloc(*count, sizeof *mapped);
    for (int64_t i = 0; mapped && i < *count; i++)
        mapped[i] = (lsp_run){0, runs[i].batch, runs[i].begin, runs[i].count};
    return mapped;
}

static lsp_status read_rows(layer_state *s)
{
    lsp_app *app = s->app;
    lsp_layer_input *in = &s->input;
    const lsp_layer_desc *desc = &in->desc;
    double begin = lsp_clock();
    size_t columns = (size_t)desc->d_model;
    lsp_status status = LSP_OK;
    void *out = NULL;
    lsp_watchdog_phase("read", false);
    s->runs = take_runs(s, LSP_LAYER_X, &s->run_count, &s->rows);
    s->context_runs = take_runs(s, LSP_LAYER_CONTEXT, &s->context_run_count, &s->context_rows);
    if (!s->runs || !s->context_runs)
        status = lsp_context_fail(app->ctx, LSP_ERR_LIMIT, "no memory for the list of rows");
    s->x = lsp_app_alloc(app, s->rows, columns * lsp_dtype_size(desc->x_type), "x", &status);
    s->context = lsp_app_alloc(app, s->context_rows, columns * lsp_dtype_size(desc->context_type),
                               "the context", &status);
    s->y = lsp_app_alloc(app, s->rows, columns * lsp_dtype_size(lsp_dtype_result(desc->attention.compute)),
                         "y", &status);
    status = lsp_context_agree(app->ctx, status);
    if (status == LSP_OK)
        status = lsp_operands_read_source(app, &in->x, s->runs, s->run_count, NULL, s->x, &in->nonfinite);
    if (status == LSP_OK && desc->cross)
        status = lsp_operands_read_source(app, &in->context, s->context_runs, s->context_run_count, NULL,
                                          s->context, &in->nonfinite);
    lsp_attention *plan = lsp_layer_state(s->layer, &out);
    if (status == LSP_OK) status = lsp_keeper_attach(&s->keeper, plan, out);
    s->report.seconds[LSP_LAYER_READ] += lsp_clock() - begin;
    return status;
}

/* The FMA peak, measured before and after the computation: the better counts. */
static lsp_status measure_peak(layer_state *s)
{
    const double seconds = 0.008;
    double gflops = 0;
    lsp_status status =
        lsp_measure_fma_peak(s->app->ctx, s->report.isa, s->input.desc.attention.compute, seconds, &gflops);
    if (gflops > s->report.peak_gflops) s->report.peak_gflops = gflops;
    return status;
}

static lsp_status compute(layer_state *s)
{
    lsp_layer_stats stats = {0};
    lsp_layer_report *report = &s->report;
    lsp_progress progress;
    lsp_status status = measure_peak(s);
    if (status != LSP_OK) return status;
    lsp_progress_start(s->app, report->flops, &progress);
    lsp_layer_set_progress(s->layer, lsp_progress_update, &progress);
    lsp_watchdog_phase("compute", false); /* projections do not tell their progress */
    status = lsp_layer_execute(s->layer, s->x, s->input.desc.cross ? s->context : NULL, s->y, &stats);
    lsp_layer_set_progress(s->layer, NULL, NULL);
    lsp_progress_end(&progress);
    report->seconds[LSP_LAYER_PROJECT] = stats.seconds_project;
    report->seconds[LSP_LAYER_EXCHANGE] = stats.seconds_exchange;
    report->seconds[LSP_LAYER_COMPUTE] = stats.attention.seconds_compute;
    report->seconds[LSP_LAYER_GATHER] = stats.attention.seconds_gather_exposed;
    report->seconds[LSP_LAYER_EXECUTE] = stats.seconds_total;
    report->project_flops = stats.project_flops;
    report->received = stats.attention.bytes_received;
    report->empty_rows = stats.attention.empty_rows;
    return status == LSP_OK ? measure_peak(s) : status;
}

static lsp_status make_certificate(layer_state *s, int64_t rows)
{
    const lsp_attention *plan = lsp_layer_attention(s->layer);
    lsp_layer_inside inside = lsp_layer_get_inside(s->layer);
    lsp_operands o = {.nonfinite = 0};
    union {
        const void *read;
        void *held;
    } q = {inside.q}, k = {inside.k}, v = {inside.v}, out = {inside.out};
    o.q = q.held;
    o.k = k.held;
    o.v = v.held;
    o.out = out.held;
    lsp_status status =
        lsp_attention_runs(plan, LSP_QUERIES, &o.query_runs, &o.query_run_count, &o.query_rows);
    if (status == LSP_OK)
        status = lsp_attention_runs(plan, LSP_KEYS, &o.key_runs, &o.key_run_count, &o.key_rows);
    if (status != LSP_OK) return status;
    return lsp_certificate_make(s->app, &inside.desc.attention, plan, &o, rows, &s->report.certificate);
}

/* LSP_OK also when the check does not pass: the report tells. */
static lsp_status verify(layer_state *s)
{
    lsp_app *app = s->app;
    lsp_layer_report *report = &s->report;
    int64_t rows = lsp_options_int(app->options, LSP_KEY_VERIFY_ROWS);
    lsp_watchdog_phase("verify", false);
    double begin = lsp_clock(), tolerance = lsp_options_real(app->options, LSP_KEY_VERIFY_TOLERANCE);
    lsp_status status = LSP_OK;
    if (rows > 0) {
        status = lsp_verify_layer(app->ctx, s->layer, &s->input.weights, s->x,
                                  s->input.desc.cross ? s->context : NULL, s->y, rows, 0, tolerance,
                                  &report->end_to_end, &report->verify);
        report->verified = status == LSP_OK;
    }
    if (status == LSP_OK) status = make_certificate(s, rows);
    report->seconds[LSP_LAYER_VERIFY] = lsp_clock() - begin;
    return status;
}

/* What the attributes say that a deck alone does not. */
static lsp_status describe(layer_state *s)
{
    const lsp_attention_desc *a = &s->input.desc.attention;
    char rule[LSP_RULE_TEXT];
    lsp_status status = lsp_result_sign(s->app, s->output);
    if (status == LSP_OK)
        status = lsp_output_attribute_text(s->output, -1, "method", lsp_method_name(a->method));
    if (status == LSP_OK)
        status = lsp_output_attribute_text(s->output, -1, "rule", lsp_summary_rule(a, rule));
    if (status == LSP_OK)
        status = lsp_output_attribute_text(s->output, -1, "isa", lsp_isa_name(s->report.isa));
    const struct {
        const char *name;
        int64_t value;
    } numbers[] = {
        {"heads", a->heads}, {"kv_heads", a->kv_heads}, {"head_dim", a->d_k}, {"n", a->n}, {"m", a->m}};
    for (size_t i = 0; status == LSP_OK && i < sizeof numbers / sizeof *numbers; i++)
        status = lsp_output_attribute_i64(s->output, -1, numbers[i].name, numbers[i].value);
    return status;
}

static lsp_status write_output(layer_state *s)
{
    double begin = lsp_clock();
    lsp_watchdog_phase("write", false);
    lsp_status status = lsp_output_write(s->output, 0, s->runs, s->run_count, s->y);
    if (status == LSP_OK) status = describe(s);
    if (status == LSP_OK) status = lsp_completed_sign(s->output, s->id);
    if (status == LSP_OK) status = lsp_output_checksum(s->output, 0, &s->report.checksum);
    if (status == LSP_OK) status = lsp_output_commit(&s->output);
    if (status == LSP_OK) s->report.output = lsp_options_text(s->app->options, LSP_KEY_OUTPUT_FILE);
    s->report.seconds[LSP_LAYER_WRITE] += lsp_clock() - begin;
    return status;
}

/* Collective. Prints and writes the report of a run that came to its end, passed or not. */
static lsp_status report_run(layer_state *s)
{
    lsp_app *app = s->app;
    lsp_layer_report *report = &s->report;
    report->seconds[LSP_LAYER_TOTAL] = lsp_clock() - app->started;
    lsp_layer_report_collect(app, report);
    lsp_status status = lsp_json_write(app, lsp_layer_report_json(app, report));
    if (app->layout.rank == 0) lsp_layer_report_print(app, report);
    if (status != LSP_OK || !report->verified || report->verify.passed) return status;
    const lsp_verify_result *v = &report->verify;
    return lsp_context_fail(app->ctx, LSP_ERR_VERIFY,
                            "verification failed: row %" PRId64 " of batch %" PRId64
                            " has relative error %.3e (tolerance %.1e); nothing was written; try "
                            "--compute.isa=portable, --compute.dtype=f64",
                            v->worst[2], v->worst[0], v->max_rel_err, v->tolerance);
}

static lsp_status make_result(layer_state *s)
{
    lsp_status status = read_rows(s);
    if (status == LSP_OK) status = compute(s);
    if (status == LSP_OK) status = verify(s);
    bool failed = s->report.verified && !s->report.verify.passed;
    return status == LSP_OK && !failed ? write_output(s) : status;
}

lsp_status lsp_layer_run(lsp_app *app)
{
    layer_state s = {.app = app};
    s.report.input = &s.input;
    s.report.keeper = &s.keeper;
    lsp_status status = prepare(&s);
    bool goes_on = status == LSP_OK && !s.completed;
    if (goes_on) status = make_result(&s);
    if (s.output) (void)lsp_output_discard(&s.output);
    /* Also after a failed verification: what it was computed from is not to be gone on from. */
    if (goes_on && status == LSP_OK) status = lsp_keeper_finish(&s.keeper);
    if (goes_on && status == LSP_OK) status = report_run(&s);
    lsp_memory_free(s.x);
    lsp_memory_free(s.context);
    lsp_memory_free(s.y);
    lsp_memory_free(s.runs);
    lsp_memory_free(s.context_runs);
    (void)lsp_layer_destroy(&s.layer);
    lsp_keeper_close(&s.keeper);
    lsp_layer_input_close(&s.input);
    return status;
}
