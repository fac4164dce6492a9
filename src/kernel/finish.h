/* The end of query rows: division by the sum, and the log-sum-exp.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_FINISH_H
#define LSP_KERNEL_FINISH_H

#include "base/checked.h"
#include "kernel/vec_math.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* One NaN and one zero, so that bits do not tell on which path a value came about. */
INLINE real canonical(real a)
{
    return a != a ? (real)NAN : a + (real)0;
}

/* o /= total. NaNs are rare, and a loop without them is one of vectors in every build. */
INLINE void finish_row(int64_t d_v, real *o, real total)
{
    int numbers = 1;
    for (int64_t c = 0; c < d_v; c++) {
        o[c] = o[c] / total + (real)0;
        numbers &= o[c] == o[c];
    }
    for (int64_t c = 0; c < d_v && !numbers; c++) o[c] = canonical(o[c]);
}

/* log2 of finite numbers of at least the least normal one: the exponent, and of the rest m, within a factor of sqrt 2 of 1,
 * 2 atanh((m - 1) / (m + 1)) / ln 2 by its series, which leaves out less than 2^-57 of it. In order, so that all
 * instruction sets give the same bits. */
INLINE double log2_of(double x, double *exponent)
{
    enum { TERMS = 11 };
    const int64_t low = 0x3FE6A09E667F3BCD; /* sqrt 1/2 */
    int64_t bits, power;
    double m;
    memcpy(&bits, &x, sizeof bits);
    power = (bits - low) >> 52;
    bits -= (int64_t)((uint64_t)power << 52);
    memcpy(&m, &bits, sizeof m);
    double s = (m - 1) / (m + 1), square = s * s, sum = 0;
    UNROLL
    for (int i = TERMS; i >= 1; i--) sum = sum * square + 1.0 / (2 * i + 1);
    *exponent = (double)(int32_t)power;
    return (sum * square * s + s) * (2 * 1.44269504088896340736);
}

/* The log-sum-exps of rows from maxima and sums relative to them. The sum's power of two joins the maximum, which is an integer,
 * so that the bits are the same for any maximum. A row of one key has its score. */
static void natural_log_sums(int64_t rows, const real *max, const real *sum, double *lse)
{
    const double ln2 = 0.69314718055994530942;
    double unit_power, unit_rest = log2_of((double)SUM_UNIT, &unit_power);
    for (int64_t r = 0; r < rows; r++) {
        double power, rest = log2_of((double)sum[r], &power);
        lse[r] = ((double)max[r] + (power - unit_power) + (rest - unit_rest)) * ln2;
    }
    for (int64_t r = 0; r < rows; r++) {
        const double s = (double)sum[r];
        if (!(s >= DBL_MIN && s <= DBL_MAX))
            lse[r] = ((double)max[r] + (log2(s) - unit_power - unit_rest)) * ln2;
    }
}

/* Rows [begin, end) of finish; returns those without keys. */
static int64_t finish_rows(int64_t d_v, int64_t begin, int64_t end, real *out, const real *max,
                           const real *sum)
{
    int64_t empty = 0;
    for (int64_t r = begin; r < end; r++) {
        real *o = out + r * d_v;
        const bool none = sum[r] == (real)0 && max[r] == -(real)INFINITY;
        empty += none;
        if (!none) finish_row(d_v, o, sum[r]);
        for (int64_t c = 0; c < d_v && none; c++) o[c] = (real)0;
    }
    return empty;
}

static int64_t finish(int64_t d_v, int64_t rows, void *out, const void *max, const void *sum, void *lse)
{
    enum { BLOCK = 64 };
    double logs[BLOCK];
    int64_t empty = 0;
    for (int64_t r = 0; r < rows; r += BLOCK) {
        int64_t count = lsp_min(BLOCK, rows - r);
        empty += finish_rows(d_v, r, r + count, out, max, sum);
        if (!lse) continue;
        natural_log_sums(count, (const real *)max + r, (const real *)sum + r, logs);
        for (int64_t i = 0; i < count; i++) ((real *)lse)[r + i] = canonical((real)logs[i]);
    }
    return empty;
}

#endif
