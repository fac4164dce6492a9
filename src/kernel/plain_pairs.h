/* What plain_scores.h is, in bf16 by VDPBF16PS. Its latency is six cycles on Zen 5, so that twelve sums alone would keep the
 * product waiting. Hence two streams of three rows: while the powers of one stream are taken, in place, the other goes on
 * alone; else both go on together, on 24 sums.
 *
 *     stream   first twelve steps      depth - 12 steps      last twelve steps
 *     rows 0-2 X's product 0 ... 11    X 12 ... depth - 1    powers of X
 *     rows 3-5 powers of Y, the block  Y 0 ... depth - 13    Y depth - 12 ... depth - 1
 *              before
 *
 *     zmm0  ... 11   X: sums, then scores, then powers: row by row, four vectors each
 *     zmm12 ... 23   Y
 *     zmm24 ... 27   four vectors of K, a strip's keys   zmm28   a pair of a query's elements in all lanes
 *     zmm29, 30      a power on its way                   zmm31   a row's sum
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_PLAIN_PAIRS_H
#define LSP_KERNEL_PLAIN_PAIRS_H

/* clang-format off: lines of text are lines of the listing. */

#include "kernel/plain_state.h"

/* The power of scores in zmm`x`, the c-th vector of row r, of which `before` was the last: vec_exp2_brain in twelve parts. */
#define POWER_0(x, before, r, c)  SPREAD(NUMBER(7), 29)
#define POWER_1(x, before, r, c)  OP("vfmadd213ps " NUMBER(5) EACH ", " Z(29) ", " Z(x))
#define POWER_2(x, before, r, c)  POWER_2_##c(r)
#define POWER_2_0(r)              LOAD(SUM_OF(r), 31)
#define POWER_2_1(r)
#define POWER_2_2(r)
#define POWER_2_3(r)
#define POWER_3(x, before, r, c)  OP("vreduceps $9, " Z(x) ", " Z(30)) /* from floor(x) */
#define POWER_4(x, before, r, c)  SPREAD(NUMBER(2), 29)
#define POWER_5(x, before, r, c)  OP("vsubps " NUMBER(6) EACH ", " Z(x) ", " Z(x))
#define POWER_6(x, before, r, c)  HORNER(29, 30, 1)
#define POWER_7(x, before, r, c)  HORNER(29, 30, 0)
#define POWER_8(x, before, r, c)  HORNER(29, 30, 3)
#define POWER_9(x, before, r, c)  OP("vsubps " NUMBER(4) EACH ", " Z(29) ", " Z(29))
#define POWER_10(x, before, r, c) OP("vscalefps " Z(x) ", " Z(29) ", " Z(x))
#define POWER_11(x, before, r, c) ADD(x, 31, 31) POWER_11_##c(x, before, r)
#define POWER_11_0(x, before, r)
#define POWER_11_1(x, before, r)  OP("vcvtne2ps2bf16 " Z(before) ", " Z(x) ", " Z(29)) STORE(29, P_##r)
#define POWER_11_2(x, before, r)
#define POWER_11_3(x, before, r)                                                                             \
    OP("vcvtne2ps2bf16 " Z(before) ", " Z(x) ", " Z(29)) STORE(29, "64" P_##r) STORE(31, SUM_OF(r))
#define SUM_OF(r) "64*" #r "(%[at])"
#define POWER(part, x, before, r, c) POWER_##part(x, before, r, c)
#define NOTHING(part, x, before, r, c)

/* A step of a stream's product, and what follows its FMAs. */
#define LOADS(k) LOAD("0" k, 24) LOAD("64" k, 25) LOAD("128" k, 26) LOAD("192" k, 27)
#define STEP_ROW(row, a, b, c, d, w, x, y, z)                                                                \
    SPREAD(row, 28) FMA(24, 28, a) w FMA(25, 28, b) x FMA(26, 28, c) y FMA(27, 28, d) z
#define X_WITH(what, i, x, before, r, c)                                                                     \
    LOADS("+256*" #i "(%[k])")                                                                               \
    STEP_ROW(ROW_0(i), 0, 1, 2, 3, what(0, x, before, r, c), what(1, x, before, r, c),                       \
             what(2, x, before, r, c), what(3, x, before, r, c))                                             \
    STEP_ROW(ROW_1(i), 4, 5, 6, 7, what(4, x, before, r, c), what(5, x, before, r, c),                       \
             what(6, x, before, r, c), what(7, x, before, r, c))                                             \
    STEP_ROW(ROW_2(i), 8, 9, 10, 11, what(8, x, before, r, c), what(9, x, before, r, c),                     \
             what(10, x, before, r, c), what(11, x, before, r, c))
#define Y_WITH(what, i, x, before, r, c)                                                                     \
    LOADS("+256*" #i "(%[k_y])")                                                                             \
    STEP_ROW(ROW_3(i), 12, 13, 14, 15, what(0, x, before, r, c), what(1, x, before, r, c),                   \
             what(2, x, before, r, c), what(3, x, before, r, c))                                             \
    STEP_ROW(ROW_4(i), 16, 17, 18, 19, what(4, x, before, r, c), what(5, x, before, r, c),                   \
             what(6, x, before, r, c), what(7, x, before, r, c))                                             \
    STEP_ROW(ROW_5(i), 20, 21, 22, 23, what(8, x, before, r, c), what(9, x, before, r, c),                   \
             what(10, x, before, r, c), what(11, x, before, r, c))
#define BOTH(i) X_WITH(NOTHING, i, , , , ) Y_WITH(NOTHING, i, , , , )

#define X_POWERS(how)                                                                                        \
    how(0, 0, 0, 0, 0) how(1, 1, 0, 0, 1) how(2, 2, 1, 0, 2) how(3, 3, 2, 0, 3)                              \
    how(4, 4, 4, 1, 0) how(5, 5, 4, 1, 1) how(6, 6, 5, 1, 2) how(7, 7, 6, 1, 3)                              \
    how(8, 8, 8, 2, 0) how(9, 9, 8, 2, 1) how(10, 10, 9, 2, 2) how(11, 11, 10, 2, 3)
#define Y_POWERS(how)                                                                                        \
    how(0, 12, 12, 3, 0) how(1, 13, 12, 3, 1) how(2, 14, 13, 3, 2) how(3, 15, 14, 3, 3)                      \
    how(4, 16, 16, 4, 0) how(5, 17, 16, 4, 1) how(6, 18, 17, 4, 2) how(7, 19, 18, 4, 3)                      \
    how(8, 20, 20, 5, 0) how(9, 21, 20, 5, 1) how(10, 22, 21, 5, 2) how(11, 23, 22, 5, 3)
#define WITH_X(i, x, before, r, c) X_WITH(POWER, i, x, before, r, c)
#define WITH_Y(i, x, before, r, c) Y_WITH(POWER, i, x, before, r, c)
#define ALONE(i, x, before, r, c)                                                                            \
    POWER_0(x, before, r, c) POWER_1(x, before, r, c) POWER_2(x, before, r, c) POWER_3(x, before, r, c)      \
    POWER_4(x, before, r, c) POWER_5(x, before, r, c) POWER_6(x, before, r, c) POWER_7(x, before, r, c)      \
    POWER_8(x, before, r, c) POWER_9(x, before, r, c) POWER_10(x, before, r, c) POWER_11(x, before, r, c)

#define FORWARD_X(steps) OP("addq $256*" #steps ", %[k]") OP("addq $" UNIT "*" #steps ", %[q0]")
#define FORWARD_Y(steps) OP("addq $256*" #steps ", %[k_y]") OP("addq $" UNIT "*" #steps ", %[q3]")
#define BOTH_STEPS                                                                                           \
    TIMES(MEMBER(first), BOTH(0) BOTH(1) ASK BOTH(2) BOTH(3) FORWARD_X(4) FORWARD_Y(4))                      \
    TIMES("8+" MEMBER(first), BOTH(0) FORWARD_X(1) FORWARD_Y(1))

#define CLEAR_X CLEAR(0) COPIES_11(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)
#define CLEAR_Y CLEAR(12) COPIES_11(12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23)

#define SUMS(whose) TURN OP("movq " PLACE(whose) "(%[s],%[n],8), %[at]")

/* As in plain_scores.h; `sum` is to be 0. */
static __attribute__((noinline)) void plain_scores(plain_state *state, const unit *q, int64_t depth, real *p,
                                                   int64_t p_stride, const unit *k)
{
    const int64_t q_stride = depth * (int64_t)sizeof(unit);
    const char *q0 = (const char *)q, *q3 = q0 + 3 * q_stride, *at;
    char *p0 = (char *)p, *p3 = p0 + 3 * p_stride - state->p_move[1];
    const unit *k_y = k;
    int64_t n, step;
    __asm__ volatile(SPREAD(NUMBER(8), 12) COPIES_11(12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23)
        OP("3:") CLEAR_X SUMS(sum_y) Y_POWERS(WITH_X) FORWARD_X(12) MOVE_P(8, p3)
        CLEAR_Y ASK_BEGIN BOTH_STEPS ASK_END
        TURN MOVE(k, k_move) MOVE(q0, q_move)
        SUMS(sum_x) X_POWERS(WITH_Y) FORWARD_Y(12) TURN MOVE(k_y, k_move) MOVE(q3, q_move) MOVE_P(0, p0)
        TURN_ENDS OP("jnz 3b")
        SUMS(sum_y) Y_POWERS(ALONE)
        : [k] "+&r"(k), [k_y] "+&r"(k_y), [q0] "+&r"(q0), [q3] "+&r"(q3), [p0] "+&r"(p0), [p3] "+&r"(p3), [n] "=&r"(n),
          [at] "=&r"(at), [step] "=&r"(step)
        : [s] "r"(state), [qs] "r"(q_stride), [ps] "r"(p_stride)
        : SCHEDULE_CLOBBERS);
}

#endif
