/* SPDX-License-Identifier: BSD-3-Clause */
#include "comm/exchange.h"

#include "base/checked.h"
#include "base/memory.h"
#include "comm/rows.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { EXCHANGE_TAG = 41 };

/* A run, and the place of its first row in its rank's array. */
typedef struct placed_run {
    lsp_run run;
    int64_t first;
} placed_run;

/* Rows [first, first + count) of this rank's array. */
typedef struct piece {
    int64_t first, count;
} piece;

/* What goes to or comes from each rank: pieces [peer[r], peer[r + 1]), rows[r] rows. */
typedef struct side {
    piece *pieces;
    int64_t *peer, *rows; /* [ranks + 1], [ranks] */
    int64_t room, count;
} side;

struct lsp_exchange {
    lsp_context *ctx;
    side send, receive;
    bool none;
};

/* ---- all ranks' runs ----------------------------------------------------------------------------- */

static int by_place(const void *a, const void *b)
{
    const lsp_run *x = &((const placed_run *)a)->run, *y = &((const placed_run *)b)->run;
    if (x->batch != y->batch) return x->batch < y->batch ? -1 : 1;
    if (x->head != y->head) return x->head < y->head ? -1 : 1;
    return (x->begin > y->begin) - (x->begin < y->begin);
}

/* The runs of every rank in the order of rows, those of rank r at [first[r], first[r + 1]). */
typedef struct all_runs {
    placed_run *runs;
    int64_t *first; /* [ranks + 1] */
} all_runs;

static void free_all(all_runs *all)
{
    lsp_memory_free(all->runs);
    lsp_memory_free(all->first);
}

static lsp_status no_memory(lsp_context *ctx)
{
    return lsp_context_fail(ctx, LSP_ERR_LIMIT, "not enough memory to bring rows from rank to rank");
}

/* Collective. */
static lsp_status count_runs(lsp_context *ctx, int64_t mine, all_runs *all)
{
    int ranks = ctx->layout.ranks;
    int64_t *work = lsp_memory_alloc(4 * (int64_t)ranks, sizeof *work);
    all->first = lsp_memory_alloc((int64_t)ranks + 1, sizeof *all->first);
    lsp_status status = lsp_context_agree(ctx, work && all->first ? LSP_OK : no_memory(ctx));
    if (status == LSP_OK) {
        int64_t *counts = work, *one = work + ranks, *at = work + 2 * (int64_t)ranks;
        int *room = (int *)(void *)(work + 3 * (int64_t)ranks);
        for (int r = 0; r < ranks; r++) {
            one[r] = 1;
            at[r] = r;
        }
        int code = lsp_rows_allgather(&mine, counts, one, at, sizeof mine, room, ctx->comm);
        status = lsp_context_mpi(ctx, code, "counting the runs of rows");
        all->first[0] = 0;
        for (int r = 0; status == LSP_OK && r < ranks; r++) all->first[r + 1] = all->first[r] + counts[r];
    }
    lsp_memory_free(work);
    return status;
}

/* Collective. */
static lsp_status share_runs(lsp_context *ctx, const lsp_run *runs, int64_t count, all_runs *all)
{
    int ranks = ctx->layout.ranks;
    lsp_status status = lsp_context_agree(ctx, count_runs(ctx, count, all));
    if (status != LSP_OK) return status;
    placed_run *mine = lsp_memory_alloc(count, sizeof *mine);
    int64_t *counts = lsp_memory_alloc(ranks, sizeof *counts), before = 0;
    int *room = lsp_memory_alloc(2 * (int64_t)ranks, sizeof *room);
    all->runs = lsp_memory_alloc(all->first[ranks], sizeof *all->runs);
    status = lsp_context_agree(ctx, mine && counts && room && all->runs ? LSP_OK : no_memory(ctx));
    if (status == LSP_OK) {
        for (int64_t i = 0; i < count; before += runs[i++].count) mine[i] = (placed_run){runs[i], before};
        qsort(mine, (size_t)count, sizeof *mine, by_place);
        for (int r = 0; r < ranks; r++) counts[r] = all->first[r + 1] - all->first[r];
        int code = lsp_rows_allgather(mine, all->runs, counts, all->first, sizeof *mine, room, ctx->comm);
        status = lsp_context_mpi(ctx, code, "sharing the runs of rows");
    }
    lsp_memory_free(mine);
    lsp_memory_free(counts);
    lsp_memory_free(room);
    return status;
}

