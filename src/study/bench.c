/* How fast attention is, beside what the machine gives in the same moments.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include "base/checked.h"
#include "base/clock.h"
#include "base/memory.h"
#include "comm/context.h"
#include "study/bandwidth.h"

#include <longspan/study.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LEAST_REPETITIONS = 5, MOST_REPETITIONS = 1000, MOST_EXECUTIONS = 1000, PATTERN_ROWS = 4096 };

static const double repetition_seconds = 0.01, least_limit_seconds = 0.004, most_limit_seconds = 0.5;

typedef struct sample {
    double seconds, gather;
    double ideal; /* the work that the limit beside it would have done in this time */
    double limit; /* after it */
} sample;

typedef struct bench {
    lsp_context *ctx;
    const lsp_attention_desc *desc;
    const lsp_bench_options *options;
    lsp_attention *plan;
    const lsp_run *query_runs, *key_runs;
    int64_t query_run_count, key_run_count, query_rows, key_rows;
    void *q, *k, *v, *out, *lse;
    lsp_bandwidth bandwidth;
    int64_t executions; /* of a repetition */
    sample samples[MOST_REPETITIONS];
    int64_t count;
    double limit_best, burst_best, started;
} bench;

/* ---- operands ------------------------------------------------------------------------------------ */

/* Normal rows; after the first 4096 they repeat, as making a number takes longer than many a run takes to use it.
 * *missing when there is no memory. */
static void *make_operand(lsp_tensor_role role, uint64_t seed, lsp_dtype type, int64_t rows, int64_t d,
                          bool *missing)
{
    size_t row_bytes = (size_t)d * lsp_dtype_size(type);
    int64_t height = lsp_min(rows, PATTERN_ROWS);
    char *operand = lsp_memory_alloc(rows, row_bytes);
    const lsp_run pattern = {0, 0, 0, height};
    if (!operand || (height > 0 && lsp_generate_rows(LSP_NORMAL, role, seed, type, 1, height, d, &pattern, 1,
                                                     operand) != LSP_OK)) {
        *missing = true;
        return operand;
    }
#pragma omp parallel for schedule(static)
    for (int64_t row = height; row < rows; row += PATTERN_ROWS)
        memcpy(operand + (size_t)row * row_bytes, operand,
               (size_t)lsp_min(PATTERN_ROWS, rows - row) * row_bytes);
    return operand;
}

static lsp_status make_operands(bench *b)
{
    const lsp_attention_desc *d = b->desc;
    lsp_status status =
        lsp_attention_runs(b->plan, LSP_QUERIES, &b->query_runs, &b->query_run_count, &b->query_rows);
    if (status == LSP_OK)
        status = lsp_attention_runs(b->plan, LSP_KEYS, &b->key_runs, &b->key_run_count, &b->key_rows);
    status = lsp_context_agree(b->ctx, status);
    if (status != LSP_OK) return status;
    bool missing = false;
    uint64_t seed = (uint64_t)b->ctx->layout.rank;
    size_t size = lsp_dtype_size(lsp_dtype_result(d->compute));
    b->q = make_operand(LSP_ROLE_Q, seed, d->q_type, b->query_rows, d->d_k, &missing);
    b->k = make_operand(LSP_ROLE_K, seed, d->k_type, b->key_rows, d->d_k, &missing);
    b->v = make_operand(LSP_ROLE_V, seed, d->v_type, b->key_rows, d->d_v, &missing);
    b->out = lsp_memory_zalloc(b->query_rows, (size_t)d->d_v * size);
    b->lse = lsp_memory_zalloc(b->query_rows, size);
    if (missing || !b->out || !b->lse)
        status = lsp_context_fail(b->ctx, LSP_ERR_LIMIT,
                                  "no memory for the operands; measure a smaller shape, or use more nodes");
    return lsp_context_agree(b->ctx, status);
}

static void bench_free(bench *b)
{
    void *const arrays[] = {b->q, b->k, b->v, b->out, b->lse};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) lsp_memory_free(arrays[i]);
    lsp_bandwidth_free(b->ctx, &b->bandwidth);
    (void)lsp_attention_destroy(&b->plan);
    lsp_memory_free(b);
}

/* ---- measuring ----------------------------------------------------------------------------------- */

/* Flops or bytes per second that all ranks can do just now; flops for about `seconds`, the same on all ranks. */
static lsp_status measure_limit(bench *b, double seconds, double *rate)
{
    lsp_status status = LSP_OK;
    if (b->options->limit == LSP_BENCH_READ) {
        status = lsp_bandwidth_pass(b->ctx, &b->bandwidth, rate);
    } else {
        double burst = 0;
        seconds = fmin(fmax(seconds, least_limit_seconds), most_limit_seconds);
        status = lsp_measure_fma_rate(b->ctx, lsp_attention_get_isa(b->plan), b->desc->compute, seconds, rate,
                                      &burst);
        *rate *= 1e9;
        b->burst_best = fmax(b->burst_best, burst * 1e9);
    }
    if (*rate > b->limit_best) b->limit_best = *rate;
    return status;
}

/* Executions one after the other; the time of one of them and since the start, the same on all ranks. */
static lsp_status repeat(bench *b, sample *s, double *elapsed)
{
    lsp_attention_stats stats = {0};
    lsp_status status = lsp_context_barrier(b->ctx);
    double begin = lsp_clock();
    for (int64_t i = 0; status == LSP_OK && i < b->executions; i++)
        status = lsp_attention_execute(b->plan, b->q, b->k, b->v, b->out, b->lse, &stats);
    double now = lsp_clock();
    double times[] = {(now - begin) / (double)b->executions, stats.seconds_gather_exposed, now - b->started};
    if (status == LSP_OK) status = lsp_context_max_f64(b->ctx, times, 3);
    *s = (sample){.seconds = times[0], .gather = times[1]};
    *elapsed = times[2];
    return status;
}

