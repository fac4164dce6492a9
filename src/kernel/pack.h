/* Packing: stored types to the computing type, K transposed into strips, V padded, Q scaled.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_PACK_H
#define LSP_KERNEL_PACK_H

#include "base/checked.h"
#include "kernel/unit.h"

#include <math.h>
#include <string.h>

/* Rounded to the 8 bits of bf16, before f32 can round it: what counts is rounded once. */
INLINE void round_double_brain(void *p)
{
    const uint64_t infinity = UINT64_C(0x7FF) << 52, kept = ~((UINT64_C(1) << 45) - 1);
    uint64_t bits;
    memcpy(&bits, p, sizeof bits);
    if ((bits & ~(UINT64_C(1) << 63)) > infinity) return; /* NaN */
    bits = (bits + ((UINT64_C(1) << 44) - 1) + (bits >> 45 & 1)) & kept;
    memcpy(p, &bits, sizeof bits);
}

/* Elements [index, index + count) of src as a vector, at most LANES, in bf16 rounded; the other lanes are zero.
 * `type` and `size` (its bytes) are constants at every call. */
INLINE vec pack_load(const void *src, lsp_dtype type, size_t size, int64_t index, int64_t count)
{
    if (count <= 0) return vec_zero();
    const char *from = (const char *)src + (size_t)index * size;
    char block[LANES * sizeof(double)] = {0};
    if (count < LANES || (BRAIN && type == LSP_F64)) {
        memcpy(block, from, (size_t)lsp_min(count, LANES) * size);
        from = block;
    }
#if BRAIN
    if (type == LSP_F64)
        for (int i = 0; i < LANES; i++) round_double_brain(block + i * (int)sizeof(double));
    return vec_round_brain(vec_from(from, type));
#else
    return vec_from(from, type);
#endif
}

/* The same for LANES units one after the other; `count` elements are there. */
INLINE vec pack_units(const void *src, lsp_dtype type, size_t size, int64_t index, int64_t count)
{
    vec first = pack_load(src, type, size, index, count);
#ifdef VEC_HAS_PAIRS
    return unit_join(first, pack_load(src, type, size, index + LANES, count - LANES));
#else
    return first;
#endif
}

/* Transposes LANES x LANES elements: log2(LANES) perfect shuffles. */
INLINE void transpose(vec block[LANES])
{
    UNROLL
    for (int stage = 1; stage < LANES; stage *= 2) {
        vec next[LANES];
        UNROLL
        for (int i = 0; i < LANES / 2; i++) {
            next[2 * i] = vec_zip_low(block[i], block[i + LANES / 2]);
            next[2 * i + 1] = vec_zip_high(block[i], block[i + LANES / 2]);
        }
        UNROLL
        for (int i = 0; i < LANES; i++) block[i] = next[i];
    }
}

/* The largest lane; infinity when a lane of `check` is not finite. */
INLINE double pack_largest(vec largest, vec check)
{
    real lanes[LANES], checks[LANES];
    vec_store(lanes, largest);
    vec_store(checks, check);
    double most = 0;
    for (int i = 0; i < LANES; i++) {
        if (!(checks[i] - checks[i] == (real)0)) return INFINITY;
        most = (double)lanes[i] > most ? (double)lanes[i] : most;
    }
    return most;
}

/* LANES keys, of which [begin, end) are present: src row 0 is key `begin`. dst is column 0 of a strip. Returns the
 * squares of the keys' norms (bf16: nothing of use). */
INLINE vec pack_keys(const lsp_tile_shape *shape, const void *src, lsp_dtype type, size_t size, int64_t begin,
                     int64_t end, real *dst)
{
    int64_t d_k = shape->d_k;
    vec squares = vec_zero();
    for (int64_t d = 0; d < d_k; d += LANES * UNIT_ELEMENTS) {
        vec block[LANES];
        UNROLL
        for (int i = 0; i < LANES; i++)
            block[i] = i >= begin && i < end ? pack_units(src, type, size, (i - begin) * d_k + d, d_k - d)
                                             : vec_zero();
        transpose(block);
        int64_t first = d / UNIT_ELEMENTS, columns = lsp_min(LANES, shape->k_depth / UNIT_ELEMENTS - first);
        for (int i = 0; i < columns; i++) {
            vec_store(dst + (first + i) * STRIP_KEYS, block[i]);
            squares = vec_fma(block[i], block[i], squares);
        }
    }
    return squares;
}