/* ---- who has what others want -------------------------------------------------------------------- */

static bool add_piece(side *s, int64_t first, int64_t count)
{
    if (s->count == s->room) {
        int64_t room = 2 * s->room + 64;
        piece *larger = lsp_memory_alloc(room, sizeof *larger);
        if (!larger) return false;
        if (s->count) memcpy(larger, s->pieces, (size_t)s->count * sizeof *larger);
        lsp_memory_free(s->pieces);
        s->pieces = larger;
        s->room = room;
    }
    s->pieces[s->count++] = (piece){first, count};
    return true;
}

/* Adds what two ranks' runs have in common as pieces of the one (of `a` when `of_a`), in the order of rows: so both
 * ranks list the same rows in the same order. */
static bool meet(const placed_run *a, int64_t a_count, const placed_run *b, int64_t b_count, bool of_a,
                 side *s, int64_t *rows)
{
    int64_t i = 0, j = 0;
    while (i < a_count && j < b_count) {
        const lsp_run *x = &a[i].run, *y = &b[j].run;
        bool same = x->batch == y->batch && x->head == y->head;
        int64_t begin = lsp_max(x->begin, y->begin);
        int64_t end = lsp_min(x->begin + x->count, y->begin + y->count);
        if (same && begin < end) {
            int64_t first = of_a ? a[i].first + begin - x->begin : b[j].first + begin - y->begin;
            if (!add_piece(s, first, end - begin)) return false;
            *rows += end - begin;
        }
        bool a_ends = same ? x->begin + x->count <= y->begin + y->count : by_place(&a[i], &b[j]) < 0;
        i += a_ends;
        j += !a_ends;
    }
    return true;
}

/* Local. Pieces for every peer: of what this rank holds (`mine`) and the peer wants, or the other way. */
static bool list_side(const all_runs *mine, const all_runs *others, int rank, int ranks, side *s)
{
    s->peer = lsp_memory_zalloc((int64_t)ranks + 1, sizeof *s->peer);
    s->rows = lsp_memory_zalloc(ranks, sizeof *s->rows);
    if (!s->peer || !s->rows) return false;
    const placed_run *own = mine->runs + mine->first[rank];
    int64_t own_count = mine->first[rank + 1] - mine->first[rank];
    for (int r = 0; r < ranks; r++) {
        if (!meet(own, own_count, others->runs + others->first[r], others->first[r + 1] - others->first[r],
                  true, s, &s->rows[r]))
            return false;
        s->peer[r + 1] = s->count;
    }
    return true;
}

/* Whether all that is wanted is here, in its order: runs may be cut otherwise. */
static bool is_none(const side *send, const side *receive, int rank, int64_t held, int64_t wanted)
{
    int64_t from = send->peer[rank], to = receive->peer[rank], count = send->peer[rank + 1] - from;
    if (held != wanted || receive->rows[rank] != wanted) return false;
    for (int64_t i = 0; i < count; i++)
        if (send->pieces[from + i].first != receive->pieces[to + i].first) return false;
    return true;
}

