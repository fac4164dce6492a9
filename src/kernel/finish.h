/* The end of query rows: division by the sum, and the log-sum-exp.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_FINISH_H
#define LSP_KERNEL_FINISH_H

#include "kernel/real.h"

#include <math.h>

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

/* The log-sum-exp from a maximum and the sum relative to it. The sum's power of two joins the maximum, which is an integer, so that
 * the bits are the same for any maximum. */
INLINE double natural_log_sum(double max, double sum)
{
    const double ln2 = 0.69314718055994530942;
    int power;
    double fraction = frexp(sum, &power);
    return isfinite(sum) ? (max + power + log2(fraction)) * ln2 : (max + sum) * ln2;
}

static int64_t finish(int64_t d_v, int64_t rows, void *out, const void *max, const void *sum, void *lse)
{
    const real *maxima = max, *sums = sum;
    int64_t empty = 0;
    for (int64_t r = 0; r < rows; r++) {
        real *o = (real *)out + r * d_v, *l = lse ? (real *)lse + r : NULL;
        if (sums[r] == (real)0 && maxima[r] == -(real)INFINITY) {
            for (int64_t c = 0; c < d_v; c++) o[c] = (real)0;
            if (l) *l = -(real)INFINITY;
            empty++;
            continue;
        }
        finish_row(d_v, o, sums[r]);
        if (l) *l = canonical((real)natural_log_sum((double)maxima[r], (double)sums[r]));
    }
    return empty;
}

#endif
