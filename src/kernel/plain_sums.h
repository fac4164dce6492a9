/* Rows' sums from their sums by lane, of two groups at once: the additions of lanes_sum, by halves, on vectors of several rows.
 * Row by row they are so many instructions that the next product comes late.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_PLAIN_SUMS_H
#define LSP_KERNEL_PLAIN_SUMS_H

#include "kernel/plain_state.h"

enum { SUM_ROWS = PLAIN_GROUPS * ROW_TILE };
_Static_assert(SUM_ROWS == 12 && SUM_VECS == 1, "shuffles");

#if REAL_BITS == 32
#    define SHUFFLE_LANES _mm512_shuffle_f32x4
#else
#    define SHUFFLE_LANES _mm512_shuffle_f64x2
#endif
/* The sums of a's halves and of b's. */
#define ADD_HALVES(a, b) vec_add(SHUFFLE_LANES(a, b, 0x44), SHUFFLE_LANES(a, b, 0xEE))
/* Of halves of vectors: the sums of quarters. */
#define ADD_QUARTERS(a, b) vec_add(SHUFFLE_LANES(a, b, 0x88), SHUFFLE_LANES(a, b, 0xDD))

/* Row 4 j + i of twelve is lane 4 i + j of the result; in f64 lane 2 i + j, and the last four are in the second. */
INLINE void sums_of_rows(const vec *lanes, vec *sum)
{
    vec half[SUM_ROWS / 2], quarter[SUM_ROWS / 4];
    UNROLL
    for (int i = 0; i < SUM_ROWS / 2; i++) half[i] = ADD_HALVES(lanes[2 * i], lanes[2 * i + 1]);
    UNROLL
    for (int i = 0; i < SUM_ROWS / 4; i++) quarter[i] = ADD_QUARTERS(half[2 * i], half[2 * i + 1]);
#if REAL_BITS == 32
    const vec a = vec_add(_mm512_shuffle_ps(quarter[0], quarter[1], 0x44),
                          _mm512_shuffle_ps(quarter[0], quarter[1], 0xEE)),
              b = vec_add(_mm512_shuffle_ps(quarter[2], quarter[2], 0x44),
                          _mm512_shuffle_ps(quarter[2], quarter[2], 0xEE));
    const vec all = vec_add(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xDD));
    const __m512i rows = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    sum[0] = _mm512_permutexvar_ps(rows, all);
#else
    const vec a = vec_add(_mm512_shuffle_pd(quarter[0], quarter[1], 0x00),
                          _mm512_shuffle_pd(quarter[0], quarter[1], 0xFF)),
              b = vec_add(_mm512_shuffle_pd(quarter[2], quarter[2], 0x00),
                          _mm512_shuffle_pd(quarter[2], quarter[2], 0xFF));
    const __m512i rows = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    sum[0] = _mm512_permutexvar_pd(rows, a);
    sum[1] = _mm512_permutexvar_pd(rows, b);
#endif
}

/* sum[r] += the sum of lanes[r]'s lanes, for `rows` of twelve rows. */
INLINE void sums_add(const vec *lanes, real *sum, int64_t rows)
{
    vec more[SUM_ROWS / LANES + 1];
    sums_of_rows(lanes, more);
    UNROLL
    for (int r = 0; r < SUM_ROWS; r += LANES) {
        const int left = (int)lsp_max(0, lsp_min(rows - r, LANES));
        vec_store_part(sum + r, vec_add(vec_load_part(sum + r, left), more[r / LANES]), left);
    }
}

/* Bit r: the sum of row r is negative: -0, as the row has met no key. */
INLINE uint32_t sums_fresh(const real *sum, int64_t rows)
{
    uint32_t signs = 0;
    UNROLL
    for (int r = 0; r < SUM_ROWS; r += LANES) {
        const vec some = vec_load_part(sum + r, (int)lsp_max(0, lsp_min(rows - r, LANES)));
#if REAL_BITS == 32
        signs |= (uint32_t)_mm512_movepi32_mask(_mm512_castps_si512(some)) << r;
#else
        signs |= (uint32_t)_mm512_movepi64_mask(_mm512_castpd_si512(some)) << r;
#endif
    }
    return signs;
}

#endif
