/* P V of six rows over a whole key tile, added to their output, and meanwhile the sums of P by lane: additions of what is in
 * memory anyway, which no store follows. The bits are those of values_block and scores_power.
 *
 *     zmm0  ... 23   sums over keys, row by row, one to four vectors each
 *     zmm24 ... 27   as many vectors of V    zmm28   a probability in all lanes    zmm29   a row's sum
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_PLAIN_VALUES_H
#define LSP_KERNEL_PLAIN_VALUES_H

/* clang-format off: lines of text are lines of the listing. */

#include "kernel/plain_keys.h"

/* What zmm29 gets after step i of four; in bf16 the sums are there already. */
#if BRAIN
#    define SUM_STEPS(i)
#elif REAL_BITS == 32
#    define SUM_STEPS(i) SUM_STEPS_##i
#    define SUM_STEPS_0  OP("vaddps (%[from]), " Z(29) ", " Z(29))
#    define SUM_STEPS_1
#    define SUM_STEPS_2  OP("vaddps 64(%[from]), " Z(29) ", " Z(29)) OP("addq $128, %[from]")
#    define SUM_STEPS_3
#else
#    define SUM_STEPS(i) SUM_STEPS_##i
#    define SUM_STEPS_0  OP("vaddpd (%[from]), " Z(29) ", " Z(29))
#    define SUM_STEPS_1  OP("vaddpd 64(%[from]), " Z(29) ", " Z(29))
#    define SUM_STEPS_2  OP("vaddpd 128(%[from]), " Z(29) ", " Z(29))
#    define SUM_STEPS_3  OP("vaddpd 192(%[from]), " Z(29) ", " Z(29)) OP("addq $256, %[from]")
#endif
#define NO_SUM_STEPS(i)

/* One step of the product, of one to four columns of vectors. */
#define V_ROW_1(row, a)          SPREAD(row, 28) FMA(24, 28, a)
#define V_ROW_2(row, a, b)       V_ROW_1(row, a) FMA(25, 28, b)
#define V_ROW_3(row, a, b, c)    V_ROW_2(row, a, b) FMA(26, 28, c)
#define V_ROW_4(row, a, b, c, d) V_ROW_3(row, a, b, c) FMA(27, 28, d)
#define V_LOADS_1(at)            LOAD("0" at, 24)
#define V_LOADS_2(at)            V_LOADS_1(at) LOAD("64" at, 25)
#define V_LOADS_3(at)            V_LOADS_2(at) LOAD("128" at, 26)
#define V_LOADS_4(at)            V_LOADS_3(at) LOAD("192" at, 27)
#define V_STEP_1(i, at)                                                                                      \
    V_LOADS_1(at)                                                                                            \
    V_ROW_1(ROW_0(i), 0) V_ROW_1(ROW_1(i), 1) V_ROW_1(ROW_2(i), 2) V_ROW_1(ROW_3(i), 3)                      \
    V_ROW_1(ROW_4(i), 4) V_ROW_1(ROW_5(i), 5)
#define V_STEP_2(i, at)                                                                                      \
    V_LOADS_2(at)                                                                                            \
    V_ROW_2(ROW_0(i), 0, 1) V_ROW_2(ROW_1(i), 2, 3) V_ROW_2(ROW_2(i), 4, 5) V_ROW_2(ROW_3(i), 6, 7)          \
    V_ROW_2(ROW_4(i), 8, 9) V_ROW_2(ROW_5(i), 10, 11)
#define V_STEP_3(i, at)                                                                                      \
    V_LOADS_3(at)                                                                                            \
    V_ROW_3(ROW_0(i), 0, 1, 2) V_ROW_3(ROW_1(i), 3, 4, 5) V_ROW_3(ROW_2(i), 6, 7, 8)                         \
    V_ROW_3(ROW_3(i), 9, 10, 11) V_ROW_3(ROW_4(i), 12, 13, 14) V_ROW_3(ROW_5(i), 15, 16, 17)
