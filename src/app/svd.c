/* longspan svd: the truncated singular value decomposition of every head's attention matrix.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "app/svd.h"

#include "app/completed.h"
#include "app/launch.h"
#include "app/operands.h"
#include "app/plot.h"
#include "app/progress.h"
#include "app/watchdog.h"
#include "base/checked.h"
#include "base/clock.h"
#include "base/memory.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

enum { PLOT_WIDTH = 1280, PLOT_HEIGHT = 560 };

/* What one head is computed from. */
typedef struct head_work {
    lsp_attention_desc desc; /* of the one matrix */
    lsp_operator *op;
    const lsp_run *query_runs, *key_runs; /* of the operator */
    int64_t query_run_count, key_run_count, query_rows, key_rows;
    void *q, *k;
} head_work;

/* ---- what is asked for --------------------------------------------------------------------------- */

static lsp_status take_options(lsp_svd_job *job)
{
    lsp_app *app = job->app;
    lsp_options *options = app->options;
    bool ranked = lsp_options_is_set(options, LSP_KEY_ATTENTION_RANK);
    bool tolerant = lsp_options_is_set(options, LSP_KEY_ATTENTION_TOLERANCE);
    if (!ranked && !tolerant)
        return lsp_context_fail(app->ctx, LSP_ERR_USAGE,
                                "attention.rank is missing: say how many singular values to keep, or give "
                                "attention.tolerance, the relative error that chooses their number");
    job->options = lsp_svd_defaults();
    if (ranked) {
        lsp_status status = lsp_app_require_one(app, LSP_KEY_ATTENTION_RANK, &job->options.rank);
        if (status != LSP_OK) return status;
    }
    if (tolerant) job->options.tolerance = lsp_options_real(options, LSP_KEY_ATTENTION_TOLERANCE);
    job->full = lsp_options_choice(options, LSP_KEY_ATTENTION_SVD) == 1;
    if (!job->full) {
        job->options.oversample = lsp_options_int(options, LSP_KEY_ATTENTION_OVERSAMPLE);
        job->options.steps = lsp_options_int(options, LSP_KEY_ATTENTION_STEPS);
        job->options.seed = (uint64_t)lsp_options_int(options, LSP_KEY_ATTENTION_SEED);
    }
    if (lsp_attention_hides_later(&job->input.desc) &&
        !lsp_options_yes(options, LSP_KEY_ATTENTION_ALLOW_LEAK))
        return lsp_context_fail(
            app->ctx, LSP_ERR_USAGE,
            "the mask hides later keys (causal, or a window with window_right = 0), and rows of the "
            "truncated matrix see later keys a little: set attention.allow_leak = yes if that is acceptable");
    return LSP_OK;
}

static lsp_status list_heads(lsp_svd_job *job)
{
    const lsp_attention_desc *d = &job->input.desc;
    lsp_status status = LSP_OK;
    job->count = d->batch * d->heads;
    job->heads = lsp_app_alloc(job->app, job->count, sizeof *job->heads, "the list of heads", &status);
    for (int64_t i = 0; status == LSP_OK && i < job->count; i++) {
        job->heads[i] = (lsp_svd_head){.batch = i / d->heads, .head = i % d->heads};
        int64_t keys = d->key_lengths ? d->key_lengths[i / d->heads] : d->m;
        job->heads[i].key_count = lsp_max(0, lsp_min(keys, d->key_end) - d->key_begin);
    }
    return lsp_context_agree(job->app->ctx, status);
}

/* ---- one head ------------------------------------------------------------------------------------ */

static lsp_status open_head(lsp_svd_job *job, lsp_svd_head *head, head_work *w)
{
    const lsp_attention_desc *d = &job->input.desc;
    w->desc = *d;
    w->desc.batch = w->desc.heads = w->desc.kv_heads = 1;
    w->desc.kv_head_of = NULL;
    w->desc.d_v = 0;
    if (d->key_lengths) w->desc.key_lengths = d->key_lengths + head->batch;
    if (d->alibi_slopes) w->desc.alibi_slopes = d->alibi_slopes + head->head;
    lsp_status status = lsp_operator_create(job->app->ctx, &w->desc, &w->op);
    if (status != LSP_OK) return status;
    lsp_operator_runs(w->op, LSP_QUERIES, &w->query_runs, &w->query_run_count, &w->query_rows);
    lsp_operator_runs(w->op, LSP_KEYS, &w->key_runs, &w->key_run_count, &w->key_rows);
    if (w->query_run_count) head->query_run = w->query_runs[0];
    if (w->key_run_count) head->key_run = w->key_runs[0];
    int64_t group = d->kv_head_of ? 0 : d->heads / d->kv_heads;
    head->query_run.batch = head->key_run.batch = head->batch;
    head->query_run.head = head->head;
    head->key_run.head = d->kv_head_of ? d->kv_head_of[head->head] : head->head / group;
    job->isa = lsp_operator_get_isa(w->op);
    return LSP_OK;
}

