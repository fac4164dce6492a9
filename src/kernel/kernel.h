/* The kernels' interface: one table entry per (instruction set, computing type).
 *
 * A kernel works on one key tile (packed K and V, at an absolute position) and some query rows with
 * their running state, in the online-softmax manner (Milakov and Gimelshein 2018; Dao et al. 2022):
 *
 *     s_j   = rule(q . k_j)               base-2 units: q carries scale * log2(e)
 *     m'    = max(m, max_j s_j), rounded up to an integer
 *     a     = exp2(m - m'),  p_j = exp2(s_j - m')
 *     l'    = l a + sum_j p_j
 *     o'    = o a + sum_j p_j v_j
 *
 * l and o are in units of sum_unit, a number that makes the power cheap and cancels in o / l.
 *
 * As m is an integer, a is a power of two, and the product with it is exact; s_j is split into integer and fraction
 * without m, so that m rounds nothing. So the bits of l and o are the same for any m, up to that power of two; hence
 * m may stay where it is while bounds on the scores (norms of q and k) tell that nothing can overflow or vanish.
 *
 * Promises, which everything above rests on:
 *   - A row's bits depend on its own q, sight and state and on the tile alone: not on the rows beside
 *     it, nor on how many rows a call has.
 *   - A key outside the row's sight contributes nothing, whatever k, v hold there (also NaN and Inf).
 *     A call for a tile that a row does not see leaves the row's state bit-identical.
 *   - Tiles must come in ascending order; the tile height is a function of (d_k, d_v, type) alone.
 *   - AVX2 and AVX-512 give the same bits (same order of FMAs, same lane structure in sums).
 *   - bf16: operands rounded once, probabilities rounded, sums (of the rounded ones) in f32, the running state and
 *     results in f32. The log-sum-exp of a row with one weight is off by its rounding, 2^-9 at most.
 * Kernels neither allocate, log, communicate nor fail.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_KERNEL_H
#define LSP_KERNEL_KERNEL_H

#include "kernel/links.h"
#include "kernel/mask.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Sizes of packed operands, all in elements of packed_bytes each. */
typedef struct lsp_tile_shape {
    int64_t d_k, d_v;
    int64_t tile_keys;  /* keys of a whole tile, a multiple of strip_keys */
    int64_t strip_keys; /* keys of a strip of packed K */
    int64_t k_depth;    /* elements of a packed row of K or Q: d_k, for bf16 rounded up to pairs */
    int64_t v_stride;   /* elements from one key's packed V row to the next: d_v rounded up */
} lsp_tile_shape;

/* Rows of K or V as they are stored, [count][d], the first of them `offset` keys after the tile's. */
typedef struct lsp_stored_rows {
    const void *src;
    lsp_dtype type;
    int64_t offset, count;
} lsp_stored_rows;

/* One packed key tile. Keys [first, first + tile_keys) of which [key_begin, key_end) are present (a
 * tile cut by the end of the sequence or by a selection); absent ones are never in a row's sight. */
typedef struct lsp_key_tile {
    const void *k; /* [tile_keys / strip_keys][k_depth][strip_keys]; absent keys hold zeros */
    const void *v; /* [tile_keys][v_stride]; absent keys and columns past d_v hold zeros */
    bool v_brain;  /* v is bf16 in place of its numbers in f32: see lsp_kernel_reads_v */
    int64_t first; /* absolute index of the tile's first key */
    double k_norm; /* as pack_k returned it; infinity with stored_k */
    double v_max;  /* as pack_v returned it */
    const void *next_k,
        *next_v;        /* of the tile after, packed or not, which is asked for meanwhile; NULL: none */
    const void *next_q; /* queries that are packed after this tile, also asked for */
    int64_t next_q_bytes;
    /* In place of k, which is NULL, and v, where at most row_tile rows meet the tile: a strip is packed when it is its turn
     * and met at once, in the first-level cache. k_norm is 0 then, or infinite where no bound is to be taken. */
    lsp_stored_rows stored_k, stored_v;
} lsp_key_tile;

