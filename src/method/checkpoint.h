/* What saved states of all kinds share. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_METHOD_CHECKPOINT_H
#define LSP_METHOD_CHECKPOINT_H

#include "store/checkpoint.h"

#include <longspan/checkpoint.h>

/* Local. LSP_ERR_CONTENT, naming the first difference, when the head was made for something else. */
lsp_status lsp_checkpoint_fits(lsp_context *ctx, const char *file, const lsp_saved_head *head,
                               const char *identity);

/* Collective. Reads one file; *damaged: the failure is that of the file, and another one may do. */
typedef lsp_status (*lsp_checkpoint_load_fn)(void *user, const char *file, bool *damaged);

/* Collective. Loads the file that info names or, where it turns out to be damaged, the one before. */
lsp_status lsp_checkpoint_try(lsp_context *ctx, const char *file, lsp_checkpoint_load_fn load, void *user,
                              lsp_checkpoint_info *info);

#endif
