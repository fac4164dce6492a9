/* The picture of `longspan map`: heads in a grid, each with the entropy of its rows and the mass of its keys.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "app/canvas.h"
#include "app/format.h"
#include "app/map_draw.h"
#include "base/checked.h"
#include "base/memory.h"

#include <inttypes.h>
#include <math.h>

bool lsp_map_picture_built(void)
{
    return LSP_PICTURES;
}

#if !LSP_PICTURES
bool lsp_map_picture_write(FILE *stream, const void *user)
{
    (void)stream, (void)user;
    return false; /* refused before: lsp_map_probe */
}
#else

enum {
    HEADS_MOST = 144,
    MARGIN = 26,
    HEADER = 84,
    LEFT = 60,    /* of a head: its row numbers */
    TOP = 30,     /* its title */
    STRIP = 44,   /* the curves beside and below */
    GAP = 8,      /* between picture and curves */
    BETWEEN = 30, /* heads */
    BELOW = 46,   /* a head: its key numbers */
    BAR = 64      /* its colours */
};

enum {
    INK = 0x2A2833,
    SOFT = 0x6A6775,
    LINE = 0x9A97A5,
    HIDDEN = 0xEDECF0,
    CURVE = 0x6B2F80,
    FILL = 0xDCCBE2
};

/* ---- colours ------------------------------------------------------------------------------------- */

/* Magma, of matplotlib's perceptual maps, as a polynomial for each of red, green and blue, lowest terms first. */
static const double magma[7][3] = {{-0.002136485053939582, -0.000749655052795221, -0.005386127855323933},
                                   {0.2516605407371642, 0.6775232436837668, 2.494026599312351},
                                   {8.353717279216625, -3.577719514958484, 0.3144679030132573},
                                   {-27.66873308576866, 14.26473078096533, -13.64921318813922},
                                   {52.17613981234068, -27.94360607168351, 12.94416944238394},
                                   {-50.76852536473588, 29.04658282127291, 4.23415299384598},
                                   {18.65570506591883, -11.48977351997711, -5.601961508734096}};

static uint32_t colour_of(double x)
{
    uint32_t rgb = 0;
    x = fmax(0, fmin(1, x));
    for (int c = 0; c < 3; c++) {
        double sum = 0;
        for (int k = 6; k >= 0; k--) sum = sum * x + magma[k][c];
        rgb = rgb << 8 | (uint32_t)lround(255 * fmax(0, fmin(1, sum)));
    }
    return rgb;
}

/* Natural logarithms between which values have colours. */
typedef struct colour_scale {
    double low, high;
} colour_scale;

/* All but a tenth of a per cent of the values at the upper end and half a per cent at the lower one, six decades at most,
 * a factor of two at least. */
static colour_scale scale_of(const double *values, int64_t count)
{
    enum { BINS = 1400, BINS_A_UNIT = 40 };
    int64_t counts[BINS] = {0}, total = 0;
    double most = 0;
    for (int64_t i = 0; i < count; i++) most = fmax(most, values[i]);
    if (most == 0) return (colour_scale){-1, 0};
    for (int64_t i = 0; i < count; i++) {
        if (!(values[i] > 0)) continue;
        total++;
        counts[(int)fmin(BINS - 1, (log(most) - log(values[i])) * BINS_A_UNIT)]++;
    }
    int first = 0, last = BINS - 1;
    for (int64_t left = total / 1000; first < BINS - 1 && (left -= counts[first]) >= 0;) first++;
    for (int64_t left = total / 200; last > first && (left -= counts[last]) >= 0;) last--;
    double high = log(most) - (double)first / BINS_A_UNIT, low = log(most) - (double)(last + 1) / BINS_A_UNIT;
    double span = fmin(fmax(high - low, log(2)), log(1e6));
    return (colour_scale){high - span, high};
}

/* ---- layout -------------------------------------------------------------------------------------- */

typedef struct layout {
    int64_t heads, columns, lines;
    int size; /* of a head's picture */
    int width, height;
} layout;

/* As square as two to one at most, with as few empty places as can be. */
static int64_t columns_of(int64_t heads)
{
    int64_t first = (int64_t)ceil(sqrt((double)heads)), best = first, left = heads;
    for (int64_t c = first; c * c <= 2 * heads; c++)
        if (lsp_round_up(heads, c) - heads < left) best = c, left = lsp_round_up(heads, c) - heads;
    return best;
}

