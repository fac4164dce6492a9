/* The page of `longspan map`, as it stands in the source (src/app/map_page.html). SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_MAP_PAGE_H
#define LSP_APP_MAP_PAGE_H

#include <stddef.h>

/* Made by the build. "@DATA@" stands in it once, where the numbers come. */
extern const char lsp_map_page_text[];
extern const size_t lsp_map_page_size;

#endif
