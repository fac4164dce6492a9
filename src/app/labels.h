/* Names of rows or keys, one a line of a text file. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_LABELS_H
#define LSP_APP_LABELS_H

#include "app/app.h"

/* Line i is text[offsets[i] .. ), ended by a zero byte: UTF-8 without control characters. */
typedef struct lsp_labels {
    int64_t count; /* 0: none */
    char *text;    /* NULL on other ranks than 0 */
    int64_t *offsets;
} lsp_labels;

/* Collective. Reads the file of a key, when that is given, which must have `count` lines: LSP_ERR_CONTENT with both
 * counts. `what` they are: "rows". Errors: LSP_ERR_FILE, LSP_ERR_LIMIT. */
lsp_status lsp_labels_read(lsp_app *app, lsp_key key, int64_t count, const char *what, lsp_labels *labels);

/* Local. Label i, or NULL when there is none here. */
const char *lsp_labels_get(const lsp_labels *labels, int64_t i);

/* Local. Label i as it can stand in a line: shortened to `most` characters, "…" then, in room for 4 most + 4 bytes; ""
 * when there is none. */
const char *lsp_labels_short(const lsp_labels *labels, int64_t i, int most, char *room);

void lsp_labels_free(lsp_labels *labels);

#endif