/* Query rows and their running state, which has the result type of the computing type. Row r's sight is sight[r]; positions are absolute. */
typedef struct lsp_query_rows {
    int64_t rows;
    const void *q;      /* [rows][k_depth], packed by pack_queries */
    const double *norm; /* [rows] by query_norms */
    const lsp_sight *sight;
    void *out; /* [rows][d_v] running output, unnormalised; not read where the sum is -0 */
    void *max; /* [rows] running maximum, base-2 units; -inf at first */
    void *sum; /* [rows] running sum; -0 at first, or 0 if the output is there and 0 */
} lsp_query_rows;

/* A tile of query rows, for W^T Y: in `tile`, k holds the scaled queries in strips (pack_k of what pack_queries gave)
 * and v the rows of Y; first is the tile's first query row. An element of W is exp2(s - base_i) sum_unit weight_i, with base
 * the row's final maximum and weight 1 / its sum: the same scores, to the bit, as in attend. Rows that are absent or
 * see no key have base and weight 0. */
typedef struct lsp_row_tile {
    lsp_key_tile tile;
    const void *base, *weight; /* [tile_keys], result type */
} lsp_row_tile;

/* Key rows that gather W^T Y. sight: the query rows that see the key, and position such that the distance to query
 * row i is |position - i|. */
typedef struct lsp_key_rows {
    int64_t rows;
    const void *k; /* [rows][k_depth], packed by pack_queries with factor 1 */
    const lsp_sight *sight;
    void *out;     /* [rows][d_v] running sum of w_ij Y_i */
    void *squares; /* [rows] running sum of w_ij^2 */
} lsp_key_rows;

/* Running state of some rows: unnormalised output [rows][d_v], maxima in base-2 units (-inf at first), sums (0 at first,
 * or -0: then the output is not read). */
typedef struct lsp_row_state {
    void *out, *max, *sum;
} lsp_row_state;

/* Keys that stand in the choice for the k largest scores of some rows. A row's entries are in ascending order of keys;
 * those with larger scores than all others met so far are among them, of equal ones the lower keys. */
typedef struct lsp_candidates {
    int64_t most;    /* k */
    int64_t stride;  /* entries from one row's first to the next one's: lsp_kernel.candidate_stride(k) */
    void *scores;    /* [rows][stride] in base-2 units; at the end weights */
    int32_t *keys;   /* [rows][stride] */
    int32_t *counts; /* [rows] 0 at first */
    void *least;     /* [rows] what a score must exceed; -inf at first */
} lsp_candidates;

/* Tiles and rows that one call of select takes at most. */
enum { LSP_SELECT_TILES = 8, LSP_SELECT_ROWS = 24 };

/* Rows of V as stored, of keys [first, end): of one key tile or more all that are present. */
typedef struct lsp_value_tile {
    const void *v; /* [end - first][d_v] */
    lsp_dtype type;
    int64_t d_v, first, end;
    int64_t tile_keys;
} lsp_value_tile;

/* Chosen entries of rows, keys ascending, and what they add up to. */
typedef struct lsp_value_rows {
    int64_t rows, stride;
    const int32_t *keys, *counts; /* [rows][stride], [rows] */
    const void *weights;          /* [rows][stride] result type */
    int32_t *next;                /* [rows] entries before it are added */
    double *out;                  /* [rows][d_v] */
} lsp_value_rows;

/* Consecutive query rows whose weights are looked at: an element of W is exp2(s - base_i) sum_unit weight_i, with base an even
 * integer and weight at most 1: the row's final maximum and 1 / its sum, a power of two brought from one to the other
 * where need be. A row of weight 0 is left out. Columns are of grains: rows [g grain, (g + 1) grain) of a call. */
typedef struct lsp_look_rows {
    int64_t rows, grain;
    const void *q;      /* packed by pack_queries */
    const double *norm; /* [rows] by query_norms */
    const lsp_sight *sight;
    const void *base, *weight; /* [rows], result type */
    const int64_t *first_key;  /* [rows] of LSP_MAP_FIRST */
    int64_t number;            /* of the first row, in links */
    double
        *sums; /* [rows][LSP_MAP_FIGURES] running sums of the figures; in the place of LSP_MAP_ENTROPY stands
                     sum w (s - base), base-2 units */
} lsp_look_rows;

