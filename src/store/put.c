/* Writes rows to where their dataset lies in the file. SPDX-License-Identifier: BSD-3-Clause */
#ifndef _GNU_SOURCE
#    define _GNU_SOURCE /* pwritev */
#endif
#include "base/checked.h"
#include "store/transfer.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#    error "rows are written as they are in memory, and files are little-endian: this needs a byte swap here"
#endif

enum { PIECES = 256 }; /* of one call; less than IOV_MAX */

/* Pieces of memory that follow each other in the file. */
typedef struct writer {
    int fd, count;
    int64_t begin, bytes; /* in the file */
    int64_t limit;        /* of bytes, but for a piece that is larger */
    struct iovec pieces[PIECES];
    char *reason;
} writer;

static bool flush(writer *w)
{
    struct iovec *at = w->pieces;
    while (w->bytes > 0) {
        ssize_t done = pwritev(w->fd, at, w->count, (off_t)w->begin);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) {
            (void)snprintf(w->reason, LSP_H5_REASON, "%s", done < 0 ? strerror(errno) : "nothing is taken");
            return false;
        }
        w->begin += done;
        w->bytes -= done;
        while (w->count > 0 && (size_t)done >= at->iov_len) {
            done -= (ssize_t)at->iov_len;
            at++;
            w->count--;
        }
        if (w->count > 0) {
            at->iov_base = (char *)at->iov_base + done;
            at->iov_len -= (size_t)done;
        }
    }
    w->count = 0;
    return true;
}

static bool put(writer *w, char *memory, int64_t bytes, int64_t offset)
{
    bool follows = w->bytes > 0 && offset == w->begin + w->bytes && w->bytes + bytes <= w->limit;
    struct iovec *last = w->count > 0 ? &w->pieces[w->count - 1] : NULL;
    bool joins = follows && last && (char *)last->iov_base + last->iov_len == memory;
    if (!joins && (!follows || w->count == PIECES)) {
        if (!flush(w)) return false;
        w->begin = offset;
        last = NULL;
    }
    w->bytes += bytes;
    if (joins)
        last->iov_len += (size_t)bytes;
    else
        w->pieces[w->count++] = (struct iovec){memory, (size_t)bytes};
    return true;
}

/* Each block's rows follow each other in memory and file. */
static bool put_slab(writer *w, const lsp_placing *placing, const lsp_slab *slab, int64_t origin, char *rows)
{
    const lsp_tensor_shape *shape = &placing->shape;
    int64_t row_bytes = lsp_placing_row_bytes(placing), bytes = slab->block * row_bytes;
    char *memory = rows + slab->at * row_bytes;
    for (int64_t b = slab->batch; b < slab->batch + slab->batches; b++)
        for (int64_t h = slab->head; h < slab->head + slab->heads; h++)
            for (int64_t i = 0; i < slab->blocks; i++, memory += bytes) {
                int64_t row = (b * shape->heads + h) * shape->n + slab->begin + i * slab->stride;
                if (!put(w, memory, bytes, origin + row * row_bytes)) return false;
            }
    return true;
}

/* members[0..count): the same rows of several heads, which the file has side by side. */
static bool put_heads(writer *w, const lsp_placing *placing, const lsp_slab *members, int64_t count,
                      int64_t origin, char *rows)
{
    const lsp_tensor_shape *shape = &placing->shape;
    int64_t row_bytes = lsp_placing_row_bytes(placing);
    for (int64_t r = 0; r < members->block; r++)
        for (int64_t m = 0; m < count; m++) {
            int64_t row = (members->batch * shape->n + members->begin + r) * shape->heads + members[m].head;
            if (!put(w, rows + (members[m].at + r) * row_bytes, row_bytes, origin + row * row_bytes))
                return false;
        }
    return true;
}

bool lsp_transfer_write(int fd, int64_t origin, const lsp_placing *placing, const lsp_slabs *slabs,
                        const void *buffer, char *reason)
{
    writer w = {.fd = fd, .limit = lsp_transfer_limit(), .reason = reason};
    char *rows = (char *)buffer; /* an iovec has no const */
    bool beside = placing->shape.layout == LSP_BNHD && placing->shape.heads > 1, fine = true;
    for (int64_t first = 0, last; fine && first < slabs->count; first = last) {
        const lsp_slab *slab = &slabs->items[first];
        last = first + 1;
        while (beside && last < slabs->count && lsp_slab_same_rows(slab, &slabs->items[last])) last++;
        fine = beside ? put_heads(&w, placing, slab, last - first, origin, rows)
                      : put_slab(&w, placing, slab, origin, rows);
    }
    return fine && flush(&w);
}
