/* Vectors of the computing type on AVX2 with FMA and F16C. The same names as the other vec_*.h.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_VEC_AVX2_H
#define LSP_KERNEL_VEC_AVX2_H

#include "kernel/real.h"

#include <immintrin.h>

#if !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__)
#    error "compile this file with -mavx2 -mfma -mf16c"
#endif

#define VEC_ISA LSP_ISA_AVX2
/* Register tile: ROW_TILE x COL_TILE accumulators, COL_TILE operands and a broadcast in 16 registers. */
#define ROW_TILE       6
#define COL_TILE       2
#define EXP2_NEAR_ZERO 0

#if REAL_BITS == 32
typedef __m256 vec;
#    define LANES   8
#    define VOP(op) _mm256_##op##_ps
#else
typedef __m256d vec;
#    define LANES   4
#    define VOP(op) _mm256_##op##_pd
#endif

INLINE vec vec_zero(void)
{
    return VOP(setzero)();
}

INLINE vec vec_set(real a)
{
    return VOP(set1)(a);
}

INLINE vec vec_load(const real *p)
{
    return VOP(loadu)(p);
}

INLINE void vec_store(real *p, vec a)
{
    VOP(storeu)(p, a);
}

/* All bits set in the first `count` lanes. */
INLINE __m256i first_lanes(int count)
{
#if REAL_BITS == 32
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
#else
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
#endif
}

/* The first `count` lanes, 0 <= count <= LANES; the others are zero and are not touched in memory. */
INLINE vec vec_load_part(const real *p, int count)
{
    return VOP(maskload)(p, first_lanes(count));
}

INLINE void vec_store_part(real *p, vec a, int count)
{
    VOP(maskstore)(p, first_lanes(count), a);
}

INLINE vec vec_add(vec a, vec b)
{
    return VOP(add)(a, b);
}

INLINE vec vec_sub(vec a, vec b)
{
    return VOP(sub)(a, b);
}

INLINE vec vec_mul(vec a, vec b)
{
    return VOP(mul)(a, b);
}

INLINE vec vec_div(vec a, vec b)
{
    return VOP(div)(a, b);
}

/* a * b + c */
INLINE vec vec_fma(vec a, vec b, vec c)
{
    return VOP(fmadd)(a, b, c);
}

INLINE vec vec_floor(vec a)
{
    return VOP(floor)(a);
}

/* a > b ? a : b; hence b where one of them is NaN. */
INLINE vec vec_max(vec a, vec b)
{
    return VOP(max)(a, b);
}

INLINE vec vec_abs(vec a)
{
    return VOP(andnot)(vec_set((real)-0.0), a);
}

/* a with the sign of b. */
INLINE vec vec_copysign(vec a, vec b)
{
    vec sign = vec_set((real)-0.0);
    return VOP(or)(VOP(andnot)(sign, a), VOP(and)(sign, b));
}

/* a < b ? yes : no; no where one of a, b is NaN. */
INLINE vec vec_select_less(vec a, vec b, vec yes, vec no)
{
    return VOP(blendv)(no, yes, VOP(cmp)(a, b, _CMP_LT_OQ));
}

/* Bit i: a > b in lane i; no where one of them is NaN. */
INLINE uint32_t vec_greater(vec a, vec b)
{
    return (uint32_t)VOP(movemask)(VOP(cmp)(a, b, _CMP_GT_OQ));
}

/* LANES doubles += a */
INLINE void vec_add_doubles(double *to, vec a)
{
#if REAL_BITS == 32
    __m256d low = _mm256_cvtps_pd(_mm256_castps256_ps128(a)),
            high = _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1));
    _mm256_storeu_pd(to, _mm256_add_pd(_mm256_loadu_pd(to), low));
    _mm256_storeu_pd(to + 4, _mm256_add_pd(_mm256_loadu_pd(to + 4), high));
#else
    vec_store(to, vec_add(vec_load(to), a));
#endif
}

/* The chosen lanes of a, and of LANES integers, one after the other; what follows them up to LANES is undefined. By
 * halves, as a table for all lanes would take more than a good part of a first-level cache. */
