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

/* A tile that stands as it would be packed is only looked at, with the same bound. */
static void v_may_stay_where_it_is(void **state)
{
    (void)state;
    enum { D = 48, MOST = 512 };
    double *src = lsp_memory_alloc(MOST * D + 8, sizeof *src),
           *packed = lsp_memory_alloc(MOST * D, sizeof *packed);
    int left = 0;
    for (int i = 0; i < MOST * D + 8; i++) {
        const double x = 1e-3 * (i % 1009) - 0.5;
        src[i] = x;
    }
    for (int isa = LSP_ISA_PORTABLE; isa <= LSP_ISA_AVX512; isa++) {
        for (int type = LSP_BF16; type <= LSP_F64; type++) {
            const lsp_kernel *kernel = lsp_kernel_get((lsp_isa)isa, (lsp_dtype)type);
            if (!kernel) continue;
            const lsp_tile_shape shape = kernel->shape(D, D), padded = kernel->shape(D, D - 1);
            const int64_t keys = shape.tile_keys;
            const size_t size = lsp_dtype_size((lsp_dtype)type);
            const bool stays = lsp_kernel_leaves_v(kernel, &shape, src, (lsp_dtype)type, 0, keys);
            assert_int_equal(stays, type != LSP_BF16);
            assert_false(lsp_kernel_leaves_v(kernel, &padded, src, (lsp_dtype)type, 0, keys));
            assert_false(lsp_kernel_leaves_v(kernel, &shape, src, (lsp_dtype)type, 0, keys - 1));
            assert_false(lsp_kernel_leaves_v(kernel, &shape, src, (lsp_dtype)type, 1, keys));
            assert_false(lsp_kernel_leaves_v(kernel, &shape, (char *)src + size, (lsp_dtype)type, 0, keys));
            assert_false(lsp_kernel_leaves_v(kernel, &shape, src, LSP_F16, 0, keys));
            if (!stays) continue;
            left++;
            float *narrow = (float *)(void *)packed;
            char *copy = lsp_memory_alloc(keys * D, size);
            for (int64_t i = 0; i < keys * D && type == LSP_F32; i++) narrow[i] = (float)src[i];
            const void *v = type == LSP_F32 ? (const void *)narrow : src;
            const double most = kernel->pack_v(&shape, v, (lsp_dtype)type, 0, keys, copy);
            assert_memory_equal(copy, v, (size_t)(keys * D) * size);
            assert_true(kernel->pack_v(&shape, v, (lsp_dtype)type, 0, keys, NULL) == most);
            lsp_memory_free(copy);
        }
    }
    assert_true(left >= 2);
    lsp_memory_free(src);
    lsp_memory_free(packed);
}

/* One tile for some rows, V packed or as it is stored. */
static void attend_tile(const lsp_kernel *kernel, const lsp_tile_shape *shape, const uint16_t *numbers,
                        int64_t begin, int64_t end, bool stored, float *out)
{
    enum { ROWS = 7 };
    const int64_t keys = shape->tile_keys, d = shape->d_v;
    const size_t packed = (size_t)kernel->packed_bytes;
    const lsp_score_rule rule = {0, 0, LOG2_E / 8};
    char *q = lsp_memory_alloc(ROWS * shape->k_depth, packed),
         *k = lsp_memory_alloc(keys * shape->k_depth, packed),
         *v = lsp_memory_alloc(keys * shape->v_stride, packed);
    void *scratch = lsp_memory_zalloc(1, kernel->scratch_bytes(shape));
    float max[ROWS], sum[ROWS];
    double norm[ROWS];
    lsp_sight sight[ROWS];
    for (int r = 0; r < ROWS; r++) {
        max[r] = -INFINITY, sum[r] = -0.0F;
        sight[r] = (lsp_sight){.begin = begin + r, .end = end - r};
    }
    kernel->pack_queries(shape->d_k, numbers, LSP_BF16, ROWS, LOG2_E / 8, q);
    kernel->query_norms(shape->d_k, ROWS, q, norm);
    lsp_key_tile tile = {.k = k, .v = stored ? (const void *)numbers : v, .v_brain = stored};
    tile.k_norm = kernel->pack_k(shape, numbers, LSP_BF16, 0, keys, k);
    tile.v_max = kernel->pack_v(shape, numbers, LSP_BF16, 0, keys, stored ? NULL : v);
    assert_true(tile.v_max > 1 && tile.v_max < INFINITY);
    const lsp_query_rows rows = {ROWS, q, norm, sight, out, max, sum};
    for (int64_t i = 0; i < ROWS * d; i++) out[i] = NAN;
    kernel->attend(shape, &rule, &tile, &rows, scratch);
    assert_true(kernel->finish(d, ROWS, out, max, sum, NULL) == 0);
    lsp_memory_free(q);
    lsp_memory_free(k);
    lsp_memory_free(v);
    lsp_memory_free(scratch);
}

static void stored_v_gives_the_same_bits(void **state)
{
    (void)state;
    enum { D = 80, ROWS = 7, MOST = 512 };
    uint16_t *numbers = lsp_memory_alloc(MOST * D, sizeof *numbers);
    float *plain = lsp_memory_alloc(ROWS * D, sizeof *plain),
          *from = lsp_memory_alloc(ROWS * D, sizeof *from);
    int kernels = 0;
    for (int64_t i = 0; i < MOST * D; i++) {
        const float x = (float)lsp_random_normal(7, 1, (uint64_t)i);
        uint32_t bits;
        memcpy(&bits, &x, sizeof bits);
        numbers[i] = (uint16_t)(bits >> 16);
    }
    uint64_t mode = lsp_fpmode_enter();
    for (int isa = LSP_ISA_PORTABLE; isa <= LSP_ISA_AVX512; isa++) {
        const lsp_kernel *kernel = lsp_kernel_get((lsp_isa)isa, LSP_BF16);
        if (!kernel) continue;
        const lsp_tile_shape shape = kernel->shape(D, D);
        if (!lsp_kernel_reads_v(kernel, &shape, LSP_BF16, 0, shape.tile_keys)) continue;
        assert_false(lsp_kernel_reads_v(kernel, &shape, LSP_F32, 0, shape.tile_keys));
        assert_false(lsp_kernel_reads_v(kernel, &shape, LSP_BF16, 0, shape.tile_keys - 1));
        for (int64_t cut = 0; cut < 4; cut++) {
            attend_tile(kernel, &shape, numbers, cut * 33, shape.tile_keys - cut * 21, false, plain);
            attend_tile(kernel, &shape, numbers, cut * 33, shape.tile_keys - cut * 21, true, from);
            assert_memory_equal(plain, from, ROWS * D * sizeof *from);
        }
        kernels++;
    }
    lsp_fpmode_leave(mode);
    assert_true(kernels >= 1);
    lsp_memory_free(numbers);
    lsp_memory_free(plain);
    lsp_memory_free(from);
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
        cmocka_unit_test(v_may_stay_where_it_is),
        cmocka_unit_test(stored_v_gives_the_same_bits),
    };
    return cmocka_run_group_tests_name("kernel_pack", tests, NULL, NULL);
}
