/* exp2 and tanh on vectors: the same operations, hence the same bits, wherever there is an FMA.
 * Needs one of the vec_*.h before it.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_VEC_MATH_H
#define LSP_KERNEL_VEC_MATH_H

#include "kernel/real.h"

#include <math.h>

/* 2^f on [-1/2, 1/2] and, in f64, [-1/32, 1/32], as 1 + f P(f), and tanh(y) = y + y z P(z), z = y^2 <= 0.625^2: polynomials
 * with the least largest error, coefficients lowest first.
 *
 * In f32 of degree 5 and times a number, POWER_UNIT, that makes its first coefficient 1: a weight's share of its row's sum
 * is what matters. Then an addition stands for one of five FMAs. The number has few bits, so that sums of equal weights are
 * exact. Within 1.80 ulp of 2^f, 1.97 where vec_fma rounds twice (all f: tests/bench/exp2_error.c), of which the
 * polynomial has 1.35; its errors are weighted so that they are small where those of rounding are not. In f64 0.07 ulp, to
 * which rounding adds 0.5 and the table of 2^(j / 16) as much; tanh 9e-9 and 1.4e-17. */
#if REAL_BITS == 32
#    define POWER_UNIT 757.5F
static const real power_numbers[] = {POWER_UNIT, 0x1.068780p9F, 0x1.6befaep7F, 0x1.506460p5F, 0x1.d4fab4p2F};
#else
#    define POWER_UNIT 1.0
static const real exp2_coefficients[] = {0x1.62e42fefa39f3p-1, 0x1.ebfbdff82c590p-3,  0x1.c6b08d6f2a289p-5,
                                         0x1.3b2ab6fb41213p-7, 0x1.5d897e525c216p-10, 0x1.430a1d08ec681p-13};
#    ifdef VEC_HAS_SPLIT_NEAREST
static const real exp2_steps[] = {
    0x1.0000000000000p+0, 0x1.0b5586cf9890fp+0, 0x1.172b83c7d517bp+0, 0x1.2387a6e756238p+0,
    0x1.306fe0a31b715p+0, 0x1.3dea64c123422p+0, 0x1.4bfdad5362a27p+0, 0x1.5ab07dd485429p+0,
    0x1.6a09e667f3bcdp+0, 0x1.7a11473eb0187p+0, 0x1.8ace5422aa0dbp+0, 0x1.9c49182a3f090p+0,
    0x1.ae89f995ad3adp+0, 0x1.c199bdd85529cp+0, 0x1.d5818dcfba487p+0, 0x1.ea4afa2a490dap+0};
#    else
/* As bits, from which the upper four of the fraction, which are j where 16 s is added to them, are taken away. */
static const uint64_t exp2_steps[] = {
    0x3FF0000000000000, 0x3FEFB5586CF9890F, 0x3FEF72B83C7D517B, 0x3FEF387A6E756238,
    0x3FEF06FE0A31B715, 0x3FEEDEA64C123422, 0x3FEEBFDAD5362A27, 0x3FEEAB07DD485429,
    0x3FEEA09E667F3BCD, 0x3FEEA11473EB0187, 0x3FEEACE5422AA0DB, 0x3FEEC49182A3F090,
    0x3FEEE89F995AD3AD, 0x3FEF199BDD85529C, 0x3FEF5818DCFBA487, 0x3FEFA4AFA2A490DA};
#    endif
#endif
#if REAL_BITS == 32
static const real tanh_coefficients[] = {-0x1.555532p-2F, 0x1.110726p-3F, -0x1.b83c5ap-5F, 0x1.52269cp-6F,
                                         -0x1.75e1d2p-8F};
#else
static const real tanh_coefficients[] = {
    -0x1.55555555554ffp-2,  0x1.111111110accdp-3,  -0x1.ba1ba1b5064a4p-5,  0x1.664f477adaa16p-6,
    -0x1.226e162bf3afap-7,  0x1.d6cf280e4e17dp-9,  -0x1.7d68a32af2846p-10, 0x1.336612c56918bp-11,
    -0x1.df5578befc37fp-13, 0x1.43911f4ee36d4p-14, -0x1.0da7240f497c0p-16};
#endif
enum { TANH_TERMS = sizeof tanh_coefficients / sizeof tanh_coefficients[0] };

/* What the sums of weights, and with them values, of the running state are in. */
#define SUM_UNIT (BRAIN ? (real)1 : POWER_UNIT)

