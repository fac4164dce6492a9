/* Sampled rows of a layer and what they should be, in double precision. Shares no code with the layer: what is common is
 * BLAS, here in double and on blocks of another shape. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_STUDY_LAYER_SAMPLE_H
#define LSP_STUDY_LAYER_SAMPLE_H

#include "study/fetch.h"
#include "study/reference.h"

#include <longspan/layer.h>
#include <longspan/study.h>

typedef struct lsp_layer_sample {
    lsp_context *ctx;
    lsp_layer_desc desc;
    const lsp_layer_weights *weights;
    lsp_held_rows x, keys, y; /* keys: the context, or x */
    int64_t count;
    lsp_row_place *rows; /* [count] of X and Y, ascending: batch, head 0, row */
    double *x_rows;      /* [count][d_model] */
    double *y_rows;
    double *y_reference; /* [count][d_model] */
    double *y_terms;     /* [count] root of the sum of the squares of the terms of a row */
    double *size;        /* [count] mean size of the scores, the largest of all heads */
    bool *broken;        /* [count] something not finite went into the row */
    double largest;      /* |score| met */
} lsp_layer_sample;

/* Local. One row of values through rows [first, first + count) of a weight (and bias, may be NULL), into out; *terms (may
 * be NULL) is increased by the squares of all terms. */
void lsp_layer_multiply(lsp_dtype type, const void *weight, const void *bias, int64_t first, int64_t count,
                        int64_t depth, const double *values, double *out, double *terms);

/* Local. Norm and rotation of a head's values at a position; keys: by the norm of k. */
void lsp_layer_shape(const lsp_layer_sample *s, bool keys, int64_t position, double *head);

/* Local. The queries of sampled row i, all heads: [heads][head_dim]. */
void lsp_layer_sample_query(const lsp_layer_sample *s, int64_t i, double *q);

/* Local. The output of row i from its heads' outputs [heads head_dim]: y_reference and y_terms. */
void lsp_layer_sample_out(lsp_layer_sample *s, int64_t i, const double *heads);

/* Collective. Fills y_reference, y_terms, size and broken from x and the weights (methods exact and block). */
lsp_status lsp_layer_sample_compute(lsp_layer_sample *s);

#endif