#define VEC_HAS_COMPRESS
static const int32_t chosen_of_4[16][4] = {{0},    {0},       {1},       {0, 1},      {2},    {0, 2},
                                           {1, 2}, {0, 1, 2}, {3},       {0, 3},      {1, 3}, {0, 1, 3},
                                           {2, 3}, {0, 2, 3}, {1, 2, 3}, {0, 1, 2, 3}};

INLINE __m128i order_of_chosen(uint32_t which)
{
    return _mm_loadu_si128((const __m128i *)(const void *)chosen_of_4[which]);
}

INLINE void compress_4(int32_t *to, __m128i a, uint32_t which)
{
    __m128 chosen = _mm_permutevar_ps(_mm_castsi128_ps(a), order_of_chosen(which));
    _mm_storeu_si128((__m128i *)(void *)to, _mm_castps_si128(chosen));
}

#if REAL_BITS == 32
INLINE void compress_8(int32_t *to, __m256i a, uint32_t which)
{
    uint32_t low = which & 15U;
    __m128i upper = _mm256_extracti128_si256(a, 1);
    compress_4(to, _mm256_castsi256_si128(a), low);
    compress_4(to + __builtin_popcount(low), upper, which >> 4);
}

INLINE void vec_compress(real *to, vec a, uint32_t which)
{
    uint32_t low = which & 15U;
    __m128 upper = _mm256_extractf128_ps(a, 1);
    _mm_storeu_ps(to, _mm_permutevar_ps(_mm256_castps256_ps128(a), order_of_chosen(low)));
    _mm_storeu_ps(to + __builtin_popcount(low), _mm_permutevar_ps(upper, order_of_chosen(which >> 4)));
}

INLINE void keys_compress(int32_t *to, const int32_t *keys, uint32_t which)
{
    compress_8(to, _mm256_loadu_si256((const __m256i *)(const void *)keys), which);
}

/* The same of first, first + 1, ... */
INLINE void run_compress(int32_t *to, int32_t first, const int32_t *step, uint32_t which)
{
    first += *step;
    __m256i run = _mm256_add_epi32(_mm256_set1_epi32(first), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    compress_8(to, run, which);
}
#else
INLINE void vec_compress(real *to, vec a, uint32_t which)
{
    static const int64_t pairs[4][2] = {{0}, {0}, {2}, {0, 2}};
    uint32_t low = which & 3U, high = which >> 2;
    __m128i first = _mm_loadu_si128((const __m128i *)(const void *)pairs[low]),
            second = _mm_loadu_si128((const __m128i *)(const void *)pairs[high]);
    __m128d upper = _mm256_extractf128_pd(a, 1);
    _mm_storeu_pd(to, _mm_permutevar_pd(_mm256_castpd256_pd128(a), first));
    _mm_storeu_pd(to + __builtin_popcount(low), _mm_permutevar_pd(upper, second));
}

INLINE void keys_compress(int32_t *to, const int32_t *keys, uint32_t which)
{
    compress_4(to, _mm_loadu_si128((const __m128i *)(const void *)keys), which);
}

INLINE void run_compress(int32_t *to, int32_t first, const int32_t *step, uint32_t which)
{
    first += *step;
    compress_4(to, _mm_add_epi32(_mm_set1_epi32(first), _mm_setr_epi32(0, 1, 2, 3)), which);
}
#endif

/* Bit i: byte i of 64 is not 0. */
INLINE uint64_t bits_of_hits(const void *p)
{
    const __m256i *half = p;
    __m256i zero = _mm256_setzero_si256();
    uint32_t low = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_loadu_si256(half), zero));
    uint32_t high = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_loadu_si256(half + 1), zero));
    return ~((uint64_t)high << 32 | low);
}

/* The low bits of the mantissa moved into the place of the exponent. */
INLINE vec vec_exponent_from_low_bits(vec a)
{
#if REAL_BITS == 32
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a), 23));
#else
    return _mm256_castsi256_pd(_mm256_slli_epi64(_mm256_castpd_si256(a), 52));
#endif
}

/* a times a power of two: the low bits of the mantissa of `power`, a signed number, added to a's exponent. For numbers
 * of which a and the result are normal. */
INLINE vec vec_add_exponent(vec a, vec power)
{
#if REAL_BITS == 32
    __m256i shift = _mm256_slli_epi32(_mm256_castps_si256(power), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), shift));
#else
    __m256i shift = _mm256_slli_epi64(_mm256_castpd_si256(power), 52);
    return _mm256_castsi256_pd(_mm256_add_epi64(_mm256_castpd_si256(a), shift));
