/* Numbers of a foreign tensor, row by row. SPDX-License-Identifier: BSD-3-Clause */
#include "base/checked.h"
#include "base/convert.h"
#include "base/memory.h"
#include "store/foreign.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum {
    STAGE = 65536,  /* elements read at a time */
    SCRATCH = 1024, /* elements converted at a time */
    ELEMENT_MOST = 8
};

/* One reading: the tensor as `outer` x `inner` matrices of `rows` x `columns`. */
typedef struct reading {
    const lsp_foreign *file;
    const lsp_foreign_item *item;
    int64_t outer, inner, rows, columns;
    bool by_column; /* matrices and rows run faster than columns in the file */
    int64_t first, count;
    lsp_dtype type;
    char *buffer;
    unsigned char *raw; /* [STAGE] as in the file */
    char *ready;        /* [STAGE] of `type` */
    lsp_error *err;
} reading;

/* ---- elements --------------------------------------------------------------------------------------- */

static void to_native(unsigned char *raw, int64_t count, int size, bool big)
{
    const uint16_t probe = 1;
    bool host_big = *(const unsigned char *)&probe == 0;
    if (size == 1 || big == host_big) return;
    for (int64_t i = 0; i < count; i++, raw += size)
        for (int low = 0, high = size - 1; low < high; low++, high--) {
            unsigned char byte = raw[low];
            raw[low] = raw[high];
            raw[high] = byte;
        }
}

static void widen_integers(const lsp_foreign_code *code, const unsigned char *raw, int64_t count,
                           int64_t *values)
{
    int size = code->bits / 8;
    for (int64_t i = 0; i < count; i++, raw += size) {
        uint64_t bits = 0;
        switch (size) {
        case 1: bits = *raw; break;
        case 2: {
            uint16_t half = 0;
            memcpy(&half, raw, sizeof half);
            bits = half;
            break;
        }
        case 4: {
            uint32_t word = 0;
            memcpy(&word, raw, sizeof word);
            bits = word;
            break;
        }
        default: memcpy(&bits, raw, sizeof bits); break;
        }
        bool negative = code->kind == 'i' && bits >> (code->bits - 1) & 1;
        if (negative && code->bits < 64) bits |= UINT64_MAX << code->bits;
        memcpy(&values[i], &bits, sizeof bits);
    }
}

/* r->raw becomes r->ready. */
static void convert(reading *r, lsp_dtype own, int64_t count)
{
    const lsp_foreign_code *code = &r->item->code;
    double scratch[SCRATCH];
    to_native(r->raw, count, code->bits / 8, code->big);
    if (code->kind == 'i' || code->kind == 'u') {
        widen_integers(code, r->raw, count, (int64_t *)(void *)r->ready);
    } else if (own == r->type) {
        memcpy(r->ready, r->raw, (size_t)count * lsp_dtype_size(own));
    } else {
        for (int64_t at = 0; at < count; at += SCRATCH) {
            int64_t some = lsp_min(SCRATCH, count - at);
            lsp_convert_load(own, r->raw, at, some, scratch);
            lsp_convert_store(r->type, scratch, some, r->ready, at);
        }
    }
}

/* Elements [element, element + count) of the tensor, in the file's order, into r->ready. */
static lsp_status load(reading *r, lsp_dtype own, int64_t element, int64_t count)
{
    int64_t size = r->item->code.bits / 8, bytes = count * size, at = r->item->begin + element * size;
    unsigned char *to = r->raw;
    while (bytes > 0) {
        ssize_t got = pread(r->file->fd, to, (size_t)bytes, (off_t)at);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0)
            return lsp_error_set(r->err, LSP_ERR_FILE, "cannot read '%s': %s", r->file->path,
                                 strerror(errno));
        if (got == 0)
            return lsp_error_set(r->err, LSP_ERR_CONTENT, "'%s' was cut while it was read", r->file->path);
        to += got;
        at += got;
        bytes -= got;
    }
    convert(r, own, count);
    return LSP_OK;
}

/* ---- the two orders --------------------------------------------------------------------------------- */

/* Rows of a matrix follow each other. */
static lsp_status read_by_row(reading *r, lsp_dtype own)
{
    int64_t across = r->count * r->columns;
    char *to = r->buffer;
    size_t size = lsp_dtype_size(r->type);
    for (int64_t m = 0; m < r->outer * r->inner; m++) {
        int64_t begin = (m * r->rows + r->first) * r->columns;
        for (int64_t at = 0; at < across; at += STAGE) {
            int64_t some = lsp_min(STAGE, across - at);
            lsp_status status = load(r, own, begin + at, some);
            if (status != LSP_OK) return status;
            memcpy(to, r->ready, (size_t)some * size);
            to += (size_t)some * size;
        }
    }
    return LSP_OK;
}

