/* Probabilities of six rows against a whole key tile, with maxima of 0: half a strip of K at a time, and the powers of its
 * scores between the steps of the next half's product. The scores wait for that in registers: what adders of their own do
 * (Zen) then costs nothing, and no score goes through memory. The bits are those of scores_rows.
 *
 *     zmm0  ... 11   sums over d for this half: row by row, two vectors each
 *     zmm12 ... 23   scores of the half before, which wait; when they are done, sums over further pieces of d
 *     zmm24, 25      two vectors of K       zmm26   a query's element in all lanes
 *     zmm27, 28 (f64: and 29)   a power on its way     zmm29, 30, 31   what all powers need
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_PLAIN_SCORES_H
#define LSP_KERNEL_PLAIN_SCORES_H

/* clang-format off: lines of text are lines of the listing. */

#include "kernel/plain_state.h"

/* The power of scores in zmm`x`, vector `c` of row `r`: vec_power in twelve parts, one to follow each FMA of a step. */
#if REAL_BITS == 32
#    define POWER_0(x, r, c)  OP("vreduceps $8, " Z(x) ", " Z(27)) /* from round(x) */
#    define POWER_1(x, r, c)  OP("vsubps " Z(27) ", " Z(x) ", " Z(x))
#    define POWER_2(x, r, c)  ADD(27, 31, 28)
#    define POWER_3(x, r, c)
#    define POWER_4(x, r, c)  OP("vfmadd213ps " Z(30) ", " Z(27) ", " Z(28))
#    define POWER_5(x, r, c)
#    define POWER_6(x, r, c)  OP("vfmadd213ps " Z(29) ", " Z(27) ", " Z(28))
#    define POWER_7(x, r, c)
#    define POWER_8(x, r, c)  HORNER(28, 27, 1)
#    define POWER_9(x, r, c)  HORNER(28, 27, 0)
#    define POWER_10(x, r, c) OP("vscalefps " Z(x) ", " Z(28) ", " Z(28))
#    define POWER_11(x, r, c) STORE(28, "64*" #c P_##r)
#else
#    define POWER_0(x, r, c)  OP("vreducepd $0x48, " Z(x) ", " Z(27)) /* from the nearest sixteenth */
#    define POWER_1(x, r, c)  OP("vaddpd " NUMBER(6) EACH ", " Z(x) ", " Z(28))
#    define POWER_2(x, r, c)  OP("vsubpd " Z(27) ", " Z(x) ", " Z(x))
#    define POWER_3(x, r, c)  SPREAD(NUMBER(5), 29)
#    define POWER_4(x, r, c)  OP("vpermi2pd " Z(31) ", " Z(30) ", " Z(28)) HORNER(29, 27, 4)
#    define POWER_5(x, r, c)  HORNER(29, 27, 3)
#    define POWER_6(x, r, c)  OP("vscalefpd " Z(x) ", " Z(28) ", " Z(28)) HORNER(29, 27, 2)
#    define POWER_7(x, r, c)  HORNER(29, 27, 1)
#    define POWER_8(x, r, c)  HORNER(29, 27, 0)
#    define POWER_9(x, r, c)  OP("vmulpd " Z(27) ", " Z(29) ", " Z(29))
#    define POWER_10(x, r, c) OP("vfmadd213pd " Z(28) ", " Z(28) ", " Z(29))
#    define POWER_11(x, r, c) STORE(29, "64*" #c P_##r)
#endif

/* Step i of the product, to zmm0 ... 11, and what follows its FMAs; and to zmm12 ... 23. */
#define K_LOADS(i) LOAD("256*" #i "(%[k])", 24) LOAD("256*" #i "+64(%[k])", 25)
#define K_ROW(row, a, b, first, second)                                                                      \
    SPREAD(row, 26)                                                                                          \
    FMA(24, 26, a) first FMA(25, 26, b) second
