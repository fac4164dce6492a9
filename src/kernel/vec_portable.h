/* Vectors of the computing type in C with 16-byte vectors, for any processor. The same names as the
 * other vec_*.h. Products and sums are rounded separately: there is no FMA to count on.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_VEC_PORTABLE_H
#define LSP_KERNEL_VEC_PORTABLE_H

#include "kernel/real.h"

#include <string.h>

#define VEC_ISA          LSP_ISA_PORTABLE
#define ROW_TILE         4
#define COL_TILE         2
#define EXP2_NEAR_ZERO   0
#define VEC_ROUNDS_TWICE /* vec_fma */

#if REAL_BITS == 32
typedef uint32_t lane_bits;
#    define LANES 4
enum { MANTISSA_BITS = 23 };
#else
typedef uint64_t lane_bits;
#    define LANES 2
enum { MANTISSA_BITS = 52 };
#endif
typedef real vec __attribute__((vector_size(16)));
typedef lane_bits vec_bits __attribute__((vector_size(16)));

INLINE vec vec_set(real a)
{
#if REAL_BITS == 32
    return (vec){a, a, a, a};
#else
    return (vec){a, a};
#endif
}

INLINE vec vec_zero(void)
{
    return vec_set((real)0);
}

INLINE vec vec_load(const real *p)
{
    vec a;
    memcpy(&a, p, sizeof a);
    return a;
}

INLINE void vec_store(real *p, vec a)
{
    memcpy(p, &a, sizeof a);
}

/* The first `count` lanes, 0 <= count <= LANES; the others are zero and are not touched in memory. */
INLINE vec vec_load_part(const real *p, int count)
{
    real lanes[LANES] = {0};
    for (int i = 0; i < count; i++) lanes[i] = p[i];
    return vec_load(lanes);
}

INLINE void vec_store_part(real *p, vec a, int count)
{
    real lanes[LANES];
    vec_store(lanes, a);
    for (int i = 0; i < count; i++) p[i] = lanes[i];
}

INLINE vec vec_add(vec a, vec b)
{
    return a + b;
}

INLINE vec vec_sub(vec a, vec b)
{
    return a - b;
}

INLINE vec vec_mul(vec a, vec b)
{
    return a * b;
}

INLINE vec vec_div(vec a, vec b)
{
    return a / b;
}

/* a * b + c, rounded twice. */
INLINE vec vec_fma(vec a, vec b, vec c)
{
    return a * b + c;
}

INLINE vec vec_choose(vec_bits which, vec yes, vec no)
{
    return (vec)((which & (vec_bits)yes) | (~which & (vec_bits)no));
}

/* Of numbers of which an integer can be told: adding 1.5 * 2^23 (2^52) rounds to one. */
INLINE vec vec_floor(vec a)
{
    vec shift = vec_set((real)1.5 * (real)(1LL << MANTISSA_BITS)), whole = (a + shift) - shift;
    return whole - vec_choose((vec_bits)(whole > a), vec_set((real)1), vec_zero());
}

/* a > b ? a : b; hence b where one of them is NaN. */
INLINE vec vec_max(vec a, vec b)
{
    return vec_choose((vec_bits)(a > b), a, b);
}

/* a < b ? yes : no; no where one of a, b is NaN. */
INLINE vec vec_select_less(vec a, vec b, vec yes, vec no)
{
    return vec_choose((vec_bits)(a < b), yes, no);
}

/* Bit i: a > b in lane i; no where one of them is NaN. */
INLINE uint32_t vec_greater(vec a, vec b)
{
    vec_bits which = (vec_bits)(a > b);
    uint32_t bits = 0;
    UNROLL
    for (int i = 0; i < LANES; i++) bits |= (uint32_t)(which[i] & 1U) << i;
    return bits;
}

/* a with the sign of b. */
INLINE vec vec_copysign(vec a, vec b)
{
    return vec_choose((vec_bits)vec_set((real)-0.0), b, a);
}

INLINE vec vec_abs(vec a)
{
    return vec_copysign(a, vec_zero());
}

/* LANES doubles += a */
INLINE void vec_add_doubles(double *to, vec a)
{
    UNROLL
    for (int i = 0; i < LANES; i++) to[i] += (double)a[i];
}

