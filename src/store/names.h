/* The datasets of a file, for messages. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_STORE_NAMES_H
#define LSP_STORE_NAMES_H

#include "store/h5.h"

enum { LSP_NAMES_TEXT = 400 };

/* Local. "datasets /k, /q, /v" (dimension scales left out, the rest counted when the list is long), or
 * "no datasets". Returns text. */
const char *lsp_names_list(hid_t file, char *text, size_t size);

/* Local. Whether every part of the path is a link, whatever the last one points to. */
bool lsp_names_has_link(hid_t file, const char *path);

#endif
