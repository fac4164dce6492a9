/* What a saved state belongs to besides the description: files, and lines "name = value" of the deck.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_MARKS_H
#define LSP_APP_MARKS_H

#include "app/source.h"

enum { LSP_MARKS_SIZE = 8192 };

typedef struct lsp_kept_source {
    const char *name;
    const lsp_source *source; /* its tensor NULL: not there */
} lsp_kept_source;

typedef struct lsp_kept {
    const char *lines; /* ended by a newline each; "": none */
    const lsp_kept_source *sources;
    int count;
    lsp_isa *isa; /* of the description: takes that of the state */
} lsp_kept;

/* Collective. *marks (lsp_memory_free): the lines, and of every file's dataset name, size, time of change and checksum.
 * Errors: LSP_ERR_USAGE (too long), LSP_ERR_FILE. */
lsp_status lsp_marks_make(lsp_app *app, const lsp_kept *kept, char **marks);

#endif
