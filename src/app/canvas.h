/* A picture to draw on, and its PNG: a few of cairo's functions. Text is in cairo's own font, so that pictures need no
 * fonts and look the same everywhere. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_CANVAS_H
#define LSP_APP_CANVAS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct lsp_canvas lsp_canvas;

/* Colours are 0xRRGGBB; lengths are points of the picture, from its upper left. */
typedef struct lsp_box {
    double x, y, width, height;
} lsp_box;

/* Where a text stands: at its left end, centre or right end. */
typedef enum lsp_anchor { LSP_ANCHOR_LEFT, LSP_ANCHOR_CENTRE, LSP_ANCHOR_RIGHT } lsp_anchor;

/* Local. All white; NULL when there is no memory. */
lsp_canvas *lsp_canvas_create(int width, int height);
void lsp_canvas_destroy(lsp_canvas *canvas);

/* Local. One line of text whose base line is at y. `turned`: from bottom to top. */
void lsp_canvas_text(lsp_canvas *canvas, double x, double y, lsp_anchor anchor, double size, bool bold,
                     uint32_t colour, const char *text);
void lsp_canvas_turned(lsp_canvas *canvas, double x, double y, double size, uint32_t colour,
                       const char *text);

/* Local. Width of a text. */
double lsp_canvas_width(lsp_canvas *canvas, double size, bool bold, const char *text);

void lsp_canvas_fill(lsp_canvas *canvas, lsp_box box, uint32_t colour);
void lsp_canvas_frame(lsp_canvas *canvas, lsp_box box, uint32_t colour);

/* Local. Sets single points, whole numbers inside of the picture. */
void lsp_canvas_point(lsp_canvas *canvas, int x, int y, uint32_t colour);

/* Local. Steps of equal width along the box, each of a height from 0 to 1, filled and outlined. `down`: along its
 * height, from the left side on. */
void lsp_canvas_steps(lsp_canvas *canvas, lsp_box box, bool down, const double *heights, int64_t count,
                      uint32_t fill, uint32_t line);

/* Local. False when something failed, here or before. */
bool lsp_canvas_write(lsp_canvas *canvas, FILE *stream);

#endif
