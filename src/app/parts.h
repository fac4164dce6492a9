/* The outputs that merge joins. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_PARTS_H
#define LSP_APP_PARTS_H

#include "app/app.h"

typedef struct lsp_part {
    char *file; /* owned */
    lsp_tensor *out, *lse;
    lsp_tensor_shape shape; /* of out */
    int64_t key_begin, key_end, row_begin, row_end, n, m;
} lsp_part;

typedef struct lsp_parts {
    lsp_part *parts;
    int count;
    int64_t key_begin, key_end; /* from the first to the last key of all parts */
    bool gap;                   /* some keys between are in no part */
} lsp_parts;

/* Collective. Opens the files of input.parts and checks that they are outputs of attend for the same rows
 * over disjoint keys (LSP_ERR_CONTENT). On failure too, lsp_parts_close is to be called. */
lsp_status lsp_parts_open(lsp_app *app, lsp_parts *parts);

/* Collective. Checks each part's stored checksums (LSP_ERR_CONTENT). */
lsp_status lsp_parts_check(lsp_app *app, const lsp_parts *parts);

/* Collective. */
void lsp_parts_close(lsp_parts *parts);

#endif
