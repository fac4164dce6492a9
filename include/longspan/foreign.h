/* Tensors in files of other programs: safetensors, and NumPy's .npy (versions 1 to 3).
 *
 * Such a file is not trusted: every length, offset, size and shape in it is checked against the others and against the
 * size of the file before a number is read. What is known of a file after lsp_foreign_open is true of its bytes.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LONGSPAN_FOREIGN_H
#define LONGSPAN_FOREIGN_H

#include <longspan/tensor.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { LSP_FOREIGN_AXES = 8, LSP_FOREIGN_NAME_MOST = 512 }; /* axes of a tensor; bytes of its name */

typedef struct lsp_foreign lsp_foreign;

/* A tensor as the file tells it. Texts are owned by the file. */
typedef struct lsp_foreign_tensor {
    const char *name;      /* "" for the one of a .npy */
    const char *type_name; /* in the words of the format: "BF16", ">f8" */
    bool known;            /* its numbers can be read */
    lsp_dtype type;        /* if known: as what they are read without loss (any integer: LSP_I64) */
    int axes;              /* 0 to LSP_FOREIGN_AXES */
    int64_t dims[LSP_FOREIGN_AXES];
    int64_t bytes;
} lsp_foreign_tensor;

/* Local. Opens a file and checks what it tells. Errors: LSP_ERR_FILE (cannot be opened, a folder), LSP_ERR_CONTENT
 * (empty, cut short, neither format, a header that is broken, or lies), LSP_ERR_LIMIT. */
lsp_status lsp_foreign_open(lsp_context *ctx, const char *file, lsp_foreign **out);

/* Local. Frees, sets *file to NULL. NULL is allowed. */
void lsp_foreign_close(lsp_foreign **file);

/* Local. Whether a file's name (.safetensors, .npy) or its first bytes (.npy's) say that it is one. */
bool lsp_foreign_is(const char *file);

/* Local. "safetensors" or "npy"; the number of tensors; tensor `index`, in the order of their names; the index of the
 * one called `name`, or -1; bytes of the file. */
const char *lsp_foreign_format(const lsp_foreign *file);
int64_t lsp_foreign_count(const lsp_foreign *file);
lsp_foreign_tensor lsp_foreign_get(const lsp_foreign *file, int64_t index);
int64_t lsp_foreign_find(const lsp_foreign *file, const char *name);
int64_t lsp_foreign_bytes(const lsp_foreign *file);

/* Local. Reads rows [first, first + count) of every matrix of a known tensor of 1 to 4 axes. The last axis is the
 * column, the one before it the row, what is left are matrices; one axis is rows of one number. With `transposed` (two
 * axes) rows and columns change places. buffer: [matrices, count, columns] elements of `type`: the tensor's own, or, for
 * a tensor of floating-point numbers, f32 or f64 (exact unless it is narrower). Errors: LSP_ERR_USAGE (these are not
 * kept), LSP_ERR_CONTENT (the file was cut meanwhile), LSP_ERR_FILE, LSP_ERR_LIMIT. */
lsp_status lsp_foreign_read(lsp_context *ctx, const lsp_foreign *file, int64_t index, bool transposed,
                            int64_t first, int64_t count, lsp_dtype type, void *buffer);

#ifdef __cplusplus
}
#endif
#endif
