/* Kernels: packing and conversions, exp2 and tanh, the end of rows, dispatch and floating-point mode.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include "kernel_case.h"

#include <float.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* Calls `check` for every table entry of this machine. */
static void for_each_kernel(void (*check)(const lsp_kernel *kernel))
{
    int count = 0;
    for (int isa = LSP_ISA_PORTABLE; isa <= LSP_ISA_AVX512; isa++) {
        for (int type = LSP_F32; type <= LSP_F64; type++) {
            const lsp_kernel *kernel = lsp_kernel_get((lsp_isa)isa, (lsp_dtype)type);
            if (!kernel) continue;
            check(kernel);
            count++;
        }
    }
    assert_true(count >= 2);
}

static double element(const lsp_kernel *kernel, const void *array, int64_t index)
{
    return kernel->compute == LSP_F32 ? (double)((const float *)array)[index]
                                      : ((const double *)array)[index];
}

/* The value of a half-precision number, from its definition. */
static double half_value(uint16_t bits)
{
    int exponent = bits >> 10 & 31;
    double mantissa = bits & 1023, sign = bits & 0x8000 ? -1 : 1;
    if (exponent == 31) return mantissa > 0 ? NAN : sign * INFINITY;
    return sign * (exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24));
}

static double brain_value(uint16_t bits)
{
    int exponent = bits >> 7 & 255;
    double mantissa = bits & 127, sign = bits & 0x8000 ? -1 : 1;
    if (exponent == 255) return mantissa > 0 ? NAN : sign * INFINITY;
    return sign * (exponent ? ldexp(128 + mantissa, exponent - 134) : ldexp(mantissa, -133));
}

static void check_sixteen_bit_types(const lsp_kernel *kernel)
{
    enum { COUNT = 65536 };
    uint16_t *src = lsp_memory_alloc(COUNT, sizeof *src);
    double *q = lsp_memory_alloc(COUNT, sizeof *q);
    for (int i = 0; i < COUNT; i++) src[i] = (uint16_t)i;
    for (int type = LSP_F16; type <= LSP_BF16; type++) {
        kernel->pack_queries(COUNT, src, (lsp_dtype)type, 1, 1.0, q);
        for (int i = 0; i < COUNT; i++) {
            double expected = type == LSP_F16 ? half_value((uint16_t)i) : brain_value((uint16_t)i);
            double got = element(kernel, q, i);
            if (isnan(expected) ? !isnan(got) : (got != expected || !signbit(got) != !signbit(expected)))
                fail_msg("%s bits %04x: %g, expected %g", lsp_dtype_name((lsp_dtype)type), (unsigned)i, got,
                         expected);
        }
    }
    lsp_memory_free(src);
    lsp_memory_free(q);
}

static void sixteen_bit_types_convert_exactly(void **state)
{
    (void)state;
    for_each_kernel(check_sixteen_bit_types);
}

/* f64 to f32 rounds to nearest even; the factor is applied before that rounding. */
static void check_wide_types(const lsp_kernel *kernel)
{
    enum { COUNT = 1001 };
    double src[COUNT], q[COUNT];
    float narrow[COUNT];
    for (int i = 0; i < COUNT; i++) {
        src[i] = ldexp(lsp_random_normal(3, 1, (uint64_t)i), i % 60 - 30);
        narrow[i] = (float)src[i];
    }
    src[0] = 1 + 0x1p-24, src[1] = 1 + 0x3p-24, src[2] = 1e300, src[3] = -1 - 0x1.0000001p-24;
    bool f32 = kernel->compute == LSP_F32;
    const double factors[] = {1.0, LOG2_E / 8};
    for (int f = 0; f < 2; f++) {
        kernel->pack_queries(COUNT, src, LSP_F64, 1, factors[f], q);
        for (int i = 0; i < COUNT; i++) {
            double exact = src[i] * factors[f];
            assert_true(element(kernel, q, i) == (f32 ? (double)(float)exact : exact));
        }
        kernel->pack_queries(7, narrow, LSP_F32, COUNT / 7, factors[f], q);
        for (int i = 0; i < COUNT; i++) {
            double exact = (double)narrow[i] * factors[f];
            assert_true(element(kernel, q, i) == (f32 ? (double)(float)exact : exact));
        }
    }
}

