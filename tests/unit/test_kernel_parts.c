/* Kernels: exp2 and tanh, the end of rows, shapes, dispatch and floating-point mode.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include "kernel_case.h"

#include <float.h>

/* The tile's shape is part of the result's bits: a change here changes every user's checksums. */
static void shapes_depend_on_widths_and_type_alone(void **state)
{
    (void)state;
    for (int isa = LSP_ISA_PORTABLE; isa <= LSP_ISA_AVX512; isa++) {
        const lsp_kernel *f32 = lsp_kernel_get((lsp_isa)isa, LSP_F32),
                         *f64 = lsp_kernel_get((lsp_isa)isa, LSP_F64);
        if (!f32 || !f64) continue;
        const int64_t widths[] = {64, 65, 128, 129, 256, 257, 512, 513};
        const int64_t keys32[] = {512, 512, 512, 256, 256, 256, 256, 128};
        const int64_t keys64[] = {512, 256, 256, 256, 256, 128, 128, 128};
        for (int i = 0; i < 8; i++) {
            lsp_tile_shape a = f32->shape(widths[i], widths[i]), b = f64->shape(widths[i], widths[i]);
            assert_int_equal(a.tile_keys, keys32[i]);
            assert_int_equal(b.tile_keys, keys64[i]);
            assert_int_equal(a.strip_keys, 64);
            assert_int_equal(b.strip_keys, 32);
            assert_int_equal(a.v_stride, (widths[i] + 15) / 16 * 16);
            assert_int_equal(b.v_stride, (widths[i] + 7) / 8 * 8);
        }
    }
}

/* One row whose scores are x[0] = 0 and x[j] <= 0. V is the unit matrix, so that the state holds the
 * probabilities, in their unit. */
static void probabilities(const lsp_kernel *kernel, const double *x, int64_t count, double *p)
{
    kernel_case c = case_make(1, count, 1, count, 0);
    assert_true(kernel->shape(1, count).tile_keys >= count);
    c.scale = 1 / LOG2_E, c.q[0] = 1;
    for (int64_t i = 0; i < count; i++) c.k[i] = (float)x[i];
    for (int64_t i = 0; i < count * count; i++) c.v[i] = i % (count + 1) == 0;
    kernel_result r = case_run(kernel, &c, 1);
    for (int64_t i = 0; i < count; i++) p[i] = number_at(&r, r.state, i) / kernel->sum_unit;
    result_free(&r);
    case_free(&c);
}

static void check_exp2(const lsp_kernel *kernel)
{
    enum { COUNT = 200, ROUNDS = 48 };
    if (kernel->compute == LSP_BF16) return; /* rounds more than that: check_brain_exp2 */
    bool f32 = kernel->compute == LSP_F32;
    const double least = (f32 ? 0x1p-126 : 0x1p-1022) / kernel->sum_unit, lowest = log2(least);
    const double epsilon = f32 ? FLT_EPSILON : DBL_EPSILON;
    double x[COUNT], p[COUNT], worst = 0;
    for (int round = 0; round < ROUNDS; round++) {
        const double spans[] = {1, 20, -lowest, 1.2 * -lowest};
        for (int i = 0; i < COUNT; i++)
            x[i] = (double)(float)(-spans[round % 4] * lsp_random_uniform(1, (uint64_t)round, (uint64_t)i));
        x[0] = 0, x[1] = -INFINITY, x[2] = -1, x[3] = ceil(lowest), x[4] = -3e38, x[5] = -0x1p-30,
        x[6] = 1.01 * lowest;
        probabilities(kernel, x, COUNT, p);
        assert_true(p[0] == 1 && p[1] == 0 && p[2] == 0.5 && p[3] == exp2(x[3]) && p[4] == 0 && p[6] == 0);
        for (int i = 0; i < COUNT; i++) {
            long double exact = exp2l((long double)x[i]);
            if (exact < (long double)least) {
                assert_true(p[i] == 0 || p[i] == least);
                continue;
            }
            long double ulp = exp2l(floorl(log2l(exact))) * (long double)epsilon;
            worst = fmax(worst, (double)(fabsl((long double)p[i] - exact) / ulp));
        }
    }
    if (worst > 2)
        fail_msg("%s %s: exp2 off by %g ulp", lsp_isa_name(kernel->isa), f32 ? "f32" : "f64", worst);
}

