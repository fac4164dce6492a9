/* Kernels: packing, conversions and rounding.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include "kernel_case.h"

#include <float.h>

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

static double element(const lsp_kernel *kernel, const void *array, int64_t index)
{
    if (kernel->packed_bytes == 2) return brain_value(((const uint16_t *)array)[index]);
    return kernel->packed_bytes == 4 ? (double)((const float *)array)[index] : ((const double *)array)[index];
}

/* Element (i, j) of rows of `stride`; where pairs are packed, two rows are interleaved. */
static double row_element(const lsp_kernel *kernel, const void *array, int64_t i, int64_t j, int64_t stride)
{
    int64_t pair = kernel->packed_bytes == 2 ? 2 : 1;
    return element(kernel, array, (i / pair * stride + j) * pair + i % pair);
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
            double exact = type == LSP_F16 ? half_value((uint16_t)i) : brain_value((uint16_t)i);
            double expected = rounded(kernel, exact);
            if (kernel->packed_bytes == 2 && fabs(exact) < FLT_MIN)
                expected = copysign(0, exact); /* as the instruction takes it */
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
    src[4] = 1 + 0x1p-8 + 0x1p-40; /* up in bf16, unless rounded to f32 before */
    const double factors[] = {1.0, LOG2_E / 8};
    for (int f = 0; f < 2; f++) {
        kernel->pack_queries(COUNT, src, LSP_F64, 1, factors[f], q);
        for (int i = 0; i < COUNT; i++) {
            double exact = src[i] * (kernel->compute == LSP_BF16 ? 1 : factors[f]);
            assert_true(element(kernel, q, i) == rounded(kernel, exact));
        }
        kernel->pack_queries(7, narrow, LSP_F32, COUNT / 7, factors[f], q);
        for (int i = 0; i < COUNT; i++) {
            double exact = (double)narrow[i] * (kernel->compute == LSP_BF16 ? 1 : factors[f]);
            int64_t at = kernel->compute == LSP_BF16 ? i / 7 * 8 + i % 7 : i; /* rows of whole pairs */
            assert_true(element(kernel, q, at) == rounded(kernel, exact));
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
    if (type == LSP_F16) return rounded(kernel, half_value(((const uint16_t *)src)[index]));
    if (type == LSP_BF16) return brain_value(((const uint16_t *)src)[index]);
    if (type == LSP_F32) return rounded(kernel, (double)((const float *)src)[index]);
    return rounded(kernel, ((const double *)src)[index]);
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
    size_t size = (size_t)kernel->packed_bytes;
    void *src = lsp_memory_alloc(count * lsp_max(shape->d_k, shape->d_v), lsp_dtype_size(type));
    void *k = lsp_memory_alloc(shape->tile_keys * shape->k_depth, size);
    void *v = lsp_memory_alloc(shape->tile_keys * shape->v_stride, size);
    memset(k, 0xFF, (size_t)(shape->tile_keys * shape->k_depth) * size);
    memset(v, 0xFF, (size_t)(shape->tile_keys * shape->v_stride) * size);
    fill_stored(type, src, count * lsp_max(shape->d_k, shape->d_v));
    kernel->pack_k(shape, src, type, offset, count, k);
    assert_true(kernel->pack_v(shape, src, type, offset, count, v) < INFINITY);
    for (int64_t j = 0; j < shape->tile_keys; j++) {
        bool present = j >= offset && j < offset + count;
        for (int64_t d = 0; d < shape->k_depth; d++) {
            bool there = present && d < shape->d_k;
            int64_t strip = j / shape->strip_keys, lane = j % shape->strip_keys;
            double got = row_element(kernel, k, strip * shape->k_depth + d, lane, shape->strip_keys);
            assert_true(got ==
                        (there ? stored_element(kernel, type, src, (j - offset) * shape->d_k + d) : 0));
        }
        for (int64_t d = 0; d < shape->v_stride; d++) {
            bool there = present && d < shape->d_v;
            double got = row_element(kernel, v, j, d, shape->v_stride);
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
            assert_int_equal(kernel->pack_v(&shape, src, LSP_F64, 4, KEYS, v) < INFINITY, finite);
        }
    }
    lsp_memory_free(v);
}

static void pack_v_tells_what_is_not_finite(void **state)
{
    (void)state;
    for_each_kernel(check_finite_flag);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sixteen_bit_types_convert_exactly),
        cmocka_unit_test(wide_types_round_once),
        cmocka_unit_test(packing_places_every_element),
        cmocka_unit_test(pack_v_tells_what_is_not_finite),
    };
    return cmocka_run_group_tests_name("kernel_pack", tests, NULL, NULL);
}
