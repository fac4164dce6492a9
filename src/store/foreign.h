/* Inside of a file of another program. No MPI in here: a fuzz target runs it alone.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_STORE_FOREIGN_H
#define LSP_STORE_FOREIGN_H

#include "base/error.h"

#include <longspan/foreign.h>

/* How one number stands in the file. */
typedef struct lsp_foreign_code {
    char kind; /* 'f' IEEE, 'b' bfloat16, 'i' and 'u' integers; 0: not one that is read */
    int bits;  /* of an element; types that are not read may take less than a byte */
    bool big;  /* big-endian */
} lsp_foreign_code;

typedef struct lsp_foreign_item {
    char *name; /* owned */
    char type_name[24];
    lsp_foreign_code code;
    bool fortran; /* the first axis runs fastest */
    int axes;
    int64_t dims[LSP_FOREIGN_AXES];
    int64_t begin, bytes; /* in the file */
} lsp_foreign_item;

struct lsp_foreign {
    char *path;
    int fd;
    const char *format;
    int64_t file_bytes;
    lsp_foreign_item *items; /* in the order of their names */
    int64_t count;
};

/* Longest safetensors header that is read; the format's own limit is 100 MB, a tensor takes about 100 bytes. */
enum { LSP_SAFETENSORS_HEADER_MOST = 16 << 20, LSP_NPY_HEADER_MOST = 65536 };

/* Local. Fills items and count from a safetensors header: `text` has `length` bytes and a zero behind them; the data is
 * bytes [base, base + data_bytes) of the file. LSP_ERR_CONTENT, LSP_ERR_LIMIT (memory). On failure what is in `file`
 * stays to be freed by lsp_foreign_unload. */
lsp_status lsp_safetensors_parse(const char *text, int64_t length, int64_t base, int64_t data_bytes,
                                 lsp_foreign *file, lsp_error *err);

/* Local. The same from the dictionary in a .npy's header. */
lsp_status lsp_npy_parse(const char *text, int64_t length, int64_t base, int64_t data_bytes,
                         lsp_foreign *file, lsp_error *err);

/* Local. *bytes = what the item's shape and type take; LSP_ERR_CONTENT when that is no number of bytes. */
lsp_status lsp_foreign_measure(const lsp_foreign *file, const lsp_foreign_item *item, int64_t *bytes,
                               lsp_error *err);

/* Local. "[3, 4]"; returns text. */
enum { LSP_FOREIGN_SHAPE_TEXT = 22 * LSP_FOREIGN_AXES };
const char *lsp_foreign_shape(const lsp_foreign_item *item, char *text);

/* Local. Whether a text is UTF-8 without control characters: names go into messages and reports, a line each. */
bool lsp_foreign_printable(const char *text);

/* Local. lsp_foreign_open, close and read without a context. */
lsp_status lsp_foreign_load(const char *path, lsp_foreign **out, lsp_error *err);
void lsp_foreign_unload(lsp_foreign *file);
lsp_status lsp_foreign_rows(const lsp_foreign *file, int64_t index, bool transposed, int64_t first,
                            int64_t count, lsp_dtype type, void *buffer, lsp_error *err);

#endif