#define STEP_WITH(i, p0, p1, p2, p3, p4, p5, p6, p7, p8, p9, p10, p11)                                       \
    K_LOADS(i)                                                                                               \
    K_ROW(ROW_0(i), 0, 1, p0, p1) K_ROW(ROW_1(i), 2, 3, p2, p3) K_ROW(ROW_2(i), 4, 5, p4, p5)                \
    K_ROW(ROW_3(i), 6, 7, p6, p7) K_ROW(ROW_4(i), 8, 9, p8, p9) K_ROW(ROW_5(i), 10, 11, p10, p11)
#define STEP_A(i) STEP_WITH(i, , , , , , , , , , , , )
#define STEP_B(i)                                                                                            \
    K_LOADS(i)                                                                                               \
    K_ROW(ROW_0(i), 12, 13, , ) K_ROW(ROW_1(i), 14, 15, , ) K_ROW(ROW_2(i), 16, 17, , )                      \
    K_ROW(ROW_3(i), 18, 19, , ) K_ROW(ROW_4(i), 20, 21, , ) K_ROW(ROW_5(i), 22, 23, , )

#define FORWARD(steps)                                                                                       \
    OP("addq $256*" #steps ", %[k]")                                                                         \
    OP("addq $" UNIT "*" #steps ", %[q0]") OP("addq $" UNIT "*" #steps ", %[q3]")
#define STEPS(step, member)                                                                                  \
    TIMES(MEMBER(member), step(0) step(1) ASK step(2) step(3) FORWARD(4))                                    \
    TIMES("8+" MEMBER(member), step(0) FORWARD(1))

#define FILL_B      COPIES_11(12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23)
#define CLEAR_A     CLEAR(0) COPIES_11(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)
#define CLEAR_B     CLEAR(12) FILL_B
#define MOVE_A_TO_B                                                                                          \
    COPY(0, 12) COPY(1, 13) COPY(2, 14) COPY(3, 15) COPY(4, 16) COPY(5, 17) COPY(6, 18) COPY(7, 19)          \
    COPY(8, 20) COPY(9, 21) COPY(10, 22) COPY(11, 23)
#define ADD_A_TO_B                                                                                           \
    ADD(0, 12, 12) ADD(1, 13, 13) ADD(2, 14, 14) ADD(3, 15, 15) ADD(4, 16, 16) ADD(5, 17, 17)                \
    ADD(6, 18, 18) ADD(7, 19, 19) ADD(8, 20, 20) ADD(9, 21, 21) ADD(10, 22, 22) ADD(11, 23, 23)
#define ADD_B_TO_A                                                                                           \
    ADD(0, 12, 0) ADD(1, 13, 1) ADD(2, 14, 2) ADD(3, 15, 3) ADD(4, 16, 4) ADD(5, 17, 5)                      \
    ADD(6, 18, 6) ADD(7, 19, 7) ADD(8, 20, 8) ADD(9, 21, 9) ADD(10, 22, 10) ADD(11, 23, 11)

/* All that waits: a power with each of twelve steps, with each two of 24, which disturbs the product less, or without any. */
#define POWERS(how)                                                                                          \
    how(0, 12, 0, 0) how(1, 13, 0, 1) how(2, 14, 1, 0) how(3, 15, 1, 1) how(4, 16, 2, 0) how(5, 17, 2, 1)    \
    how(6, 18, 3, 0) how(7, 19, 3, 1) how(8, 20, 4, 0) how(9, 21, 4, 1) how(10, 22, 5, 0) how(11, 23, 5, 1)
#define WOVEN(i, x, r, c)                                                                                    \
    STEP_WITH(i, POWER_0(x, r, c), POWER_1(x, r, c), POWER_2(x, r, c), POWER_3(x, r, c), POWER_4(x, r, c),   \
              POWER_5(x, r, c), POWER_6(x, r, c), POWER_7(x, r, c), POWER_8(x, r, c), POWER_9(x, r, c),      \
              POWER_10(x, r, c), POWER_11(x, r, c))
#define SPARSE(i, x, r, c)                                                                                   \
    STEP_WITH((2*i), POWER_0(x, r, c), , POWER_1(x, r, c), , POWER_2(x, r, c), , POWER_3(x, r, c), ,         \
              POWER_4(x, r, c), , POWER_5(x, r, c), )                                                        \
    STEP_WITH((2*i+1), POWER_6(x, r, c), , POWER_7(x, r, c), , POWER_8(x, r, c), , POWER_9(x, r, c), ,       \
              POWER_10(x, r, c), , POWER_11(x, r, c), )
#define WEAVE                                                                                                \
    OP("cmpq $0, " MEMBER(sparse)) OP("jne 6f") POWERS(WOVEN) FORWARD(12) OP("jmp 7f")                       \
    OP("6:") POWERS(SPARSE) FORWARD(24) OP("7:")
#define ALONE(i, x, r, c)                                                                                    \
    POWER_0(x, r, c) POWER_1(x, r, c) POWER_2(x, r, c) POWER_3(x, r, c) POWER_4(x, r, c) POWER_5(x, r, c)    \
    POWER_6(x, r, c) POWER_7(x, r, c) POWER_8(x, r, c) POWER_9(x, r, c) POWER_10(x, r, c) POWER_11(x, r, c)

#if REAL_BITS == 32
#    define POWERS_BEGIN SPREAD(NUMBER(4), 31) SPREAD(NUMBER(3), 30) SPREAD(NUMBER(2), 29)
#else
#    define POWERS_BEGIN LOAD("(%[table])", 30) LOAD("64(%[table])", 31)
#endif

#define FURTHER_PIECES                                                                                       \
    OP("movq " MEMBER(pieces) ", %[n]") OP("subq $2, %[n]") OP("movq %[n], " MEMBER(left)) OP("jz 5f")       \
    OP("4:") CLEAR_B STEPS(STEP_B, middle) ADD_B_TO_A OP("decq " MEMBER(left)) OP("jnz 4b")                  \
    OP("5:") CLEAR_B STEPS(STEP_B, last) ADD_A_TO_B
/* Of one group of rows, or of two that take turns: probabilities of row 0 go to p, those of the others p_stride bytes on. Two
 * vectors in front of the first and the seventh row are written to as well. */
static __attribute__((noinline)) void plain_scores(plain_state *state, const unit *q, int64_t depth, real *p,
                                                   int64_t p_stride, const unit *k)
{
    const int64_t q_stride = depth * (int64_t)sizeof(unit);
    const char *q0 = (const char *)q, *q3 = q0 + 3 * q_stride, *at;
    char *p0 = (char *)p - state->p_move[0], *p3 = p0 + 3 * p_stride;
    int64_t n, step;
    __asm__ volatile(POWERS_BEGIN CLEAR_B
        OP("3:") ASK_BEGIN CLEAR_A WEAVE MOVE_P(0, p0) MOVE_P(8, p3) STEPS(STEP_A, first)
        OP("cmpq $1, " MEMBER(pieces)) OP("jne 8f") MOVE_A_TO_B OP("jmp 9f")
        OP("8:") FURTHER_PIECES
        OP("9:") ASK_END TURN MOVE(k, k_move) MOVE(q0, q_move) MOVE(q3, q_move)
        TURN_ENDS OP("jnz 3b")
        POWERS(ALONE)
        : [k] "+&r"(k), [q0] "+&r"(q0), [q3] "+&r"(q3), [p0] "+&r"(p0), [p3] "+&r"(p3), [n] "=&r"(n), [at] "=&r"(at),
          [step] "=&r"(step)
        : [s] "r"(state), [qs] "r"(q_stride), [ps] "r"(p_stride)
#if REAL_BITS == 64
          ,
          [table] "r"(exp2_steps)
#endif
        : SCHEDULE_CLOBBERS);
}

#endif