static void wide_types_round_once(void **state)
{
    (void)state;
    for_each_kernel(check_wide_types);
}

/* Element `index` of src in each stored type, as the computing type must hold it. */
static double stored_element(const lsp_kernel *kernel, lsp_dtype type, const void *src, int64_t index)
{
    if (type == LSP_F16) return half_value(((const uint16_t *)src)[index]);
    if (type == LSP_BF16) return brain_value(((const uint16_t *)src)[index]);
    if (type == LSP_F32) return (double)((const float *)src)[index];
    double value = ((const double *)src)[index];
    return kernel->compute == LSP_F32 ? (double)(float)value : value;
}

static void fill_stored(lsp_dtype type, void *src, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        double x = lsp_random_normal(8, 0, (uint64_t)i);
        if (type == LSP_F32) ((float *)src)[i] = (float)x;
        if (type == LSP_F64) ((double *)src)[i] = x;
        if (type <= LSP_BF16) ((uint16_t *)src)[i] = (uint16_t)(0x3000 + i * 37 % 4096);
    }
}

static void check_packed(const lsp_kernel *kernel, lsp_dtype type, const lsp_tile_shape *shape,
                         int64_t offset, int64_t count)
{
    size_t size = lsp_dtype_size(kernel->compute);
    void *src = lsp_memory_alloc(count * lsp_max(shape->d_k, shape->d_v), lsp_dtype_size(type));
    void *k = lsp_memory_alloc(shape->tile_keys * shape->d_k, size);
    void *v = lsp_memory_alloc(shape->tile_keys * shape->v_stride, size);
    memset(k, 0xFF, (size_t)(shape->tile_keys * shape->d_k) * size);
    memset(v, 0xFF, (size_t)(shape->tile_keys * shape->v_stride) * size);
    fill_stored(type, src, count * lsp_max(shape->d_k, shape->d_v));
    kernel->pack_k(shape, src, type, offset, count, k);
    assert_true(kernel->pack_v(shape, src, type, offset, count, v));
    for (int64_t j = 0; j < shape->tile_keys; j++) {
        bool present = j >= offset && j < offset + count;
        for (int64_t d = 0; d < shape->d_k; d++) {
            int64_t strip = j / shape->strip_keys, lane = j % shape->strip_keys;
            double got = element(kernel, k, (strip * shape->d_k + d) * shape->strip_keys + lane);
            assert_true(got ==
                        (present ? stored_element(kernel, type, src, (j - offset) * shape->d_k + d) : 0));
        }
        for (int64_t d = 0; d < shape->v_stride; d++) {
            bool there = present && d < shape->d_v;
            double got = element(kernel, v, j * shape->v_stride + d);
            assert_true(got ==
                        (there ? stored_element(kernel, type, src, (j - offset) * shape->d_v + d) : 0));
        }
    }
    lsp_memory_free(src);
    lsp_memory_free(k);
    lsp_memory_free(v);
}

static void check_packing(const lsp_kernel *kernel)
{
    const int64_t widths[][2] = {{1, 1}, {64, 64}, {17, 33}, {80, 100}, {31, 16}, {300, 7}};
    for (int w = 0; w < 6; w++) {
        lsp_tile_shape shape = kernel->shape(widths[w][0], widths[w][1]);
        assert_int_equal(shape.tile_keys % shape.strip_keys, 0);
        for (int type = LSP_F16; type <= LSP_F64; type++) {
            check_packed(kernel, (lsp_dtype)type, &shape, 0, shape.tile_keys);
            check_packed(kernel, (lsp_dtype)type, &shape, 0, shape.tile_keys - 5);
            check_packed(kernel, (lsp_dtype)type, &shape, 67, 1);
            check_packed(kernel, (lsp_dtype)type, &shape, 3, 98);
        }
    }
}