#define V_STEP_4(i, at)                                                                                      \
    V_LOADS_4(at)                                                                                            \
    V_ROW_4(ROW_0(i), 0, 1, 2, 3) V_ROW_4(ROW_1(i), 4, 5, 6, 7) V_ROW_4(ROW_2(i), 8, 9, 10, 11)              \
    V_ROW_4(ROW_3(i), 12, 13, 14, 15) V_ROW_4(ROW_4(i), 16, 17, 18, 19) V_ROW_4(ROW_5(i), 20, 21, 22, 23)
#define V_FOUR(step, sums)                                                                                   \
    step(0, "(%[v])") sums(0) step(1, "(%[v],%[vs])") sums(1) OP("leaq (%[v],%[vs],2), %[v]")                \
    step(2, "(%[v])") sums(2) step(3, "(%[v],%[vs])") sums(3) OP("leaq (%[v],%[vs],2), %[v]")                \
    OP("addq $4*" UNIT ", %[q0]") OP("addq $4*" UNIT ", %[q3]")

#define CLEAR_V CLEAR(0) COPIES_11(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11) COPIES_11(0, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22) COPY(0, 23)
/* All keys; the sums, row after row, with the first three quarters of them or more, where they are asked for. */
#if BRAIN
#    define V_SUMMED(step) TIMES(MEMBER(rest), V_FOUR(step, NO_SUM_STEPS))
#else
#define V_SUMMED(step)                                                                                       \
    OP("movq $6, %[row]") OP("cmpq $0, " MEMBER(rounds)) OP("je 5f")                                         \
    OP("3:") CLEAR(29)                                                                                       \
    TIMES(MEMBER(rounds), V_FOUR(step, SUM_STEPS))                                                           \
    STORE(29, "(%[sum])") OP("addq $64, %[sum]") OP("addq " MEMBER(sum_move) ", %[from]") OP("decq %[row]") OP("jnz 3b")      \
    OP("5:") TIMES(MEMBER(rest), V_FOUR(step, NO_SUM_STEPS))
#endif

/* Output of a row: the last vector has lanes of mask k1. */
#define O_ADD(off, row, a)       OP(FP("vadd") #off "+" row ", " Z(a) ", " Z(a))
#define O_ADD_LAST(off, row, a)  OP(FP("vadd") #off "+" row ", " Z(a) ", " Z(a) "%{%%k1%}")
#define O_STORE_LAST(off, row, a) OP("vmovu" FP("") Z(a) ", " #off "+" row "%{%%k1%}")
#define O_ROW_1(last, more, row, a)          last(0, row, a)
#define O_ROW_2(last, more, row, a, b)       more(0, row, a) last(64, row, b)
#define O_ROW_3(last, more, row, a, b, c)    more(0, row, a) more(64, row, b) last(128, row, c)
#define O_ROW_4(last, more, row, a, b, c, d) more(0, row, a) more(64, row, b) more(128, row, c) last(192, row, d)
#define O_STORE(off, row, a)                 STORE(a, #off "+" row)
#define O_ALL_1(last, more)                                                                                  \
    O_ROW_1(last, more, ROW_0(0), 0) O_ROW_1(last, more, ROW_1(0), 1) O_ROW_1(last, more, ROW_2(0), 2)       \
    O_ROW_1(last, more, ROW_3(0), 3) O_ROW_1(last, more, ROW_4(0), 4) O_ROW_1(last, more, ROW_5(0), 5)
#define O_ALL_2(last, more)                                                                                  \
    O_ROW_2(last, more, ROW_0(0), 0, 1) O_ROW_2(last, more, ROW_1(0), 2, 3)                                  \
    O_ROW_2(last, more, ROW_2(0), 4, 5) O_ROW_2(last, more, ROW_3(0), 6, 7)                                  \
    O_ROW_2(last, more, ROW_4(0), 8, 9) O_ROW_2(last, more, ROW_5(0), 10, 11)
