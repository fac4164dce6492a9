/* SPDX-License-Identifier: BSD-3-Clause */
#include "study/fetch.h"

#include "base/checked.h"
#include "base/convert.h"
#include "base/memory.h"

#include <inttypes.h>
#include <string.h>

enum { PIECE = 512 }; /* what a reduction takes */

lsp_status lsp_fetch_sum(lsp_context *ctx, double *values, int64_t count)
{
    lsp_status status = LSP_OK;
    for (int64_t i = 0; i < count && status == LSP_OK; i += PIECE)
        status = lsp_context_sum_f64(ctx, values + i, (int)lsp_min(PIECE, count - i));
    return status;
}

lsp_status lsp_fetch_max(lsp_context *ctx, double *values, int64_t count)
{
    lsp_status status = LSP_OK;
    for (int64_t i = 0; i < count && status == LSP_OK; i += PIECE)
        status = lsp_context_max_f64(ctx, values + i, (int)lsp_min(PIECE, count - i));
    return status;
}

/* What this rank holds of the places, as bit patterns (a sum of integers over ranks passes a NaN on to nobody and
 * loses no bit), each row behind the number of its owners. */
static void own_rows(const lsp_held_rows *held, const lsp_row_place *places, int64_t count, uint64_t *bits,
                     double *room)
{
    int64_t width = held->columns + 1, before = 0;
    for (int64_t r = 0; r < held->run_count; before += held->runs[r++].count)
        for (int64_t i = 0; i < count; i++) {
            const lsp_run *run = &held->runs[r];
            int64_t inside = places[i].row - run->begin;
            if (run->batch != places[i].batch || run->head != places[i].head || inside < 0 ||
                inside >= run->count)
                continue;
            lsp_convert_load(held->type, held->array, (before + inside) * held->columns, held->columns, room);
            bits[i * width]++;
            memcpy(bits + i * width + 1, room, (size_t)held->columns * sizeof *room);
        }
}

lsp_status lsp_fetch_rows(lsp_context *ctx, const lsp_held_rows *held, const char *what,
                          const lsp_row_place *places, int64_t count, double *values)
{
    int64_t width = held->columns + 1;
    uint64_t *bits = lsp_memory_zalloc(count, (size_t)width * sizeof *bits);
    double *room = lsp_memory_alloc(held->columns, sizeof *room);
    lsp_status status = LSP_OK;
    if (!bits || !room)
        status = lsp_context_fail(ctx, LSP_ERR_LIMIT, "verify: no memory for %" PRId64 " rows; sample fewer",
                                  count);
    status = lsp_context_agree(ctx, status);
    if (status == LSP_OK) own_rows(held, places, count, bits, room);
    for (int64_t i = 0; i < count * width && status == LSP_OK; i += PIECE)
        status = lsp_context_sum_u64(ctx, bits + i, (int)lsp_min(PIECE, count * width - i));
    for (int64_t i = 0; i < count && status == LSP_OK; i++) {
        if (bits[i * width] != 1)
            status = lsp_context_fail(ctx, LSP_ERR_USAGE,
                                      "verify: row %" PRId64 " of %s (batch %" PRId64 ", head %" PRId64
                                      ") is held %" PRIu64 " times by all ranks; it must be held once",
                                      places[i].row, what, places[i].batch, places[i].head, bits[i * width]);
        else
            memcpy(values + i * held->columns, bits + i * width + 1, (size_t)held->columns * sizeof *values);
    }
    lsp_memory_free(bits);
    lsp_memory_free(room);
    return status;
}
