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

/* max + log2(sum), in the same bits for any max to which sum is relative: its exponent is added to max first. */
INLINE double finish_log(real max, real sum)
{
    int exponent = 0;
    double fraction = isfinite(sum) ? frexp((double)sum, &exponent) : (double)sum;
    return ((double)max + exponent) + log2(fraction);
}

static int64_t finish(int64_t d_v, int64_t rows, void *out, const void *max, const void *sum, void *lse)
{
    const double ln2 = 0.69314718055994530942;
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
        if (l) *l = canonical((real)(finish_log(maxima[r], sums[r]) * ln2));
    }
    return empty;
}

#endif
