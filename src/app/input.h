/* The input of one attention: Q, K and V, the part of them to compute, and the rule of the scores.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_INPUT_H
#define LSP_APP_INPUT_H

#include "app/source.h"

typedef struct lsp_input {
    lsp_source q, k, v;
    int64_t *heads;      /* [desc.heads] head of the file that each computed head is; NULL: all, in order */
    int64_t *kv_heads;   /* [desc.kv_heads] the same of K and V */
    int64_t *kv_head_of; /* [desc.heads], see lsp_attention_desc */
    int64_t *documents, *documents_k, *key_lengths;
    double *slopes; /* [desc.heads] */
    int64_t head_total;
    lsp_attention_desc desc; /* its pointers point into this struct's arrays */
} lsp_input;

/* Collective. Opens q, k and v, checks that they fit together (LSP_ERR_CONTENT) and fills desc by the
 * options. On failure too, lsp_input_close is to be called. */
lsp_status lsp_input_open(lsp_app *app, lsp_input *input);

/* Collective. The same from [shape] alone, without files. */
lsp_status lsp_input_from_shape(lsp_app *app, lsp_input *input);

/* Collective. */
void lsp_input_close(lsp_input *input);

/* ---- its parts ------------------------------------------------------------------------------------ */

/* Local. Shape of the desc from [shape]; LSP_ERR_USAGE when n or d_k is missing. */
lsp_status lsp_input_take_shape(lsp_app *app, lsp_attention_desc *desc);

/* Collective. input.heads, rows and keys: changes desc.heads, kv_heads and the ranges. */
lsp_status lsp_input_select(lsp_app *app, lsp_input *input);

/* Local. The keys of method lowrank but rank. */
void lsp_input_take_truncation(lsp_app *app, lsp_attention_desc *desc);

/* Collective. Sections attention and compute, documents and key lengths. */
lsp_status lsp_input_take_rule(lsp_app *app, lsp_input *input);

#endif