static layout lay_out(const lsp_map_job *job)
{
    static const struct {
        int columns, size;
    } sizes[] = {{1, 640}, {2, 440}, {3, 360}, {4, 300}, {6, 230}, {8, 180}};
    layout l = {.heads = lsp_min(job->count, HEADS_MOST)};
    l.columns = columns_of(l.heads);
    l.lines = lsp_ceil_div(l.heads, l.columns);
    l.size = 140;
    for (int i = (int)(sizeof sizes / sizeof *sizes) - 1; i >= 0; i--)
        if (l.columns <= sizes[i].columns) l.size = sizes[i].size;
    l.width = 2 * MARGIN + (int)l.columns * (LEFT + l.size + GAP + STRIP + BAR + BETWEEN) - BETWEEN;
    l.height = HEADER + (int)l.lines * (TOP + l.size + BELOW + STRIP + BETWEEN) + MARGIN;
    return l;
}

static const char *number_text(double number, char *text)
{
    if (number >= 1e6)
        (void)snprintf(text, LSP_FORMAT_SIZE, "%.4gM", number / 1e6);
    else if (number >= 1e4)
        (void)snprintf(text, LSP_FORMAT_SIZE, "%.4gk", number / 1e3);
    else
        (void)snprintf(text, LSP_FORMAT_SIZE, "%.4g", number);
    return text;
}

/* Round numbers, about four of them in `count`. */
static int64_t tick_step(int64_t count)
{
    static const double steps[] = {1, 2, 2.5, 5, 10};
    double raw = (double)count / 4, ten = pow(10, floor(log10(fmax(raw, 1))));
    for (int i = 0; i < 5; i++)
        if (steps[i] * ten >= raw) return lsp_max(1, (int64_t)(steps[i] * ten));
    return lsp_max(1, (int64_t)(10 * ten));
}

static void draw_ticks(lsp_canvas *canvas, lsp_box box, bool down, int64_t first, int64_t count)
{
    char text[LSP_FORMAT_SIZE];
    int64_t step = tick_step(count);
    for (int64_t t = lsp_ceil_div(first, step) * step; t < first + count; t += step) {
        double share = (double)(t - first) / (double)count;
        if (down) {
            double y = floor(box.y + share * box.height);
            lsp_canvas_fill(canvas, (lsp_box){box.x - 5, y, 4, 1}, LINE);
            lsp_canvas_text(canvas, box.x - 8, y + 5, LSP_ANCHOR_RIGHT, 13, false, INK,
                            number_text((double)t, text));
        } else {
            double x = floor(box.x + share * box.width);
            lsp_canvas_fill(canvas, (lsp_box){x, box.y + box.height + 1, 1, 4}, LINE);
            lsp_canvas_text(canvas, x, box.y + box.height + 18, LSP_ANCHOR_CENTRE, 13, false, INK,
                            number_text((double)t, text));
        }
    }
}

/* ---- one head ------------------------------------------------------------------------------------ */

/* The mean of `from` over the stretch that point `at` of `points` covers of `count` numbers, whole ones and
 * parts; `stride` is from one number to the next. */
static double mean_over(const double *from, int64_t stride, int64_t count, int64_t at, int64_t points)
{
    double begin = (double)at * (double)count / (double)points,
           end = (double)(at + 1) * (double)count / (double)points;
    double sum = 0, weight = 0;
    for (int64_t i = (int64_t)begin; i < count && (double)i < end; i++) {
        double part = fmin(end, (double)(i + 1)) - fmax(begin, (double)i);
        sum += part * from[i * stride];
        weight += part;
    }
    return weight > 0 ? sum / weight : 0;
}

/* The map's pixels as `size` x `size` points, each the mean of what it covers; their scale. room: [pixel_rows][size], a
 * line, and [size][size]. */
static colour_scale draw_pixels(lsp_canvas *canvas, lsp_box box, const lsp_map_job *job,
                                const lsp_map_head *head, double *room)
{
    const lsp_map_shape *s = &job->shape;
    int64_t size = (int64_t)box.width;
    double *line = room + s->pixel_rows * size, *points = line + s->pixel_keys;
    for (int64_t r = 0; r < s->pixel_rows; r++) {
        for (int64_t c = 0; c < s->pixel_keys; c++)
            line[c] = lsp_map_pixel(job, head, r * s->pixel_keys + c, false);
        for (int64_t x = 0; x < size; x++) room[r * size + x] = mean_over(line, 1, s->pixel_keys, x, size);
    }
    for (int64_t y = 0; y < size; y++)
        for (int64_t x = 0; x < size; x++)
            points[y * size + x] = mean_over(room + x, size, s->pixel_rows, y, size);
    colour_scale scale = scale_of(points, size * size);
    for (int64_t i = 0; i < size * size; i++) {
        double place = (log(points[i]) - scale.low) / (scale.high - scale.low);
        lsp_canvas_point(canvas, (int)(box.x + (double)(i % size)), (int)(box.y + (double)(i / size)),
                         points[i] > 0 ? colour_of(place) : (uint32_t)HIDDEN);
    }
    return scale;
}

