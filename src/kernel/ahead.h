/* What is asked for before it is needed: the next key tile, and the rows of the next group.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_AHEAD_H
#define LSP_KERNEL_AHEAD_H

#include "base/checked.h"
#include "kernel/unit.h"

enum {
    CACHE_LINE = 64,
    AHEAD_REQUESTS = 4, /* after a product, for each of its rows */
    AHEAD_PARTS = 4     /* of next K, of next V, queries, output */
};

/* Lines are asked for a few at a time: more at once would take the buffers in which the products' own operands arrive. */
typedef struct ahead_part {
    const char *at;
    int64_t step; /* bytes from one request to the next */
} ahead_part;

/* The parts that the products of a row group ask for in turn, and how much of each. */
typedef struct group_ahead {
    ahead_part part[AHEAD_PARTS];
    int64_t bytes[AHEAD_PARTS];
    unsigned turn;
} group_ahead;

INLINE void ahead_ask(ahead_part *part)
{
    UNROLL
    for (int i = 0; i < AHEAD_REQUESTS; i++, part->at += part->step) __builtin_prefetch(part->at, 0, 2);
}

INLINE void group_ahead_start(group_ahead *ahead, const void *any)
{
    ahead->turn = 0;
    for (int i = 0; i < AHEAD_PARTS; i++) ahead->part[i] = (ahead_part){any, 0}, ahead->bytes[i] = 0;
}

INLINE void group_ahead_set(group_ahead *ahead, int part, const void *at, int64_t bytes)
{
    ahead->part[part].at = at;
    ahead->bytes[part] = bytes;
}

/* Spreads what is to be asked for over so many blocks of so many products, of ROW_TILE rows. What is more is asked for at
 * once. */
INLINE void group_ahead_spread(group_ahead *ahead, int64_t blocks, int64_t products)
{
    int64_t requests = blocks / AHEAD_PARTS * products * (AHEAD_REQUESTS * ROW_TILE);
    ahead->turn = 0;
    for (int i = 0; i < AHEAD_PARTS; i++) {
        int64_t step = requests > 0 ? lsp_min(CACHE_LINE, lsp_ceil_div(ahead->bytes[i], requests)) : 0;
        for (int64_t at = requests * step; at < ahead->bytes[i]; at += CACHE_LINE)
            __builtin_prefetch(ahead->part[i].at + at, 0, 2);
        ahead->part[i].step = step;
        ahead->bytes[i] = 0;
    }
}

INLINE ahead_part *group_ahead_turn(group_ahead *ahead)
{
    return &ahead->part[ahead->turn++ % AHEAD_PARTS];
}

#endif