/* Rounded to 8 bits; the polynomial may be off by a little, so that a number near a tie goes the other way. */
static void check_brain_exp2(const lsp_kernel *kernel)
{
    enum { COUNT = 200, ROUNDS = 48 };
    if (kernel->compute != LSP_BF16) return;
    double x[COUNT], p[COUNT];
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < COUNT; i++) {
            double span = i % 2 ? 1 : 100;
            x[i] = lsp_convert_from_bf16(
                lsp_convert_to_bf16(-span * lsp_random_uniform(1, (uint64_t)round, (uint64_t)i)));
        }
        x[0] = 0, x[1] = -INFINITY, x[2] = -1, x[3] = -60, x[4] = -3e38, x[5] = -0x1p-30;
        probabilities(kernel, x, COUNT, p);
        assert_true(p[0] == 1 && p[1] == 0 && p[2] == 0.5 && p[3] == 0x1p-60 && p[4] == 0 && p[5] == 1);
        for (int i = 0; i < COUNT; i++) {
            double exact = exp2(x[i]);
            assert_true(lsp_convert_from_bf16(lsp_convert_to_bf16(p[i])) == p[i]);
            if (p[i] != 0 && !(fabs(p[i] / exact - 1) <= 0x1p-8 + 2e-4))
                fail_msg("%s: exp2(%a) is %a", lsp_isa_name(kernel->isa), x[i], p[i]);
        }
    }
}

static void exp2_of_bf16_is_rounded_once(void **state)
{
    (void)state;
    for_each_kernel(check_brain_exp2);
}

static void exp2_is_within_two_ulp(void **state)
{
    (void)state;
    for_each_kernel(check_exp2);
}

/* A row that sees one key: its maximum is the score after the rule. */
static void check_softcap(const lsp_kernel *kernel)
{
    enum { COUNT = 2000 };
    const double large = 0x1p40;
    bool f32 = kernel->compute != LSP_F64;
    kernel_case c = case_make(COUNT, 1, 1, 1, 0);
    /* The only score shows as the log-sum-exp, to a relative error when it is large. */
    c.scale = 1 / LOG2_E, c.softcap = large * 4 / LOG2_E, c.k[0] = 1;
    for (int i = 0; i < COUNT; i++) {
        double size = exp2(-40 * lsp_random_uniform(2, 1, (uint64_t)i) + 7);
        c.q[i] = (float)(large * (i % 2 ? size : -size));
    }
    c.q[0] = INFINITY, c.q[1] = 0, c.q[2] = (float)large * 2.5F, c.q[3] = (float)large * 2.4999998F;
    kernel_result r = case_run(kernel, &c, COUNT);
    double worst = 0;
    for (int i = 0; i < COUNT; i++) {
        double got = number_at(&r, r.lse, i) * LOG2_E / large;
        double exact = 4 * tanh(rounded(kernel, (double)c.q[i]) / large / 4);
        if (c.q[i] == 0) assert_true(got == 0);
        if (c.q[i] != 0) worst = fmax(worst, fabs(got / exact - 1));
    }
    double allowed = 4 * (f32 ? FLT_EPSILON : DBL_EPSILON);
    if (!(worst <= allowed))
        fail_msg("%s: tanh off by %g, allowed %g", lsp_isa_name(kernel->isa), worst, allowed);
    result_free(&r);
    case_free(&c);
}

static void softcap_keeps_relative_accuracy(void **state)
{
    (void)state;
    for_each_kernel(check_softcap);
}

static void check_finish(const lsp_kernel *kernel)
{
    enum { ROWS = 4, D = 21 };
    kernel_case c = {.n = ROWS, .d_v = D};
    kernel_result r = result_make(kernel, &c);
    const double max[ROWS] = {-INFINITY, 3, 0, 0}, sum[ROWS] = {0, 8, 1, NAN};
    const double epsilon = kernel->compute == LSP_F64 ? DBL_EPSILON : FLT_EPSILON;
    for (int i = 0; i < ROWS; i++) {
        number_set(&r, r.max, i, max[i]);
        number_set(&r, r.sum, i, sum[i] * kernel->sum_unit);
        for (int d = 0; d < D; d++) number_set(&r, r.out, i * D + d, d);
    }
    number_set(&r, r.out, 2 * D + 5, -0.0);
    number_set(&r, r.out, 2 * D + 6, -NAN);
    assert_int_equal(kernel->finish(D, ROWS, r.out, r.max, r.sum, r.lse), 1);
    for (int d = 0; d < D; d++) {
        assert_true(number_at(&r, r.out, d) == 0 && !signbit(number_at(&r, r.out, d)));
        double share = d / kernel->sum_unit / 8;
        assert_true(fabs(number_at(&r, r.out, D + d) - share) <= epsilon * share);
        assert_true(isnan(number_at(&r, r.out, 3 * D + d)) && !signbit(number_at(&r, r.out, 3 * D + d)));
    }
    assert_false(signbit(number_at(&r, r.out, 2 * D + 5)));
    assert_true(isnan(number_at(&r, r.out, 2 * D + 6)) && !signbit(number_at(&r, r.out, 2 * D + 6)));
    double expected = 6 * log(2);
    assert_true(number_at(&r, r.lse, 0) == -INFINITY);
    assert_true(fabs(number_at(&r, r.lse, 1) / expected - 1) <= epsilon);
    assert_true(number_at(&r, r.lse, 2) == 0 && isnan(number_at(&r, r.lse, 3)));
    assert_int_equal(kernel->finish(D, ROWS, r.out, r.max, r.sum, NULL), 1);
    result_free(&r);
}

