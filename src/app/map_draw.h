/* What the picture and the page of `longspan map` share. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_MAP_DRAW_H
#define LSP_APP_MAP_DRAW_H

#include "app/map.h"

enum { LSP_MAP_TITLE = 1024 };

/* Local. Mean or largest weight of a pixel. */
double lsp_map_pixel(const lsp_map_job *job, const lsp_map_head *head, int64_t pixel, bool max);

/* Local. Title and the line below it, for a file that shows `heads` heads; text: LSP_MAP_TITLE bytes. */
const char *lsp_map_title(const lsp_map_job *job, char *text);
const char *lsp_map_about(const lsp_map_job *job, int64_t heads, char *text);

/* Local (rank 0). lsp_whole_fn of the job. */
bool lsp_map_page_write(FILE *stream, const void *job);
bool lsp_map_picture_write(FILE *stream, const void *job);

/* Local. Whether this build makes pictures. */
bool lsp_map_picture_built(void);

#endif
