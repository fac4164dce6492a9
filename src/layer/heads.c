/* Rows to heads, and heads to rows. SPDX-License-Identifier: BSD-3-Clause */
#include "layer/layer.h"

#include "base/checked.h"
#include "base/convert.h"

#include <math.h>
#include <string.h>

int64_t lsp_layer_heads(const lsp_layer_desc *desc)
{
    return desc->attention.heads + 2 * desc->attention.kv_heads;
}

lsp_layer_role lsp_layer_role_of(const lsp_layer_desc *desc, int64_t head, int64_t *number)
{
    const lsp_attention_desc *a = &desc->attention;
    bool query = head < a->heads, key = head < a->heads + a->kv_heads;
    *number = query ? head : key ? head - a->heads : head - a->heads - a->kv_heads;
    return query ? LSP_LAYER_Q : key ? LSP_LAYER_K : LSP_LAYER_V;
}

int64_t lsp_layer_home_rows(const lsp_layer_line *line, int64_t heads)
{
    return (line->end - line->begin) * heads;
}

int64_t lsp_layer_home_place(const lsp_layer_line *line, int64_t heads, int64_t head, int64_t at)
{
    int64_t batch = at / line->rows;
    int64_t from = lsp_max(line->begin, batch * line->rows),
            to = lsp_min(line->end, (batch + 1) * line->rows);
    return (from - line->begin) * heads + head * (to - from) + (at - from);
}

/* ---- rows to heads ------------------------------------------------------------------------------- */

/* The heads of one operand. */
typedef struct head_work {
    lsp_layer *layer;
    const void *rows; /* of this rank */
    lsp_dtype type;   /* of rows */
    const lsp_layer_line *line;
    int64_t first_head; /* of the fused projection */
} head_work;

static void convert_rows(lsp_dtype from, const void *rows, int64_t first, lsp_dtype to, int64_t count,
                         void *room)
{
    if (from == to) {
        size_t element = lsp_dtype_size(from);
        memcpy(room, (const char *)rows + (size_t)first * element, (size_t)count * element);
    } else if (to == LSP_F64) {
        lsp_convert_load(from, rows, first, count, room);
    } else {
        const double *values = (const double *)rows + first;
        float *narrow = room;
        for (int64_t i = 0; i < count; i++) narrow[i] = (float)values[i];
    }
}

static const void *load_rows(const void *user, int64_t row, int64_t count, void *room)
{
    const head_work *w = user;
    int64_t depth = w->layer->desc.d_model, first = (row - w->line->begin) * depth;
    if (w->type == w->layer->type) return (const char *)w->rows + (size_t)first * lsp_dtype_size(w->type);
    convert_rows(w->type, w->rows, first, w->layer->type, count * depth, room);
    return room;
}

/* The position by which a row turns: of the operands, queries and keys have the same in self-attention. */
static int64_t position_of(const head_work *w, int64_t line)
{
    const lsp_layer *layer = w->layer;
    int64_t row = line % w->line->rows;
    if (w->line == &layer->context || !layer->desc.cross) return row;
    return lsp_mask_sight(&layer->plan->problem.mask, line / w->line->rows, row).position;
}

/* values + bias (NULL: none), `count` of them from `first` on, to `to`, which may be values. */
static void put_values(lsp_dtype type, const void *values, const void *bias, int64_t first, int64_t count,
                       void *to)
{
    size_t element = lsp_dtype_size(type);
    if (!bias) {
        if (to != values) memcpy(to, values, (size_t)count * element);
    } else if (type == LSP_F64) {
        const double *v = values, *b = (const double *)bias + first;
        double *sum = to;
        for (int64_t i = 0; i < count; i++) sum[i] = v[i] + b[i];
    } else {
        const float *v = values, *b = (const float *)bias + first;
        float *sum = to;
        for (int64_t i = 0; i < count; i++) sum[i] = v[i] + b[i];
    }
}

static void normalise(const lsp_layer *layer, const double *weight, double *values)
{
    int64_t d = layer->desc.attention.d_k;
    double square = 0;
    for (int64_t c = 0; c < d; c++) square += values[c] * values[c];
    double factor = 1 / sqrt(square / (double)d + layer->desc.qk_norm_eps);
    for (int64_t c = 0; c < d; c++) values[c] *= factor * weight[c];
}

/* Norm and rotation of one head's values [head_dim], in double and rounded once. */
static void shape_head(const lsp_layer *layer, lsp_layer_role role, const double *angle, double *head,
                       void *values)
{
    int64_t d = layer->desc.attention.d_k;
    lsp_convert_load(layer->type, values, 0, d, head);
    if (layer->desc.qk_norm) normalise(layer, layer->norm[role], head);
    if (angle) lsp_rotary_turn(&layer->rotary, angle, head);
    lsp_convert_store(layer->type, head, d, values, 0);
}

/* Where a row's heads stand in a home array: head h at first + h * stride. Rows are taken one after the other, which is
 * faster here than head after head. */
typedef struct row_places {
    int64_t first, stride;
} row_places;

static row_places find_places(const lsp_layer_line *line, int64_t heads, int64_t at)
{
    row_places p = {.first = lsp_layer_home_place(line, heads, 0, at)};
    p.stride = lsp_layer_home_place(line, heads, 1, at) - p.first;
    return p;
}

