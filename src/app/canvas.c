/* SPDX-License-Identifier: BSD-3-Clause */
#include "app/canvas.h"

#if LSP_PICTURES
#    include "base/memory.h"

#    include <cairo.h>

#    define OWN_FONT "@cairo:sans" /* built into cairo */

struct lsp_canvas {
    cairo_surface_t *surface;
    cairo_t *pen;
};

static void set_colour(lsp_canvas *c, uint32_t colour)
{
    cairo_set_source_rgb(c->pen, (colour >> 16 & 255) / 255.0, (colour >> 8 & 255) / 255.0,
                         (colour & 255) / 255.0);
}

lsp_canvas *lsp_canvas_create(int width, int height)
{
    lsp_canvas *c = lsp_memory_zalloc(1, sizeof *c);
    if (!c) return NULL;
    c->surface = cairo_image_surface_create(CAIRO_FORMAT_RGB24, width, height);
    c->pen = cairo_create(c->surface);
    set_colour(c, 0xFFFFFF);
    cairo_paint(c->pen);
    cairo_set_line_width(c->pen, 1);
    if (cairo_status(c->pen) == CAIRO_STATUS_SUCCESS) return c;
    lsp_canvas_destroy(c);
    return NULL;
}

void lsp_canvas_destroy(lsp_canvas *c)
{
    if (!c) return;
    cairo_destroy(c->pen);
    cairo_surface_destroy(c->surface);
    lsp_memory_free(c);
}

/* ---- text ---------------------------------------------------------------------------------------- */

static void set_font(lsp_canvas *c, double size, bool bold)
{
    cairo_select_font_face(c->pen, OWN_FONT, CAIRO_FONT_SLANT_NORMAL,
                           bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
    cairo_set_font_size(c->pen, size);
}

double lsp_canvas_width(lsp_canvas *c, double size, bool bold, const char *text)
{
    cairo_text_extents_t extents;
    set_font(c, size, bold);
    cairo_text_extents(c->pen, text, &extents);
    return extents.x_advance;
}

void lsp_canvas_text(lsp_canvas *c, double x, double y, lsp_anchor anchor, double size, bool bold,
                     uint32_t colour, const char *text)
{
    double width = lsp_canvas_width(c, size, bold, text);
    set_colour(c, colour);
    cairo_move_to(c->pen, x - width * (double)anchor / 2, y);
    cairo_show_text(c->pen, text);
}

void lsp_canvas_turned(lsp_canvas *c, double x, double y, double size, uint32_t colour, const char *text)
{
    cairo_save(c->pen);
    cairo_translate(c->pen, x, y);
    cairo_rotate(c->pen, -1.5707963267948966);
    lsp_canvas_text(c, 0, 0, LSP_ANCHOR_CENTRE, size, false, colour, text);
    cairo_restore(c->pen);
}

/* ---- shapes -------------------------------------------------------------------------------------- */

void lsp_canvas_fill(lsp_canvas *c, lsp_box b, uint32_t colour)
{
    set_colour(c, colour);
    cairo_rectangle(c->pen, b.x, b.y, b.width, b.height);
    cairo_fill(c->pen);
}

void lsp_canvas_frame(lsp_canvas *c, lsp_box b, uint32_t colour)
{
    set_colour(c, colour);
    cairo_rectangle(c->pen, b.x - 0.5, b.y - 0.5, b.width + 1, b.height + 1);
    cairo_stroke(c->pen);
}

void lsp_canvas_point(lsp_canvas *c, int x, int y, uint32_t colour)
{
    cairo_surface_flush(c->surface);
    unsigned char *data = cairo_image_surface_get_data(c->surface);
    if (!data) return;
    int stride = cairo_image_surface_get_stride(c->surface);
    uint32_t *row = (uint32_t *)(void *)(data + (size_t)y * (size_t)stride);
    row[x] = colour;
    cairo_surface_mark_dirty_rectangle(c->surface, x, y, 1, 1);
}

void lsp_canvas_steps(lsp_canvas *c, lsp_box b, bool down, const double *heights, int64_t count,
                      uint32_t fill, uint32_t line)
{
    double length = down ? b.height : b.width;
    cairo_move_to(c->pen, b.x, down ? b.y : b.y + b.height);
    for (int64_t i = 0; i < count; i++)
        for (int end = 0; end < 2; end++) {
            double at = (double)(i + end) / (double)count * length;
            if (down)
                cairo_line_to(c->pen, b.x + heights[i] * b.width, b.y + at);
            else
                cairo_line_to(c->pen, b.x + at, b.y + b.height - heights[i] * b.height);
        }
    cairo_line_to(c->pen, down ? b.x : b.x + b.width, b.y + b.height);
    set_colour(c, fill);
    cairo_fill_preserve(c->pen);
    set_colour(c, line);
    cairo_stroke(c->pen);
}

/* ---- the file ------------------------------------------------------------------------------------ */

static cairo_status_t put(void *user, const unsigned char *data, unsigned length)
{
    return fwrite(data, 1, length, user) == length ? CAIRO_STATUS_SUCCESS : CAIRO_STATUS_WRITE_ERROR;
}

bool lsp_canvas_write(lsp_canvas *c, FILE *stream)
{
    if (cairo_status(c->pen) != CAIRO_STATUS_SUCCESS) return false;
    cairo_surface_flush(c->surface);
    return cairo_surface_write_to_png_stream(c->surface, put, stream) == CAIRO_STATUS_SUCCESS;
}
#endif
