/* Packing of queries: scaled, in the computing type; and their norms.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_PACK_QUERIES_H
#define LSP_KERNEL_PACK_QUERIES_H

#include "kernel/pack.h"

#if BRAIN
/* Rows of units; the factor is left to the scores (score_factor), but for its sign. */
INLINE void pack_queries_from(int64_t d_k, const void *src, lsp_dtype type, size_t size, int64_t rows,
                              double factor, real *q)
{
    int64_t units = lsp_round_up(d_k, PAIR) / UNIT_ELEMENTS;
    vec sign = vec_set(factor < 0 ? -1.0F : (float)factor == 0 ? 0.0F : 1.0F);
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t u = 0; u < units; u += LANES) {
            int64_t first = r * d_k + u * UNIT_ELEMENTS, left = d_k - u * UNIT_ELEMENTS;
            vec value = vec_mul(sign, pack_load(src, type, size, first, left));
#    ifdef VEC_HAS_PAIRS
            value = unit_join(value, vec_mul(sign, pack_load(src, type, size, first + LANES, left - LANES)));
#    endif
            vec_store_part(q + r * units + u, value, (int)lsp_min(LANES, units - u));
        }
    }
}
#else
/* The product with the factor is taken in double and rounded once: a factor rounded to f32 first would change
 * every score by the same relative error. */
INLINE void pack_queries_from(int64_t d_k, const void *src, lsp_dtype type, size_t size, int64_t rows,
                              double factor, real *q)
{
    enum { BUFFER = 64 };
    int64_t count = rows * d_k;
    if (type == LSP_F64) {
        for (int64_t i = 0; i < count; i++) q[i] = (real)(((const double *)src)[i] * factor);
        return;
    }
    for (int64_t i = 0; i < count; i += BUFFER) {
        int64_t width = lsp_min(BUFFER, count - i);
        real lanes[BUFFER];
        for (int64_t j = 0; j < width; j += LANES) {
            pack_prefetch((const char *)src + (size_t)(i + j) * size);
            vec_store(lanes + j, pack_load(src, type, size, i + j, width - j));
        }
        for (int64_t j = 0; j < width; j++) q[i + j] = (real)((double)lanes[j] * factor);
    }
}
#endif

static void pack_queries(int64_t d_k, const void *src, lsp_dtype type, int64_t rows, double factor, void *q)
{
    switch (type) {
    case LSP_F16: pack_queries_from(d_k, src, LSP_F16, 2, rows, factor, q); break;
    case LSP_BF16: pack_queries_from(d_k, src, LSP_BF16, 2, rows, factor, q); break;
    case LSP_F32: pack_queries_from(d_k, src, LSP_F32, 4, rows, factor, q); break;
    default: pack_queries_from(d_k, src, LSP_F64, 8, rows, factor, q);
    }
}

#if BRAIN
INLINE double packed_number(const void *q, int64_t index)
{
#    ifdef VEC_HAS_PAIRS
    uint32_t bits = (uint32_t)((const uint16_t *)q)[index] << 16;
    float number;
    memcpy(&number, &bits, sizeof number);
    return (double)number;
#    else
    return (double)((const float *)q)[index];
#    endif
}

/* In one order on every instruction set: bits of weights depend on whether a maximum stays. */
static void query_norms(int64_t d_k, int64_t rows, const void *q, double *norm)
{
    enum { CHAINS = 8 };
    int64_t width = lsp_round_up(d_k, PAIR);
    for (int64_t first = 0; first < rows * width; first += width) {
        double sums[CHAINS] = {0}, sum = 0;
        int64_t d = 0;
#    ifdef VEC_HAS_PAIRS
        d = squares_of_eight((const uint16_t *)q + first, width, sums);
#    endif
        for (; d + CHAINS <= width; d += CHAINS) {
            for (int i = 0; i < CHAINS; i++) {
                double x = packed_number(q, first + d + i);
                sums[i] += x * x;
            }
        }
        for (; d < width; d++) {
            double x = packed_number(q, first + d);
            sums[0] += x * x;
        }
        for (int i = 0; i < CHAINS; i++) sum += sums[i];
        *norm++ = sqrt(sum);
    }
}
#else
static void query_norms(int64_t d_k, int64_t rows, const void *q, double *norm)
{
    for (int64_t r = 0; r < rows; r++) {
        const real *row = (const real *)q + r * d_k;
        vec squares = vec_zero();
        for (int64_t d = 0; d < d_k; d += LANES) {
            vec part = d + LANES <= d_k ? vec_load(row + d) : vec_load_part(row + d, (int)(d_k - d));
            squares = vec_fma(part, part, squares);
        }
        real lanes[LANES], sum = (real)0;
        vec_store(lanes, squares);
        for (int i = 0; i < LANES; i++) sum += lanes[i];
        norm[r] = sqrt((double)sum);
    }
}
#endif

#endif