#define O_ALL_3(last, more)                                                                                  \
    O_ROW_3(last, more, ROW_0(0), 0, 1, 2) O_ROW_3(last, more, ROW_1(0), 3, 4, 5)                            \
    O_ROW_3(last, more, ROW_2(0), 6, 7, 8) O_ROW_3(last, more, ROW_3(0), 9, 10, 11)                          \
    O_ROW_3(last, more, ROW_4(0), 12, 13, 14) O_ROW_3(last, more, ROW_5(0), 15, 16, 17)
#define O_ALL_4(last, more)                                                                                  \
    O_ROW_4(last, more, ROW_0(0), 0, 1, 2, 3) O_ROW_4(last, more, ROW_1(0), 4, 5, 6, 7)                      \
    O_ROW_4(last, more, ROW_2(0), 8, 9, 10, 11) O_ROW_4(last, more, ROW_3(0), 12, 13, 14, 15)                \
    O_ROW_4(last, more, ROW_4(0), 16, 17, 18, 19) O_ROW_4(last, more, ROW_5(0), 20, 21, 22, 23)
#define V_OUT(all, fresh)                                                                                    \
    OP("movq " MEMBER(out) ", %[q0]") OP("movq 8+" MEMBER(out) ", %[q3]")                                    \
    OP("movq " MEMBER(out_stride) ", %[qs]") OP("kmovw " MEMBER(mask) ", %%k1")                              \
    OP("cmpq $0, " fresh) OP("jne 4f")                                                               \
    all(O_ADD_LAST, O_ADD) OP("4:") all(O_STORE_LAST, O_STORE)

/* p: the first of six rows of probabilities, p_stride bytes apart; v: the first of the columns, v_stride bytes from a row to
 * the next; from: what is summed. */
