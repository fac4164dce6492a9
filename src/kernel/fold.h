/* The sums over FOLD_TILES key tiles, added to what came before them.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_FOLD_H
#define LSP_KERNEL_FOLD_H

#include "kernel/row_group.h"
#include "kernel/vec_math.h"

/* x = x a + y b */
INLINE void fold_values(int64_t count, real *x, real a, const real *y, real b)
{
    vec scale_x = vec_set(a), scale_y = vec_set(b);
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES)
        vec_store(x + i, vec_fma(vec_load(x + i), scale_x, vec_mul(vec_load(y + i), scale_y)));
    if (i == count) return;
    int left = (int)(count - i);
    vec rest = vec_mul(vec_load_part(y + i, left), scale_y);
    vec_store_part(x + i, vec_fma(vec_load_part(x + i, left), scale_x, rest), left);
}

static void fold(int64_t d_v, int64_t rows, const lsp_row_state *recent, const lsp_row_state *total)
{
    real *max = total->max, *sum = total->sum, *recent_max = recent->max, *recent_sum = recent->sum;
    for (int64_t r = 0; r < rows; r++) {
        if (recent_max[r] == -(real)INFINITY && recent_sum[r] == (real)0) continue;
        real *out = (real *)total->out + r * d_v, *recent_out = (real *)recent->out + r * d_v;
        real now = max[r] > recent_max[r] ? max[r] : recent_max[r];
        real base = now == -(real)INFINITY ? (real)0 : now;
        real before = real_power(max[r] - base), after = real_power(recent_max[r] - base);
        for (int64_t c = 0; c < d_v && signbit(sum[r]); c++) out[c] = (real)0;
        fold_values(d_v, out, before, recent_out, after);
        sum[r] = real_fma(sum[r], before, recent_sum[r] * after);
        max[r] = now;
        recent_max[r] = -(real)INFINITY, recent_sum[r] = -(real)0;
    }
}

#endif
