/* Packing: stored types to the computing type, K transposed into strips, V padded, Q scaled.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_PACK_H
#define LSP_KERNEL_PACK_H

#include "base/checked.h"
#include "kernel/real.h"

#include <string.h>

/* Elements [index, index + count) of src as a vector, at most LANES; the other lanes are zero. `type`
 * and `size` (its bytes) are constants at every call. */
INLINE vec pack_load(const void *src, lsp_dtype type, size_t size, int64_t index, int64_t count)
{
    const char *from = (const char *)src + (size_t)index * size;
    if (count >= LANES) return vec_from(from, type);
    if (count <= 0) return vec_zero();
    char block[LANES * sizeof(double)] = {0};
    memcpy(block, from, (size_t)count * size);
    return vec_from(block, type);
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

/* LANES keys, of which [begin, end) are present: src row 0 is key `begin`. dst is column 0 of a strip. */
INLINE void pack_keys(const void *src, lsp_dtype type, size_t size, int64_t d_k, int64_t begin, int64_t end,
                      real *dst)
{
    for (int64_t d = 0; d < d_k; d += LANES) {
        vec block[LANES];
        UNROLL
        for (int i = 0; i < LANES; i++)
            block[i] = i >= begin && i < end ? pack_load(src, type, size, (i - begin) * d_k + d, d_k - d)
                                             : vec_zero();
        transpose(block);
        int64_t columns = lsp_min(LANES, d_k - d);
        for (int i = 0; i < columns; i++) vec_store(dst + (d + i) * STRIP_KEYS, block[i]);
    }
}

INLINE void pack_k_from(const lsp_tile_shape *shape, const void *src, lsp_dtype type, size_t size,
                        int64_t offset, int64_t count, real *tile_k)
{
    for (int64_t key = 0; key < shape->tile_keys; key += LANES) {
        int64_t begin = lsp_min(LANES, lsp_max(offset - key, 0));
        int64_t end = lsp_max(begin, lsp_min(LANES, offset + count - key));
        int64_t row = begin < end ? key + begin - offset : 0;
        const char *from = (const char *)src + (size_t)(row * shape->d_k) * size;
        real *strip = tile_k + key / STRIP_KEYS * STRIP_KEYS * shape->d_k;
        pack_keys(from, type, size, shape->d_k, begin, end, strip + key % STRIP_KEYS);
    }
}

static void pack_k(const lsp_tile_shape *shape, const void *src, lsp_dtype type, int64_t offset,
                   int64_t count, void *tile_k)
{
    switch (type) {
    case LSP_F16: pack_k_from(shape, src, LSP_F16, 2, offset, count, tile_k); break;
    case LSP_BF16: pack_k_from(shape, src, LSP_BF16, 2, offset, count, tile_k); break;
    case LSP_F32: pack_k_from(shape, src, LSP_F32, 4, offset, count, tile_k); break;
    default: pack_k_from(shape, src, LSP_F64, 8, offset, count, tile_k);
    }
}

INLINE bool pack_v_from(const lsp_tile_shape *shape, const void *src, lsp_dtype type, size_t size,
                        int64_t offset, int64_t count, real *tile_v)
{
    int64_t stride = shape->v_stride;
    memset(tile_v, 0, (size_t)(offset * stride) * sizeof(real));
    memset(tile_v + (offset + count) * stride, 0,
           (size_t)((shape->tile_keys - offset - count) * stride) * sizeof(real));
    vec check = vec_zero(); /* becomes NaN with the first element that is not finite */
    for (int64_t key = 0; key < count; key++) {
        real *dst = tile_v + (offset + key) * stride;
        for (int64_t c = 0; c < stride; c += LANES) {
            vec value = pack_load(src, type, size, key * shape->d_v + c, shape->d_v - c);
            vec_store(dst + c, value);
            check = vec_fma(value, vec_zero(), check);
        }
    }
    real lanes[LANES];
    vec_store(lanes, check);
    bool finite = true;
    for (int i = 0; i < LANES; i++) finite = finite && lanes[i] == (real)0;
    return finite;
}

static bool pack_v(const lsp_tile_shape *shape, const void *src, lsp_dtype type, int64_t offset,
                   int64_t count, void *tile_v)
{
    switch (type) {
    case LSP_F16: return pack_v_from(shape, src, LSP_F16, 2, offset, count, tile_v);
    case LSP_BF16: return pack_v_from(shape, src, LSP_BF16, 2, offset, count, tile_v);
    case LSP_F32: return pack_v_from(shape, src, LSP_F32, 4, offset, count, tile_v);
    default: return pack_v_from(shape, src, LSP_F64, 8, offset, count, tile_v);
    }
}

/* The product with the factor is taken in double and rounded once: a factor rounded to f32 first would change
 * every score by the same relative error. */
INLINE void pack_queries_from(const void *src, lsp_dtype type, size_t size, int64_t count, double factor,
                              real *q)
{
    for (int64_t i = 0; i < count; i += LANES) {
        int width = (int)lsp_min(LANES, count - i);
        real lanes[LANES];
        vec_store(lanes, pack_load(src, type, size, i, width));
        for (int j = 0; j < width; j++) q[i + j] = (real)((double)lanes[j] * factor);
    }
}

static void pack_queries(int64_t d_k, const void *src, lsp_dtype type, int64_t rows, double factor, void *q)
{
    real *to = q;
    int64_t count = rows * d_k;
    switch (type) {
    case LSP_F16: pack_queries_from(src, LSP_F16, 2, count, factor, to); break;
    case LSP_BF16: pack_queries_from(src, LSP_BF16, 2, count, factor, to); break;
    case LSP_F32: pack_queries_from(src, LSP_F32, 4, count, factor, to); break;
    default:
        for (int64_t i = 0; i < count; i++) to[i] = (real)(((const double *)src)[i] * factor);
    }
}

#endif