/* Of the weights of each of a call's grains, [grains][tile_keys] in the result type: sums, one row after the other, and
 * maxima. */
typedef struct lsp_look_columns {
    void *sum, *most;
} lsp_look_columns;

/* Pixels of one line of a picture, from the one in which a tile's first present key lies, and totals of its keys. */
typedef struct lsp_look_pixels {
    int64_t *sums;             /* in fixed point */
    double *peaks;             /* largest weights */
    int64_t *mass;             /* [tile_keys] in fixed point, by key of the tile */
    int64_t width, first_left; /* keys of a pixel; of the first one, counted from that key on */
} lsp_look_pixels;

/* Key tiles whose sums are kept apart before they are folded into the rows' totals: an f32 number to which every
 * tile of a long sequence is added rounds once a tile, and its error grows with the square root of their number. */
enum { LSP_FOLD_TILES = 32 };

/* Changes to a score, base-2 units (natural units times log2 e); 0: none. */
typedef struct lsp_score_rule {
    double softcap; /* s -> softcap * tanh(s / softcap) */
    double slope;   /* then s -= slope * |position - key| */
    double factor;  /* the factor that pack_queries was given */
} lsp_score_rule;

typedef struct lsp_kernel {
    lsp_isa isa;
    lsp_dtype compute;
    int row_tile;     /* query rows of a register tile */
    int lanes;        /* elements of a vector of the result type */
    int packed_bytes; /* of an element of packed K, V and Q */
    double sum_unit;  /* what rows' running sums and outputs are in units of */

    /* Sizes for (d_k, d_v). */
    lsp_tile_shape (*shape)(int64_t d_k, int64_t d_v);
    /* Bytes of scratch that attend needs (64-byte aligned, one per thread). */
    size_t (*scratch_bytes)(const lsp_tile_shape *shape);

    /* Packs `count` K rows (type, contiguous rows of d_k) as keys [offset, offset + count) of a tile and
     * zeros the rest of the tile's K: call with all present keys of the tile at once. Returns the largest norm of
     * a key as packed, infinity when one is not finite. */
    double (*pack_k)(const lsp_tile_shape *shape, const void *src, lsp_dtype type, int64_t offset,
                     int64_t count, void *tile_k);
    /* The same for V; returns the largest absolute value, infinity when an element is not finite. Where V need not
     * be packed (lsp_kernel_leaves_v, lsp_kernel_reads_v) tile_v may be NULL: it is only looked at. */
    double (*pack_v)(const lsp_tile_shape *shape, const void *src, lsp_dtype type, int64_t offset,
                     int64_t count, void *tile_v);
    /* Converts `rows` rows of Q to the computing type, times factor (scale * log2 e). For bf16 only the factor's
     * sign goes in, and the rest to the scores: numbers that were bf16 stay exact. */
    void (*pack_queries)(int64_t d_k, const void *src, lsp_dtype type, int64_t rows, double factor, void *q);

    /* Norms of packed queries. With the norms of keys (in bf16 and the factor) they bound scores before these are known. */
    void (*query_norms)(int64_t d_k, int64_t rows, const void *q, double *norm);

    /* Advances the rows' state by one key tile. */
    void (*attend)(const lsp_tile_shape *shape, const lsp_score_rule *rule, const lsp_key_tile *tile,
                   const lsp_query_rows *rows, void *scratch);

    /* Adds to the key rows' sums what a tile of query rows gives them. NULL for bf16. A key row's bits
     * depend on its own k, sight and sums and on the tile alone; as attend otherwise. */
    void (*attend_transposed)(const lsp_tile_shape *shape, const lsp_score_rule *rule,
                              const lsp_row_tile *tile, const lsp_key_rows *keys, void *scratch);
    /* Entries of candidates for each row: k, and room for those that are not sorted out yet. */
    int64_t (*candidate_stride)(int64_t k);
    /* Bytes of scratch that select and add_values need (as that of attend). */
    size_t (*select_bytes)(const lsp_tile_shape *shape);
    /* As attend over `count` tiles (at most LSP_SELECT_TILES) one after the other, of at most LSP_SELECT_ROWS rows, but
     * for the output, which is not touched: maxima, sums, and the candidates of the same rows. `last`: no more come, and
     * candidates that are not chosen leave now, while they are near. */
    void (*select)(const lsp_tile_shape *shape, const lsp_score_rule *rule, const lsp_key_tile *tiles,
                   int count, const lsp_query_rows *rows, const lsp_candidates *candidates, bool last,
                   void *scratch);
    /* Ends the choice: at most k entries a row, exp2(score - max) / sum in place of their scores, or with `renormalize`
     * divided by what the kept ones add up to. kept[r]: the share of the row's sum that they are, in double. */
    void (*weigh)(const lsp_score_rule *rule, int64_t rows, const lsp_candidates *candidates, const void *max,
                  const void *sum, bool renormalize, double *kept);
    /* Adds to each row's output what its entries in a tile of V give: from next[r] on, as far as keys are below the tile's
     * end, which is where next[r] is then. Sums of one tile run in the computing type's results, one key after the other. */
    void (*add_values)(const lsp_value_tile *tile, const lsp_value_rows *rows, void *scratch);

    /* Looks at the weights of rows over one tile: sets the columns, adds to the rows' sums, offers links. Needs the scratch
     * of attend. NULL for bf16. A row's sums depend on its own q, sight, base and weight and on the tile alone; a column's
     * on the grain's rows in their order. AVX2 and AVX-512 give the same bits. */
    void (*look)(const lsp_tile_shape *shape, const lsp_score_rule *rule, const lsp_key_tile *tile,
                 const lsp_look_rows *rows, const lsp_look_columns *columns, lsp_links *links, void *scratch);
    /* Adds columns [begin, end) of a tile and a grain, rounded to multiples of 1 / scale, to pixels: scale is a power of
     * two, and a sum times scale below 2^51. NULL for bf16. */
    void (*pool)(const lsp_look_columns *columns, int64_t begin, int64_t end, double scale,
                 const lsp_look_pixels *pixels);

    /* Adds the rows' recent state to their total and empties it. Rows whose recent state is empty stay as they are,
     * to the bit. */
    void (*fold)(int64_t d_v, int64_t rows, const lsp_row_state *recent, const lsp_row_state *total);

    /* Ends rows: out /= sum, lse = natural log-sum-exp from max and sum; rows with sum == 0 and max == -inf
     * (no key) give 0 and -inf. Canonical zeros (+0) and NaNs. lse may be NULL.
     * Returns the number of rows without keys. */
    int64_t (*finish)(int64_t d_v, int64_t rows, void *out, const void *max, const void *sum, void *lse);

    /* Runs `iterations` rounds of independent steps of a product (FMAs or dot products of pairs) on registers;
     * returns the flops done. */
    double (*fma_burst)(int64_t iterations);
} lsp_kernel;

