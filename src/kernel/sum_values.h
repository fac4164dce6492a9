/* Sums of chosen rows of V, each times its weight, in double.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_SUM_VALUES_H
#define LSP_KERNEL_SUM_VALUES_H

#include "kernel/pack.h"
#include "kernel/row_group.h"

#if REAL_BITS == 64 && !BRAIN
/* Columns [c, c + vectors * LANES) of the sum; `type`, its size and `vectors` are constants at every call. */
INLINE void sum_columns(const int vectors, int64_t d_v, int64_t c, const char *v, lsp_dtype type, size_t size,
                        int64_t first, int64_t count, const int32_t *rows, const void *weights, bool single,
                        double *out)
{
    enum { MOST = 8, AHEAD = 8 };
    vec acc[MOST];
    UNROLL
    for (int i = 0; i < vectors; i++) {
        int64_t left = d_v - c - i * LANES;
        acc[i] =
            left >= LANES ? vec_load(out + c + i * LANES) : vec_load_part(out + c + i * LANES, (int)left);
    }
    for (int64_t e = 0; e < count; e++) {
        double weight = single ? (double)((const float *)weights)[e] : ((const double *)weights)[e];
        if (e + AHEAD < count)
            for (size_t b = 0; b < (size_t)vectors * LANES * size; b += CACHE_LINE)
                __builtin_prefetch(v + ((size_t)(rows[e + AHEAD] - first) * (size_t)d_v + (size_t)c) * size +
                                   b);
        int64_t at = (rows[e] - first) * d_v + c;
        vec factor = vec_set(weight);
        UNROLL
        for (int i = 0; i < vectors; i++)
            acc[i] = vec_fma(factor, pack_load(v, type, size, at + i * LANES, d_v - c - i * LANES), acc[i]);
    }
    UNROLL
    for (int i = 0; i < vectors; i++) {
        int64_t left = d_v - c - i * LANES;
        if (left >= LANES)
            vec_store(out + c + i * LANES, acc[i]);
        else
            vec_store_part(out + c + i * LANES, acc[i], (int)left);
    }
}

INLINE void sum_values_of(int64_t d_v, const void *v, lsp_dtype type, size_t size, int64_t first,
                          int64_t count, const int32_t *rows, const void *weights, bool single, double *out)
{
    enum { WIDE = 8 };
    int64_t c = 0;
    for (; c + WIDE * LANES <= d_v; c += WIDE * LANES)
        sum_columns(WIDE, d_v, c, v, type, size, first, count, rows, weights, single, out);
    for (; c < d_v; c += LANES)
        sum_columns(1, d_v, c, v, type, size, first, count, rows, weights, single, out);
}

static void sum_values(int64_t d_v, const void *v, lsp_dtype type, int64_t first, int64_t count,
                       const int32_t *rows, const void *weights, lsp_dtype weight_type, double *out)
{
    bool single = weight_type == LSP_F32;
    switch (type) {
    case LSP_F16: sum_values_of(d_v, v, LSP_F16, 2, first, count, rows, weights, single, out); break;
    case LSP_BF16: sum_values_of(d_v, v, LSP_BF16, 2, first, count, rows, weights, single, out); break;
    case LSP_F32: sum_values_of(d_v, v, LSP_F32, 4, first, count, rows, weights, single, out); break;
    default: sum_values_of(d_v, v, LSP_F64, 8, first, count, rows, weights, single, out);
    }
}
#    define SUM_VALUES sum_values
#else
#    define SUM_VALUES NULL
#endif

#endif