/* One head of a row. */
static void store_head(const head_work *w, const row_places *at, int64_t h, const void *values,
                       const lsp_layer_room *room)
{
    lsp_layer *layer = w->layer;
    const lsp_layer_desc *desc = &layer->desc;
    int64_t number, d = desc->attention.d_k;
    lsp_layer_role role = lsp_layer_role_of(desc, h, &number);
    size_t bytes = (size_t)d * lsp_dtype_size(layer->type);
    bool turns = desc->rope_base > 0 && role != LSP_LAYER_V;
    void *to = (char *)layer->at_home[role] + (size_t)(at->first + number * at->stride) * bytes;
    put_values(layer->type, values, layer->qkv_bias, h * d, d, to);
    if (role != LSP_LAYER_V && (turns || desc->qk_norm))
        shape_head(layer, role, turns ? room->angles : NULL, room->head, to);
}

static void store_heads(const void *user, int64_t row, int64_t count, int64_t column, int64_t columns,
                        void *values, int thread)
{
    const head_work *w = user;
    const lsp_layer *layer = w->layer;
    int64_t d = layer->desc.attention.d_k, queries = layer->desc.attention.heads,
            keys = layer->desc.attention.kv_heads, first = w->first_head + column / d,
            last = first + columns / d;
    size_t bytes = (size_t)d * lsp_dtype_size(layer->type);
    const char *from = values;
    lsp_layer_room *room = &layer->head_rooms[thread];
    for (int64_t line = row; line < row + count; line++) {
        row_places at = find_places(w->line, first < queries ? queries : keys, line);
        if (layer->desc.rope_base > 0)
            lsp_rotary_place(&layer->rotary, position_of(w, line), &room->rotary, room->angles);
        for (int64_t h = first; h < last; h++, from += bytes) {
            if (h == queries) at = find_places(w->line, keys, line); /* has other heads */
            store_head(w, &at, h, from, room);
        }
    }
}

void lsp_layer_project_heads(lsp_layer *layer, lsp_layer_operand operand, const void *rows)
{
    const lsp_layer_desc *desc = &layer->desc;
    int64_t d = desc->attention.d_k, queries = desc->attention.heads, all = lsp_layer_heads(desc);
    bool context = operand == LSP_LAYER_CONTEXT;
    head_work w = {layer, rows, context ? desc->context_type : desc->x_type,
                   context ? &layer->context : &layer->x, context ? queries : 0};
    int64_t heads = context ? all - queries : desc->cross ? queries : all;
    lsp_project project = {.type = layer->type,
                           .weight = (const char *)layer->qkv +
                                     (size_t)(w.first_head * d * desc->d_model) * lsp_dtype_size(layer->type),
                           .depth = desc->d_model,
                           .columns = heads * d,
                           .group = lsp_project_group(heads * d, d),
                           .begin = w.line->begin,
                           .end = w.line->end,
                           .load = load_rows,
                           .store = store_heads,
                           .user = &w};
    lsp_project_run(&project, layer->ctx->layout.threads, layer->rooms);
}

/* ---- heads to rows ------------------------------------------------------------------------------- */

typedef struct out_work {
    const lsp_layer *layer;
    const char *heads;
    char *y;
} out_work;

static const void *load_heads(const void *user, int64_t row, int64_t count, void *room)
{
    const out_work *w = user;
    const lsp_layer *layer = w->layer;
    int64_t heads = layer->desc.attention.heads;
    size_t bytes = (size_t)layer->desc.attention.d_v * lsp_dtype_size(layer->type);
    char *to = room;
    for (int64_t line = row; line < row + count; line++) {
        row_places from = find_places(&layer->x, heads, line);
        for (int64_t h = 0; h < heads; h++, to += bytes)
            memcpy(to, w->heads + (size_t)(from.first + h * from.stride) * bytes, bytes);
    }
    return room;
}

static void store_out(const void *user, int64_t row, int64_t count, int64_t column, int64_t columns,
                      void *values, int thread)
{
    (void)thread;
    const out_work *w = user;
    const lsp_layer *layer = w->layer;
    size_t element = lsp_dtype_size(layer->type), bytes = (size_t)columns * element;
    for (int64_t i = 0; i < count; i++) {
        int64_t place = (row + i - layer->x.begin) * layer->desc.d_model + column;
        put_values(layer->type, (const char *)values + (size_t)i * bytes, layer->out_bias, column, columns,
                   w->y + (size_t)place * element);
    }
}

void lsp_layer_project_out(lsp_layer *layer, const void *heads, void *y)
{
    const lsp_layer_desc *desc = &layer->desc;
    out_work w = {layer, heads, y};
    lsp_project project = {.type = layer->type,
                           .weight = layer->out,
                           .depth = desc->attention.heads * desc->attention.d_v,
                           .columns = desc->d_model,
                           .group = lsp_project_group(desc->d_model, 1),
                           .begin = layer->x.begin,
                           .end = layer->x.end,
                           .load = load_heads,
                           .store = store_out,
                           .user = &w};
    lsp_project_run(&project, layer->ctx->layout.threads, layer->rooms);
}