/* Adding 1.5 * 2^23 (2^52) rounds to an integer, which then stands in the low bits; with the bias of exponents on
 * top they are an exponent. The lowest exponent is the one below the normal numbers: its bits are those of zero. What is
 * added besides is even, so that ties, as elsewhere, go to the even integer. At base - POWER_REACH and below, a power is 0. */
#if REAL_BITS == 32
#    define ROUND_SHIFT   0x1.8p23F
#    define EXPONENT_BIAS 127.0F
#    define POWER_REACH   138.0F
#else
#    define ROUND_SHIFT   0x1.8p52
#    define EXPONENT_BIAS 1023.0
#    define POWER_REACH   EXPONENT_BIAS
#    define STEP_SHIFT    0x1.8p48 /* to a sixteenth */
#endif

INLINE vec vec_polynomial(const real *coefficients, int terms, vec x)
{
    vec sum = vec_set(coefficients[terms - 1]);
    UNROLL
    for (int i = terms - 2; i >= 0; i--) sum = vec_fma(sum, x, vec_set(coefficients[i]));
    return sum;
}

/* 2^(s - base) POWER_UNIT for a score s <= base, or -inf (0), and base an even integer of at most FAR. Exactly POWER_UNIT at
 * base; 0 below the normal numbers (needs flush-to-zero); NaN stays NaN. s is split into round(s), ties to even, and a
 * fraction, which does not know base. Where `near` (a constant) s is finite and the result a normal number, whether or not
 * above 1, and, where there is VEC_HAS_SPLIT_NEAREST, base is 0: with fewer instructions, the same bits. */
#if REAL_BITS == 32
INLINE vec vec_power_of_fraction(vec f)
{
    vec power = vec_add(f, vec_set(power_numbers[4]));
    UNROLL
    for (int i = 3; i >= 0; i--) power = vec_fma(power, f, vec_set(power_numbers[i]));
    return power;
}

INLINE vec vec_power(const bool near, vec s, vec base)
{
#    ifdef VEC_HAS_SPLIT_NEAREST
    vec fraction = vec_fraction(s), whole = vec_sub(s, fraction);
    return vec_scale_whole(vec_power_of_fraction(fraction), near ? whole : vec_sub(whole, base));
#    else
    vec shift = vec_sub(vec_set(near ? ROUND_SHIFT : ROUND_SHIFT + POWER_REACH), base);
    if (!near) s = vec_max(vec_sub(base, vec_set(POWER_REACH)), s); /* in this order NaN stays */
    vec rounded = vec_add(s, shift), fraction = vec_sub(s, vec_sub(rounded, shift));
    vec power = vec_power_of_fraction(fraction);
    if (near) return vec_add_exponent(power, rounded);
    /* Products, which keep NaN; the reach is beyond the exponents' bias, of which it takes that much. */
    return vec_mul(vec_mul(power, vec_set(0x1p-11F)), vec_exponent_from_low_bits(rounded));
#    endif
}
#else
/* Here s is rounded to sixteenths, and 2^(j / 16) comes from a table. */
INLINE vec vec_power(const bool near, vec s, vec base)
{
    enum { TERMS = sizeof exp2_coefficients / sizeof exp2_coefficients[0] };
    const real *coefficients = exp2_coefficients;
#    ifdef VEC_HAS_SPLIT_NEAREST
    vec fraction = vec_fraction_step(s), whole = vec_sub(s, fraction);
    vec step = vec_pick_step(exp2_steps, vec_add(s, vec_set(STEP_SHIFT)));
    vec scale = vec_scale_whole(step, near ? whole : vec_sub(whole, base));
    /* Or the compiler keeps them in registers, which then do not suffice for scores. */
    __asm__ volatile("" : "+r"(coefficients));
#    else
    vec shift = vec_sub(vec_set(STEP_SHIFT), base);
    if (!near) s = vec_max(vec_sub(base, vec_set(POWER_REACH)), s); /* in this order NaN stays */
    vec rounded = vec_add(s, shift), fraction = vec_sub(s, vec_sub(rounded, shift));
    vec scale = vec_power_of_step(exp2_steps, rounded);
#    endif
    vec tail = vec_polynomial(coefficients, TERMS, fraction);
    vec rest = vec_mul(tail, fraction);
#    ifdef VEC_ROUNDS_TWICE
    scale = vec_mul(scale, vec_set(0x1p64)); /* or its product with the rest might be below all numbers */
    return vec_mul(vec_add(vec_mul(scale, rest), scale), vec_set(0x1p-64));
#    else
    return vec_fma(scale, rest, scale);
#    endif
}
#endif

