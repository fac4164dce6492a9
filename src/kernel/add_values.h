/* Sums of chosen rows of V, each times its weight: what the rows' entries in one key tile give.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_ADD_VALUES_H
#define LSP_KERNEL_ADD_VALUES_H

#include "kernel/row_group.h"

#include <string.h>

/* Rows that meet some keys of a tile before the next ones do, bytes of those keys' rows of V, and entries of a row among them
 * from which on that pays: rows of V are near then, and need not be asked for. */
enum { NEAR_ROWS = 96, NEAR_BYTES = 128 << 10, NEAR_ENTRIES = 12 };

/* Where sums stand between the parts of a tile. */
static size_t values_bytes(int64_t d_v)
{
    return (size_t)(NEAR_ROWS * lsp_round_up(d_v, SUM_LANES)) * sizeof(real);
}

/* Entries of a row of candidates, from `begin` on, whose keys are below a limit. */
typedef struct entry_run {
    const int32_t *keys;
    const real *weights;
    int64_t begin, most; /* entries there are */
    int64_t limit;
    bool ahead; /* whether to ask for rows of V */
} entry_run;

/* The first `count` elements, at most LANES, as they are stored; the other lanes are zero. */
INLINE vec value_part(const char *from, lsp_dtype type, size_t size, int count)
{
    char block[LANES * sizeof(double)] = {0};
    memcpy(block, from, (size_t)count * size);
    return vec_from(block, type);
}

/* Returns the entry after the run's last. Columns [c, c + vectors * LANES), or what d_v leaves of them unless they are `whole`; `vectors`, `whole`, the type and
 * size are constants at every call. Sums begin at 0 where `opens`, else where the part before left them in `sums`; where
 * `closes` they are added to `out`. */
INLINE int64_t value_columns(const int vectors, const bool whole, const lsp_value_tile *tile, lsp_dtype type,
                             size_t size, int64_t c, entry_run run, bool opens, bool closes, real *sums,
                             double *out)
{
    enum { MOST = 8, AHEAD = 8 };
    const int64_t row_bytes = tile->d_v * (int64_t)size;
    const int left = whole ? LANES : (int)lsp_min(LANES, tile->d_v - c);
    const char *v = (const char *)tile->v + c * (int64_t)size - tile->first * row_bytes;
    vec acc[MOST];
    UNROLL
    for (int i = 0; i < vectors; i++) acc[i] = opens ? vec_zero() : vec_load(sums + c + i * LANES);
    int64_t e = run.begin;
    for (; e < run.most && run.keys[e] < run.limit; e++) {
        const char *row = v + run.keys[e] * row_bytes;
        vec factor = vec_set(run.weights[e]);
        if (run.ahead && e + AHEAD < run.most)
            for (size_t b = 0; b < (size_t)vectors * LANES * size; b += CACHE_LINE)
                __builtin_prefetch(v + run.keys[e + AHEAD] * row_bytes + b);
        UNROLL
        for (int i = 0; i < vectors; i++)
            acc[i] = vec_fma(factor,
                             whole ? vec_from(row + (size_t)(i * LANES) * size, type)
                                   : value_part(row, type, size, left),
                             acc[i]);
    }
    if (!closes) {
        UNROLL
        for (int i = 0; i < vectors; i++) vec_store(sums + c + i * LANES, acc[i]);
        return e;
    }
    UNROLL
    for (int i = 0; i < vectors; i++) {
        if (whole) {
            vec_add_doubles(out + c + i * LANES, acc[i]);
            continue;
        }
        real lanes[LANES];
        vec_store(lanes, acc[i]);
        for (int lane = 0; lane < left; lane++) out[c + lane] += (double)lanes[lane];
    }
    return e;
}

/* The same of all columns. */
INLINE int64_t value_row(const lsp_value_tile *tile, lsp_dtype type, size_t size, entry_run run, bool opens,
                         bool closes, real *sums, double *out)
{
    int64_t c = 0, d = tile->d_v, end = run.begin;
    for (; c + 8 * LANES <= d; c += 8 * LANES)
        end = value_columns(8, true, tile, type, size, c, run, opens, closes, sums, out);
    for (; c + 4 * LANES <= d; c += 4 * LANES)
        end = value_columns(4, true, tile, type, size, c, run, opens, closes, sums, out);
    for (; c + LANES <= d; c += LANES)
        end = value_columns(1, true, tile, type, size, c, run, opens, closes, sums, out);
    if (c < d) end = value_columns(1, false, tile, type, size, c, run, opens, closes, sums, out);
    return end;
}

