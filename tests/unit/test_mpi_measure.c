/* The FMA peak, over ranks. SPDX-License-Identifier: BSD-3-Clause */
#include "mpi_case.h"

#include "base/clock.h"
#include "kernel/kernel.h"

#include <longspan/study.h>

static lsp_context *ctx;

static void measure_gives_every_rank_the_same_peak(void **state)
{
    (void)state;
    const lsp_dtype types[] = {LSP_F32, LSP_F64};
    for (int t = 0; t < 2; t++) {
        double peak = -1, sum = 0;
        assert_int_equal(lsp_measure_fma_peak(ctx, LSP_ISA_AUTO, types[t], 0.005, &peak), LSP_OK);
        assert_true(isfinite(peak) && peak > 0);
        assert_int_equal(MPI_Allreduce(&peak, &sum, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD), MPI_SUCCESS);
        assert_true(peak == sum);
    }
}

/* The rate, times the time of a burst, must be the flops of the burst: an error of units or a sum over
 * threads left out is far more than the factor that a busy machine makes here. */
static void measure_counts_in_gflops(void **state)
{
    (void)state;
    const int64_t iterations = 1 << 16;
    const lsp_kernel *kernel = lsp_kernel_get(LSP_ISA_PORTABLE, LSP_F64);
    double peak = -1, best = 0;
    assert_non_null(kernel);
    assert_int_equal(lsp_measure_fma_peak(ctx, LSP_ISA_PORTABLE, LSP_F64, 0.02, &peak), LSP_OK);
    for (int i = 0; i < 20; i++) {
        double start = lsp_clock(), flops = kernel->fma_burst(iterations);
        best = fmax(best, flops / (lsp_clock() - start) * 1e-9);
    }
    lsp_context_layout layout = lsp_context_get_layout(ctx);
    double expected = best * layout.threads * layout.ranks;
    assert_true(peak > expected / 50 && peak < expected * 50);
}

static void measure_refuses_what_no_kernel_has(void **state)
{
    (void)state;
    double peak = -1;
    assert_int_equal(lsp_measure_fma_peak(ctx, LSP_ISA_PORTABLE, LSP_F16, 0.001, &peak), LSP_ERR_USAGE);
    assert_true(peak == -1);
    assert_non_null(strstr(lsp_context_message(ctx), "portable"));
    assert_non_null(strstr(lsp_context_message(ctx), "f16"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(measure_gives_every_rank_the_same_peak),
        cmocka_unit_test(measure_counts_in_gflops),
        cmocka_unit_test(measure_refuses_what_no_kernel_has),
    };
    const test_context contexts[] = {{&ctx, TWO_IF_ALONE, false}};
    return RUN_OVER_RANKS("measure", tests, contexts, NULL, NULL);
}
