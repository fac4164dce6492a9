/* What the machine's arithmetic gives: FMAs, in the best moment and in a while. SPDX-License-Identifier: BSD-3-Clause */
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

/* flops/s of one thread. */
typedef struct fma_rates {
    double best, whole; /* of the best burst; of all of them, one after the other */
} fma_rates;

/* A burst lasts one to two milliseconds: long against the clock's resolution, short enough that some burst meets no
 * interrupt, and the processor's best clock. */
static fma_rates measure_thread(const lsp_kernel *kernel, double seconds)
{
    const double burst_seconds = 1e-3;
    int64_t iterations = 1024;
    double best = 0, flops_all = 0, begin = lsp_clock(), start = begin, before = start, now = start;
    while (now - begin < seconds || flops_all <= 0) {
        double flops = kernel->fma_burst(iterations);
        now = lsp_clock();
        double taken = now - before;
        before = now;
        /* One that was interrupted may have seemed long enough: half as long tells, and what was counted is left out. */
        if (taken < (flops_all > 0 ? burst_seconds / 2 : burst_seconds) && iterations < INT64_MAX / 4) {
            iterations *= 2;
            start = now;
            best = flops_all = 0;
            continue;
        }
        flops_all += flops;
        if (flops / taken > best) best = flops / taken;
    }
    return (fma_rates){best, flops_all / (now - start)};
}

lsp_status lsp_measure_fma_rate(lsp_context *ctx, lsp_isa isa, lsp_dtype compute, double seconds,
                                double *gflops, double *peak_gflops)
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
    double best = 0, whole = 0;
#pragma omp parallel num_threads(ctx->layout.threads) reduction(+ : best, whole)
    {
#pragma omp barrier
        fma_rates rates = measure_thread(kernel, seconds);
        best += rates.best;
        whole += rates.whole;
    }
    double rates[] = {whole, best};
    status = lsp_context_sum_f64(ctx, rates, 2);
    if (status == LSP_OK) *gflops = rates[0] * 1e-9, *peak_gflops = rates[1] * 1e-9;
    return status;
}

lsp_status lsp_measure_fma_peak(lsp_context *ctx, lsp_isa isa, lsp_dtype compute, double seconds,
                                double *gflops)
{
    double whole = 0;
    return lsp_measure_fma_rate(ctx, isa, compute, seconds, &whole, gflops);
}