/* The id of the run, by the operator of its first head. */
static lsp_status name_run(lsp_svd_job *job, lsp_operator *op)
{
    lsp_context *ctx = job->app->ctx;
    if (!job->keeper.base) return LSP_OK;
    char *marks = lsp_completed_marks(&job->keeper);
    lsp_status status = marks ? lsp_svd_id(op, &job->options, marks, job->id)
                              : lsp_context_fail(ctx, LSP_ERR_LIMIT, "no memory for the marks of a run");
    lsp_memory_free(marks);
    return lsp_context_agree(ctx, status);
}

static lsp_status look_for_result(lsp_svd_job *job)
{
    head_work w = {.op = NULL};
    if (!lsp_completed_may_be(&job->keeper)) return LSP_OK;
    lsp_status status = open_head(job, &job->heads[0], &w);
    if (status == LSP_OK) status = name_run(job, w.op);
    if (status == LSP_OK) status = lsp_completed_take(&job->keeper, job->id, &job->completed);
    (void)lsp_operator_destroy(&w.op);
    return status;
}

/* Everything that can be refused before time is spent. */
static lsp_status prepare(lsp_svd_job *job)
{
    lsp_app *app = job->app;
    double begin = lsp_clock();
    lsp_watchdog_phase("open", false);
    lsp_status status = lsp_json_probe(app);
    if (status == LSP_OK) status = lsp_plot_probe(app);
    if (status == LSP_OK) status = lsp_input_open(app, &job->input);
    if (status == LSP_OK) status = take_options(job);
    if (status == LSP_OK) status = list_heads(job);
    if (status == LSP_OK)
        status = lsp_keeper_open(app, &job->input, job->full ? 0 : job->count, &job->keeper);
    if (status != LSP_OK) return status;
    lsp_attention_desc *d = &job->input.desc;
    d->memory_limit = lsp_launch_memory_limit(app, &job->memory_source);
    d->d_v = 0;                          /* values are not read */
    if (job->full) d->compute = LSP_F64; /* the reference has the precision of its entries */
    int64_t most = lsp_min(d->row_end - d->row_begin, d->key_end - d->key_begin);
    job->rank = job->options.rank > 0 ? lsp_min(job->options.rank, most) : most;
    job->vectors = *lsp_options_text(app->options, LSP_KEY_OUTPUT_FILE) &&
                   lsp_options_yes(app->options, LSP_KEY_OUTPUT_VECTORS);
    job->seconds[LSP_PHASE_READ] = lsp_clock() - begin;
    status = look_for_result(job);
    if (status != LSP_OK || job->completed) return status;
    begin = lsp_clock();
    status = lsp_svd_output_create(job);
    /* With a tolerance only the end tells the ranks: that the file can be created is known by now. */
    if (status == LSP_OK && job->output && job->options.tolerance > 0)
        status = lsp_output_discard(&job->output);
    job->seconds[LSP_PHASE_WRITE] = lsp_clock() - begin;
    return status;
}

static lsp_status read_head(lsp_svd_job *job, const lsp_svd_head *head, head_work *w)
{
    lsp_app *app = job->app;
    const lsp_input *input = &job->input;
    double begin = lsp_clock();
    lsp_status status = LSP_OK;
    lsp_watchdog_phase("read", false);
    size_t d_k = (size_t)w->desc.d_k;
    w->q = lsp_app_alloc(app, w->query_rows, d_k * lsp_dtype_size(w->desc.q_type), "q", &status);
    w->k = lsp_app_alloc(app, w->key_rows, d_k * lsp_dtype_size(w->desc.k_type), "k", &status);
    status = lsp_context_agree(app->ctx, status);
    if (status == LSP_OK)
        status = lsp_operands_read_source(app, &input->q, &head->query_run, w->query_run_count, input->heads,
                                          w->q, &job->nonfinite);
    if (status == LSP_OK)
        status = lsp_operands_read_source(app, &input->k, &head->key_run, w->key_run_count, input->kv_heads,
                                          w->k, &job->nonfinite);
    job->seconds[LSP_PHASE_READ] += lsp_clock() - begin;
    return status;
}

static lsp_status measure_peak(lsp_svd_job *job)
{
    double gflops = 0;
    lsp_status status =
        lsp_measure_fma_peak(job->app->ctx, job->isa, job->input.desc.compute, 0.008, &gflops);
    if (gflops > job->peak_gflops) job->peak_gflops = gflops;
    return status;
}

/* Where the progress of one head stands in that of all. */
typedef struct head_progress {
    lsp_progress *all;
    double before, share;
} head_progress;

