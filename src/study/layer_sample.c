/* The steps of a layer for single rows, written for clarity alone. SPDX-License-Identifier: BSD-3-Clause */
#include "study/layer_sample.h"

#include "base/convert.h"

#include <math.h>

/* Eight sums at a time, so that the error does not grow with the depth. */
static double dot(const double *a, const double *b, int64_t count, double *squares)
{
    double sums[8] = {0}, all = 0, square = 0;
    for (int64_t i = 0; i < count; i++) {
        double term = a[i] * b[i];
        sums[i % 8] += term;
        square += term * term;
    }
    for (int i = 0; i < 8; i++) all += sums[i];
    *squares += square;
    return all;
}

void lsp_layer_multiply(lsp_dtype type, const void *weight, const void *bias, int64_t first, int64_t count,
                        int64_t depth, const double *values, double *out, double *terms)
{
    enum { ROOM = 4096 };
    double room[ROOM], squares = 0;
    for (int64_t r = 0; r < count; r++) {
        double sum = 0;
        for (int64_t c = 0; c < depth; c += ROOM) {
            int64_t part = depth - c < ROOM ? depth - c : ROOM;
            lsp_convert_load(type, weight, (first + r) * depth + c, part, room);
            sum += dot(room, values + c, part, &squares);
        }
        if (bias) {
            lsp_convert_load(type, bias, first + r, 1, room);
            sum += room[0];
            squares += room[0] * room[0];
        }
        out[r] = sum;
    }
    if (terms) *terms += squares;
}

static void turn(const lsp_layer_desc *desc, int64_t position, double *head)
{
    int64_t d = desc->attention.d_k;
    for (int64_t c = 0; c < d / 2; c++) {
        long double speed = powl((long double)desc->rope_base, -2 * (long double)c / (long double)d);
        double cosine = (double)cosl((long double)position * speed),
               sine = (double)sinl((long double)position * speed);
        bool half = desc->rope_pairing == LSP_ROPE_HALF;
        double *a = &head[half ? c : 2 * c], *b = &head[half ? c + d / 2 : 2 * c + 1], x = *a, y = *b;
        *a = cosine * x - sine * y;
        *b = sine * x + cosine * y;
    }
}

void lsp_layer_shape(const lsp_layer_sample *s, bool keys, int64_t position, double *head)
{
    const lsp_layer_desc *desc = &s->desc;
    int64_t d = desc->attention.d_k;
    if (desc->qk_norm) {
        const void *weight = keys ? s->weights->k_norm : s->weights->q_norm;
        double square = 0;
        for (int64_t c = 0; c < d; c++) square += head[c] * head[c] / (double)d;
        for (int64_t c = 0; c < d; c++) {
            double factor = 1;
            if (weight) lsp_convert_load(s->weights->type, weight, c, 1, &factor);
            head[c] = factor * head[c] / sqrt(square + desc->qk_norm_eps);
        }
    }
    if (desc->rope_base > 0) turn(desc, position, head);
}

void lsp_layer_sample_query(const lsp_layer_sample *s, int64_t i, double *q)
{
    const lsp_attention_desc *a = &s->desc.attention;
    lsp_reference_row row = {.batch = s->rows[i].batch, .row = s->rows[i].row};
    lsp_reference_place(a, &row);
    lsp_layer_multiply(s->weights->type, s->weights->qkv, s->weights->qkv_bias, 0, a->heads * a->d_k,
                       s->desc.d_model, s->x_rows + i * s->desc.d_model, q, NULL);
    for (int64_t h = 0; h < a->heads; h++)
        lsp_layer_shape(s, false, s->desc.cross ? row.position : row.row, q + h * a->d_k);
}

void lsp_layer_sample_out(lsp_layer_sample *s, int64_t i, const double *heads)
{
    const lsp_attention_desc *a = &s->desc.attention;
    double squares = 0;
    lsp_layer_multiply(s->weights->type, s->weights->out, s->weights->out_bias, 0, s->desc.d_model,
                       a->heads * a->d_k, heads, s->y_reference + i * s->desc.d_model, &squares);
    s->y_terms[i] = sqrt(squares);
}
