/* Sums and maxima of a tile's columns to the pixels of a map.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_POOL_H
#define LSP_KERNEL_POOL_H

#include "base/checked.h"
#include "kernel/real.h"

#include <string.h>

#if BRAIN
#    define POOL NULL
#else
#    define POOL pool

enum { POOL_PIECE = 64 };

/* Weights are not negative: their bits are in the order of their values. */
#    if REAL_BITS == 32
typedef int32_t real_bits;
#    else
typedef int64_t real_bits;
#    endif

/* Numbers of a piece, in fixed point, and the bits of the largest weights. */
typedef struct pool_piece {
    int64_t fixed[POOL_PIECE];
    real_bits most[POOL_PIECE];
} pool_piece;

/* Adding 1.5 * 2^52 rounds to an integer, which then stands in the low bits: sums of a grain are below 2^51. */
INLINE void pool_round(const real *sum, const real *most, int64_t count, double scale, pool_piece *piece)
{
    for (int64_t j = 0; j < count; j++) {
        double number = (double)sum[j] * scale + 0x1.8p52;
        memcpy(&piece->fixed[j], &number, sizeof number);
        piece->fixed[j] -= 0x4338000000000000;
    }
    memcpy(piece->most, most, (size_t)count * sizeof *most);
}

/* One pixel of `width` keys. */
INLINE void pool_pixel(const pool_piece *piece, int64_t at, int64_t width, int64_t *sum, double *peak)
{
    int64_t total = 0;
    real_bits bits = 0;
    for (int64_t j = at; j < at + width; j++) {
        total += piece->fixed[j];
        bits = piece->most[j] > bits ? piece->most[j] : bits;
    }
    real most;
    memcpy(&most, &bits, sizeof most);
    *sum += total;
    *peak = (double)most > *peak ? (double)most : *peak;
}

/* `count` pixels of `width` keys, a constant where it is small. */
INLINE void pool_pixels(const pool_piece *piece, int64_t at, const int64_t width, int64_t count,
                        int64_t *sums, double *peaks)
{
    for (int64_t p = 0; p < count; p++) pool_pixel(piece, at + p * width, width, sums + p, peaks + p);
}

static void pool(const lsp_look_columns *columns, int64_t begin, int64_t end, double scale,
                 const lsp_look_pixels *to)
{
    const real *sum = columns->sum, *most = columns->most;
    int64_t left = to->first_left, width = to->width, *sums = to->sums;
    double *peaks = to->peaks;
    pool_piece piece;
    for (int64_t at = begin; at < end; at += POOL_PIECE) {
        int64_t count = lsp_min(POOL_PIECE, end - at), j = 0;
        pool_round(sum + at, most + at, count, scale, &piece);
        for (int64_t i = 0; i < count; i++) to->mass[at + i] += piece.fixed[i];
        while (j < count) {
            int64_t whole = left == width ? (count - j) / width : 0;
            switch (whole ? width : 0) {
            case 2: pool_pixels(&piece, j, 2, whole, sums, peaks); break;
            case 4: pool_pixels(&piece, j, 4, whole, sums, peaks); break;
            case 8: pool_pixels(&piece, j, 8, whole, sums, peaks); break;
            default: pool_pixels(&piece, j, width, whole, sums, peaks);
            }
            j += whole * width, sums += whole, peaks += whole;
            if (j == count) break;
            int64_t part = lsp_min(left, count - j);
            pool_pixel(&piece, j, part, sums, peaks);
            j += part, left -= part;
            if (left == 0) left = width, sums++, peaks++;
        }
    }
}
#endif

#endif
