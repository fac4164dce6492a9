/* Candidates for the k largest scores of a row, of equal ones those of the lower keys.
 *
 * A row's candidates stand in the order of their keys. A score joins them when it exceeds `least`; when their room is
 * full, those that cannot be among the k largest any more leave, and `least` rises. What remains at the end is the
 * one exact choice, whenever that happened.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_CANDIDATES_H
#define LSP_KERNEL_CANDIDATES_H

#include "kernel/row_group.h"

#include <math.h>
#include <string.h>

/* Room for candidates beyond k: half as many, so that they are sorted out after the keys have grown by half. */
enum { SLACK_LEAST = 2 * STRIP_KEYS, SLACK_MOST = 1024 };

static int64_t candidate_stride(int64_t k)
{
    int64_t slack = lsp_max(SLACK_LEAST, lsp_min(k / 2, SLACK_MOST));
    return lsp_round_up(k + slack, SUM_LANES) + SUM_LANES;
}

/* Candidates beyond k that sorting out may leave: an eighth of the room for them. */
static int64_t candidate_spare(int64_t k)
{
    return lsp_max(SLACK_LEAST, lsp_min(k / 2, SLACK_MOST)) / 8;
}

/* ---- numbers by their order --------------------------------------------------------------------- */

#if REAL_BITS == 32
typedef int32_t real_order;
#else
typedef int64_t real_order;
#endif

/* Integers in the order of the numbers that they stand for; -0 comes before 0. */
INLINE real_order order_of(real a)
{
    const real_order sign = (real_order)1 << (REAL_BITS - 2), largest = sign + (sign - 1);
    real_order bits;
    memcpy(&bits, &a, sizeof bits);
    return bits < 0 ? bits ^ largest : bits;
}

INLINE real real_of(real_order order)
{
    const real_order sign = (real_order)1 << (REAL_BITS - 2), largest = sign + (sign - 1);
    real_order bits = order < 0 ? order ^ largest : order;
    real a;
    memcpy(&a, &bits, sizeof a);
    return a;
}

/* ---- sorting out -------------------------------------------------------------------------------- */

/* A row's candidates. */
typedef struct candidate_row {
    real *scores, *least;
    int32_t *keys, *count;
} candidate_row;

INLINE candidate_row candidates_of(const lsp_candidates *c, int64_t row)
{
    return (candidate_row){(real *)c->scores + row * c->stride, (real *)c->least + row,
                           c->keys + row * c->stride, c->counts + row};
}

/* How many of `count` scores (a multiple of LANES) are above a limit. */
INLINE int32_t count_above(const real *scores, int32_t count, real limit)
{
    vec bound = vec_set(limit);
    int32_t above = 0;
    int32_t i = 0;
    for (; i + 4 * LANES <= count; i += 4 * LANES) {
        UNROLL
        for (int v = 0; v < 4; v++)
            above += __builtin_popcount(vec_greater(vec_load(scores + i + v * LANES), bound));
    }
    for (; i < count; i += LANES) above += __builtin_popcount(vec_greater(vec_load(scores + i), bound));
    return above;
}

/* What one pass over candidates tells: how many are above their limit, how far above on average, and the largest. */
typedef struct candidate_spread {
    int32_t above;
    double excess;
    real largest;
} candidate_spread;

INLINE candidate_spread spread_of(const real *scores, int32_t count, real least)
{
    candidate_spread spread = {0, 0, -(real)INFINITY};
    vec bound = vec_set(least), most = vec_load(scores), sum = vec_zero();
    real lanes[LANES], sums[LANES];
    for (int32_t i = 0; i < count; i += LANES) {
        vec some = vec_load(scores + i);
        spread.above += __builtin_popcount(vec_greater(some, bound));
        most = vec_max(most, some);
        sum = vec_add(sum, vec_sub(vec_max(some, bound), bound));
    }
    vec_store(lanes, most);
    vec_store(sums, sum);
    for (int i = 0; i < LANES; i++) {
        spread.largest = lanes[i] > spread.largest ? lanes[i] : spread.largest;
        spread.excess += (double)sums[i];
    }
    spread.excess /= spread.above > 0 ? (double)spread.above : 1;
    return spread;
}

/* Moves the chosen lanes of LANES candidates to place `to`, which is not after them; returns the place after. */
INLINE int32_t keep_lanes(const candidate_row *row, int32_t from, uint32_t which, int32_t to)
{
#ifdef VEC_HAS_COMPRESS
    vec_compress(row->scores + to, vec_load(row->scores + from), which);
    keys_compress(row->keys + to, row->keys + from, which);
    return to + __builtin_popcount(which);
#else
    for (; which; which &= which - 1) {
        int32_t i = from + __builtin_ctz(which);
        row->scores[to] = row->scores[i];
        row->keys[to++] = row->keys[i];
    }
    return to;
#endif
}

