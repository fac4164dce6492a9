/* Files that are complete or absent, written by rank 0. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_WHOLE_FILE_H
#define LSP_APP_WHOLE_FILE_H

#include "app/app.h"

#include <stdio.h>

/* Writes the contents; false when something went wrong. */
typedef bool (*lsp_whole_fn)(FILE *stream, const void *user);

/* Collective. Fails early (LSP_ERR_FILE) when the file of a key is given and cannot be created. */
lsp_status lsp_whole_probe(lsp_app *app, lsp_key key, const char *what);

/* Collective. When the file of a key is given: rank 0 writes it under another name and renames it. what: "the page". */
lsp_status lsp_whole_write(lsp_app *app, lsp_key key, const char *what, lsp_whole_fn write, const void *user);

#endif
