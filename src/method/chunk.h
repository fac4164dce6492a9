/* One execution of a plan, and some rows of one query matrix on their way through it: opened at their first panel,
 * closed after the last tile of their keys, while they are still in the caches.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_METHOD_CHUNK_H
#define LSP_METHOD_CHUNK_H

#include "method/attention.h"

typedef struct lsp_pass {
    lsp_attention *plan;
    const char *q;
    char *out;
    void *lse;
    double factor; /* of the queries: scale * log2 e */
    double pairs_done;
    int64_t empty_rows;
} lsp_pass;

typedef struct lsp_chunk {
    int64_t index, row; /* of the rank's chunks; first row of the rank's */
    int64_t rows;
    lsp_query_rows state;
    lsp_row_state recent, total;
    lsp_score_rule rule;
} lsp_chunk;

/* Local. No chunk is open, no tile packed. */
void lsp_chunk_begin(const lsp_pass *p);

/* Local. Opens chunk `part` (of plan->chunk_rows rows) of a matrix for keys [low, high): its state is cleared if this
 * is the first time, its queries and sights stand in the room from row `at` on. Returns its visible pairs. */
double lsp_chunk_open(const lsp_pass *p, int64_t matrix, int64_t part, int64_t low, int64_t high,
                      lsp_thread_room *room, int64_t at, lsp_chunk *chunk);

/* Local. Whether a row of the chunk may see a key of the tile that is present. */
bool lsp_chunk_sees(const lsp_chunk *chunk, const lsp_tile_place *place);

/* Local. One tile, after all tiles before it. */
void lsp_chunk_attend(const lsp_attention *plan, const lsp_chunk *chunk, const lsp_key_tile *tile,
                      lsp_thread_room *room);

/* Local. Ends the rows of a chunk that has met all its keys; returns how many saw none. */
int64_t lsp_chunk_close(const lsp_pass *p, const lsp_chunk *chunk);

/* Local. Closes what is left; returns how many rows saw no key. All threads. */
int64_t lsp_chunk_close_rest(const lsp_pass *p);

#endif