/* The low bits of the mantissa moved into the place of the exponent. */
INLINE vec vec_exponent_from_low_bits(vec a)
{
    return (vec)((vec_bits)a << MANTISSA_BITS);
}

/* a times a power of two: the low bits of the mantissa of `power`, a signed number, added to a's exponent. For numbers
 * of which a and the result are normal. */
INLINE vec vec_add_exponent(vec a, vec power)
{
    return (vec)((vec_bits)a + ((vec_bits)power << MANTISSA_BITS));
}

#if REAL_BITS == 64
/* 2^(i / 16) for the signed number i in the low bits of a mantissa, from the bits of the 16 fractions less those of i. */
INLINE vec vec_power_of_step(const uint64_t *steps, vec sixteenths)
{
    vec_bits bits = (vec_bits)sixteenths;
    return (vec)((vec_bits){steps[bits[0] & 15], steps[bits[1] & 15]} + (bits << 48));
}
#endif

/* Lanes [half, 2 half) moved to the beginning; half is a constant power of two. */
INLINE vec vec_upper(vec a, const int half)
{
#if REAL_BITS == 32
    return half == 2 ? (vec){a[2], a[3], a[0], a[1]} : (vec){a[1], a[0], a[3], a[2]};
#else
    (void)half;
    return (vec){a[1], a[0]};
#endif
}

/* a0 b0 a1 b1 ... of the lower halves, and of the upper halves. */
INLINE vec vec_zip_low(vec a, vec b)
{
#if REAL_BITS == 32
    return (vec){a[0], b[0], a[1], b[1]};
#else
    return (vec){a[0], b[0]};
#endif
}

INLINE vec vec_zip_high(vec a, vec b)
{
#if REAL_BITS == 32
    return (vec){a[2], b[2], a[3], b[3]};
#else
    return (vec){a[1], b[1]};
#endif
}

#if BRAIN
/* Of pairs of bf16 the first ones, in the lower halves, and the second ones. */
INLINE vec vec_first_brain(vec pairs)
{
    return (vec)((vec_bits)pairs << 16);
}

INLINE vec vec_second_brain(vec pairs)
{
    return (vec)((vec_bits)pairs & 0xFFFF0000U);
}

/* The larger magnitudes, `largest` being one; as integers: NaN is above infinity. */
INLINE vec vec_largest_bits(vec largest, vec a)
{
    vec_bits x = (vec_bits)largest, y = (vec_bits)vec_abs(a);
    return vec_choose((vec_bits)(x > y), largest, vec_abs(a));
}

/* Rounded to bf16, which stays in f32. */
INLINE vec vec_round_brain(vec a)
{
    vec_bits bits = (vec_bits)a;
    vec rounded = (vec)((bits + 0x7FFFU + (bits >> 16 & 1U)) & 0xFFFF0000U);
    return vec_choose((vec_bits)(a == a), rounded, vec_set(__builtin_nanf("")));
}
#endif

INLINE float float_from_bits(uint32_t bits)
{
    float a;
    memcpy(&a, &bits, sizeof a);
    return a;
}

INLINE float float_from_f16(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000U) << 16, exponent = (half >> 10) & 31U, mantissa = half & 0x3FFU;
    if (exponent == 31) return float_from_bits(sign | 0x7F800000U | mantissa << 13);
    if (exponent) return float_from_bits(sign | (exponent + 112U) << 23 | mantissa << 13);
    float small = (float)mantissa * 0x1p-24F;
    return sign ? -small : small;
}

INLINE real real_from(const void *p, lsp_dtype type, int index)
{
    if (type == LSP_F16) return (real)float_from_f16(((const uint16_t *)p)[index]);
    if (type == LSP_BF16) return (real)float_from_bits((uint32_t)((const uint16_t *)p)[index] << 16);
    if (type == LSP_F32) return (real)((const float *)p)[index];
    return (real)((const double *)p)[index];
}

/* LANES elements of a stored type, converted. */
INLINE vec vec_from(const void *p, lsp_dtype type)
{
    real lanes[LANES];
    UNROLL
    for (int i = 0; i < LANES; i++) lanes[i] = real_from(p, type, i);
    return vec_load(lanes);
}

INLINE real real_fma(real a, real b, real c)
{
    return a * b + c;
}

#endif