static lsp_status list_pieces(lsp_exchange *e, const all_runs *from, const all_runs *to)
{
    lsp_context *ctx = e->ctx;
    int rank = ctx->layout.rank, ranks = ctx->layout.ranks;
    if (!list_side(from, to, rank, ranks, &e->send) || !list_side(to, from, rank, ranks, &e->receive))
        return no_memory(ctx);
    int64_t held = 0, wanted = 0, found = 0;
    for (int64_t i = from->first[rank]; i < from->first[rank + 1]; i++) held += from->runs[i].run.count;
    for (int64_t i = to->first[rank]; i < to->first[rank + 1]; i++) wanted += to->runs[i].run.count;
    for (int r = 0; r < ranks; r++) found += e->receive.rows[r];
    if (found != wanted)
        return lsp_context_fail(ctx, LSP_ERR_USAGE,
                                "rank %d wants %" PRId64 " rows, and the ranks hold %" PRId64
                                " of them; each must be held once",
                                rank, wanted, found);
    e->none = is_none(&e->send, &e->receive, rank, held, wanted);
    return LSP_OK;
}

lsp_status lsp_exchange_create(lsp_context *ctx, const lsp_run *from, int64_t from_count, const lsp_run *to,
                               int64_t to_count, lsp_exchange **out)
{
    all_runs all_from = {NULL, NULL}, all_to = {NULL, NULL};
    lsp_exchange *e = lsp_memory_zalloc(1, sizeof *e);
    *out = NULL;
    lsp_status status = lsp_context_agree(ctx, e ? LSP_OK : no_memory(ctx));
    if (status == LSP_OK) status = lsp_context_agree(ctx, share_runs(ctx, from, from_count, &all_from));
    if (status == LSP_OK) status = lsp_context_agree(ctx, share_runs(ctx, to, to_count, &all_to));
    if (status == LSP_OK) {
        e->ctx = ctx;
        status = lsp_context_agree(ctx, list_pieces(e, &all_from, &all_to));
    }
    free_all(&all_from);
    free_all(&all_to);
    int64_t none = status == LSP_OK && e->none;
    if (status == LSP_OK) status = lsp_context_agree(ctx, lsp_context_min_i64(ctx, &none, 1));
    if (status == LSP_OK)
        e->none = none != 0;
    else
        lsp_exchange_destroy(&e);
    *out = e;
    return status;
}

bool lsp_exchange_is_none(const lsp_exchange *exchange)
{
    return exchange->none;
}

/* ---- moving -------------------------------------------------------------------------------------- */

static int64_t rows_of_others(const side *s, int rank, int ranks)
{
    int64_t rows = 0;
    for (int r = 0; r < ranks; r++) rows += r == rank ? 0 : s->rows[r];
    return rows;
}

/* The rows for one peer, from the array into its parcel; and back. */
static void pack_pieces(const side *s, int peer, int64_t row_bytes, const char *array, char *parcel)
{
    for (int64_t i = s->peer[peer]; i < s->peer[peer + 1]; i++) {
        int64_t bytes = s->pieces[i].count * row_bytes;
        memcpy(parcel, array + s->pieces[i].first * row_bytes, (size_t)bytes);
        parcel += bytes;
    }
}

static void unpack_pieces(const side *s, int peer, int64_t row_bytes, const char *parcel, char *array)
{
    for (int64_t i = s->peer[peer]; i < s->peer[peer + 1]; i++) {
        int64_t bytes = s->pieces[i].count * row_bytes;
        memcpy(array + s->pieces[i].first * row_bytes, parcel, (size_t)bytes);
        parcel += bytes;
    }
}

/* Both lists have the same pieces. */
static void copy_own(const lsp_exchange *e, int64_t row_bytes, const char *from, char *to)
{
    int rank = e->ctx->layout.rank;
    const piece *source = e->send.pieces + e->send.peer[rank],
                *target = e->receive.pieces + e->receive.peer[rank];
    int64_t count = e->send.peer[rank + 1] - e->send.peer[rank];
    for (int64_t i = 0; i < count; i++)
        memcpy(to + target[i].first * row_bytes, from + source[i].first * row_bytes,
               (size_t)(source[i].count * row_bytes));
}

