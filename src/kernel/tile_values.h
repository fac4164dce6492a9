/* P V of a row group over a key tile, added to the running output.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_TILE_VALUES_H
#define LSP_KERNEL_TILE_VALUES_H

#include "kernel/pack.h"
#include "kernel/product.h"
#include "kernel/row_group.h"

#include <math.h>
#include <string.h>

/* Rows [row, row + rows) of the group over keys [begin, end) of the tile. */
typedef struct values_part {
    const row_group *group;
    const lsp_tile_shape *shape;
    const unit *tile_v;
    const uint16_t *brain_v; /* bf16 in place of it, or NULL */
    const unit *edge;        /* [2] copies of the units cut by begin and by end; NULL: nothing to leave out */
    real *carry;             /* [ROW_TILE][v_stride] sums to go on with; NULL: a tile at once */
    int64_t first, height;   /* the keys that tile_v has */
    int row;
    int64_t begin, end;
} values_part;

INLINE void values_weights(const int rows, const values_part *part, int64_t key, const unit **p)
{
    UNROLL
    for (int r = 0; r < rows; r++)
        p[r] = (const unit *)(const void *)part->group->p[part->row + r] + key / UNIT_ELEMENTS;
}

/* The product of a block of columns. Of a pair of keys cut by begin or end, the copy is taken. */
INLINE void values_product(const int rows, const int cols, const values_part *part, int64_t column,
                           register_tile acc)
{
    int64_t stride = part->shape->v_stride, begin = part->begin / PAIR * PAIR;
    int64_t end = lsp_round_up(part->end, PAIR);
    const unit *p[ROW_TILE];
    if (PAIR > 1 && part->edge) {
        if (begin < part->begin) {
            values_weights(rows, part, begin, p);
            product_add(rows, cols, PAIR / UNIT_ELEMENTS, p, part->edge + column, stride, acc);
            begin += PAIR;
        }
        if (end > part->end && end > begin) end -= PAIR;
    }
    values_weights(rows, part, begin, p);
    if (SWAP && part->brain_v) {
        const uint16_t *from = part->brain_v + (begin - part->first) * stride + column;
        product_add_rows(rows, cols, end - begin, p, (unit_rows){NULL, from}, stride, acc);
        return;
    }
    product_add(rows, cols, (end - begin) / UNIT_ELEMENTS, p,
                part->tile_v + (begin - part->first) / UNIT_ELEMENTS * stride + column, stride, acc);
    if (PAIR > 1 && part->edge && end < part->end) {
        values_weights(rows, part, end, p);
        product_add(rows, cols, PAIR / UNIT_ELEMENTS, p, part->edge + PAIR / UNIT_ELEMENTS * stride + column,
                    stride, acc);
    }
}

/* The first output of a row, of which `left` columns are there. */
INLINE void values_store(const int cols, int64_t left, real *out, const vec *acc)
{
    UNROLL
    for (int c = 0; c < cols; c++, left -= LANES) {
        if (left >= LANES)
            vec_store(out + c * LANES, acc[c]);
        else if (left > 0)
            vec_store_part(out + c * LANES, acc[c], (int)left);
    }
}

/* o = o alpha + acc for one row. */
INLINE void values_add(const int cols, const row_group *group, int r, int64_t column, int64_t d_v,
                       const vec *acc)
{
    real *out = group->out[r] + column;
    vec alpha = vec_set(group->alpha[r]);
    if (group->fresh) {
        values_store(cols, d_v - column, out, acc);
        return;
    }
    UNROLL
    for (int c = 0; c < cols; c++) {
        int64_t left = d_v - column - c * LANES;
        if (left >= LANES)
            vec_store(out + c * LANES, vec_fma(vec_load(out + c * LANES), alpha, acc[c]));
        else if (left > 0)
            vec_store_part(out + c * LANES, vec_fma(vec_load_part(out + c * LANES, (int)left), alpha, acc[c]),
                           (int)left);
    }
}

INLINE void values_carry(const int rows, const int cols, const values_part *part, const real *carry,
                         register_tile acc)
{
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int c = 0; c < cols; c++) acc[r][c] = vec_load(carry + r * part->shape->v_stride + c * LANES);
    }
}

/* o = o alpha + sum_j p_j v_j for `rows` rows and `cols` vectors of columns (constants). Every tile has an
 * accumulator of its own, so that the error does not grow with the number of keys. */
INLINE void values_block(const int rows, const int cols, const values_part *part, int64_t column)
{
    real *carry = part->carry ? part->carry + part->row * part->shape->v_stride + column : NULL;
    register_tile acc;
    tile_zero(rows, cols, acc);
    if (carry) values_carry(rows, cols, part, carry, acc);
    values_product(rows, cols, part, column, acc);
    UNROLL
    for (int r = 0; r < rows; r++) {
        if (carry)
            values_store(cols, cols * LANES, carry + r * part->shape->v_stride, acc[r]);
        else
            values_add(cols, part->group, part->row + r, column, part->shape->d_v, acc[r]);
    }
}