/* Entropy of rows from 0 to that of equal weights on all keys. */
static void draw_entropy(lsp_canvas *canvas, lsp_box box, const lsp_map_job *job, const lsp_map_head *head,
                         double *heights)
{
    double most = fmax(log((double)job->shape.keys), 1e-9);
    for (int64_t r = 0; r < job->shape.pixel_rows; r++) {
        double entropy = head->pooled[LSP_MAP_ENTROPY][r];
        heights[r] = isfinite(entropy) ? fmin(1, entropy / most) : 0;
    }
    lsp_canvas_steps(canvas, box, true, heights, job->shape.pixel_rows, FILL, CURVE);
    lsp_canvas_frame(canvas, box, LINE);
}

/* Mean mass of a pixel's keys over four decades, of which equal weights stand in the middle. */
static void draw_mass(lsp_canvas *canvas, lsp_box box, const lsp_map_job *job, const lsp_map_head *head,
                      double *heights)
{
    const lsp_map_shape *s = &job->shape;
    double equal = (double)head->weighed / (double)s->keys;
    for (int64_t c = 0; c < s->pixel_keys; c++) {
        int64_t begin = c * s->keys_per_pixel, end = lsp_min(s->keys, begin + s->keys_per_pixel);
        double mass = 0;
        for (int64_t j = begin; j < end; j++) mass += head->column_mass[j];
        mass /= (double)(end - begin);
        heights[c] = mass > 0 && equal > 0 ? fmax(0, fmin(1, 0.5 + log10(mass / equal) / 4)) : 0;
    }
    lsp_canvas_steps(canvas, box, false, heights, s->pixel_keys, FILL, CURVE);
    lsp_canvas_fill(canvas, (lsp_box){box.x, floor(box.y + box.height / 2), box.width, 1}, LINE);
    lsp_canvas_frame(canvas, box, LINE);
}

static void draw_title(lsp_canvas *canvas, lsp_box box, const lsp_map_job *job, int64_t i)
{
    const lsp_map_head *head = &job->heads[i];
    char name[LSP_FORMAT_SIZE], figures[2 * LSP_FORMAT_SIZE], distance[LSP_FORMAT_SIZE];
    if (job->input.desc.batch > 1)
        (void)snprintf(name, sizeof name, "batch %" PRId64 ", head %" PRId64, lsp_map_batch_of(job, i),
                       lsp_map_head_of(job, i));
    else
        (void)snprintf(name, sizeof name, "head %" PRId64, lsp_map_head_of(job, i));
    lsp_canvas_text(canvas, box.x, box.y - 10, LSP_ANCHOR_LEFT, 15, true, INK, name);
    if (head->weighed == 0) return;
    (void)snprintf(figures, sizeof figures, "%.2f nats, %.20s keys away", head->mean[LSP_MAP_ENTROPY],
                   number_text(head->mean[LSP_MAP_DISTANCE] >= 100 ? round(head->mean[LSP_MAP_DISTANCE])
                                                                   : head->mean[LSP_MAP_DISTANCE],
                               distance));
    double room = box.width - lsp_canvas_width(canvas, 15, true, name) - 12;
    if (lsp_canvas_width(canvas, 13, false, figures) > room)
        (void)snprintf(figures, sizeof figures, "%.2f nats", head->mean[LSP_MAP_ENTROPY]);
    if (lsp_canvas_width(canvas, 13, false, figures) <= room)
        lsp_canvas_text(canvas, box.x + box.width, box.y - 10, LSP_ANCHOR_RIGHT, 13, false, SOFT, figures);
}

