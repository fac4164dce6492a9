/* Vectors of the computing type on AVX-512 (F, BW, DQ, VL). The same names as the other vec_*.h.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_VEC_AVX512_H
#define LSP_KERNEL_VEC_AVX512_H

#include "kernel/real.h"

#include <immintrin.h>

#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512DQ__) || !defined(__AVX512VL__) ||   \
    !defined(__FMA__) || !defined(__F16C__)
#    error "compile this file with -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c"
#endif

#define VEC_ISA LSP_ISA_AVX512
/* Register tile: ROW_TILE x COL_TILE accumulators, COL_TILE operands and a broadcast in 32 registers. */
#define ROW_TILE 6
#define COL_TILE 4
/* Scheduled by hand: plain.h. Not where bf16 is kept in f32, which has a product of its own. */
#if !BRAIN || defined(VEC_HAS_PAIRS)
#    define VEC_HAS_SCHEDULE
#endif
#if REAL_BITS == 32
typedef __m512 vec;
#    define LANES   16
#    define VOP(op) _mm512_##op##_ps
#else
typedef __m512d vec;
#    define LANES   8
#    define VOP(op) _mm512_##op##_pd
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

/* The first `count` lanes, 0 <= count <= LANES; the others are zero and are not touched in memory. */
INLINE vec vec_load_part(const real *p, int count)
{
#if REAL_BITS == 32
    return _mm512_maskz_loadu_ps((__mmask16)((1U << count) - 1U), p);
#else
    return _mm512_maskz_loadu_pd((__mmask8)((1U << count) - 1U), p);
#endif
}

INLINE void vec_store_part(real *p, vec a, int count)
{
#if REAL_BITS == 32
    _mm512_mask_storeu_ps(p, (__mmask16)((1U << count) - 1U), a);
#else
    _mm512_mask_storeu_pd(p, (__mmask8)((1U << count) - 1U), a);
#endif
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

/* a > b ? a : b; hence b where one of them is NaN. */
INLINE vec vec_max(vec a, vec b)
{
    return VOP(max)(a, b);
}

INLINE vec vec_abs(vec a)
{
    return VOP(abs)(a);
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
#if REAL_BITS == 32
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes);
#else
    return _mm512_mask_blend_pd(_mm512_cmp_pd_mask(a, b, _CMP_LT_OQ), no, yes);
#endif
}

/* Bit i: a > b in lane i; no where one of them is NaN. */
INLINE uint32_t vec_greater(vec a, vec b)
{
#if REAL_BITS == 32
    return (uint32_t)_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ);
#else
    return (uint32_t)_mm512_cmp_pd_mask(a, b, _CMP_GT_OQ);
#endif
}

/* LANES doubles += a */
INLINE void vec_add_doubles(double *to, vec a)
{
#if REAL_BITS == 32
    __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(a)),
            high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(a, 1));
    _mm512_storeu_pd(to, _mm512_add_pd(_mm512_loadu_pd(to), low));
    _mm512_storeu_pd(to + 8, _mm512_add_pd(_mm512_loadu_pd(to + 8), high));
#else
    vec_store(to, vec_add(vec_load(to), a));
#endif
}

/* The chosen lanes of a, and of LANES integers, one after the other; what follows them up to LANES is undefined. */
#define VEC_HAS_COMPRESS
INLINE void vec_compress(real *to, vec a, uint32_t which)
{
#if REAL_BITS == 32
    VOP(storeu)(to, _mm512_maskz_compress_ps((__mmask16)which, a));
#else
    VOP(storeu)(to, _mm512_maskz_compress_pd((__mmask8)which, a));
#endif
}

INLINE void keys_compress(int32_t *to, const int32_t *keys, uint32_t which)
{
#if REAL_BITS == 32
    _mm512_storeu_si512(to, _mm512_maskz_compress_epi32((__mmask16)which, _mm512_loadu_si512(keys)));
#else
    __m256i all = _mm256_loadu_si256((const __m256i *)(const void *)keys);
    _mm256_storeu_si256((__m256i *)(void *)to, _mm256_maskz_compress_epi32((__mmask8)which, all));
#endif
}

/* Bit i: byte pair (f64: byte) i of 64 bytes is not 0. */
INLINE uint64_t bits_of_hits(const void *p)
{
    __m512i all = _mm512_loadu_si512(p);
#if REAL_BITS == 32
    return _mm512_test_epi16_mask(all, all);
#else
    return _mm512_test_epi8_mask(all, all);
#endif
}

/* The same of first, first + 1, ... */
INLINE void run_compress(int32_t *to, int32_t first, const int32_t *step, uint32_t which)
{
#if REAL_BITS == 32
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                  begin = _mm512_add_epi32(_mm512_set1_epi32(first), lanes);
    const __m512i run = _mm512_add_epi32(begin, _mm512_set1_epi32(*step));
    _mm512_storeu_si512(to, _mm512_maskz_compress_epi32((__mmask16)which, run));
#else
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
                  begin = _mm256_add_epi32(_mm256_set1_epi32(first), lanes);
    const __m256i run = _mm256_add_epi32(begin, _mm256_set1_epi32(*step));
    _mm256_storeu_si256((__m256i *)(void *)to, _mm256_maskz_compress_epi32((__mmask8)which, run));
#endif
}