/* Keeps what is above `limit` and the first `equals` of what equals it. */
static void keep_above(const candidate_row *of, int32_t padded, real limit, int64_t equals)
{
    candidate_row row = *of; /* a copy: no store below can change it */
    vec bound = vec_set(limit);
    int32_t to = 0;
    for (int32_t from = 0; from < padded; from += LANES) {
        vec scores = vec_load(row.scores + from);
        uint32_t which = vec_greater(scores, bound);
        if (equals > 0) {
            const uint32_t all = (uint32_t)((1ULL << LANES) - 1);
            uint32_t same = ~(which | vec_greater(bound, scores)) & all;
            for (; same && equals > 0; same &= same - 1, equals--) which |= same & -same;
        }
        to = keep_lanes(&row, from, which, to);
    }
    *row.count = to;
}

INLINE real smallest_of(const real *scores, int32_t count)
{
    real smallest = scores[0], lanes[LANES];
    int32_t i = 0;
    vec most = vec_set(-smallest);
    for (; i + LANES <= count; i += LANES) most = vec_max(most, vec_sub(vec_zero(), vec_load(scores + i)));
    vec_store(lanes, most);
    for (int lane = 0; lane < LANES; lane++) smallest = -lanes[lane] < smallest ? -lanes[lane] : smallest;
    for (; i < count; i++) smallest = scores[i] < smallest ? scores[i] : smallest;
    return smallest;
}

/* log2, a few in a thousand off: what is tried need not be exact. x is a normal number above 0. */
INLINE double rough_log2(double x)
{
    const uint64_t mantissa = ((uint64_t)1 << 52) - 1, one = (uint64_t)1023 << 52;
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int power = (int)(bits >> 52) - 1023;
    bits = (bits & mantissa) | one;
    memcpy(&x, &bits, sizeof x);
    return power + 2.885 * (x - 1) / (x + 1);
}

/* Numbers between which a limit lies, and how many scores are above each. */
typedef struct bracket {
    real_order low, high;
    int32_t above_low, above_high;
} bracket;

/* A number inside of a bracket that about `wanted` scores are above, if they thin out like powers: on the line through
 * the logarithms of both counts. */
INLINE real on_the_line(const bracket *b, double wanted)
{
    double low = (double)real_of(b->low), high = (double)real_of(b->high);
    double beyond = b->above_high > 0 ? (double)b->above_high : 0.5;
    return (real)(low + (high - low) * rough_log2((double)b->above_low / wanted) /
                            rough_log2((double)b->above_low / beyond));
}

/* A number that at least k, and at most k + spare, of the scores are above; where too many are equal for that, the k-th
 * largest of them. More than k + spare are above `least`. Tries what the mean tells of scores that thin out like
 * powers, then lines, and the middle often enough for any others. */
static real find_limit(const real *scores, int32_t count, int32_t padded, int64_t k, int64_t spare,
                       real least, candidate_spread *spread)
{
    bracket b = {order_of(least), order_of(spread->largest), spread->above, 0};
    double wanted = (double)k + 0.5 * (double)spare;
    if (least == -(real)INFINITY) b.low = order_of(smallest_of(scores, count)) - 1;
    for (int step = 0; b.low + 1 < b.high; step++) {
        real guess = step == 0 && least > -(real)INFINITY
                         ? least + (real)(spread->excess * 0.693 * rough_log2((double)spread->above / wanted))
                         : on_the_line(&b, wanted);
        real_order middle = (b.low & b.high) + ((b.low ^ b.high) >> 1);
        if (step % 3 < 2 && guess > real_of(b.low) && guess < real_of(b.high)) middle = order_of(guess);
        int32_t above = count_above(scores, padded, real_of(middle));
        if (above >= k && above <= k + spare) {
            spread->above = above;
            return real_of(middle);
        }
        if (above > k)
            b.low = middle, b.above_low = above;
        else
            b.high = middle, b.above_high = above;
    }
    spread->above = b.above_high;
    return real_of(b.high);
}

/* Leaves the k largest of more than k, and up to `spare` others, which are the next ones: a limit that parts off about
 * as many as wanted is found sooner than one that parts off k. Scores that equal `least` are left from the last time;
 * what is above pushes them out, the last ones first. */
static void sort_out(const candidate_row *row, int64_t k, int64_t spare)
{
    int32_t count = *row->count, padded = (int32_t)lsp_round_up(count, LANES);
    for (int32_t i = count; i < padded; i++) row->scores[i] = -(real)INFINITY;
    candidate_spread spread = spread_of(row->scores, padded, *row->least);
    if (spread.above > k + spare)
        *row->least = find_limit(row->scores, count, padded, k, spare, *row->least, &spread);
    keep_above(row, padded, *row->least, k - spread.above);
}

/* ---- limits before candidates are added --------------------------------------------------------- */

enum { SAMPLE = 512 };

