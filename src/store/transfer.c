/* Reads slabs of a dataset into a buffer. SPDX-License-Identifier: BSD-3-Clause */
#include "store/transfer.h"

#include "base/checked.h"
#include "base/memory.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

static const int64_t limit_default = (int64_t)1 << 30;
static _Atomic int64_t limit_now = (int64_t)1 << 30;

enum {
    STAGE_BYTES = 8 << 20, /* rows of several heads on their way from file to buffer order */
    GAP_BYTES = 16 << 10   /* a gap this small costs less to read than to skip */
};

int64_t lsp_transfer_set_limit(int64_t bytes)
{
    return atomic_exchange(&limit_now, bytes > 0 ? bytes : limit_default);
}

int64_t lsp_transfer_limit(void)
{
    return atomic_load(&limit_now);
}

/* One dataset. `rows` points to the buffer's row 0. */
typedef struct transfer {
    const lsp_placing *placing;
    hid_t dataset, file_space, memory_space, memory_type;
    hsize_t memory_elements; /* of memory_space */
    int64_t limit, row_bytes;
    char *rows;
    char *reason;
} transfer;

static bool fail(transfer *t)
{
    (void)lsp_h5_reason(t->reason, LSP_H5_REASON);
    return false;
}

static bool start(transfer *t, lsp_h5_handles *handles)
{
    t->limit = lsp_transfer_limit();
    t->row_bytes = lsp_placing_row_bytes(t->placing);
    t->file_space = lsp_h5_keep(handles, H5Dget_space(t->dataset));
    if (t->file_space < 0) return fail(t);
    t->memory_type = lsp_h5_keep(handles, lsp_h5_memory_type(t->placing->shape.type));
    t->memory_elements = 1;
    if (t->memory_type < 0) return fail(t);
    t->memory_space = lsp_h5_keep(handles, H5Screate_simple(1, &t->memory_elements, NULL));
    return t->memory_space >= 0 ? true : fail(t);
}

/* One transfer between a selection and contiguous memory. */
static bool move_once(transfer *t, const lsp_slab *slab, char *memory)
{
    hsize_t elements = (hsize_t)(lsp_slab_rows(slab) * t->placing->shape.d);
    if (elements != t->memory_elements) {
        if (H5Sset_extent_simple(t->memory_space, 1, &elements, NULL) < 0) return fail(t);
        t->memory_elements = elements;
    }
    if (!lsp_slab_select(t->placing, slab, t->file_space)) return fail(t);
    bool done = H5Dread(t->dataset, t->memory_type, t->memory_space, t->file_space, H5P_DEFAULT, memory) >= 0;
    return done ? true : fail(t);
}

/* Halves the slab along its first long axis until a part fits the limit; the parts follow each other in
 * memory. */
static bool move(transfer *t, const lsp_slab *slab, char *memory)
{
    int64_t rows = lsp_slab_rows(slab);
    if (rows <= 1 || rows * t->row_bytes <= t->limit) return move_once(t, slab, memory);
    lsp_slab first = *slab, second = *slab;
    if (slab->batches > 1) {
        first.batches /= 2;
        second.batch += first.batches;
        second.batches -= first.batches;
    } else if (slab->heads > 1) {
        first.heads /= 2;
        second.head += first.heads;
        second.heads -= first.heads;
    } else if (slab->blocks > 1) {
        first.blocks /= 2;
        second.begin += first.blocks * slab->stride;
        second.blocks -= first.blocks;
    } else {
        first.block /= 2;
        second.begin += first.block;
        second.block -= first.block;
    }
    return move(t, &first, memory) && move(t, &second, memory + lsp_slab_rows(&first) * t->row_bytes);
}

/* ---- several heads of the same rows, where the file has the heads inside (bnhd) ------------------- */

/* Copies rows from the stage [rows, box->heads, d] to the members' places in the buffer. */
static void scatter(transfer *t, const lsp_slab *box, const lsp_slab *members, int64_t count, int64_t row,
                    const char *stage)
{
    size_t bytes = (size_t)t->row_bytes;
    for (int64_t m = 0; m < count; m++) {
        char *place = t->rows + (members[m].at + row) * t->row_bytes;
        const char *staged = stage + (members[m].head - box->head) * t->row_bytes;
        for (int64_t r = 0; r < box->block; r++) {
            memcpy(place, staged, bytes);
            place += t->row_bytes;
            staged += box->heads * t->row_bytes;
        }
    }
}

/* members[0..count): the same rows of heads inside [head, head + heads). */
static bool move_staged(transfer *t, const lsp_slab *members, int64_t count, int64_t head, int64_t heads)
{
    int64_t bytes = lsp_min(t->limit, STAGE_BYTES), across = heads * t->row_bytes;
    int64_t step = lsp_min(lsp_max(bytes / across, 1), members->block);
    char *stage = lsp_memory_alloc(step, (size_t)across);
    if (!stage) {
        (void)snprintf(t->reason, LSP_H5_REASON, "not enough memory for %lld bytes",
                       (long long)(step * across));
        return false;
    }
    bool fine = true;
    for (int64_t row = 0; fine && row < members->block; row += step) {
        lsp_slab box = *members;
        box.head = head;
        box.heads = heads;
        box.begin += row;
        box.block = lsp_min(step, members->block - row);
        fine = move_once(t, &box, stage);
        if (fine) scatter(t, &box, members, count, row, stage);
    }
    lsp_memory_free(stage);
    return fine;
}

/* Heads that follow each other go together; all heads when the gaps between them are small. */
static bool move_group(transfer *t, const lsp_slab *members, int64_t count)
{
    int64_t all = t->placing->shape.heads;
    if (count > 0 && (all - count) * t->row_bytes <= GAP_BYTES) return move_staged(t, members, count, 0, all);
    for (int64_t first = 0, last; first < count; first = last) {
        for (last = first + 1; last < count && members[last].head == members[last - 1].head + 1; last++) {
        }
        bool fine = last - first == 1
                        ? move(t, &members[first], t->rows + members[first].at * t->row_bytes)
                        : move_staged(t, &members[first], last - first, members[first].head, last - first);
        if (!fine) return false;
    }
    return true;
}

static bool move_all(transfer *t, const lsp_slabs *slabs)
{
    bool grouped = t->placing->shape.layout == LSP_BNHD && t->placing->shape.heads > 1;
    for (int64_t first = 0, last; first < slabs->count; first = last) {
        const lsp_slab *slab = &slabs->items[first];
        last = first + 1;
        if (!grouped) {
            if (!move(t, slab, t->rows + slab->at * t->row_bytes)) return false;
            continue;
        }
        while (last < slabs->count && lsp_slab_same_rows(slab, &slabs->items[last])) last++;
        if (!move_group(t, slab, last - first)) return false;
    }
    return true;
}

bool lsp_transfer_read(hid_t dataset, const lsp_placing *placing, const lsp_slabs *slabs, void *buffer,
                       char *reason)
{
    transfer t = {.dataset = dataset, .placing = placing, .rows = buffer, .reason = reason};
    lsp_h5_handles handles = {.count = 0};
    bool fine = slabs->rows == 0 || (start(&t, &handles) && move_all(&t, slabs));
    (void)lsp_h5_close(&handles);
    return fine;
}