INLINE double pack_k_from(const lsp_tile_shape *shape, const void *src, lsp_dtype type, size_t size,
                          int64_t offset, int64_t count, real *tile_k)
{
    vec largest = vec_zero(), total = vec_zero(); /* total: NaN or Inf with the first of these */
    for (int64_t key = 0; key < shape->tile_keys; key += LANES) {
        int64_t begin = lsp_min(LANES, lsp_max(offset - key, 0));
        int64_t end = lsp_max(begin, lsp_min(LANES, offset + count - key));
        int64_t row = begin < end ? key + begin - offset : 0;
        const char *from = (const char *)src + (size_t)(row * shape->d_k) * size;
        real *strip = tile_k + key / STRIP_KEYS * STRIP_KEYS * (shape->k_depth / UNIT_ELEMENTS);
        vec squares = pack_keys(shape, from, type, size, begin, end, strip + key % STRIP_KEYS);
        largest = vec_max(largest, squares), total = vec_add(total, squares);
    }
    double norm = pack_largest(largest, total);
    return BRAIN ? (double)INFINITY : sqrt(norm);
}

static double pack_k(const lsp_tile_shape *shape, const void *src, lsp_dtype type, int64_t offset,
                     int64_t count, void *tile_k)
{
    switch (type) {
    case LSP_F16: return pack_k_from(shape, src, LSP_F16, 2, offset, count, tile_k);
    case LSP_BF16: return pack_k_from(shape, src, LSP_BF16, 2, offset, count, tile_k);
    case LSP_F32: return pack_k_from(shape, src, LSP_F32, 4, offset, count, tile_k);
    default: return pack_k_from(shape, src, LSP_F64, 8, offset, count, tile_k);
    }
}

INLINE double pack_v_from(const lsp_tile_shape *shape, const void *src, lsp_dtype type, size_t size,
                          int64_t offset, int64_t count, real *tile_v)
{
    vec largest = vec_zero(), check = vec_zero(); /* check: NaN with the first element that is not finite */
    for (int64_t row = 0; row < shape->tile_keys / UNIT_ELEMENTS; row++) {
        real *dst = tile_v + row * shape->v_stride;
        int64_t key = row * UNIT_ELEMENTS - offset;
        for (int64_t c = 0; c < shape->v_stride; c += LANES) {
            vec value[UNIT_ELEMENTS];
            UNROLL
            for (int i = 0; i < UNIT_ELEMENTS; i++) {
                bool present = key + i >= 0 && key + i < count;
                value[i] = present ? pack_load(src, type, size, (key + i) * shape->d_v + c, shape->d_v - c)
                                   : vec_zero();
                check = vec_fma(value[i], vec_zero(), check);
                largest = vec_max(largest, vec_abs(value[i]));
            }
#ifdef VEC_HAS_PAIRS
            vec_store(dst + c, unit_pair(value[0], value[1]));
#else
            vec_store(dst + c, value[0]);
#endif
        }
    }
    return pack_largest(largest, check);
}

static double pack_v(const lsp_tile_shape *shape, const void *src, lsp_dtype type, int64_t offset,
                     int64_t count, void *tile_v)
{
    switch (type) {
    case LSP_F16: return pack_v_from(shape, src, LSP_F16, 2, offset, count, tile_v);
    case LSP_BF16: return pack_v_from(shape, src, LSP_BF16, 2, offset, count, tile_v);
    case LSP_F32: return pack_v_from(shape, src, LSP_F32, 4, offset, count, tile_v);
    default: return pack_v_from(shape, src, LSP_F64, 8, offset, count, tile_v);
    }
}

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
    int64_t count = rows * d_k;
    for (int64_t i = 0; i < count; i += LANES) {
        int width = (int)lsp_min(LANES, count - i);
        if (type == LSP_F64) {
            for (int j = 0; j < width; j++) q[i + j] = (real)(((const double *)src)[i + j] * factor);
            continue;
        }
        real lanes[LANES];
        vec_store(lanes, pack_load(src, type, size, i, width));
        for (int j = 0; j < width; j++) q[i + j] = (real)((double)lanes[j] * factor);
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

static void query_norms(int64_t d_k, int64_t rows, const void *q, double *norm)
{
    for (int64_t r = 0; r < rows; r++) {
        norm[r] = INFINITY;
        if (BRAIN) continue;
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