/* A number that about `wanted` of a sample of `count` scores (a multiple of LANES) are above. */
static real limit_of_sample(const real *sample, int32_t count, double wanted)
{
    vec most = vec_load(sample), least = vec_sub(vec_zero(), most);
    real lanes[LANES], low, high, middle = 0;
    for (int32_t i = LANES; i < count; i += LANES) {
        vec some = vec_load(sample + i);
        most = vec_max(some, most), least = vec_max(vec_sub(vec_zero(), some), least);
    }
    vec_store(lanes, most);
    high = lanes[0];
    for (int i = 1; i < LANES; i++) high = lanes[i] > high ? lanes[i] : high;
    vec_store(lanes, least);
    low = lanes[0];
    for (int i = 1; i < LANES; i++) low = lanes[i] > low ? lanes[i] : low;
    low = -low;
    for (int step = 0; step < 12; step++) {
        middle = low + (high - low) * (real)0.5;
        double above = (double)count_above(sample, count, middle), off = 0.5 + wanted / 32;
        if (above > wanted + off)
            low = middle;
        else if (above < wanted - off)
            high = middle;
        else
            break;
    }
    return middle;
}

/* The point that a share of normally distributed numbers is above, in standard deviations from their mean (Abramowitz and
 * Stegun, 26.2.23). */
INLINE double normal_quantile(double share)
{
    double tail = share < 0.5 ? share : 1 - share, t = sqrt(2 * 0.6931 * rough_log2(1 / tail));
    double z = t - (2.30753 + 0.27061 * t) / (1 + (0.99229 + 0.04481 * t) * t);
    return share < 0.5 ? z : -z;
}

/* A number that about a share of scores are above, of which `count` (a multiple of LANES) are a sample: as of normally
 * distributed ones, which is nearer than counting, unless counting speaks against it. NaN where scores are not finite. */
static real guess_limit(const real *sample, int32_t count, double share, double quantile)
{
    vec sum = vec_zero(), square = vec_zero();
    real sums[LANES], squares[LANES];
    for (int32_t i = 0; i < count; i += LANES) {
        vec some = vec_load(sample + i);
        sum = vec_add(sum, some), square = vec_fma(some, some, square);
    }
    vec_store(sums, sum), vec_store(squares, square);
    double mean = 0, spread = 0, wanted = share * (double)count;
    for (int i = 0; i < LANES; i++) mean += (double)sums[i], spread += (double)squares[i];
    mean /= (double)count, spread = spread / (double)count - mean * mean;
    real limit = (real)(mean + quantile * sqrt(spread > 0 ? spread : 0));
    double off = (double)count_above(sample, count, limit) - wanted;
    if (off * off <= 1 + 6 * wanted) return limit;
    return mean - mean == 0 ? limit_of_sample(sample, count, wanted) : (real)NAN;
}

/* Of a row without candidates, before any of `count` scores (a multiple of LANES) is added: a limit that at least k of
 * them are above, and no more than there is room for; as near as a few tries come to that, guided by a sample. */
static void open_limit(const candidate_row *row, const lsp_candidates *c, const real *scores, int64_t count)
{
    const int64_t room = c->stride - c->most - 2 * LANES;
    double wanted = (double)(c->most + room / 2), share = wanted / (double)count * SAMPLE;
    real sample[SAMPLE];
    if (count < 2 * SAMPLE) return;
    for (int i = 0; i < SAMPLE / LANES; i++)
        vec_store(sample + i * LANES, vec_load(scores + i * (count / LANES) / (SAMPLE / LANES) * LANES));
    for (int attempt = 0; attempt < 3 && share < SAMPLE; attempt++) {
        real limit = limit_of_sample(sample, SAMPLE, share);
        int32_t above = count_above(scores, (int32_t)count, limit);
        if (above >= c->most && limit > *row->least) *row->least = limit;
        if (above >= c->most && above <= c->most + room) return;
        share *= wanted / (above > 0 ? (double)above : 1);
    }
}

/* Of a row's candidates and `hits` scores, which are more than there is room for: a higher limit that leaves room, if
 * both thin out alike, or the row's own; *above: the candidates above it. */
static real guess_higher(const candidate_row *row, const lsp_candidates *c, double hits, int32_t *above)
{
    int32_t own = *row->count, padded = (int32_t)lsp_round_up(own, LANES);
    for (int32_t i = own; i < padded; i++) row->scores[i] = -(real)INFINITY;
    candidate_spread spread = spread_of(row->scores, padded, *row->least);
    double wanted = (double)(c->most + (c->stride - c->most) / 3), share = wanted / ((double)own + hits);
    int64_t least = (int64_t)((double)spread.above * share * 0.97), spare = 1 + least / 16;
    *above = own;
    if (least < 1 || least + spare >= spread.above) return *row->least;
    real limit = find_limit(row->scores, own, padded, least, spare, *row->least, &spread);
    *above = spread.above;
    return limit;
}

/* Of a row whose candidates and `hits` of the scores are more than there is room for: such a limit, if it still leaves k
 * of both. */
static void raise_limit(const candidate_row *row, const lsp_candidates *c, const real *scores, int64_t count,
                        int64_t hits)
{
    int32_t above, padded = (int32_t)lsp_round_up(*row->count, LANES);
    real limit = guess_higher(row, c, (double)hits, &above);
    if (!(limit > *row->least) || above + count_above(scores, (int32_t)count, limit) < c->most) return;
    *row->least = limit;
    keep_above(row, padded, limit, 0);
}

#endif
