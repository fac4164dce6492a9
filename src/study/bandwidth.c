/* What the machine's memory gives: the bandwidth of reading. SPDX-License-Identifier: BSD-3-Clause */
#include "study/bandwidth.h"

#include "base/checked.h"
#include "base/clock.h"
#include "base/memory.h"
#include "comm/context.h"

#include <inttypes.h>
#include <longspan/study.h>
#include <omp.h>
#include <unistd.h>

enum { SUMS = 32, LEAST_BYTES = 64 << 20, MEMORY_PART = 4 };

/* Twice the last cache: going round an array of this size finds next to nothing in it. Not more than a part of the
 * memory, where many threads share little. */
static int64_t choose_bytes(const lsp_context *ctx)
{
    int64_t cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
    int64_t most = lsp_memory_available(NULL) / MEMORY_PART / lsp_max(1, ctx->layout.threads_node);
    int64_t bytes = lsp_max(LEAST_BYTES, 2 * lsp_max(0, cache));
    return most > 0 ? lsp_min(bytes, most) : bytes;
}

lsp_status lsp_bandwidth_create(lsp_context *ctx, int64_t bytes, lsp_bandwidth *bandwidth)
{
    int threads = ctx->layout.threads;
    int64_t chosen = bytes > 0 ? bytes : choose_bytes(ctx);
    *bandwidth = (lsp_bandwidth){.words = lsp_round_up(lsp_ceil_div(chosen, sizeof(uint64_t)), SUMS)};
    bandwidth->arrays = lsp_memory_zalloc(threads, sizeof *bandwidth->arrays);
    bool missing = !bandwidth->arrays;
    if (!missing) {
#pragma omp parallel num_threads(threads) reduction(|| : missing)
        {
            uint64_t *array = lsp_memory_alloc(bandwidth->words, sizeof *array);
            bandwidth->arrays[omp_get_thread_num()] = array;
            for (int64_t i = 0; array && i < bandwidth->words; i++) array[i] = (uint64_t)i;
            missing = !array;
        }
    }
    lsp_status status = LSP_OK;
    if (missing)
        status = lsp_context_fail(ctx, LSP_ERR_LIMIT,
                                  "no memory for the arrays of the read bandwidth: %" PRId64
                                  " bytes for each of %d threads; use smaller ones",
                                  bandwidth->words * (int64_t)sizeof(uint64_t), threads);
    return lsp_context_agree(ctx, status);
}

/* Sums that do not wait for each other. */
static uint64_t add_up(const uint64_t *words, int64_t count)
{
    uint64_t sums[SUMS] = {0}, sum = 0;
    for (int64_t i = 0; i < count; i += SUMS)
        for (int64_t j = 0; j < SUMS; j++) sums[j] += words[i + j];
    for (int j = 0; j < SUMS; j++) sum += sums[j];
    return sum;
}

lsp_status lsp_bandwidth_pass(lsp_context *ctx, lsp_bandwidth *bandwidth, double *bytes_per_second)
{
    uint64_t sum = 0;
    lsp_status status = lsp_context_barrier(ctx);
    double seconds = lsp_clock();
#pragma omp parallel num_threads(ctx->layout.threads) reduction(+ : sum)
    sum += add_up(bandwidth->arrays[omp_get_thread_num()], bandwidth->words);
    seconds = lsp_clock() - seconds;
    bandwidth->sum += sum;
    double bytes = (double)bandwidth->words * sizeof(uint64_t) * ctx->layout.threads;
    if (status == LSP_OK) status = lsp_context_max_f64(ctx, &seconds, 1);
    if (status == LSP_OK) status = lsp_context_sum_f64(ctx, &bytes, 1);
    if (status == LSP_OK) *bytes_per_second = bytes / seconds;
    return status;
}

void lsp_bandwidth_free(lsp_context *ctx, lsp_bandwidth *bandwidth)
{
    for (int t = 0; bandwidth->arrays && t < ctx->layout.threads; t++) lsp_memory_free(bandwidth->arrays[t]);
    lsp_memory_free(bandwidth->arrays);
    *bandwidth = (lsp_bandwidth){0};
}

lsp_status lsp_measure_read_bandwidth(lsp_context *ctx, int64_t bytes, double seconds,
                                      double *bytes_per_second, int64_t *array_bytes)
{
    enum { LEAST_PASSES = 3 };
    lsp_bandwidth bandwidth = {0};
    lsp_status status = LSP_OK;
    if (bytes < 0)
        status =
            lsp_context_fail(ctx, LSP_ERR_USAGE, "the read bandwidth of %" PRId64 " bytes asked for", bytes);
    status = lsp_context_agree(ctx, status);
    if (status == LSP_OK) status = lsp_bandwidth_create(ctx, bytes, &bandwidth);
    double best = 0, spent = 0, start = lsp_clock();
    for (int pass = 0; status == LSP_OK && (pass < LEAST_PASSES || spent < seconds); pass++) {
        double rate = 0;
        status = lsp_bandwidth_pass(ctx, &bandwidth, &rate);
        if (rate > best) best = rate;
        spent = lsp_clock() - start;
        if (status == LSP_OK) status = lsp_context_max_f64(ctx, &spent, 1);
    }
    if (status == LSP_OK) {
        *bytes_per_second = best;
        if (array_bytes) *array_bytes = bandwidth.words * (int64_t)sizeof(uint64_t);
    }
    lsp_bandwidth_free(ctx, &bandwidth);
    return status;
}
