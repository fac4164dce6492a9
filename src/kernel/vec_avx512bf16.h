/* Vectors of AVX-512 with dot products of pairs of bf16 (VDPBF16PS). Computing in f32, multiplying bf16.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_VEC_AVX512BF16_H
#define LSP_KERNEL_VEC_AVX512BF16_H

#define VEC_HAS_PAIRS
#include "kernel/vec_avx512.h"

#ifndef __AVX512BF16__
#    error "compile this file with -mavx512bf16 besides the flags of AVX-512"
#endif

enum { UNIT_ELEMENTS = 2 };
typedef uint32_t __attribute__((may_alias)) unit; /* the first of the pair is in the lower half */
typedef __m512bh unit_vec;

INLINE unit_vec unit_load(const unit *p)
{
    return (__m512bh)_mm512_loadu_si512(p);
}

INLINE unit_vec unit_set(unit a)
{
    return (__m512bh)_mm512_set1_epi32((int)a);
}

/* acc + a b: the products of the second elements first. */
INLINE vec unit_fma(unit_vec a, unit_vec b, vec acc)
{
    return _mm512_dpbf16_ps(acc, a, b);
}

/* 2 LANES elements one after the other, as LANES units. */
INLINE vec unit_join(vec low, vec high)
{
    return _mm512_castsi512_ps((__m512i)_mm512_cvtne2ps_pbh(high, low));
}

/* Units of the elements of two vectors that bf16 can hold. */
INLINE vec unit_pair(const vec *element)
{
    __m512i low = _mm512_srli_epi32(_mm512_castps_si512(element[0]), 16);
    return _mm512_castsi512_ps(_mm512_or_si512(low, _mm512_castps_si512(element[1])));
}

/* The larger magnitudes of two vectors of units, `largest` being one; as integers, in the order of numbers. */
INLINE vec unit_largest(vec largest, vec units)
{
    __m512i size = _mm512_and_si512(_mm512_castps_si512(units), _mm512_set1_epi16(0x7FFF));
    return _mm512_castsi512_ps(_mm512_max_epu16(_mm512_castps_si512(largest), size));
}

/* Sums of the squares of every eighth of `count` bf16 numbers in double, as far as eights go: how far. */
INLINE int64_t squares_of_eight(const uint16_t *p, int64_t count, double *sums)
{
    __m512d all = _mm512_setzero_pd();
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)(p + i)));
        const __m512d x = _mm512_cvtps_pd(_mm256_castsi256_ps(_mm256_slli_epi32(wide, 16)));
        all = _mm512_add_pd(all, _mm512_mul_pd(x, x));
    }
    _mm512_storeu_pd(sums, all);
    return i;
}

#endif