static void tell(void *user, double done)
{
    const head_progress *p = user;
    lsp_progress_update(p->all, p->before + p->share * done);
}

static lsp_status decompose(lsp_svd_job *job, lsp_svd_head *head, head_work *w, lsp_progress *progress)
{
    double begin = lsp_clock();
    head_progress mine = {progress, (double)job->done / (double)job->count, 1 / (double)job->count};
    lsp_svd_options options = job->options;
    options.progress = tell;
    options.user = &mine;
    lsp_watchdog_phase("compute", false);
    options.pause = lsp_keeper_svd(&job->keeper);
    lsp_status status = lsp_operator_bind(w->op, w->q, w->k);
    if (status == LSP_OK)
        status = job->full ? lsp_svd_full(w->op, &options, &head->svd)
                           : lsp_svd_krylov(w->op, &options, &head->svd);
    if (status != LSP_OK) return status;
    lsp_operator_stats stats = lsp_operator_get_stats(w->op);
    head->spectrum = lsp_svd_spectrum(head->svd);
    job->flops += stats.flops_apply + stats.flops_transposed;
    job->received += stats.bytes_received;
    job->empty_rows += stats.empty_rows;
    job->seconds_products += head->svd->seconds_products;
    job->seconds[LSP_PHASE_GATHER] += stats.seconds_gather_exposed;
    job->seconds[LSP_PHASE_COMPUTE] += lsp_clock() - begin - stats.seconds_gather_exposed;
    return LSP_OK;
}

/* W V = U diag(sigma) holds for the truncated decomposition too: sampled rows of it are attention with V for values,
 * recomputed in double precision. */
static lsp_status verify(lsp_svd_job *job, lsp_svd_head *head, const head_work *w)
{
    lsp_app *app = job->app;
    int64_t rows = lsp_options_int(app->options, LSP_KEY_VERIFY_ROWS), rank = head->svd->rank;
    double tolerance = lsp_options_real(app->options, LSP_KEY_VERIFY_TOLERANCE), begin = lsp_clock();
    if (rows == 0) return LSP_OK;
    lsp_watchdog_phase("verify", false);
    lsp_attention_desc desc = w->desc;
    desc.d_v = rank;
    desc.v_type = LSP_F64;
    bool wide = desc.compute == LSP_F64;
    lsp_status status = LSP_OK;
    void *out =
        lsp_app_alloc(app, w->query_rows * rank, lsp_dtype_size(desc.compute), "the verification", &status);
    status = lsp_context_agree(app->ctx, status);
    for (int64_t i = 0; status == LSP_OK && i < w->query_rows * rank; i++) {
        double value = head->svd->u[i] * head->svd->sigma[i % rank];
        if (wide)
            ((double *)out)[i] = value;
        else
            ((float *)out)[i] = (float)value;
    }
    if (status == LSP_OK)
        status = lsp_verify_attention(app->ctx, &desc, w->query_runs, w->query_run_count, w->key_runs,
                                      w->key_run_count, w->q, w->k, head->svd->v, out, NULL, rows, 0,
                                      tolerance, &head->verify);
    lsp_memory_free(out);
    if (status == LSP_OK) status = lsp_svd_sample(w->op, head->svd, rows, 0, &head->sampled);
    job->verified = status == LSP_OK;
    if (status == LSP_OK && !head->verify.passed) job->passed = false;
    job->seconds[LSP_PHASE_VERIFY] += lsp_clock() - begin;
    return status;
}

static lsp_status run_head(lsp_svd_job *job, lsp_svd_head *head, lsp_progress *progress)
{
    head_work w = {.op = NULL};
    lsp_status status = LSP_OK;
    if (job->done > 0) status = lsp_keeper_turn(&job->keeper, job->done);
    if (status == LSP_OK) status = open_head(job, head, &w);
    if (status == LSP_OK && job->done == 0) status = name_run(job, w.op);
    if (status == LSP_OK) status = read_head(job, head, &w);
    if (status == LSP_OK && job->done == 0) status = measure_peak(job);
    if (status == LSP_OK) status = decompose(job, head, &w, progress);
    if (status == LSP_OK) status = verify(job, head, &w);
    if (status == LSP_OK && job->output) {
        status = lsp_svd_output_write(job, head);
        lsp_memory_free(head->svd->u);
        lsp_memory_free(head->svd->v);
        head->svd->u = head->svd->v = NULL;
    }
    lsp_memory_free(w.q);
    lsp_memory_free(w.k);
    (void)lsp_operator_destroy(&w.op);
    job->done++;
    return status;
}

/* ---- all heads ------------------------------------------------------------------------------------ */

