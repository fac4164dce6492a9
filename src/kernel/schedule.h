/* Instructions of AVX-512 in an order that is the point: text for plain_scores.h and plain_values.h. Vectors go by number,
 * memory by the operands of the statement that the text ends up in:
 *
 *     q0, q3, qs   rows 0 and 3 of the left operand, and the bytes from a row to the next
 *     s            the plain_state
 *     n            free
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_SCHEDULE_H
#define LSP_KERNEL_SCHEDULE_H

/* clang-format off: lines of text are lines of the listing. */

#include "kernel/unit.h"

#define OP(text) text "\n\t"
#define Z(n)     "%%zmm" #n

#if REAL_BITS == 32
#    define FP(op)    op "ps "
#    define BROADCAST "vbroadcastss "
#    define EACH      "%{1to16%}"
#    define UNIT      "4" /* bytes; of f32, or of a pair of bf16 */
#else
#    define FP(op)    op "pd "
#    define BROADCAST "vbroadcastsd "
#    define EACH      "%{1to8%}"
#    define UNIT      "8"
#endif
#if BRAIN
#    define MULTIPLY "vdpbf16ps "
#else
#    define MULTIPLY FP("vfmadd231")
#endif

/* Unit i of the rows of the left operand. */
#define ROW_0(i) "(" #i "*" UNIT ")(%[q0])"
#define ROW_1(i) "(" #i "*" UNIT ")(%[q0],%[qs])"
#define ROW_2(i) "(" #i "*" UNIT ")(%[q0],%[qs],2)"
#define ROW_3(i) "(" #i "*" UNIT ")(%[q3])"
#define ROW_4(i) "(" #i "*" UNIT ")(%[q3],%[qs])"
#define ROW_5(i) "(" #i "*" UNIT ")(%[q3],%[qs],2)"

#define LOAD(from, to)     OP("vmovups " from ", " Z(to))
#define STORE(from, to)    OP("vmovups " Z(from) ", " to)
#define SPREAD(from, to)   OP(BROADCAST from ", " Z(to))
#define FMA(a, b, acc)     OP(MULTIPLY Z(a) ", " Z(b) ", " Z(acc))
#define ADD(a, b, to)      OP(FP("vadd") Z(a) ", " Z(b) ", " Z(to))
#define COPY(from, to)     OP("vmovaps " Z(from) ", " Z(to))
#define CLEAR(n)           OP("vpxord " Z(n) ", " Z(n) ", " Z(n))
/* Twelve copies, and those to all but the first. */
#define COPIES_11(a, n1, n2, n3, n4, n5, n6, n7, n8, n9, n10, n11)                                           \
    COPY(a, n1) COPY(a, n2) COPY(a, n3) COPY(a, n4) COPY(a, n5) COPY(a, n6) COPY(a, n7) COPY(a, n8)          \
    COPY(a, n9) COPY(a, n10) COPY(a, n11)

/* A loop over what `body` does `count` times, and n to count with; nothing where it is 0. */
#define TIMES(count, body)                                                                                   \
    OP("movq " count ", %[n]") OP("testq %[n], %[n]") OP("jz 2f")                                            \
    OP("1:") body OP("decq %[n]") OP("jnz 1b") OP("2:")

#define SCHEDULE_CLOBBERS                                                                                    \
    "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
        "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21",   \
        "xmm22", "xmm23", "xmm24", "xmm25", "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31"

#endif