/* All columns of `rows` rows (a constant), in blocks of nearly equal width. */
INLINE void values_rows(const int rows, const values_part *part)
{
    int64_t vectors = part->shape->v_stride / LANES, blocks = lsp_ceil_div(vectors, COL_TILE), done = 0;
    for (int64_t b = 0; b < blocks; b++) {
        int64_t width = (vectors - done) / (blocks - b);
        switch (width) {
        case 1: values_block(rows, 1, part, done * LANES); break;
#if COL_TILE > 2
        case 2: values_block(rows, 2, part, done * LANES); break;
        case 3: values_block(rows, 3, part, done * LANES); break;
#endif
        default: values_block(rows, COL_TILE, part, done * LANES);
        }
        done += width;
    }
}

/* The units of V cut by the part's begin and end, with what lies outside set to zero. */
static void values_edges(const values_part *part, unit *edge)
{
    int64_t stride = part->shape->v_stride, keys[2] = {part->begin / PAIR * PAIR, part->end / PAIR * PAIR};
    for (int side = 0; side < 2 && PAIR > 1; side++) {
        unit *copy = edge + side * (PAIR / UNIT_ELEMENTS) * stride;
        if (keys[side] >= part->first + part->height) break;
        memcpy(copy, part->tile_v + (keys[side] - part->first) / UNIT_ELEMENTS * stride,
               (size_t)(PAIR / UNIT_ELEMENTS * stride) * sizeof(unit));
        for (int i = 0; i < PAIR; i++) {
            int64_t key = keys[side] + i;
            if (key >= part->begin && key < part->end) continue;
#ifdef VEC_HAS_PAIRS
            for (int64_t c = 0; c < stride; c++) copy[c] &= i == 0 ? 0xFFFF0000U : 0x0000FFFFU;
#else
            memset(copy + i * stride, 0, (size_t)stride * sizeof(unit));
#endif
        }
    }
}

/* All rows of a group over the part's keys. */
INLINE void values_all(const values_part *part)
{
    switch (part->group->rows) {
    case 1: values_rows(1, part); break;
    case 2: values_rows(2, part); break;
    case 3: values_rows(3, part); break;
#if ROW_TILE > 4
    case 4: values_rows(4, part); break;
    case 5: values_rows(5, part); break;
#endif
    default: values_rows(ROW_TILE, part);
    }
}

/* The same, each row over its own keys among them: an unseen key has p = 0, which adds nothing unless its v is NaN or
 * Inf. */
static void values_apart(values_part *part)
{
    const int64_t begin = part->begin, end = part->end;
    part->edge = part->group->edge;
    for (part->row = 0; part->row < part->group->rows; part->row++) {
        part->begin = lsp_max(begin, part->group->row_begin[part->row]);
        part->end = lsp_min(end, part->group->row_end[part->row]);
        if (part->begin >= part->end) continue;
        values_edges(part, part->group->edge);
        values_rows(1, part);
    }
}

static void tile_values(const row_group *group, const lsp_tile_shape *shape, const lsp_key_tile *tile)
{
    values_part part = {.group = group, .shape = shape, .begin = group->begin, .end = group->end};
    part.height = shape->tile_keys;
    part.tile_v = tile->v_brain ? NULL : tile->v;
    part.brain_v = tile->v_brain ? tile->v : NULL;
    if (tile->v_max == INFINITY && !group->same_sight) {
        values_apart(&part);
        return;
    }
    if (tile->v_max == INFINITY && PAIR > 1) {
        values_edges(&part, group->edge);
        part.edge = group->edge;
    }
    values_all(&part);
}

/* P V to `carry` with V as it is stored: a strip's height of rows is packed and met at once, in the same order. Returns v_max
 * of the tile where it is `asked` for, and rows that no query sees are looked at too; else infinity. */
static __attribute__((noinline)) double tile_values_stored(const row_group *group,
                                                           const lsp_tile_shape *shape,
                                                           const lsp_stored_rows *stored, bool asked)
{
    const int64_t stride = shape->v_stride, first = asked ? 0 : group->begin / STRIP_KEYS * STRIP_KEYS,
                  last = asked ? shape->tile_keys : group->end;
    values_part part = {.group = group, .shape = shape, .carry = group->carry, .height = STRIP_KEYS};
    double largest = asked ? 0 : INFINITY;
    part.tile_v = group->strip;
    memset(group->carry, 0, (size_t)(group->rows * stride) * sizeof(real));
    for (int64_t key = first; key < last; key += STRIP_KEYS) {
        double most = pack_value_rows(shape, stored, key, key + STRIP_KEYS, group->strip);
        largest = most > largest ? most : largest;
        part.first = key;
        part.begin = lsp_max(key, group->begin), part.end = lsp_min(key + STRIP_KEYS, group->end);
        part.row = 0, part.edge = NULL;
        if (part.begin >= part.end) continue;
        if (most == INFINITY)
            values_apart(&part);
        else
            values_all(&part);
    }
    return largest;
}

/* o = o alpha + carry */
static void tile_values_add(const row_group *group, const lsp_tile_shape *shape)
{
    for (int r = 0; r < group->rows; r++)
        for (int64_t column = 0; column < shape->v_stride; column += LANES) {
            vec sum = vec_load(group->carry + r * shape->v_stride + column);
            values_add(1, group, r, column, shape->d_v, &sum);
        }
}

#endif
