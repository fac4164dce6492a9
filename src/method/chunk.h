/* One execution of a plan, and some rows of one query matrix on their way through it: opened at their first panel,
 * closed after the last tile of their keys, while they are still in the caches.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_METHOD_CHUNK_H
#define LSP_METHOD_CHUNK_H

#include "method/attention.h"

typedef struct lsp_pass {
    lsp_attention *plan;
    const char *q;
    void *lse;
    double factor; /* of the queries: scale * log2 e */
    double pairs_done;
    int64_t empty_rows;
} lsp_pass;

/* Rows of a matrix that have met the same keys. */
typedef struct lsp_chunk {
    int64_t row; /* first row of the rank's */
    int64_t rows;
    int64_t met; /* keys below it */
    lsp_query_rows state;
    lsp_row_state recent, total;
    lsp_score_rule rule;
} lsp_chunk;

/* What a thread takes at a time: rows [begin, end) of each matrix, of chunk `chunk` of several matrices' chunks. */
typedef struct lsp_chunk_task {
    int64_t chunk, begin, end;
} lsp_chunk_task;

/* Local. Tasks of `chunks` chunks, of one matrix after the other: of the last ones, one for each thread, parts are tasks, so
 * that no thread waits long for another one at the end. */
int64_t lsp_chunk_tasks(const lsp_attention *plan, int64_t chunks);
lsp_chunk_task lsp_chunk_task_at(const lsp_attention *plan, int64_t chunks, int64_t task);

/* Local. An execution begins: no row is open, no tile packed; or rows stand as the loaded state has them. */
void lsp_chunk_begin(lsp_pass *p);

/* Local. Rows of matrix `matrix` from `begin` on, at most to `end`, that have met the same keys, in each of the
 * `matrices` matrices from there. */
int64_t lsp_chunk_alike(const lsp_attention *plan, int64_t matrix, int64_t matrices, int64_t begin,
                        int64_t end);

/* Local. Opens `rows` such rows of a matrix, from `begin` on, for keys [low, high): their state is cleared if this
 * is the first time, their queries and sights stand in the room from row `at` on. Returns the visible pairs that are
 * new. */
double lsp_chunk_open(const lsp_pass *p, int64_t matrix, int64_t begin, int64_t rows, int64_t low,
                      int64_t high, lsp_thread_room *room, int64_t at, lsp_chunk *chunk);

/* Local. Whether a row of the chunk may see a key of the tile that is present. */
bool lsp_chunk_sees(const lsp_chunk *chunk, const lsp_tile_place *place);

/* Local. One tile, after all tiles before it; nothing where the rows have met it. */
void lsp_chunk_attend(const lsp_attention *plan, const lsp_chunk *chunk, const lsp_key_tile *tile,
                      lsp_thread_room *room);

/* Local. The rows have met all keys below `high`. */
void lsp_chunk_meet(const lsp_attention *plan, const lsp_chunk *chunk, int64_t high);

/* Local. Ends the rows of a chunk that has met all its keys; returns how many saw none. */
int64_t lsp_chunk_close(const lsp_pass *p, const lsp_chunk *chunk);

/* Local. Closes what is left; returns how many rows saw no key. All threads. */
int64_t lsp_chunk_close_rest(const lsp_pass *p);

/* Local. Sets the state of all rows that are not open yet, so that it can be saved. */
void lsp_chunk_settle(lsp_attention *plan);

#endif
