/* The register tile: a few rows times a few vectors of columns. Both products of attention use it.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_PRODUCT_H
#define LSP_KERNEL_PRODUCT_H

#include "kernel/real.h"

typedef vec register_tile[ROW_TILE][COL_TILE];

/* acc[r][c] = sum over i < depth of a[r][i] * b[i * stride + c]: one chain of FMAs from zero for each
 * element, in the order of i, whatever rows and cols are (constants at every call). */
INLINE void product(const int rows, const int cols, int64_t depth, const real *const *a, const real *b,
                    int64_t stride, register_tile acc)
{
    const real *row[ROW_TILE];
    UNROLL
    for (int r = 0; r < rows; r++) {
        row[r] = a[r];
        UNROLL
        for (int c = 0; c < cols; c++) acc[r][c] = vec_zero();
    }
    for (int64_t i = 0; i < depth; i++, b += stride) {
        vec operand[COL_TILE];
        UNROLL
        for (int c = 0; c < cols; c++) operand[c] = vec_load(b + c * LANES);
        UNROLL
        for (int r = 0; r < rows; r++) {
            vec factor = vec_set(row[r][i]);
            UNROLL
            for (int c = 0; c < cols; c++) acc[r][c] = vec_fma(factor, operand[c], acc[r][c]);
        }
    }
}

#endif
