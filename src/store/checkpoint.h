/* The file of a saved state: named arrays of rows, and two texts that say what it belongs to and how far it is.
 *
 * Complete or absent, as every output; what stood under the name before stays as NAME.prev.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_STORE_CHECKPOINT_H
#define LSP_STORE_CHECKPOINT_H

#include "comm/context.h"

#include <limits.h>
#include <longspan/tensor.h>

/* An array of rows of the tensor [batch, heads, n, columns]; this rank has those of the runs, one after the other. */
typedef struct lsp_saved_rows {
    const char *name; /* "/max" */
    lsp_dtype type;   /* f32, f64, or i64 with one column */
    int64_t batch, heads, n, columns;
    const lsp_run *runs;
    int64_t run_count;
    void *rows;
} lsp_saved_rows;

enum { LSP_SAVED_MOST = 224, LSP_SAVED_TEXT = 24576, LSP_SAVED_PROGRESS = 4096 };

/* Lines "name = value". */
typedef struct lsp_saved_head {
    char identity[LSP_SAVED_TEXT];     /* must be the same where it goes on */
    char progress[LSP_SAVED_PROGRESS]; /* need not */
} lsp_saved_head;

/* Local. NAME.prev; false when that is too long. */
bool lsp_saved_previous(const char *file, char previous[PATH_MAX]);

/* Collective. *exists: on rank 0's node. */
lsp_status lsp_saved_exists(lsp_context *ctx, const char *file, bool *exists);

/* Collective. *bytes: of the file. Errors: LSP_ERR_FILE, LSP_ERR_LIMIT; what stood there is untouched then. */
lsp_status lsp_saved_write(lsp_context *ctx, const char *file, const lsp_saved_head *head,
                           const lsp_saved_rows *arrays, int count, int64_t *bytes);

/* Collective. Errors: LSP_ERR_FILE (cannot be opened), LSP_ERR_CONTENT (damaged). */
lsp_status lsp_saved_read_head(lsp_context *ctx, const char *file, lsp_saved_head *head);

/* Collective. Fills the arrays, which must be there in these shapes, and checks their checksums. Errors as above. */
lsp_status lsp_saved_read(lsp_context *ctx, const char *file, const lsp_saved_rows *arrays, int count);

#endif