static double flops_expected(const lsp_svd_job *job)
{
    const lsp_attention_desc *d = &job->input.desc;
    double columns = (double)(lsp_min(job->rank, 32) + job->options.oversample);
    return (double)job->count * 2 * ((double)d->d_k + columns) * (double)d->n * (double)d->m *
           (2 * (double)job->options.steps + 3);
}

static lsp_status write_output(lsp_svd_job *job)
{
    double begin = lsp_clock();
    lsp_status status = LSP_OK;
    lsp_watchdog_phase("write", false);
    if (!job->passed || !*lsp_options_text(job->app->options, LSP_KEY_OUTPUT_FILE)) return LSP_OK;
    if (!job->output) { /* the ranks are known now */
        job->rank = 0;
        for (int64_t i = 0; i < job->count; i++) job->rank = lsp_max(job->rank, job->heads[i].svd->rank);
        status = lsp_svd_output_create(job);
        for (int64_t i = 0; status == LSP_OK && i < job->count; i++)
            status = lsp_svd_output_write(job, &job->heads[i]);
    }
    if (status == LSP_OK) status = lsp_svd_output_commit(job);
    job->seconds[LSP_PHASE_WRITE] += lsp_clock() - begin;
    return status;
}

static void collect(lsp_svd_job *job)
{
    lsp_app *app = job->app;
    job->seconds[LSP_PHASE_TOTAL] = lsp_clock() - app->started;
    lsp_collect_statistics(app, job->seconds, LSP_PHASE_COUNT, job->phases);
    lsp_collect_statistics(app, &job->seconds_products, 1, &job->products);
    job->received_all = lsp_collect_sum_f64(app, job->received);
    job->empty_rows = lsp_collect_sum_i64(app, job->empty_rows);
    job->rss_max = lsp_collect_max_i64(app, lsp_memory_peak());
}

static void print_last_line(const lsp_svd_job *job)
{
    char where[LSP_ERROR_TEXT] = "no output was asked for";
    if (job->written) (void)snprintf(where, sizeof where, "the result is in %s", job->written);
    if (!job->verified)
        (void)printf("longspan: PASSED, not verified (verify.rows = 0); %s\n", where);
    else if (job->passed)
        (void)printf("longspan: PASSED, %" PRId64 " sampled rows of each head verified; %s\n",
                     job->heads[0].verify.rows, where);
    else
        (void)printf("longspan: FAILED, the result differs from the reference; no output was written\n");
}

static lsp_status report(lsp_svd_job *job)
{
    lsp_app *app = job->app;
    collect(job);
    if (app->layout.rank == 0) lsp_svd_print(job);
    lsp_status status = lsp_json_write(app, lsp_svd_json(job));
    if (status == LSP_OK) status = lsp_plot_make(app, PLOT_WIDTH, PLOT_HEIGHT, lsp_svd_plot, job);
    if (app->layout.rank == 0 && status == LSP_OK) print_last_line(job);
    for (int64_t i = 0; status == LSP_OK && !job->passed && i < job->count; i++) {
        const lsp_verify_result *v = &job->heads[i].verify;
        if (v->passed) continue;
        return lsp_context_fail(
            app->ctx, LSP_ERR_VERIFY,
            "verification failed: row %" PRId64 " of head %" PRId64 ", batch %" PRId64
            " of W V has relative error %.3e to U sigma (tolerance %.1e); nothing was written; try "
            "--compute.dtype=f64",
            v->worst[2], job->heads[i].head, job->heads[i].batch, v->max_rel_err, v->tolerance);
    }
    return status;
}

static lsp_status make_result(lsp_svd_job *job)
{
    lsp_progress progress;
    lsp_status status = LSP_OK;
    lsp_progress_start(job->app, flops_expected(job), &progress);
    for (int64_t i = 0; status == LSP_OK && i < job->count; i++)
        status = run_head(job, &job->heads[i], &progress);
    lsp_progress_end(&progress);
    if (status == LSP_OK) status = measure_peak(job);
    return status == LSP_OK ? write_output(job) : status;
}

lsp_status lsp_svd_run(lsp_app *app)
{
    lsp_svd_job job = {.app = app, .passed = true};
    lsp_status status = prepare(&job);
    bool goes_on = status == LSP_OK && !job.completed;
    if (goes_on) status = make_result(&job);
    if (job.output) (void)lsp_output_discard(&job.output);
    if (goes_on && status == LSP_OK) status = lsp_keeper_finish(&job.keeper);
    if (goes_on && status == LSP_OK) status = report(&job);
    for (int64_t i = 0; job.heads && i < job.count; i++) lsp_svd_destroy(&job.heads[i].svd);
    lsp_memory_free(job.heads);
    lsp_keeper_close(&job.keeper);
    lsp_input_close(&job.input);
    return status;
}