/* Asks for as many entries of the row after as this one has. */
INLINE void value_prefetch(const lsp_value_rows *of, int64_t r, int64_t entries)
{
    enum { LINE = CACHE_LINE / sizeof(int32_t) };
    const int64_t at = (r + 1) * of->stride + of->next[r + 1];
    for (int64_t e = 0; e < lsp_min(entries, 8 * LINE) + LINE; e += LINE) {
        __builtin_prefetch(of->keys + at + e);
        __builtin_prefetch((const real *)of->weights + at + e);
        if (sizeof(real) > sizeof(int32_t)) __builtin_prefetch((const real *)of->weights + at + e + LINE / 2);
    }
}

/* Rows [row, row + rows), at most NEAR_ROWS of them, and keys [first, end) of a tile, `step` of them at a time. */
INLINE void value_block(const lsp_value_tile *tile, lsp_dtype type, size_t size, const lsp_value_rows *of,
                        int64_t row, int64_t rows, int64_t first, int64_t end, int64_t step, real *sums)
{
    const int64_t width = lsp_round_up(tile->d_v, SUM_LANES);
    for (int64_t key = first; key < end; key += step) {
        const int64_t limit = lsp_min(key + step, end);
        const bool opens = key == first, closes = limit == end;
        for (int64_t r = row; r < row + rows; r++) {
            const int32_t *keys = of->keys + r * of->stride;
            const real *weights = (const real *)of->weights + r * of->stride;
            const entry_run run = {keys, weights, of->next[r], of->counts[r], limit, false};
            int64_t after = value_row(tile, type, size, run, opens, closes, sums + (r - row) * width,
                                      of->out + r * tile->d_v);
            if (opens && r + 1 < of->rows) value_prefetch(of, r, (end - first) / step * (after - run.begin));
            of->next[r] = (int32_t)after;
        }
    }
}

/* A row with few entries goes through all tiles at once. */
INLINE void value_sparse(const lsp_value_tile *tile, lsp_dtype type, size_t size, const lsp_value_rows *of,
                         int64_t r)
{
    const int32_t *keys = of->keys + r * of->stride;
    const real *weights = (const real *)of->weights + r * of->stride;
    int64_t e = of->next[r], before = e;
    while (e < of->counts[r] && keys[e] < tile->end) {
        int64_t end = (keys[e] / tile->tile_keys + 1) * tile->tile_keys;
        const entry_run run = {keys, weights, e, of->counts[r], lsp_min(end, tile->end), true};
        e = value_row(tile, type, size, run, true, true, NULL, of->out + r * tile->d_v);
    }
    of->next[r] = (int32_t)e;
    if (r + 1 < of->rows) value_prefetch(of, r, e - before);
}

INLINE void add_values_of(const lsp_value_tile *tile, lsp_dtype type, size_t size, const lsp_value_rows *of,
                          real *sums)
{
    const int64_t keys = tile->end - tile->first, near = lsp_max(1, NEAR_BYTES / (tile->d_v * (int64_t)size)),
                  middle = of->rows / 2;
    int64_t many = of->next[middle] + NEAR_ENTRIES * lsp_ceil_div(keys, near);
    bool dense = many <= of->counts[middle] && of->keys[middle * of->stride + many - 1] < tile->end;
    for (int64_t r = 0; r < of->rows && !dense; r++) value_sparse(tile, type, size, of, r);
    for (int64_t first = tile->first, end; dense && first < tile->end; first = end) {
        end = lsp_min((first / tile->tile_keys + 1) * tile->tile_keys, tile->end);
        for (int64_t row = 0; row < of->rows; row += NEAR_ROWS)
            value_block(tile, type, size, of, row, lsp_min(NEAR_ROWS, of->rows - row), first, end, near,
                        sums);
    }
}

static void add_values(const lsp_value_tile *tile, const lsp_value_rows *rows, void *scratch)
{
    switch (tile->type) {
    case LSP_F16: add_values_of(tile, LSP_F16, 2, rows, scratch); break;
    case LSP_BF16: add_values_of(tile, LSP_BF16, 2, rows, scratch); break;
    case LSP_F32: add_values_of(tile, LSP_F32, 4, rows, scratch); break;
    default: add_values_of(tile, LSP_F64, 8, rows, scratch);
    }
}

#endif