static void place(const char *from, char *to, size_t size)
{
    if (size == 4)
        memcpy(to, from, 4);
    else if (size == 8)
        memcpy(to, from, 8);
    else
        memcpy(to, from, 2);
}

/* Outer runs fastest, then inner, then rows: of a column all that is wanted follows each other. */
static lsp_status read_by_column(reading *r, lsp_dtype own)
{
    int64_t matrices = r->outer * r->inner, across = r->count * matrices;
    size_t size = lsp_dtype_size(r->type);
    for (int64_t column = 0; column < r->columns; column++) {
        int64_t begin = (column * r->rows + r->first) * matrices;
        for (int64_t at = 0; at < across; at += STAGE) {
            int64_t some = lsp_min(STAGE, across - at);
            lsp_status status = load(r, own, begin + at, some);
            if (status != LSP_OK) return status;
            int64_t row = at / matrices, m = at % matrices;
            for (int64_t i = 0; i < some; i++) {
                int64_t matrix = r->outer == 1 ? m : m % r->outer * r->inner + m / r->outer;
                int64_t element = (matrix * r->count + row) * r->columns + column;
                place(r->ready + (size_t)i * size, r->buffer + (size_t)element * size, size);
                if (++m == matrices) {
                    m = 0;
                    row++;
                }
            }
        }
    }
    return LSP_OK;
}

/* ---- the call --------------------------------------------------------------------------------------- */

static bool fits(const reading *r, lsp_dtype own, bool transposed)
{
    const lsp_foreign_item *item = r->item;
    bool real = item->code.kind == 'f' || item->code.kind == 'b';
    bool type = r->type == own || (real && (r->type == LSP_F32 || r->type == LSP_F64));
    return item->code.kind != 0 && type && item->axes >= 1 && item->axes <= 4 &&
           (!transposed || item->axes == 2) && r->first >= 0 && r->count >= 0 && r->first <= r->rows &&
           r->count <= r->rows - r->first;
}

static void take_shape(reading *r, bool transposed)
{
    const lsp_foreign_item *item = r->item;
    const int64_t *dims = item->dims;
    int axes = item->axes;
    r->outer = axes > 3 ? dims[0] : 1;
    r->inner = axes > 2 ? dims[axes - 3] : 1;
    r->rows = axes == 1 ? dims[0] : axes > 1 ? dims[axes - 2] : 0;
    r->columns = axes > 1 ? dims[axes - 1] : 1;
    r->by_column = item->fortran != transposed && axes > 1;
    if (transposed) {
        r->rows = dims[1];
        r->columns = dims[0];
    }
}

lsp_status lsp_foreign_rows(const lsp_foreign *file, int64_t index, bool transposed, int64_t first,
                            int64_t count, lsp_dtype type, void *buffer, lsp_error *err)
{
    reading r = {.file = file,
                 .item = &file->items[index],
                 .first = first,
                 .count = count,
                 .type = type,
                 .buffer = buffer,
                 .err = err};
    lsp_dtype own = lsp_foreign_get(file, index).type;
    take_shape(&r, transposed);
    if (!fits(&r, own, transposed))
        return lsp_error_set(err, LSP_ERR_USAGE, "rows of tensor '%s' of '%s' (%s) cannot be read as %s",
                             r.item->name, file->path, r.item->type_name, lsp_dtype_name(type));
    if (count == 0 || r.item->bytes == 0) return LSP_OK;
    r.raw = lsp_memory_alloc(STAGE, ELEMENT_MOST);
    r.ready = lsp_memory_alloc(STAGE, ELEMENT_MOST);
    lsp_status status = LSP_OK;
    if (!r.raw || !r.ready)
        status = lsp_error_set(err, LSP_ERR_LIMIT, "no memory to read '%s'", file->path);
    else
        status = r.by_column ? read_by_column(&r, own) : read_by_row(&r, own);
    lsp_memory_free(r.raw);
    lsp_memory_free(r.ready);
    return status;
}

lsp_status lsp_foreign_read(lsp_context *ctx, const lsp_foreign *file, int64_t index, bool transposed,
                            int64_t first, int64_t count, lsp_dtype type, void *buffer)
{
    lsp_error err;
    lsp_status status = lsp_foreign_rows(file, index, transposed, first, count, type, buffer, &err);
    return status == LSP_OK ? LSP_OK : lsp_context_fail(ctx, status, "%s", err.text);
}