#define PLAIN_VALUES(cols)                                                                                   \
    static __attribute__((noinline)) void plain_values_##cols(plain_state *state, const real *p,             \
                                                              int64_t p_stride, const unit *v,               \
                                                              int64_t v_stride, const real *from, vec *sum)  \
    {                                                                                                        \
        const char *q0 = (const char *)p, *q3 = q0 + 3 * p_stride;                                           \
        int64_t n, row;                                                                                      \
        __asm__ volatile(CLEAR_V V_SUMMED(V_STEP_##cols) V_OUT(O_ALL_##cols, MEMBER(fresh))                                 \
                         : [v] "+&r"(v), [q0] "+&r"(q0), [q3] "+&r"(q3), [qs] "+&r"(p_stride),                   \
                           [from] "+&r"(from), [sum] "+&r"(sum), [n] "=&r"(n), [row] "=&r"(row)                \
                         : [s] "r"(state), [vs] "r"(v_stride)                                                \
                         : SCHEDULE_CLOBBERS, "k1");                                                         \
    }
PLAIN_VALUES(1)
PLAIN_VALUES(2)
PLAIN_VALUES(3)
PLAIN_VALUES(4)

#if BRAIN
/* Twelve rows of two vectors at once, as twelve sums do not keep VDPBF16PS busy: rows 6 and 9 are at q6 and q9. */
#    define ROW_6(i)  "(" #i "*" UNIT ")(%[q6])"
#    define ROW_7(i)  "(" #i "*" UNIT ")(%[q6],%[qs])"
#    define ROW_8(i)  "(" #i "*" UNIT ")(%[q6],%[qs],2)"
#    define ROW_9(i)  "(" #i "*" UNIT ")(%[q9])"
#    define ROW_10(i) "(" #i "*" UNIT ")(%[q9],%[qs])"
#    define ROW_11(i) "(" #i "*" UNIT ")(%[q9],%[qs],2)"
#    define V_STEP_TWICE(i, at)                                                                              \
        V_STEP_2(i, at)                                                                                      \
        V_ROW_2(ROW_6(i), 12, 13) V_ROW_2(ROW_7(i), 14, 15) V_ROW_2(ROW_8(i), 16, 17)                        \
        V_ROW_2(ROW_9(i), 18, 19) V_ROW_2(ROW_10(i), 20, 21) V_ROW_2(ROW_11(i), 22, 23)
#    define O_ALL_TWICE(last, more)                                                                          \
        O_ROW_2(last, more, ROW_0(0), 12, 13) O_ROW_2(last, more, ROW_1(0), 14, 15)                          \
        O_ROW_2(last, more, ROW_2(0), 16, 17) O_ROW_2(last, more, ROW_3(0), 18, 19)                          \
        O_ROW_2(last, more, ROW_4(0), 20, 21) O_ROW_2(last, more, ROW_5(0), 22, 23)
#    define TWICE_FOUR                                                                                       \
        V_FOUR(V_STEP_TWICE, NO_SUM_STEPS) OP("addq $4*" UNIT ", %[q6]") OP("addq $4*" UNIT ", %[q9]")
/* To the output of the second group. */
#    define OUT_ON                                                                                           \
        OP("leaq (%[qs],%[qs],2), %[n]") OP("addq %[n], %[n]")                                               \
        OP("addq %[n], " MEMBER(out)) OP("addq %[n], 8+" MEMBER(out))

static __attribute__((noinline)) void plain_values_twice(plain_state *state, const real *p, int64_t p_stride,
                                                         const unit *v, int64_t v_stride)
{
    const char *q0 = (const char *)p, *q3 = q0 + 3 * p_stride, *q6 = q3 + 3 * p_stride, *q9 = q6 + 3 * p_stride;
    int64_t n;
    __asm__ volatile(CLEAR_V TIMES(MEMBER(rest), TWICE_FOUR)
        V_OUT(O_ALL_2, MEMBER(fresh)) OUT_ON V_OUT(O_ALL_TWICE, "8+" MEMBER(fresh))
        : [v] "+&r"(v), [q0] "+&r"(q0), [q3] "+&r"(q3), [q6] "+&r"(q6), [q9] "+&r"(q9), [qs] "+&r"(p_stride), [n] "=&r"(n)
        : [s] "r"(state), [vs] "r"(v_stride)
        : SCHEDULE_CLOBBERS, "k1");
}
#endif

/* All columns, in blocks as values_rows has them. p: of the first of six rows, all its probabilities; `out` is the first of six
 * rows, and `sum` of their sums. Or `twice` as many. */
static void plain_values(plain_state *state, const lsp_tile_shape *shape, const plain_keys *keys, const real *p,
                         int64_t p_stride, const unit *v, real *out, vec *sum, bool twice)
{
    const int64_t vectors = shape->v_stride / LANES, blocks = lsp_ceil_div(vectors, COL_TILE);
    const int64_t v_stride = shape->v_stride * (int64_t)sizeof(unit), begin = keys->begin / UNIT_ELEMENTS;
    const int64_t fours = (keys->end - keys->begin) / UNIT_ELEMENTS / PLAIN_FOUR;
    const real *from = p + keys->first, *first = (const real *)(const void *)((const unit *)(const void *)p + begin);
    state->rounds = keys->rounds;
    state->sum_move = p_stride - (keys->last - keys->first) * (int64_t)sizeof(real);
    v += begin * shape->v_stride;
    for (int64_t b = 0, done = 0, width = state->width; b < blocks; b++, done += width) {
        if (b == blocks - state->wider) width++;
        const int64_t left = shape->d_v - (done + width - 1) * LANES;
        state->rest = fours - ROW_TILE * state->rounds;
        state->mask = left < LANES ? (1 << lsp_max(left, 0)) - 1 : (1 << LANES) - 1;
        state->out[0] = (char *)(out + done * LANES), state->out[1] = state->out[0] + 3 * state->out_stride;
        const unit *column = v + done * LANES;
#if BRAIN
        if (twice) {
            plain_values_twice(state, first, p_stride, v, v_stride);
            return;
        }
#else
        (void)twice;
#endif
        switch (width) {
        case 1: plain_values_1(state, first, p_stride, column, v_stride, from, sum); break;
        case 2: plain_values_2(state, first, p_stride, column, v_stride, from, sum); break;
        case 3: plain_values_3(state, first, p_stride, column, v_stride, from, sum); break;
        default: plain_values_4(state, first, p_stride, column, v_stride, from, sum);
        }
        state->rounds = 0;
    }
}

#endif
