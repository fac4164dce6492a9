/* The computing type of one kernel source: REAL_BITS is 32 or 64; BRAIN is 1 for bf16, where REAL_BITS is 32.
 * Included first by every kernel file.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_REAL_H
#define LSP_KERNEL_REAL_H

#include "kernel/kernel.h"

#ifndef BRAIN
#    define BRAIN 0
#endif

#if REAL_BITS == 32
typedef float real;
#    define LSP_REAL LSP_F32
/* Keys of a strip of packed K, and the lanes in which sums over keys run: the same on every
 * instruction set, so that vectors of different widths give the same bits. */
enum { STRIP_KEYS = 64, SUM_LANES = 16 };
#elif REAL_BITS == 64
typedef double real;
#    define LSP_REAL LSP_F64
enum { STRIP_KEYS = 32, SUM_LANES = 8 };
#else
#    error "define REAL_BITS as 32 or 64 before including a kernel header"
#endif

/* Loops over registers must be unrolled, and functions that take register arrays inlined, in every
 * build: arrays of vectors live in registers only then. */
#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__ /* which disregards gcc's words without one of its own; loops that end early are for it to leave */
#    define UNROLL      _Pragma("clang loop unroll(full)")
#    define UNROLL_BY_4 _Pragma("clang loop unroll_count(4)")
#    pragma clang diagnostic ignored "-Wpass-failed"
#else
#    define UNROLL      _Pragma("GCC unroll 16")
#    define UNROLL_BY_4 _Pragma("GCC unroll 4")
#endif

#endif