static void packing_places_every_element(void **state)
{
    (void)state;
    for_each_kernel(check_packing);
}

static void check_finite_flag(const lsp_kernel *kernel)
{
    enum { KEYS = 37, D = 19 };
    lsp_tile_shape shape = kernel->shape(D, D);
    void *v = lsp_memory_alloc(shape.tile_keys * shape.v_stride, sizeof(double));
    double src[KEYS * D];
    for (int at = 0; at < KEYS * D; at += 13) {
        for (int what = 0; what < 4; what++) {
            const double bad[] = {NAN, INFINITY, -INFINITY, 1e39}; /* 1e39 is infinite in f32 only */
            for (int i = 0; i < KEYS * D; i++) src[i] = i % 7 - 3;
            src[at] = bad[what];
            bool finite = what == 3 && kernel->compute == LSP_F64;
            assert_int_equal(kernel->pack_v(&shape, src, LSP_F64, 4, KEYS, v), finite);
        }
    }
    lsp_memory_free(v);
}

static void pack_v_tells_what_is_not_finite(void **state)
{
    (void)state;
    for_each_kernel(check_finite_flag);
}

/* The tile's shape is part of the result's bits: a change here changes every user's checksums. */
static void shapes_depend_on_widths_and_type_alone(void **state)
{
    (void)state;
    for (int isa = LSP_ISA_PORTABLE; isa <= LSP_ISA_AVX512; isa++) {
        const lsp_kernel *f32 = lsp_kernel_get((lsp_isa)isa, LSP_F32),
                         *f64 = lsp_kernel_get((lsp_isa)isa, LSP_F64);
        if (!f32 || !f64) continue;
        const int64_t widths[] = {64, 256, 257, 512, 513}, keys32[] = {512, 512, 256, 256, 128};
        const int64_t keys64[] = {512, 256, 128, 128, 128};
        for (int i = 0; i < 5; i++) {
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
 * probabilities. */
static void probabilities(const lsp_kernel *kernel, const double *x, int64_t count, double *p)
{
    kernel_case c = case_make(1, count, 1, count, 0);
    assert_true(kernel->shape(1, count).tile_keys >= count);
    c.scale = 1 / LOG2_E, c.q[0] = 1;
    for (int64_t i = 0; i < count; i++) c.k[i] = (float)x[i];
    for (int64_t i = 0; i < count * count; i++) c.v[i] = i % (count + 1) == 0;
    kernel_result r = case_run(kernel, &c, 1);
    for (int64_t i = 0; i < count; i++) p[i] = number_at(&r, r.state, i);
    result_free(&r);
    case_free(&c);
}

static void check_exp2(const lsp_kernel *kernel)
{
    enum { COUNT = 200, ROUNDS = 48 };
    bool f32 = kernel->compute == LSP_F32;
    const double lowest = f32 ? -126 : -1022, epsilon = f32 ? FLT_EPSILON : DBL_EPSILON;
    double x[COUNT], p[COUNT], worst = 0;
    for (int round = 0; round < ROUNDS; round++) {
        const double spans[] = {1, 20, -lowest, 1.2 * -lowest};
        for (int i = 0; i < COUNT; i++)
            x[i] = (double)(float)(-spans[round % 4] * lsp_random_uniform(1, (uint64_t)round, (uint64_t)i));
        x[0] = 0, x[1] = -INFINITY, x[2] = -1, x[3] = lowest, x[4] = -3e38, x[5] = -0x1p-30,
        x[6] = 1.01 * lowest;
        probabilities(kernel, x, COUNT, p);
        assert_true(p[0] == 1 && p[1] == 0 && p[2] == 0.5 && p[3] == exp2(lowest) && p[4] == 0 && p[6] == 0);
        for (int i = 0; i < COUNT; i++) {
            long double exact = exp2l((long double)x[i]);
            if (x[i] < lowest) {
                assert_true(p[i] == 0 || p[i] == exp2(lowest));
                continue;
            }
            long double ulp = exp2l(floorl(log2l(exact))) * (long double)epsilon;
            worst = fmax(worst, (double)(fabsl((long double)p[i] - exact) / ulp));
        }
    }
    if (worst > 2)
        fail_msg("%s %s: exp2 off by %g ulp", lsp_isa_name(kernel->isa), f32 ? "f32" : "f64", worst);
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
    bool f32 = kernel->compute == LSP_F32;
    kernel_case c = case_make(COUNT, 1, 1, 1, 0);
    c.scale = 1 / LOG2_E, c.softcap = 4 / LOG2_E, c.k[0] = 1;
    for (int i = 0; i < COUNT; i++) {
        double size = exp2(-40 * lsp_random_uniform(2, 1, (uint64_t)i) + 7);
        c.q[i] = (float)(i % 2 ? size : -size);
    }
    c.q[0] = INFINITY, c.q[1] = 0, c.q[2] = 2.5F, c.q[3] = 2.4999998F;
    kernel_result r = case_run(kernel, &c, COUNT);
    double worst = 0;
    for (int i = 0; i < COUNT; i++) {
        double got = number_at(&r, r.max, i), exact = 4 * tanh((double)c.q[i] / 4);
        if (c.q[i] == 0) assert_true(got == 0);
        if (c.q[i] != 0) worst = fmax(worst, fabs(got / exact - 1));
    }
    double allowed = 3 * (f32 ? FLT_EPSILON : DBL_EPSILON);
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
    for (int i = 0; i < ROWS; i++) {
        number_set(&r, r.max, i, max[i]);
        number_set(&r, r.sum, i, sum[i]);
        for (int d = 0; d < D; d++) number_set(&r, r.out, i * D + d, d);
    }
    number_set(&r, r.out, 2 * D + 5, -0.0);
    number_set(&r, r.out, 2 * D + 6, -NAN);
    assert_int_equal(kernel->finish(D, ROWS, r.out, r.max, r.sum, r.lse), 1);
    for (int d = 0; d < D; d++) {
        assert_true(number_at(&r, r.out, d) == 0 && !signbit(number_at(&r, r.out, d)));
        assert_true(number_at(&r, r.out, D + d) == d / 8.0);
        assert_true(isnan(number_at(&r, r.out, 3 * D + d)) && !signbit(number_at(&r, r.out, 3 * D + d)));
    }
    assert_false(signbit(number_at(&r, r.out, 2 * D + 5)));
    assert_true(isnan(number_at(&r, r.out, 2 * D + 6)) && !signbit(number_at(&r, r.out, 2 * D + 6)));
    double expected = 6 * log(2), epsilon = kernel->compute == LSP_F32 ? FLT_EPSILON : DBL_EPSILON;
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
        for (int type = LSP_F32; type <= LSP_F64; type++) {
            const lsp_kernel *kernel = lsp_kernel_get((lsp_isa)isa, (lsp_dtype)type);
            assert_int_equal(kernel != NULL, isa <= (int)lsp_isa_best());
            if (kernel) assert_true((int)kernel->isa == isa && (int)kernel->compute == type);
        }
        assert_null(lsp_kernel_get((lsp_isa)isa, LSP_BF16));
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
        cmocka_unit_test(sixteen_bit_types_convert_exactly),
        cmocka_unit_test(wide_types_round_once),
        cmocka_unit_test(packing_places_every_element),
        cmocka_unit_test(pack_v_tells_what_is_not_finite),
        cmocka_unit_test(shapes_depend_on_widths_and_type_alone),
        cmocka_unit_test(exp2_is_within_two_ulp),
        cmocka_unit_test(softcap_keeps_relative_accuracy),
        cmocka_unit_test(finish_divides_and_takes_the_logarithm),
        cmocka_unit_test(dispatch_gives_what_the_machine_runs),
        cmocka_unit_test(fpmode_flushes_denormals_and_comes_back),
    };
    return cmocka_run_group_tests_name("kernel_parts", tests, NULL, NULL);
}