/* One message for each other rank, packed one after the other, out and in. Returns an MPI code. */
static int transfer(const lsp_exchange *e, int64_t row_bytes, const char *out, char *in,
                    MPI_Request *requests)
{
    int ranks = e->ctx->layout.ranks, rank = e->ctx->layout.rank, count = 0, code = MPI_SUCCESS;
    for (int r = 0; r < ranks && code == MPI_SUCCESS; r++) {
        int64_t bytes = r == rank ? 0 : e->receive.rows[r] * row_bytes;
        code = lsp_rows_irecv(in, bytes, r, EXCHANGE_TAG, e->ctx->comm, requests + count);
        count += lsp_rows_pieces(bytes);
        in += bytes;
    }
    for (int r = 0; r < ranks && code == MPI_SUCCESS; r++) {
        int64_t bytes = r == rank ? 0 : e->send.rows[r] * row_bytes;
        code = lsp_rows_isend(out, bytes, r, EXCHANGE_TAG, e->ctx->comm, requests + count);
        count += lsp_rows_pieces(bytes);
        out += bytes;
    }
    return code == MPI_SUCCESS ? MPI_Waitall(count, requests, MPI_STATUSES_IGNORE) : code;
}

/* Through the parcels `out` and `in`. */
static lsp_status move_rows(const lsp_exchange *e, int64_t row_bytes, const char *from, char *to, char *out,
                            char *in, MPI_Request *requests)
{
    int ranks = e->ctx->layout.ranks, rank = e->ctx->layout.rank;
    char *at = out;
    for (int r = 0; r < ranks; r++) {
        if (r == rank) continue;
        pack_pieces(&e->send, r, row_bytes, from, at);
        at += e->send.rows[r] * row_bytes;
    }
    copy_own(e, row_bytes, from, to);
    lsp_status status = lsp_context_mpi(e->ctx, transfer(e, row_bytes, out, in, requests), "bringing rows");
    for (int r = 0; status == LSP_OK && r < ranks; r++) {
        if (r == rank) continue;
        unpack_pieces(&e->receive, r, row_bytes, in, to);
        in += e->receive.rows[r] * row_bytes;
    }
    return status;
}

lsp_status lsp_exchange_rows(const lsp_exchange *e, int64_t row_bytes, const void *from, void *to)
{
    lsp_context *ctx = e->ctx;
    int ranks = ctx->layout.ranks, rank = ctx->layout.rank, fits = 0;
    int64_t requests = 0;
    for (int r = 0; r < ranks; r++)
        requests += (int64_t)lsp_rows_pieces(e->send.rows[r] * row_bytes) +
                    lsp_rows_pieces(e->receive.rows[r] * row_bytes);
    char *out = lsp_memory_alloc(rows_of_others(&e->send, rank, ranks) * row_bytes, 1);
    char *in = lsp_memory_alloc(rows_of_others(&e->receive, rank, ranks) * row_bytes, 1);
    MPI_Request *list = lsp_memory_alloc(requests, sizeof(MPI_Request));
    lsp_status status = out && in && list ? LSP_OK : no_memory(ctx);
    if (status == LSP_OK && !lsp_checked_int(requests, &fits))
        status = lsp_context_fail(ctx, LSP_ERR_LIMIT, "too many messages to bring rows from rank to rank");
    status = lsp_context_agree(ctx, status);
    if (status == LSP_OK) status = lsp_context_agree(ctx, move_rows(e, row_bytes, from, to, out, in, list));
    lsp_memory_free(out);
    lsp_memory_free(in);
    lsp_memory_free(list);
    return status;
}

void lsp_exchange_destroy(lsp_exchange **exchange)
{
    lsp_exchange *e = exchange ? *exchange : NULL;
    if (!e) return;
    side *sides[] = {&e->send, &e->receive};
    for (int i = 0; i < 2; i++) {
        lsp_memory_free(sides[i]->pieces);
        lsp_memory_free(sides[i]->peer);
        lsp_memory_free(sides[i]->rows);
    }
    lsp_memory_free(e);
    *exchange = NULL;
}