/* Local. The kernel for an instruction set (not AUTO) and computing type (bf16, f32, f64); NULL when this
 * build or this machine (CPUID and XCR0) lacks it. The portable one is always there. Of the two for bf16 on
 * AVX-512, which give the same bits, the one whose products are faster on this processor. */
const lsp_kernel *lsp_kernel_get(lsp_isa isa, lsp_dtype compute);

/* Whether `count` rows of V from `src` on, keys [offset, offset + count) of a tile, stand as pack_v would leave them: a whole
 * tile of the computing type, without padding, on a cache line. Local. */
bool lsp_kernel_leaves_v(const lsp_kernel *kernel, const lsp_tile_shape *shape, const void *src,
                         lsp_dtype type, int64_t offset, int64_t count);

/* Whether, where they are finite, attend can take such rows as they are stored, though packing would make other numbers of
 * them: bf16 whose kernel keeps it in f32. Each group of rows converts them, which for few rows is less than packing. Local. */
bool lsp_kernel_reads_v(const lsp_kernel *kernel, const lsp_tile_shape *shape, lsp_dtype type, int64_t offset,
                        int64_t count);

/* Floating-point mode of the kernels on this thread: round to nearest, denormals flushed to zero.
 * Local. lsp_fpmode_enter returns the mode before, for lsp_fpmode_leave. */
uint64_t lsp_fpmode_enter(void);
void lsp_fpmode_leave(uint64_t before);

#endif
