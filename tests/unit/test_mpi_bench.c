/* Read bandwidth, and attention measured beside its limit, over ranks. SPDX-License-Identifier: BSD-3-Clause */
#include "mpi_case.h"

#include "base/clock.h"

#include <longspan/study.h>

static lsp_context *ctx;

static void same_on_every_rank(double value)
{
    double most = 0;
    assert_int_equal(MPI_Allreduce(&value, &most, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD), MPI_SUCCESS);
    assert_true(value == most);
}

/* Three passes at the rate told take less than the call took: a rate too high by an error of units, or by an array
 * that is not read, would not fit. */
static void bandwidth_is_bytes_over_seconds(void **state)
{
    (void)state;
    lsp_context_layout layout = lsp_context_get_layout(ctx);
    double rate = -1, start = lsp_clock();
    int64_t bytes = 0;
    assert_int_equal(lsp_measure_read_bandwidth(ctx, 8 << 20, 0, &rate, &bytes), LSP_OK);
    double taken = lsp_clock() - start;
    assert_int_equal(bytes, 8 << 20);
    double pass = (double)bytes * layout.threads * layout.ranks / rate;
    assert_true(isfinite(rate) && pass > 0 && pass <= taken);
    same_on_every_rank(rate);
    assert_int_equal(lsp_measure_read_bandwidth(ctx, -1, 0, &rate, NULL), LSP_ERR_USAGE);
}

static lsp_attention_desc shape(int64_t heads, int64_t n, int64_t m, int64_t d)
{
    return (lsp_attention_desc){.batch = 1,
                                .heads = heads,
                                .kv_heads = heads,
                                .n = n,
                                .m = m,
                                .d_k = d,
                                .d_v = d,
                                .q_type = LSP_F32,
                                .k_type = LSP_F32,
                                .v_type = LSP_F32,
                                .compute = LSP_F32};
}

/* What the numbers must be to each other, whatever the machine is doing. */
static void check(const lsp_bench_result *r)
{
    assert_true(r->repetitions >= 5);
    assert_true(r->seconds_best > 0 && r->seconds_median >= r->seconds_best);
    assert_true(r->seconds_gather >= 0);
    assert_true(r->limit_best > 0 && r->share_median > 0 && r->limit_scatter >= 0);
    assert_true(fabs(r->share_best * r->seconds_best * r->limit_best / r->work - 1) < 1e-12);
    assert_true(fabs(r->scatter - (r->seconds_median / r->seconds_best - 1)) < 1e-12);
    assert_true(r->isa != LSP_ISA_AUTO);
    same_on_every_rank(r->seconds_median);
    same_on_every_rank(r->share_best);
}

static void bench_counts_visible_pairs(void **state)
{
    (void)state;
    lsp_attention_desc desc = shape(2, 50, 70, 16);
    const lsp_bench_options options = {.limit = LSP_BENCH_FMA, .verify_rows = 1000};
    lsp_bench_result result = {0};
    assert_int_equal(lsp_bench_attention(ctx, &desc, &options, &result), LSP_OK);
    check(&result);
    assert_true(result.burst_best >= result.limit_best);
    assert_true(result.work == 2.0 * 32 * 2 * 50 * 70);
    assert_true(result.verify.passed);
    assert_int_equal(result.verify.rows, 100);
    desc.mask = LSP_MASK_CAUSAL;
    assert_int_equal(lsp_bench_attention(ctx, &desc, &options, &result), LSP_OK);
    assert_true(result.work == 2.0 * 32 * 2 * (50 * 20 + 50 * 51 / 2)); /* bottom-right */
    assert_true(result.verify.passed);
}

/* More keys than the operands' pattern has rows. */
static void bench_counts_bytes_of_keys_and_values(void **state)
{
    (void)state;
    lsp_attention_desc desc = shape(2, 1, 20011, 8);
    desc.v_type = LSP_F64;
    const lsp_bench_options options = {.limit = LSP_BENCH_READ, .read_bytes = 1 << 20, .verify_rows = 2};
    lsp_bench_result result = {0};
    assert_int_equal(lsp_bench_attention(ctx, &desc, &options, &result), LSP_OK);
    check(&result);
    assert_true(result.work == 2.0 * 20011 * 8 * (4 + 8));
    assert_true(result.verify.passed);
}

static void bench_refuses_and_leaves_nothing(void **state)
{
    (void)state;
    lsp_attention_desc desc = shape(1, 10, 10, 8);
    desc.compute = LSP_F16;
    const lsp_bench_options options = {.limit = LSP_BENCH_FMA};
    lsp_bench_result result = {.repetitions = 77};
    int64_t before = lsp_memory_now();
    assert_int_equal(lsp_bench_attention(ctx, &desc, &options, &result), LSP_ERR_USAGE);
    assert_int_equal(result.repetitions, 77);
    desc = shape(1, 1 << 20, 1 << 20, 64);
    desc.memory_limit = 1 << 20;
    assert_int_equal(lsp_bench_attention(ctx, &desc, &options, &result), LSP_ERR_LIMIT);
    assert_int_equal(result.repetitions, 77);
    assert_true(strlen(lsp_context_message(ctx)) > 0);
    assert_int_equal(lsp_memory_now(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bandwidth_is_bytes_over_seconds),
        cmocka_unit_test(bench_counts_visible_pairs),
        cmocka_unit_test(bench_counts_bytes_of_keys_and_values),
        cmocka_unit_test(bench_refuses_and_leaves_nothing),
    };
    const test_context contexts[] = {{&ctx, TWO_IF_ALONE, false}};
    return RUN_OVER_RANKS("bench", tests, contexts, NULL, NULL);
}
