/* What a register tile multiplies. A unit is one element, or, where an instruction takes pairs of bf16, two
 * neighbours along the sum; one step of a product is a unit of each row times a vector of units.
 *
 * Computing in bf16 means, on every instruction set: operands and probabilities rounded to bf16, products exact,
 * sums in f32, and of each pair the odd one first, as VDPBF16PS adds them. So a kernel that keeps bf16 numbers in
 * f32 and a kernel with that instruction give the same bits.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_UNIT_H
#define LSP_KERNEL_UNIT_H

#include "kernel/real.h"

#ifndef VEC_HAS_PAIRS
enum { UNIT_ELEMENTS = 1 };
typedef real unit;
typedef vec unit_vec;

INLINE unit_vec unit_load(const unit *p)
{
    return vec_load(p);
}

INLINE unit_vec unit_set(unit a)
{
    return vec_set(a);
}

/* acc + a b */
INLINE vec unit_fma(unit_vec a, unit_vec b, vec acc)
{
    return vec_fma(a, b, acc);
}
#endif

/* Units of the probabilities of UNIT_ELEMENTS * LANES keys. */
INLINE vec unit_powers(const vec *power)
{
#ifdef VEC_HAS_PAIRS
    return unit_join(power[0], power[1]);
#else
    return power[0];
#endif
}

#ifndef VEC_HAS_PAIRS
/* Units of the elements of UNIT_ELEMENTS vectors. */
INLINE vec unit_pair(const vec *element)
{
    return element[0];
}
#    if BRAIN
/* The larger magnitudes of two vectors of units, `largest` being one; as integers, in the order of numbers. */
INLINE vec unit_largest(vec largest, vec units)
{
    return vec_largest_bits(largest, units);
}
#    endif
#endif

/* PAIR: numbers that stay together in a sum. SWAP: the second of a pair comes first. */
enum { PAIR = BRAIN ? 2 : 1, SWAP = BRAIN && UNIT_ELEMENTS == 1 };

#endif
