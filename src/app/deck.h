/* Decks: INI files of keys. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_DECK_H
#define LSP_APP_DECK_H

#include "app/options.h"

#include <stdint.h>

/* Local. The bytes of a deck file, zero-terminated, in *text (lsp_memory_free). LSP_ERR_FILE when it
 * cannot be read, LSP_ERR_USAGE when it is longer than a deck can be or holds a zero byte. */
lsp_status lsp_deck_read(const char *file, char **text, lsp_error *error);

/* Local. Sets the options that a deck's text gives; `file` is its name in messages. LSP_ERR_USAGE,
 * naming file and line. ` ;` (after a blank) starts a comment, except in values that name files and
 * datasets, where it is an error. Lines have at most 196 characters. */
lsp_status lsp_deck_parse(const char *text, const char *file, lsp_options *options, lsp_error *error);

/* Local. The keys that were given, as a deck (lsp_memory_free); NULL when out of memory. */
char *lsp_deck_write(const lsp_options *options);

#endif
