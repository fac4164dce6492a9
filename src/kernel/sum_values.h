/* Sums of chosen rows of V, each times its weight, in double.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_SUM_VALUES_H
#define LSP_KERNEL_SUM_VALUES_H

#include "kernel/pack.h"
#include "kernel/row_group.h"

#if REAL_BITS == 64 && !BRAIN
/* Columns [c, c + vectors * LANES) of the sum, or what d_v leaves of them unless they are `whole`; `vectors`, `whole`, the
 * types and sizes are constants at every call. */
INLINE void sum_columns(const int vectors, const bool whole, int64_t d_v, int64_t c, const char *v,
                        lsp_dtype type, size_t size, int64_t first, int64_t count, const int32_t *rows,
                        const void *weights, bool single, double *out)
{
    enum { MOST = 8, AHEAD = 8 };
    const int64_t row_bytes = d_v * (int64_t)size;
    const int left = whole ? LANES : (int)lsp_min(LANES, d_v - c);
    vec acc[MOST];
    v += c * (int64_t)size - first * row_bytes;
    UNROLL
    for (int i = 0; i < vectors; i++)
        acc[i] = whole ? vec_load(out + c + i * LANES) : vec_load_part(out + c, left);
    for (int64_t e = 0; e < count; e++) {
        const char *row = v + rows[e] * row_bytes;
        vec factor = vec_set(single ? (double)((const float *)weights)[e] : ((const double *)weights)[e]);
        if (e + AHEAD < count)
            for (size_t b = 0; b < (size_t)vectors * LANES * size; b += CACHE_LINE)
                __builtin_prefetch(v + rows[e + AHEAD] * row_bytes + b);
        UNROLL
        for (int i = 0; i < vectors; i++) {
            vec some = whole ? vec_from(row + (size_t)(i * LANES) * size, type)
                             : pack_load(row, type, size, 0, left);
            acc[i] = vec_fma(factor, some, acc[i]);
        }
    }
    UNROLL
    for (int i = 0; i < vectors; i++) {
        if (whole)
            vec_store(out + c + i * LANES, acc[i]);
        else
            vec_store_part(out + c, acc[i], left);
    }
}

INLINE void sum_values_of(int64_t d_v, const void *v, lsp_dtype type, size_t size, int64_t first,
                          int64_t count, const int32_t *rows, const void *weights, bool single, double *out)
{
    enum { WIDE = 8 };
    int64_t c = 0;
    for (; c + WIDE * LANES <= d_v; c += WIDE * LANES)
        sum_columns(WIDE, true, d_v, c, v, type, size, first, count, rows, weights, single, out);
    for (; c + LANES <= d_v; c += LANES)
        sum_columns(1, true, d_v, c, v, type, size, first, count, rows, weights, single, out);
    if (c < d_v) sum_columns(1, false, d_v, c, v, type, size, first, count, rows, weights, single, out);
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