/* The first execution meets fresh memory; the second tells how many make a repetition, and how long that takes. */
static lsp_status warm_up(bench *b, double *seconds)
{
    sample s = {0};
    double elapsed = 0;
    b->executions = 1;
    lsp_status status = repeat(b, &s, &elapsed);
    if (status == LSP_OK) status = repeat(b, &s, &elapsed);
    if (s.seconds * MOST_EXECUTIONS < repetition_seconds)
        b->executions = MOST_EXECUTIONS;
    else if (s.seconds < repetition_seconds)
        b->executions = (int64_t)(repetition_seconds / s.seconds) + 1;
    *seconds = s.seconds * (double)b->executions;
    return status;
}

static lsp_status measure(bench *b)
{
    double before = 0, elapsed = 0, seconds = 0;
    lsp_status status = warm_up(b, &seconds);
    if (status == LSP_OK) status = measure_limit(b, seconds, &before);
    b->started = lsp_clock();
    while (status == LSP_OK && b->count < MOST_REPETITIONS &&
           (b->count < LEAST_REPETITIONS || elapsed < b->options->seconds)) {
        sample *s = &b->samples[b->count];
        double after = 0;
        status = repeat(b, s, &elapsed);
        if (status == LSP_OK) status = measure_limit(b, s->seconds * (double)b->executions, &after);
        s->limit = after;
        s->ideal = s->seconds * (before + after) / 2;
        before = after;
        b->count++;
    }
    return status;
}

/* ---- the result ---------------------------------------------------------------------------------- */

static int by_seconds(const void *a, const void *b)
{
    double x = ((const sample *)a)->seconds, y = ((const sample *)b)->seconds;
    return (x > y) - (x < y);
}

static int by_ideal(const void *a, const void *b)
{
    double x = ((const sample *)a)->ideal, y = ((const sample *)b)->ideal;
    return (x > y) - (x < y);
}

static int by_limit(const void *a, const void *b)
{
    double x = ((const sample *)a)->limit, y = ((const sample *)b)->limit;
    return (x > y) - (x < y);
}

static double work_of(const bench *b)
{
    const lsp_attention_desc *d = b->desc;
    if (b->options->limit == LSP_BENCH_FMA) return lsp_attention_get_estimate(b->plan).flops;
    double row_bytes = (double)d->d_k * (double)lsp_dtype_size(d->k_type) +
                       (double)d->d_v * (double)lsp_dtype_size(d->v_type);
    return (double)d->batch * (double)d->kv_heads * (double)d->m * row_bytes;
}

static void conclude(bench *b, lsp_bench_result *result)
{
    size_t count = (size_t)b->count;
    lsp_bench_result r = {.isa = lsp_attention_get_isa(b->plan),
                          .repetitions = b->count,
                          .work = work_of(b),
                          .limit_best = b->limit_best,
                          .burst_best = b->burst_best};
    qsort(b->samples, count, sizeof *b->samples, by_ideal);
    r.share_median = r.work / b->samples[count / 2].ideal;
    qsort(b->samples, count, sizeof *b->samples, by_limit);
    r.limit_scatter = b->limit_best / b->samples[count / 2].limit - 1;
    qsort(b->samples, count, sizeof *b->samples, by_seconds);
    r.seconds_best = b->samples[0].seconds;
    r.seconds_gather = b->samples[0].gather;
    r.seconds_median = b->samples[count / 2].seconds;
    r.share_best = r.work / r.seconds_best / r.limit_best;
    r.scatter = r.seconds_median / r.seconds_best - 1;
    *result = r;
}

static lsp_status verify(const bench *b, lsp_bench_result *result)
{
    if (b->options->verify_rows == 0) return LSP_OK;
    return lsp_verify_attention(b->ctx, b->desc, b->query_runs, b->query_run_count, b->key_runs,
                                b->key_run_count, b->q, b->k, b->v, b->out, b->lse, b->options->verify_rows,
                                0, 0, &result->verify);
}

lsp_status lsp_bench_attention(lsp_context *ctx, const lsp_attention_desc *desc,
                               const lsp_bench_options *options, lsp_bench_result *result)
{
    bench *b = lsp_memory_zalloc(1, sizeof *b);
    lsp_status status = LSP_OK;
    if (!b) status = lsp_context_fail(ctx, LSP_ERR_LIMIT, "no memory for the list of repetitions");
    status = lsp_context_agree(ctx, status);
    if (status != LSP_OK) {
        lsp_memory_free(b);
        return status;
    }
    b->ctx = ctx;
    b->desc = desc;
    b->options = options;
    lsp_bench_result found = {0};
    status = lsp_attention_create(ctx, desc, &b->plan);
    if (status == LSP_OK) status = make_operands(b);
    if (status == LSP_OK && options->limit == LSP_BENCH_READ)
        status = lsp_bandwidth_create(ctx, options->read_bytes, &b->bandwidth);
    if (status == LSP_OK) status = measure(b);
    if (status == LSP_OK) conclude(b, &found);
    if (status == LSP_OK) status = verify(b, &found);
    if (status == LSP_OK) *result = found;
    bench_free(b);
    return status;
}
