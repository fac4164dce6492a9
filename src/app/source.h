/* A dataset named in a deck: FILE:/path, or a path in input.file. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_SOURCE_H
#define LSP_APP_SOURCE_H

#include "app/app.h"

typedef struct lsp_source {
    char *file, *dataset; /* owned */
    lsp_tensor *tensor;
    lsp_tensor_shape shape;
} lsp_source;

/* Collective (the same verdict on every rank). Finds file and dataset of a key's value. LSP_ERR_USAGE
 * when it is neither form, or input.file is needed and missing. */
lsp_status lsp_source_resolve(lsp_app *app, lsp_key key, lsp_source *source);

/* Collective. Resolves, opens and checks that the type is a floating-point one. */
lsp_status lsp_source_open(lsp_app *app, lsp_key key, lsp_source *source);

/* Collective. Reads one-dimensional integers of the key's dataset (lsp_free). */
lsp_status lsp_source_read_i64(lsp_app *app, lsp_key key, int64_t **values, int64_t *count);

/* Collective. */
void lsp_source_close(lsp_source *source);

#endif