#endif
}

#if REAL_BITS == 64
/* 2^(i / 16) for the signed number i in the low bits of a mantissa, from the bits of the 16 fractions less those of i. */
INLINE vec vec_power_of_step(const uint64_t *steps, vec sixteenths)
{
    __m256i bits = _mm256_castpd_si256(sixteenths), which = _mm256_and_si256(bits, _mm256_set1_epi64x(15));
    __m256i step = _mm256_i64gather_epi64((const long long *)(const void *)steps, which, 8);
    return _mm256_castsi256_pd(_mm256_add_epi64(step, _mm256_slli_epi64(bits, 48)));
}
#endif

/* Lanes [half, 2 half) moved to the beginning; half is a constant power of two. */
INLINE vec vec_upper(vec a, const int half)
{
    if (half == LANES / 2) return VOP(permute2f128)(a, a, 0x01);
#if REAL_BITS == 32
    return half == 2 ? _mm256_permute_ps(a, 0x0E) : _mm256_permute_ps(a, 0x01);
#else
    return _mm256_permute_pd(a, 0x01);
#endif
}

/* a0 b0 a1 b1 ... of the lower halves, and of the upper halves. */
INLINE vec vec_zip_low(vec a, vec b)
{
#if REAL_BITS == 32
    return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x20);
#else
    return _mm256_permute2f128_pd(_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b), 0x20);
#endif
}

INLINE vec vec_zip_high(vec a, vec b)
{
#if REAL_BITS == 32
    return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x31);
#else
    return _mm256_permute2f128_pd(_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b), 0x31);
#endif
}

/* LANES elements of a stored type, converted. */
INLINE vec vec_from(const void *p, lsp_dtype type)
{
#if REAL_BITS == 32
    if (type == LSP_F16) return _mm256_cvtph_ps(_mm_loadu_si128(p));
    if (type == LSP_BF16) {
        __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p));
        return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
    }
    if (type == LSP_F32) return _mm256_loadu_ps(p);
    const double *d = p;
    __m128 low = _mm256_cvtpd_ps(_mm256_loadu_pd(d)), high = _mm256_cvtpd_ps(_mm256_loadu_pd(d + 4));
    return _mm256_set_m128(high, low);
#else
    if (type == LSP_F16) return _mm256_cvtps_pd(_mm_cvtph_ps(_mm_loadl_epi64(p)));
    if (type == LSP_BF16) {
        __m128i wide = _mm_cvtepu16_epi32(_mm_loadl_epi64(p));
        return _mm256_cvtps_pd(_mm_castsi128_ps(_mm_slli_epi32(wide, 16)));
    }
    if (type == LSP_F32) return _mm256_cvtps_pd(_mm_loadu_ps(p));
    return _mm256_loadu_pd(p);
#endif
}

#if BRAIN
/* Of pairs of bf16 the first ones, in the lower halves, and the second ones. */
INLINE vec vec_first_brain(vec pairs)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(pairs), 16));
}

INLINE vec vec_second_brain(vec pairs)
{
    return _mm256_castsi256_ps(_mm256_and_si256(_mm256_castps_si256(pairs), _mm256_set1_epi32(-0x10000)));
}

/* The larger magnitudes, `largest` being one; as integers: NaN is above infinity. */
INLINE vec vec_largest_bits(vec largest, vec a)
{
    return _mm256_castsi256_ps(
        _mm256_max_epu32(_mm256_castps_si256(largest), _mm256_castps_si256(vec_abs(a))));
}

/* Rounded to bf16, which stays in f32. */
INLINE vec vec_round_brain(vec a)
{
    __m256i bits = _mm256_castps_si256(a),
            odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i sum = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7FFF)), odd);
    vec rounded = _mm256_castsi256_ps(_mm256_and_si256(sum, _mm256_set1_epi32(-0x10000)));
    return _mm256_blendv_ps(rounded, vec_set(__builtin_nanf("")), _mm256_cmp_ps(a, a, _CMP_UNORD_Q));
}
#endif

INLINE real real_fma(real a, real b, real c)
{
#if REAL_BITS == 32
    return __builtin_fmaf(a, b, c);
#else
    return __builtin_fma(a, b, c);
#endif
}

#endif