/* a - round(a), ties to even, a - floor(a) (both 0 where a is infinite), and a * 2^floor(whole): one instruction each. */
#define VEC_HAS_SPLIT_NEAREST
#define EXP2_NEAR_ZERO 1
INLINE vec vec_fraction(vec a)
{
    return VOP(reduce)(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

#if REAL_BITS == 64
/* The same to the nearest sixteenth; and one of 16 numbers by the low bits of a mantissa. */
INLINE vec vec_fraction_step(vec a)
{
    return VOP(reduce)(a, 4 << 4 | _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

INLINE vec vec_pick_step(const real *steps, vec which)
{
    return _mm512_permutex2var_pd(vec_load(steps), _mm512_castpd_si512(which), vec_load(steps + LANES));
}
#endif

INLINE vec vec_fraction_floor(vec a)
{
    return VOP(reduce)(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}

INLINE vec vec_scale_whole(vec a, vec whole)
{
    return VOP(scalef)(a, whole);
}

/* The low bits of the mantissa moved into the place of the exponent. */
INLINE vec vec_exponent_from_low_bits(vec a)
{
#if REAL_BITS == 32
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a), 23));
#else
    return _mm512_castsi512_pd(_mm512_slli_epi64(_mm512_castpd_si512(a), 52));
#endif
}

/* a times a power of two: the low bits of the mantissa of `power`, a signed number, added to a's exponent. For numbers
 * of which a and the result are normal. */
INLINE vec vec_add_exponent(vec a, vec power)
{
#if REAL_BITS == 32
    __m512i shift = _mm512_slli_epi32(_mm512_castps_si512(power), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), shift));
#else
    __m512i shift = _mm512_slli_epi64(_mm512_castpd_si512(power), 52);
    return _mm512_castsi512_pd(_mm512_add_epi64(_mm512_castpd_si512(a), shift));
#endif
}

/* Lanes [half, 2 half) moved to the beginning; half is a constant power of two. */
INLINE vec vec_upper(vec a, const int half)
{
#if REAL_BITS == 32
    if (half == 8) return _mm512_shuffle_f32x4(a, a, 0x0E);
    if (half == 4) return _mm512_shuffle_f32x4(a, a, 0x01);
    return half == 2 ? _mm512_permute_ps(a, 0x0E) : _mm512_permute_ps(a, 0x01);
#else
    if (half == 4) return _mm512_shuffle_f64x2(a, a, 0x0E);
    return half == 2 ? _mm512_shuffle_f64x2(a, a, 0x01) : _mm512_permute_pd(a, 0x01);
#endif
}

/* a0 b0 a1 b1 ... of the lower halves, and of the upper halves. */
INLINE vec vec_zip_low(vec a, vec b)
{
#if REAL_BITS == 32
    __m512i pick = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    return _mm512_permutex2var_ps(a, pick, b);
#else
    return _mm512_permutex2var_pd(a, _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11), b);
#endif
}

INLINE vec vec_zip_high(vec a, vec b)
{
#if REAL_BITS == 32
    __m512i pick = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    return _mm512_permutex2var_ps(a, pick, b);
#else
    return _mm512_permutex2var_pd(a, _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15), b);
#endif
}

/* LANES elements of a stored type, converted. */
INLINE vec vec_from(const void *p, lsp_dtype type)
{
#if REAL_BITS == 32
    if (type == LSP_F16) return _mm512_cvtph_ps(_mm256_loadu_si256(p));
    if (type == LSP_BF16) {
        __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p));
        return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
    }
    if (type == LSP_F32) return _mm512_loadu_ps(p);
    const double *d = p;
    __m256 low = _mm512_cvtpd_ps(_mm512_loadu_pd(d)), high = _mm512_cvtpd_ps(_mm512_loadu_pd(d + 8));
    return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
#else
    if (type == LSP_F16) return _mm512_cvtps_pd(_mm256_cvtph_ps(_mm_loadu_si128(p)));
    if (type == LSP_BF16) {
        __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p));
        return _mm512_cvtps_pd(_mm256_castsi256_ps(_mm256_slli_epi32(wide, 16)));
    }
    if (type == LSP_F32) return _mm512_cvtps_pd(_mm256_loadu_ps(p));
    return _mm512_loadu_pd(p);
#endif
}

#if BRAIN
/* Of pairs of bf16 the first ones, in the lower halves, and the second ones. */
INLINE vec vec_first_brain(vec pairs)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(pairs), 16));
}

INLINE vec vec_second_brain(vec pairs)
{
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(pairs), _mm512_set1_epi32(-0x10000)));
}

/* The larger magnitudes, `largest` being one; as integers: NaN is above infinity. */
INLINE vec vec_largest_bits(vec largest, vec a)
{
    return _mm512_castsi512_ps(
        _mm512_max_epu32(_mm512_castps_si512(largest), _mm512_castps_si512(vec_abs(a))));
}

/* Rounded to bf16, which stays in f32. */
INLINE vec vec_round_brain(vec a)
{
    __m512i bits = _mm512_castps_si512(a),
            odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i sum = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7FFF)), odd);
    vec rounded = _mm512_castsi512_ps(_mm512_and_si512(sum, _mm512_set1_epi32(-0x10000)));
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), rounded, vec_set(__builtin_nanf("")));
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
