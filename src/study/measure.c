/* What the machine's arithmetic gives: the FMA peak. SPDX-License-Identifier: BSD-3-Clause */
#include "base/clock.h"
#include "comm/context.h"
#include "kernel/kernel.h"

#include <longspan/study.h>

/* The instruction set to measure: for AUTO the best that every rank has. */
static lsp_status choose_isa(lsp_context *ctx, lsp_isa *isa)
{
    if (*isa != LSP_ISA_AUTO) return LSP_OK;
    int64_t best = lsp_isa_best();
    lsp_status status = lsp_context_min_i64(ctx, &best, 1);
    if (status == LSP_OK) *isa = (lsp_isa)best;
    return status;
}

/* Best rate of one thread, flops/s. A burst lasts one to two milliseconds: long against the clock's
 * resolution, short enough that some burst meets no interrupt. */
static double measure_thread(const lsp_kernel *kernel, double seconds)
{
    const double burst_seconds = 1e-3;
    int64_t iterations = 1024;
    double best = 0, start = lsp_clock(), before = start, now = start;
    while (now - start < seconds || best <= 0) {
        double flops = kernel->fma_burst(iterations);
        now = lsp_clock();
        double taken = now - before;
        before = now;
        if (taken < burst_seconds && iterations < INT64_MAX / 4) {
            iterations *= 2;
            continue;
        }
        if (flops / taken > best) best = flops / taken;
    }
    return best;
}

lsp_status lsp_measure_fma_peak(lsp_context *ctx, lsp_isa isa, lsp_dtype compute, double seconds,
                                double *gflops)
{
    lsp_status status = choose_isa(ctx, &isa);
    const lsp_kernel *kernel = NULL;
    if (status == LSP_OK) {
        kernel = lsp_kernel_get(isa, compute);
        if (!kernel)
            status =
                lsp_context_fail(ctx, LSP_ERR_USAGE,
                                 "the FMA peak cannot be measured for instruction set %s and type %s: rank "
                                 "%d has no such kernel; choose another instruction set",
                                 lsp_isa_name(isa), lsp_dtype_name(compute), ctx->layout.rank);
    }
    status = lsp_context_agree(ctx, status);
    if (status == LSP_OK) status = lsp_context_barrier(ctx);
    if (status != LSP_OK) return status;
    double rate = 0;
#pragma omp parallel num_threads(ctx->layout.threads) reduction(+ : rate)
    {
#pragma omp barrier
        rate += measure_thread(kernel, seconds);
    }
    status = lsp_context_sum_f64(ctx, &rate, 1);
    if (status == LSP_OK) *gflops = rate * 1e-9;
    return status;
}
