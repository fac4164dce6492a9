/* What the loops of plain_scores.h, plain_pairs.h and plain_values.h need besides their registers, and words that they share.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_PLAIN_STATE_H
#define LSP_KERNEL_PLAIN_STATE_H

#include "kernel/ahead.h"
#include "kernel/schedule.h"
#include "kernel/tile_scores.h"

#include <stddef.h>

enum {
    PLAIN_WOVEN = 12,  /* steps of the product with a power each */
    PLAIN_SPARSE = 24, /* or with half of one */
    PLAIN_FOUR = 4     /* steps that loops take at once */
};
/* Groups of rows that meet a block of keys one after the other: its second time it comes from the first-level cache. */
enum { PLAIN_GROUPS = 2 };
_Static_assert(ROW_TILE == 6 && STRIP_KEYS == 4 * LANES && STRIP_KEYS * sizeof(unit) == 256, "registers");

/* How many steps: by four, and what is left. */
typedef struct plain_steps {
    int64_t fours, ones;
} plain_steps;

/* What the loops need besides their registers. */
typedef struct plain_state {
    vec sum[PLAIN_GROUPS * ROW_TILE]; /* of the probabilities, by lane */
    real number[80 / sizeof(real)];   /* the exponential's */
    /* Scores: blocks of keys times groups, in turn; how many are left; and where to go after each, by the lower bits of `turn`,
     * which counts down, in bytes. Of probabilities two moves alternate, and `around` is their sum. */
    int64_t blocks, k_move[4], q_move[4], p_move[2], around;
    vec *sum_x[4], *sum_y[4]; /* bf16: which sums are to grow */
    int64_t pieces, left;
    plain_steps first, middle, last; /* of the pieces of a sum over d; the first without those that have a power */
    ahead_part ask[AHEAD_PARTS];
    /* P V: steps by four, those for a row's sum, and those after the sums; rows 0 and 3 of the output, bytes from one to the
     * next; the lanes of its last vector; whether there is none yet. */
    int64_t rounds, rest;
    char *out[2];
    int64_t out_stride, mask, fresh[PLAIN_GROUPS];
    int64_t sparse;   /* whether PLAIN_SPARSE steps have powers */
    int64_t turn;
    int64_t sum_move; /* bytes from the end of a row's probabilities that are summed to those of the next */
    int64_t width, wider; /* vectors of the first blocks of columns; how many of the last have one more */
} plain_state;

/* clang-format off: lines of text are lines of the listing. */
/* The places of its members, as text knows them. */
#define PLACE_number      768
#define PLACE_blocks      848
#define PLACE_k_move      856
#define PLACE_q_move      888
#define PLACE_p_move      920
#define PLACE_around      936
#define PLACE_sum_x       944
#define PLACE_sum_y       976
#define PLACE_pieces      1008
#define PLACE_left        1016
#define PLACE_first       1024
#define PLACE_middle      1040
#define PLACE_last        1056
#define PLACE_ask         1072
#define PLACE_rounds      1136
#define PLACE_rest        1144
#define PLACE_out         1152
#define PLACE_out_stride  1168
#define PLACE_mask        1176
#define PLACE_fresh       1184
#define PLACE_sparse      1200
#define PLACE_turn        1208
#define PLACE_sum_move    1216
#define PLACED(name) _Static_assert(offsetof(plain_state, name) == PLACE_##name, #name)
PLACED(number);
PLACED(blocks);
PLACED(k_move);
PLACED(q_move);
PLACED(p_move);
PLACED(around);
PLACED(sum_x);
PLACED(sum_y);
PLACED(pieces);
PLACED(left);
PLACED(first);
PLACED(middle);
PLACED(last);
PLACED(ask);
PLACED(rounds);
PLACED(rest);
PLACED(out);
PLACED(out_stride);
PLACED(mask);
PLACED(fresh);
PLACED(sparse);
PLACED(turn);
PLACED(sum_move);
#define PLACE_TEXT(x)   #x
#define PLACE_NUMBER(x) PLACE_TEXT(x)
#define PLACE(name)     PLACE_NUMBER(PLACE_##name)
#define MEMBER(name)    PLACE(name) "(%[s])"

#define NUMBER(i) "(" PLACE(number) "+" #i "*" UNIT ")(%[s])"
#define P_0       "(%[p0])"
#define P_1       "(%[p0],%[ps])"
#define P_2       "(%[p0],%[ps],2)"
#define P_3       "(%[p3])"
#define P_4       "(%[p3],%[ps])"
#define P_5       "(%[p3],%[ps],2)"
/* x = x a + number i */
#define HORNER(x, a, i) OP(FP("vfmadd213") NUMBER(i) EACH ", " Z(a) ", " Z(x))

/* A line that comes next; at first and at last, whose turn it is. */
#define ASK       OP("prefetcht1 (%[at])") OP("addq %[step], %[at]")
#define ASK_BEGIN TURN OP("shlq $4, %[n]") OP("movq " PLACE(ask) "(%[s],%[n]), %[at]") OP("movq 8+" PLACE(ask) "(%[s],%[n]), %[step]")
#define ASK_END   TURN OP("shlq $4, %[n]") OP("movq %[at], " PLACE(ask) "(%[s],%[n])")

/* n = which of the moves. */
#define TURN OP("movq " MEMBER(turn) ", %[n]") OP("andq $3, %[n]")
#define TURN_ENDS OP("decq " MEMBER(turn)) OP("decq " MEMBER(blocks))
#define MOVE(what, how) OP("addq " PLACE(how) "(%[s],%[n],8), %[" #what "]")
/* To where the next probabilities go. */
#define MOVE_P(place, a)                                                                                     \
    OP("movq " #place "+" MEMBER(p_move) ", %[n]") OP("addq %[n], %[" #a "]")                                \
    OP("negq %[n]") OP("addq " MEMBER(around) ", %[n]") OP("movq %[n], " #place "+" MEMBER(p_move))

#endif
