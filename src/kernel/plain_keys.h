/* Which keys of a tile twelve rows with maxima of 0 meet, and what is done about those that not all of them see: they get scores and
 * powers like the others, and these become 0. All are finite, as rows only keep maxima of 0 where they are.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_PLAIN_KEYS_H
#define LSP_KERNEL_PLAIN_KEYS_H

#include "kernel/plain_state.h"

enum {
    PLAIN_KEYS = (BRAIN ? 4 : 2) * LANES, /* that go through the product of scores together */
    PLAIN_ROUND = 32, /* of which a row's sum takes the probabilities in a step of four of P V */
    PLAIN_GRAIN = PLAIN_KEYS > PLAIN_ROUND ? PLAIN_KEYS : PLAIN_ROUND,
    VALUE_GRAIN = PLAIN_FOUR * UNIT_ELEMENTS
};

/* Indices in the tile: [first, last) have scores, multiples of PLAIN_GRAIN; [begin, end) go into P V. */
typedef struct plain_keys {
    int64_t first, last, begin, end;
    int64_t rounds; /* of sums during P V, or 0: they are taken apart */
} plain_keys;

INLINE plain_keys plain_all_keys(const lsp_tile_shape *shape)
{
    return (plain_keys){0, shape->tile_keys, 0, shape->tile_keys, BRAIN ? 0 : shape->tile_keys / PLAIN_ROUND};
}

/* The sight of a row within a tile. */
INLINE lsp_sight plain_sight(const lsp_tile_shape *shape, const lsp_key_tile *tile, const lsp_sight *sight)
{
    return (lsp_sight){.begin = lsp_max(sight->begin - tile->first, 0),
                       .end = lsp_min(sight->end - tile->first, shape->tile_keys)};
}

/* What one of `rows` rows or more sees. */
static lsp_sight plain_union(const lsp_tile_shape *shape, const lsp_key_tile *tile, const lsp_sight *sight,
                             int64_t rows)
{
    lsp_sight all = plain_sight(shape, tile, sight);
    for (int64_t r = 1; r < rows; r++) {
        const lsp_sight one = plain_sight(shape, tile, sight + r);
        all.begin = lsp_min(all.begin, one.begin), all.end = lsp_max(all.end, one.end);
    }
    return all;
}

/* The keys of the next *rows rows, all of which see some: of two groups, or of the first where they differ by much. */
static plain_keys plain_some_keys(const lsp_tile_shape *shape, const lsp_key_tile *tile,
                                  const lsp_sight *sight, int64_t *rows)
{
    lsp_sight some = plain_union(shape, tile, sight, ROW_TILE);
    if (*rows > ROW_TILE) {
        const lsp_sight other = plain_union(shape, tile, sight + ROW_TILE, ROW_TILE);
        const lsp_sight both = {.begin = lsp_min(some.begin, other.begin),
                                .end = lsp_max(some.end, other.end)};
        const int64_t alone = some.end - some.begin + other.end - other.begin;
        if (2 * (both.end - both.begin) <= alone + PLAIN_GRAIN)
            some = both;
        else
            *rows = ROW_TILE;
    }
    plain_keys keys = {some.begin / PLAIN_GRAIN * PLAIN_GRAIN, lsp_round_up(some.end, PLAIN_GRAIN),
                       some.begin / VALUE_GRAIN * VALUE_GRAIN, lsp_round_up(some.end, VALUE_GRAIN), 0};
    const int64_t rounds = (keys.last - keys.first) / PLAIN_ROUND;
    if (!BRAIN && ROW_TILE * rounds * PLAIN_FOUR <= keys.end - keys.begin) keys.rounds = rounds;
    return keys;
}

/* The probabilities of keys [begin, end) become 0: whole vectors are stored, as a load of part of what a smaller store wrote would
 * wait for it. */
INLINE void plain_zero(real *p, int64_t begin, int64_t end)
{
#if BRAIN
    enum { KEYS = 2 * LANES };
    uint16_t *at = (uint16_t *)(void *)p;
#else
    enum { KEYS = LANES };
    real *at = p;
#endif
    for (int64_t key = begin / KEYS * KEYS; key < end; key += KEYS) {
        const uint64_t below = (1ULL << lsp_max(begin - key, 0)) - 1,
                       up_to = (1ULL << lsp_min(end - key, KEYS)) - 1;
        const uint64_t stays = ~(up_to & ~below);
#if BRAIN
        _mm512_storeu_si512(at + key, _mm512_maskz_loadu_epi16((__mmask32)stays, at + key));
#elif REAL_BITS == 32
        vec_store(at + key, _mm512_maskz_loadu_ps((__mmask16)stays, at + key));
#else
        vec_store(at + key, _mm512_maskz_loadu_pd((__mmask8)stays, at + key));
#endif
    }
}

/* Sums by lane, as softmax_row has them, of a row's probabilities. */
static vec plain_sum(const real *p, const plain_keys *keys)
{
    vec sum = vec_zero();
    for (int64_t key = keys->first; key < keys->last; key += LANES) {
#if BRAIN
        const uint16_t *at = (const uint16_t *)(const void *)p + key;
        const __m512i bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)at));
        sum = vec_add(sum, _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16)));
#else
        sum = vec_add(sum, vec_load(p + key));
#endif
    }
    return sum;
}

/* What is done to probabilities of `rows` rows, p_row elements apart, when they are there. */
static void plain_hide(const lsp_tile_shape *shape, const lsp_key_tile *tile, const lsp_sight *sight,
                       int64_t rows, const plain_keys *keys, real *p, int64_t p_row, vec *sum)
{
    for (int64_t r = 0; r < rows; r++, p += p_row) {
        const lsp_sight own = plain_sight(shape, tile, sight + r);
        plain_zero(p, keys->first, own.begin);
        plain_zero(p, own.end, keys->last);
        if (keys->rounds == 0) sum[r] = plain_sum(p, keys);
    }
}

#endif
