/* The walk that methods share: every panel of keys, in global order, meets this rank's rows. Threads pack the
 * panel's tiles first, then take chunks of rows. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_METHOD_WALK_H
#define LSP_METHOD_WALK_H

#include "method/attention.h"

/* The panel at hand: tiles [tile_begin, tile_end) of the group's sequence. */
typedef struct lsp_walk_panel {
    lsp_panel panel;
    int64_t tile_begin, tile_end;
} lsp_walk_panel;

/* Some rows of one matrix, and the panel's tiles of its unit, of which at least one may be seen. */
typedef struct lsp_walk_chunk {
    const lsp_walk_panel *panel;
    const lsp_query_matrix *matrix;
    int64_t row, rows;            /* of this rank's arrays: rows [row, row + rows) */
    int64_t tile_begin, tile_end; /* of the sequence */
    int64_t low, high;            /* their keys */
    lsp_thread_room *room;        /* its sights are the rows' */
    bool main_thread;
} lsp_walk_chunk;

typedef struct lsp_walk {
    lsp_attention *plan;
    lsp_gather *gather;
    void *user;
    /* Local. Packs tile `tile` of the sequence; NULL: nothing to pack. Any thread. */
    void (*pack)(void *user, const lsp_walk_panel *panel, int64_t tile);
    /* Local. Computes a chunk. Any thread; no two have rows in common. */
    void (*compute)(void *user, const lsp_walk_chunk *chunk);
    double progress_begin, progress_end; /* shares of the whole work that are done before and after */
    double pairs;                        /* visible pairs met */
    double met_pairs;                    /* by the loaded state before that */
} lsp_walk;

/* Collective over the group, but for failures, which are this rank's own: the caller agrees. Rows that plan->met tells to
 * have met keys meet the others only; where executions can rest all ranks end the walk together. k and v: this rank's
 * keys and values as the gather takes them. */
lsp_status lsp_walk_run(lsp_walk *walk, const void *k, const void *v);

/* Local. Whether a row of the chunk may see tile `tile` of the sequence; *place is where it is. */
bool lsp_walk_sees(const lsp_walk_chunk *chunk, const lsp_attention *plan, int64_t tile,
                   lsp_tile_place *place);

/* Local. Packed queries of the chunk, and their norms, into its room; q: this rank's rows. */
void lsp_walk_pack_queries(const lsp_walk_chunk *chunk, const lsp_attention *plan, const void *q);

/* Local. Keys of tile `tile` of the sequence, whose first key is `first`, as lsp_walk_pack_k packed them. */
lsp_key_tile lsp_walk_tile(const lsp_walk_chunk *chunk, const lsp_attention *plan, int64_t tile,
                           int64_t first);
void lsp_walk_pack_k(lsp_attention *plan, const lsp_walk_panel *panel, int64_t tile);

#endif