/* Marks at round numbers: powers of ten, and more of them where these are few. */
static void draw_bar(lsp_canvas *canvas, lsp_box box, colour_scale scale)
{
    static const double parts[] = {1, 2, 5, 1.5, 3, 7, 1.2, 1.7, 2.5, 4, 6, 8.5};
    const double ln10 = log(10), span = scale.high - scale.low;
    int kinds = span > 2.5 * ln10 ? 1 : span > ln10 ? 3 : span > 0.6 * ln10 ? 6 : 12;
    char text[LSP_FORMAT_SIZE];
    for (int y = 0; y < (int)box.height; y++)
        lsp_canvas_fill(canvas, (lsp_box){box.x, box.y + y, box.width, 1},
                        colour_of(1 - y / (box.height - 1)));
    lsp_canvas_frame(canvas, box, LINE);
    for (int e = (int)floor(scale.low / ln10); e <= (int)floor(scale.high / ln10); e++)
        for (int k = 0; k < kinds; k++) {
            double place = (scale.high - log(parts[k]) - e * ln10) / span,
                   y = floor(box.y + box.height * place);
            if (place < 0 || place > 1) continue;
            (void)snprintf(text, sizeof text, "%.3g", parts[k] * pow(10, e));
            lsp_canvas_fill(canvas, (lsp_box){box.x + box.width + 1, y, 3, 1}, LINE);
            lsp_canvas_text(canvas, box.x + box.width + 6, y + 4, LSP_ANCHOR_LEFT, 11, false, INK, text);
        }
}

static void draw_head(lsp_canvas *canvas, const layout *l, const lsp_map_job *job, int64_t i, double *room)
{
    const lsp_attention_desc *d = &job->input.desc;
    double x = MARGIN + (double)(i % l->columns) * (LEFT + l->size + GAP + STRIP + BAR + BETWEEN) + LEFT;
    double y = HEADER + (double)(i / l->columns) * (TOP + l->size + BELOW + STRIP + BETWEEN) + TOP,
           size = l->size;
    lsp_box box = {x, y, size, size};
    colour_scale scale = draw_pixels(canvas, box, job, &job->heads[i], room);
    lsp_canvas_frame(canvas, box, LINE);
    draw_title(canvas, box, job, i);
    draw_ticks(canvas, box, true, d->row_begin, job->shape.rows);
    draw_ticks(canvas, box, false, d->key_begin, job->shape.keys);
    draw_entropy(canvas, (lsp_box){x + size + GAP, y, STRIP, size}, job, &job->heads[i], room);
    draw_bar(canvas, (lsp_box){x + size + GAP + STRIP + 10, y, 10, size}, scale);
    draw_mass(canvas, (lsp_box){x, y + size + BELOW - 20, size, STRIP}, job, &job->heads[i], room);
    if (i % l->columns == 0) lsp_canvas_turned(canvas, x - LEFT + 10, y + size / 2, 13, SOFT, "row");
    if (i + l->columns >= l->heads)
        lsp_canvas_text(canvas, x + size / 2, y + size + BELOW + STRIP, LSP_ANCHOR_CENTRE, 13, false, SOFT,
                        "key");
}

/* ---- the whole ----------------------------------------------------------------------------------- */

static void draw_header(lsp_canvas *canvas, const layout *l, const lsp_map_job *job)
{
    char text[LSP_MAP_TITLE];
    const double room = l->width - 2 * MARGIN;
    double size = 21, small = 13;
    lsp_map_title(job, text);
    while (size > 11 && lsp_canvas_width(canvas, size, true, text) > room) size -= 0.5;
    lsp_canvas_text(canvas, MARGIN, 36, LSP_ANCHOR_LEFT, size, true, INK, text);
    lsp_map_about(job, l->heads, text);
    while (small > 9 && lsp_canvas_width(canvas, small, false, text) > room) small -= 0.5;
    lsp_canvas_text(canvas, MARGIN, 57, LSP_ANCHOR_LEFT, small, false, SOFT, text);
    const char *curves =
        "Colours: mean weight, each head its own scale. Beside: entropy of the rows, up to ln of the "
        "number of keys. Below: weight that keys receive, over four decades.";
    small = 13;
    while (small > 9 && lsp_canvas_width(canvas, small, false, curves) > room) small -= 0.5;
    lsp_canvas_text(canvas, MARGIN, 76, LSP_ANCHOR_LEFT, small, false, SOFT, curves);
}

bool lsp_map_picture_write(FILE *stream, const void *user)
{
    const lsp_map_job *job = user;
    const lsp_map_shape *s = &job->shape;
    layout l = lay_out(job);
    int64_t points = (s->pixel_rows + l.size) * l.size + s->pixel_keys;
    double *room = lsp_memory_alloc(lsp_max(points, s->pixel_rows), sizeof *room);
    lsp_canvas *canvas = lsp_canvas_create(l.width, l.height);
    bool fine = canvas && room;
    if (fine) {
        draw_header(canvas, &l, job);
        for (int64_t i = 0; i < l.heads; i++) draw_head(canvas, &l, job, i, room);
        fine = lsp_canvas_write(canvas, stream);
    }
    lsp_canvas_destroy(canvas);
    lsp_memory_free(room);
    return fine;
}
#endif