static void finish_divides_and_takes_the_logarithm(void **state)
{
    (void)state;
    for_each_kernel(check_finish);
}

/* Rows that see the first keys only, the last only, all, and none (random sights), three tiles. */
static void check_fold(const lsp_kernel *kernel)
{
    int64_t keys = kernel->shape(20, 21).tile_keys;
    kernel_case c = case_make(23, 3 * keys - 7, 20, 21, 5);
    case_random_sights(&c, 6);
    c.sight[0] = (lsp_sight){0, 9, 0}, c.sight[1] = (lsp_sight){3 * keys - 9, 3 * keys - 7, 0};
    c.sight[2] = (lsp_sight){0, c.m, 0}, c.sight[3] = (lsp_sight){keys - 1, keys + 1, 0};
    kernel_result plain = case_run(kernel, &c, 7), rare = case_run_folding(kernel, &c, 7, 3),
                  often = case_run_folding(kernel, &c, 7, 1);
    size_t bytes = (size_t)(c.n * c.d_v) * plain.size;
    assert_memory_equal(plain.out, rare.out, bytes); /* one fold at the end is exact */
    assert_memory_equal(plain.lse, rare.lse, (size_t)c.n * plain.size);
    assert_int_equal(often.empty, plain.empty);
    double tolerance = kernel->compute == LSP_F64 ? 1e-14 : kernel->compute == LSP_F32 ? 2e-6 : 2e-2;
    for (int64_t i = 0; i < c.n * c.d_v; i++) {
        double a = number_at(&often, often.out, i), b = number_at(&plain, plain.out, i);
        assert_true(fabs(a - b) <= tolerance * fmax(1, fabs(b)));
    }
    assert_memory_equal(plain.out, often.out,
                        (size_t)c.d_v * plain.size); /* row 0: folds of nothing change nothing */
    result_free(&plain);
    result_free(&rare);
    result_free(&often);
    case_free(&c);
}

static void folding_adds_and_empties(void **state)
{
    (void)state;
    for_each_kernel(check_fold);
}

static void check_burst(const lsp_kernel *kernel)
{
    double once = kernel->fma_burst(10);
    assert_true(once > 0 && once == 10 * kernel->fma_burst(1));
    assert_int_equal((int64_t)once % (20 * kernel->lanes), 0);
}

static void dispatch_gives_what_the_machine_runs(void **state)
{
    (void)state;
    for_each_kernel(check_burst);
    for (int isa = LSP_ISA_PORTABLE; isa <= LSP_ISA_AVX512; isa++) {
        for (int type = LSP_BF16; type <= LSP_F64; type++) {
            const lsp_kernel *kernel = lsp_kernel_get((lsp_isa)isa, (lsp_dtype)type);
            assert_int_equal(kernel != NULL, isa <= (int)lsp_isa_best());
            if (kernel) assert_true((int)kernel->isa == isa && (int)kernel->compute == type);
        }
        assert_null(lsp_kernel_get((lsp_isa)isa, LSP_F16));
    }
    assert_null(lsp_kernel_get(LSP_ISA_AUTO, LSP_F32));
    assert_string_equal(lsp_isa_name(LSP_ISA_AVX512), "avx512");
    assert_string_equal(lsp_isa_name(LSP_ISA_PORTABLE), "portable");
}

static void fpmode_flushes_denormals_and_comes_back(void **state)
{
    (void)state;
    volatile double tiny = DBL_MIN, half = 0.5;
    assert_true(tiny * half > 0);
    uint64_t before = lsp_fpmode_enter();
    volatile double product = tiny * half; /* volatile: not moved behind the next call */
    lsp_fpmode_leave(before);
    bool flushed = product == 0;
#if defined(__x86_64__) || defined(__aarch64__)
    assert_true(flushed);
#else
    (void)flushed;
#endif
    assert_true(tiny * half > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes_depend_on_widths_and_type_alone),
        cmocka_unit_test(exp2_is_within_two_ulp),
        cmocka_unit_test(exp2_of_bf16_is_rounded_once),
        cmocka_unit_test(softcap_keeps_relative_accuracy),
        cmocka_unit_test(finish_divides_and_takes_the_logarithm),
        cmocka_unit_test(folding_adds_and_empties),
        cmocka_unit_test(dispatch_gives_what_the_machine_runs),
        cmocka_unit_test(fpmode_flushes_denormals_and_comes_back),
    };
    return cmocka_run_group_tests_name("kernel_parts", tests, NULL, NULL);
}
