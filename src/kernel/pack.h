/* Packing of keys: stored types to the computing type, K transposed into strips, V padded.
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
    return type == LSP_BF16 ? vec_from(from, type) : vec_round_brain(vec_from(from, type));
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

#if BRAIN
/* The same of stored bf16 as it stands, a pair in each lane; `count` elements of them are there. */
INLINE vec pack_pairs(const void *src, int64_t index, int64_t count)
{
    const char *from = (const char *)src + (size_t)index * sizeof(uint16_t);
    real block[LANES] = {0};
    if (count <= 0) return vec_zero();
    if (count < 2 * LANES) {
        memcpy(block, from, (size_t)count * sizeof(uint16_t));
        from = (const char *)block;
    }
    return vec_load((const real *)(const void *)from);
}
#endif

/* What packing reads next is asked for so many bytes ahead. */
enum { PACK_AHEAD = 6144 };

INLINE void pack_prefetch(const void *p)
{
    __builtin_prefetch((const char *)p + PACK_AHEAD, 0, 2);
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

/* Elements of a key that go into one vector of a block: in bf16 those of LANES pairs where they are stored so. */
INLINE int64_t pack_width(lsp_dtype type)
{
    return LANES * (BRAIN && type == LSP_BF16 ? 2 : UNIT_ELEMENTS);
}

INLINE vec pack_key(const void *src, lsp_dtype type, size_t size, int64_t index, int64_t count)
{
#if BRAIN
    if (type == LSP_BF16) return pack_pairs(src, index, count);
#endif
    return pack_units(src, type, size, index, count);
}

INLINE vec unit_square(vec units, vec squares)
{
    return unit_fma((unit_vec)units, (unit_vec)units, squares);
}

/* Stores a column of a strip, or in bf16 a pair of them, and adds to the squares of the keys' norms in the order of a
 * product: so every instruction set has the same norms. */
INLINE vec pack_columns(vec first, vec second, real *dst, vec squares)
{
    vec_store(dst, first);
    if (SWAP) {
        vec_store(dst + STRIP_KEYS, second);
        squares = unit_square(second, squares);
    }
    return unit_square(first, squares);
}

/* A block's transposed vectors, of which `count` columns are there. */
INLINE vec pack_strip(const vec *block, lsp_dtype type, int64_t count, real *dst, vec squares)
{
#if BRAIN
    const bool split = type == LSP_BF16 && UNIT_ELEMENTS == 1;
    UNROLL
    for (int i = 0; i < LANES && split; i++) {
        if (2 * i >= count) break;
        vec first = vec_first_brain(block[i]), second = vec_second_brain(block[i]);
        squares = pack_columns(first, second, dst + 2 * i * STRIP_KEYS, squares);
    }
    if (split) return squares;
#else
    (void)type;
#endif
    UNROLL
    for (int i = 0; i < LANES; i += PAIR / UNIT_ELEMENTS) {
        if (i >= count) break;
        squares = pack_columns(block[i], block[i + PAIR / UNIT_ELEMENTS - 1], dst + i * STRIP_KEYS, squares);
    }
    return squares;
}

/* LANES keys times the elements of a vector from d on. Unless all of them are there (a constant), keys [begin, end)
 * are, and src row 0 is key `begin`. dst is column 0 of a strip. Adds to the squares of the keys' norms. */
INLINE vec pack_block(const bool whole, const lsp_tile_shape *shape, const void *src, lsp_dtype type,
                      size_t size, int64_t begin, int64_t end, int64_t d, real *dst, vec squares)
{
    int64_t d_k = shape->d_k, width = pack_width(type), left = whole ? width : d_k - d;
    const char *from = (const char *)src + (size_t)d * size;
    vec block[LANES];
    UNROLL
    for (int i = 0; i < LANES; i++) {
        if (whole) {
            const char *row = from + (size_t)(i * d_k) * size;
            pack_prefetch(row);
            block[i] = pack_key(row, type, size, 0, left);
        } else {
            block[i] =
                i >= begin && i < end ? pack_key(from, type, size, (i - begin) * d_k, left) : vec_zero();
        }
    }
    transpose(block);
    int64_t columns = (whole ? width : lsp_min(width, shape->k_depth - d)) / UNIT_ELEMENTS;
    return pack_strip(block, type, columns, dst + d / UNIT_ELEMENTS * STRIP_KEYS, squares);
}

/* LANES keys, of which [begin, end) are present. Returns the squares of their norms. */
INLINE vec pack_keys(const lsp_tile_shape *shape, const void *src, lsp_dtype type, size_t size, int64_t begin,
                     int64_t end, real *dst)
{
    vec squares = vec_zero();
    int64_t d = 0, width = pack_width(type);
    if (begin == 0 && end == LANES)
        for (; d + width <= shape->d_k; d += width)
            squares = pack_block(true, shape, src, type, size, begin, end, d, dst, squares);
    for (; d < shape->d_k; d += width)
        squares = pack_block(false, shape, src, type, size, begin, end, d, dst, squares);
    return squares;
}

/* The largest square of a norm by lane, and NaN or Inf with the first of these. */
typedef struct pack_bounds {
    vec largest, total;
} pack_bounds;

INLINE double pack_norm(const pack_bounds *bounds)
{
    return sqrt(pack_largest(bounds->largest, bounds->total));
}

/* Keys [key, key_end) of a tile, whole strips. */
INLINE void pack_k_from(const lsp_tile_shape *shape, const lsp_stored_rows *from, lsp_dtype type, size_t size,
                        int64_t key, int64_t key_end, real *strips, pack_bounds *bounds)
{
    const int64_t first = key, strip_units = STRIP_KEYS * (shape->k_depth / UNIT_ELEMENTS);
    for (; key < key_end; key += LANES) {
        int64_t begin = lsp_min(LANES, lsp_max(from->offset - key, 0));
        int64_t end = lsp_max(begin, lsp_min(LANES, from->offset + from->count - key));
        int64_t row = begin < end ? key + begin - from->offset : 0;
        const char *src = (const char *)from->src + (size_t)(row * shape->d_k) * size;
        real *strip = strips + (key - first) / STRIP_KEYS * strip_units;
        vec squares = pack_keys(shape, src, type, size, begin, end, strip + key % STRIP_KEYS);
        bounds->largest = vec_max(bounds->largest, squares), bounds->total = vec_add(bounds->total, squares);
    }
}

static void pack_strips(const lsp_tile_shape *shape, const lsp_stored_rows *from, int64_t key,
                        int64_t key_end, void *strips, pack_bounds *bounds)
{
    switch (from->type) {
    case LSP_F16: pack_k_from(shape, from, LSP_F16, 2, key, key_end, strips, bounds); break;
    case LSP_BF16: pack_k_from(shape, from, LSP_BF16, 2, key, key_end, strips, bounds); break;
    case LSP_F32: pack_k_from(shape, from, LSP_F32, 4, key, key_end, strips, bounds); break;
    default: pack_k_from(shape, from, LSP_F64, 8, key, key_end, strips, bounds);
    }
}

static double pack_k(const lsp_tile_shape *shape, const void *src, lsp_dtype type, int64_t offset,
                     int64_t count, void *tile_k)
{
    const lsp_stored_rows from = {src, type, offset, count};
    pack_bounds bounds = {vec_zero(), vec_zero()};
    pack_strips(shape, &from, 0, shape->tile_keys, tile_k, &bounds);
    return pack_norm(&bounds);
}

/* Vectors of the rows of one unit of keys, at column c; `left` columns are there. Without `dst` they are looked at alone. */
INLINE void pack_values(const void *const *rows, lsp_dtype type, size_t size, int64_t c, int64_t left,
                        vec *largest, vec *check, real *dst)
{
    vec value[UNIT_ELEMENTS];
    UNROLL
    for (int i = 0; i < UNIT_ELEMENTS; i++) {
        if (rows[i]) pack_prefetch((const char *)rows[i] + (size_t)c * size);
        value[i] = rows[i] ? pack_load(rows[i], type, size, c, left) : vec_zero();
    }
#if BRAIN
    (void)check;
    vec units = unit_pair(value);
    *largest = unit_largest(*largest, units);
    if (dst) vec_store(dst + c, units);
#else
    *check = vec_fma(value[0], vec_zero(), *check);
    *largest = vec_max(*largest, vec_abs(value[0]));
    if (dst) vec_store(dst + c, value[0]);
#endif
}

/* Magnitudes of values by lane, in a few chains; check: NaN with the first element that is not finite (in bf16 that shows in
 * the magnitudes). */
enum { VALUE_CHAINS = 4 };
typedef struct value_bounds {
    vec largest[VALUE_CHAINS], check[VALUE_CHAINS];
} value_bounds;

INLINE void value_bounds_start(value_bounds *bounds)
{
    UNROLL
    for (int i = 0; i < VALUE_CHAINS; i++) bounds->largest[i] = bounds->check[i] = vec_zero();
}

/* The largest magnitude; infinity when an element is not finite. */
INLINE double value_bounds_most(value_bounds *bounds)
{
    vec *largest = bounds->largest, *check = bounds->check;
    UNROLL
    for (int i = 0; i < VALUE_CHAINS; i++) {
#if BRAIN
        /* Bits of magnitudes, infinity and NaN among them. */
        vec first = UNIT_ELEMENTS == 2 ? vec_first_brain(largest[i]) : largest[i],
            second = vec_second_brain(largest[i]);
        largest[i] = vec_max(first, second), check[i] = vec_add(first, second);
#endif
        largest[0] = vec_max(largest[0], largest[i]);
        if (i > 0) check[0] = vec_add(check[0], check[i]);
    }
    return pack_largest(largest[0], check[0]);
}

/* Keys [key, key_end) of a tile, whole units, to `dst`, or to nowhere: then they are looked at alone. */
INLINE void pack_v_from(const lsp_tile_shape *shape, const lsp_stored_rows *from, lsp_dtype type, size_t size,
                        int64_t key, int64_t key_end, real *dst, value_bounds *bounds)
{
    for (; key < key_end; key += UNIT_ELEMENTS, dst = dst ? dst + shape->v_stride : NULL) {
        const void *rows[UNIT_ELEMENTS];
        for (int i = 0; i < UNIT_ELEMENTS; i++) {
            int64_t row = key - from->offset + i;
            bool present = row >= 0 && row < from->count;
            rows[i] = present ? (const char *)from->src + (size_t)(row * shape->d_v) * size : NULL;
        }
        int64_t c = 0;
        for (; c + VALUE_CHAINS * LANES <= shape->d_v; c += VALUE_CHAINS * LANES) {
            UNROLL
            for (int i = 0; i < VALUE_CHAINS; i++)
                pack_values(rows, type, size, c + i * LANES, LANES, &bounds->largest[i], &bounds->check[i],
                            dst);
        }
        for (; c < shape->v_stride; c += LANES)
            pack_values(rows, type, size, c, shape->d_v - c, &bounds->largest[0], &bounds->check[0], dst);
    }
}

/* The same from any type; the largest magnitude. */
static double pack_value_rows(const lsp_tile_shape *shape, const lsp_stored_rows *from, int64_t key,
                              int64_t key_end, void *dst)
{
    value_bounds bounds;
    value_bounds_start(&bounds);
    switch (from->type) {
    case LSP_F16: pack_v_from(shape, from, LSP_F16, 2, key, key_end, dst, &bounds); break;
    case LSP_BF16: pack_v_from(shape, from, LSP_BF16, 2, key, key_end, dst, &bounds); break;
    case LSP_F32: pack_v_from(shape, from, LSP_F32, 4, key, key_end, dst, &bounds); break;
    default: pack_v_from(shape, from, LSP_F64, 8, key, key_end, dst, &bounds);
    }
    return value_bounds_most(&bounds);
}

static double pack_v(const lsp_tile_shape *shape, const void *src, lsp_dtype type, int64_t offset,
                     int64_t count, void *tile_v)
{
    const lsp_dtype same = BRAIN ? LSP_BF16 : LSP_REAL;
    const lsp_stored_rows from = {src, type, offset, count};
    if (tile_v) return pack_value_rows(shape, &from, 0, shape->tile_keys, tile_v);
    value_bounds bounds;
    value_bounds_start(&bounds);
    pack_v_from(shape, &from, same, lsp_dtype_size(same), 0, shape->tile_keys, NULL, &bounds);
    return value_bounds_most(&bounds);
}

#endif