/* The smallest even integer that is at least x. */
INLINE real real_ceil_even(real x)
{
#if REAL_BITS == 32
    return 2 * __builtin_ceilf(x * (real)0.5);
#else
    return 2 * __builtin_ceil(x * 0.5);
#endif
}

/* 2^x for an integer x <= 0, also -inf; NaN stays NaN. */
INLINE real real_power(real x)
{
    if (x < (real)1 - EXPONENT_BIAS) return (real)0;
    if (x != x) return x;
    return vec_exponent_from_low_bits(vec_set(x + (ROUND_SHIFT + EXPONENT_BIAS)))[0];
}

#if BRAIN
/* 2^(s - base) rounded to bf16, for u = s + BRAIN_BIAS and base an even integer, s <= base + 24, or -inf (0): 2^f = 1 + f P(f)
 * on [0, 1], relative error 8.6e-5 before the rounding. Next to the bias s keeps 13 bits after the point, which costs
 * as little; so the fraction is exact, and does not know base. The rounding is that of adding 1.5 * 2^16 to a
 * number in [1, 2]; that the coefficients carry 2^-BRAIN_SPARE leaves room below the smallest power. */
#    define BRAIN_BIAS  1024.0F
#    define BRAIN_SPARE 100.0F
#    define BRAIN_UNIT  0x1p-100F
#    define BRAIN_ROUND (0x1.8p16F * BRAIN_UNIT)

static const real brain_numbers[] = {0.6951168F * BRAIN_UNIT, 0.22764492F * BRAIN_UNIT,
                                     0.0770671F * BRAIN_UNIT, BRAIN_ROUND + BRAIN_UNIT, BRAIN_ROUND};

INLINE vec vec_round_power(vec fraction)
{
    const real *coefficients = brain_numbers;
#    ifdef VEC_HAS_PAIRS
    /* Or the compiler keeps them in registers, which are the product's. */
    __asm__ volatile("" : "+r"(coefficients));
#    endif
    vec tail = vec_polynomial(coefficients, 3, fraction);
    return vec_sub(vec_fma(tail, fraction, vec_set(coefficients[3])), vec_set(coefficients[4]));
}

INLINE vec vec_exp2_brain(vec u, real base)
{
    const real shift = base + (BRAIN_BIAS - BRAIN_SPARE);
#    ifdef VEC_HAS_SPLIT_NEAREST
    return vec_scale_whole(vec_round_power(vec_fraction_floor(u)), vec_sub(u, vec_set(shift)));
#    else
    u = vec_max(vec_set(shift - EXPONENT_BIAS), u); /* in this order NaN stays */
    vec whole = vec_floor(u);
    vec exponent = vec_add(whole, vec_set(ROUND_SHIFT + EXPONENT_BIAS - shift));
    return vec_mul(vec_round_power(vec_sub(u, whole)), vec_exponent_from_low_bits(exponent));
#    endif
}
#endif

/* A few ulp of relative error everywhere: a polynomial near 0, where the formula with exp would cancel. */
INLINE vec vec_tanh(vec y)
{
    vec one = vec_set(POWER_UNIT), size = vec_abs(y), square = vec_mul(y, y);
    vec small = vec_fma(vec_mul(vec_polynomial(tanh_coefficients, TANH_TERMS, square), square), y, y);
    vec decay = vec_power(false, vec_mul(size, vec_set((real)-2.8853900817779268147)), vec_zero());
    vec large = vec_copysign(vec_div(vec_sub(one, decay), vec_add(one, decay)), y);
    return vec_select_less(size, vec_set((real)0.625), small, large);
}

/* Sum and maximum over SUM_LANES lanes by halves, so that the order is the same for every vector width. */
INLINE real lanes_sum(const vec *lanes)
{
    vec sum[SUM_LANES / LANES];
    UNROLL
    for (int i = 0; i < SUM_LANES / LANES; i++) sum[i] = lanes[i];
    UNROLL
    for (int half = SUM_LANES / LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) sum[i] = vec_add(sum[i], sum[i + half]);
    UNROLL
    for (int half = LANES / 2; half; half /= 2) sum[0] = vec_add(sum[0], vec_upper(sum[0], half));
    return sum[0][0];
}

INLINE real lanes_max(const vec *lanes)
{
    vec max[SUM_LANES / LANES];
    UNROLL
    for (int i = 0; i < SUM_LANES / LANES; i++) max[i] = lanes[i];
    UNROLL
    for (int half = SUM_LANES / LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) max[i] = vec_max(max[i], max[i + half]);
    UNROLL
    for (int half = LANES / 2; half; half /= 2) max[0] = vec_max(max[0], vec_upper(max[0], half));
    return max[0][0];
}

#endif
