/* P V of a row group over a key tile, added to the running output.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_TILE_VALUES_H
#define LSP_KERNEL_TILE_VALUES_H

#include "kernel/product.h"
#include "kernel/row_group.h"

#include <math.h>
#include <string.h>

/* Rows [row, row + rows) of the group over keys [begin, end) of the tile. */
typedef struct values_part {
    const row_group *group;
    const lsp_tile_shape *shape;
    const unit *tile_v;
    const uint16_t *stored_v; /* bf16 in place of it, or NULL */
    const unit *edge; /* [2] copies of the units cut by begin and by end; NULL: nothing to leave out */
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
    if (SWAP && part->stored_v) {
        const uint16_t *from = part->stored_v + begin * stride + column;
        product_add_rows(rows, cols, end - begin, p, (unit_rows){NULL, from}, stride, acc);
        return;
    }
    product_add(rows, cols, (end - begin) / UNIT_ELEMENTS, p,
                part->tile_v + begin / UNIT_ELEMENTS * stride + column, stride, acc);
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

/* o = o alpha + sum_j p_j v_j for `rows` rows and `cols` vectors of columns (constants). Every tile has an
 * accumulator of its own, so that the error does not grow with the number of keys. */
INLINE void values_block(const int rows, const int cols, const values_part *part, int64_t column)
{
    const row_group *group = part->group;
    int64_t d_v = part->shape->d_v;
    register_tile acc;
    tile_zero(rows, cols, acc);
    values_product(rows, cols, part, column, acc);
    UNROLL
    for (int r = 0; r < rows; r++) {
        real *out = group->out[part->row + r] + column;
        vec alpha = vec_set(group->alpha[part->row + r]);
        if (group->fresh) {
            values_store(cols, d_v - column, out, acc[r]);
            continue;
        }
        UNROLL
        for (int c = 0; c < cols; c++) {
            int64_t left = d_v - column - c * LANES;
            if (left >= LANES)
                vec_store(out + c * LANES, vec_fma(vec_load(out + c * LANES), alpha, acc[r][c]));
            else if (left > 0)
                vec_store_part(out + c * LANES,
                               vec_fma(vec_load_part(out + c * LANES, (int)left), alpha, acc[r][c]),
                               (int)left);
        }
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
        if (keys[side] >= part->shape->tile_keys) break;
        memcpy(copy, part->tile_v + keys[side] / UNIT_ELEMENTS * stride,
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

static void tile_values(const row_group *group, const lsp_tile_shape *shape, const lsp_key_tile *tile)
{
    values_part part = {.group = group, .shape = shape, .begin = group->begin, .end = group->end};
    part.tile_v = tile->v_stored ? NULL : tile->v;
    part.stored_v = tile->v_stored ? tile->v : NULL;
    /* An unseen key has p = 0, which adds nothing unless its v is NaN or Inf: then every row walks its
     * own keys. */
    if (tile->v_max == INFINITY && PAIR > 1 && group->same_sight) {
        values_edges(&part, group->edge);
        part.edge = group->edge;
    }
    if (tile->v_max == INFINITY && !group->same_sight) {
        for (part.row = 0; part.row < group->rows; part.row++) {
            part.begin = group->row_begin[part.row], part.end = group->row_end[part.row];
            values_edges(&part, group->edge);
            part.edge = group->edge;
            values_rows(1, &part);
        }
        return;
    }
    switch (group->rows) {
    case 1: values_rows(1, &part); break;
    case 2: values_rows(2, &part); break;
    case 3: values_rows(3, &part); break;
#if ROW_TILE > 4
    case 4: values_rows(4, &part); break;
    case 5: values_rows(5, &part); break;
#endif
    default: values_rows(ROW_TILE, &part);
    }
}

#endif
