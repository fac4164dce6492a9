/* The register tile: a few rows times a few vectors of columns. Both products of attention use it.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_PRODUCT_H
#define LSP_KERNEL_PRODUCT_H

#include "kernel/unit.h"

typedef vec register_tile[ROW_TILE][COL_TILE];

/* The right operand: units, or bf16 as it is stored where units are its numbers in f32. */
typedef struct unit_rows {
    const unit *units;
    const uint16_t *stored; /* in their place, or NULL: known at every call */
} unit_rows;

INLINE unit_vec unit_rows_load(unit_rows from, int64_t at)
{
#if BRAIN && !defined(VEC_HAS_PAIRS)
    if (from.stored) return vec_from(from.stored + at, LSP_BF16);
#endif
    return unit_load(from.units + at);
}

INLINE void tile_zero(const int rows, const int cols, register_tile acc)
{
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int c = 0; c < cols; c++) acc[r][c] = vec_zero();
    }
}

INLINE void product_step(const int rows, const int cols, const unit *const *a, int64_t i, unit_rows b,
                         int64_t at, register_tile acc)
{
    unit_vec operand[COL_TILE];
    UNROLL
    for (int c = 0; c < cols; c++) operand[c] = unit_rows_load(b, at + c * LANES);
    UNROLL
    for (int r = 0; r < rows; r++) {
        unit_vec factor = unit_set(a[r][i]);
        UNROLL
        for (int c = 0; c < cols; c++) acc[r][c] = unit_fma(factor, operand[c], acc[r][c]);
    }
}

/* acc[r][c] += sum over i < depth of a[r][i] * b[i * stride + c]: one chain of FMAs for each element, in the
 * order of i, whatever rows and cols are (constants at every call). With SWAP the depth is even. */
INLINE void product_add_rows(const int rows, const int cols, int64_t depth, const unit *const *a, unit_rows b,
                             int64_t stride, register_tile acc)
{
    const unit *row[ROW_TILE];
    UNROLL
    for (int r = 0; r < rows; r++) row[r] = a[r];
    if (!SWAP) {
        UNROLL_BY_4
        for (int64_t i = 0; i < depth; i++, b.units += stride) product_step(rows, cols, row, i, b, 0, acc);
        return;
    }
    for (int64_t i = 0, at = 0; i < depth; i += 2, at += 2 * stride) {
        product_step(rows, cols, row, i + 1, b, at + stride, acc);
        __asm__ volatile(
            "" ::
                : "memory"); /* or loads of both steps come first, and registers do not suffice */
        product_step(rows, cols, row, i, b, at, acc);
    }
}

INLINE void product_add(const int rows, const int cols, int64_t depth, const unit *const *a, const unit *b,
                        int64_t stride, register_tile acc)
{
    product_add_rows(rows, cols, depth, a, (unit_rows){b, NULL}, stride, acc);
}

INLINE void product(const int rows, const int cols, int64_t depth, const unit *const *a, const unit *b,
                    int64_t stride, register_tile acc)
{
    tile_zero(rows, cols, acc);
    product_add(rows, cols, depth, a, b, stride, acc);
}

#endif
