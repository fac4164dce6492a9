/* Inside of a layer. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_LAYER_LAYER_H
#define LSP_LAYER_LAYER_H

#include "comm/exchange.h"
#include "layer/project.h"
#include "layer/rotary.h"
#include "method/attention.h"

/* Home: where rows are projected. Batch after batch, [heads][rows of the batch here][head_dim]. */

/* What heads of the qkv projection are. */
typedef enum lsp_layer_role { LSP_LAYER_Q, LSP_LAYER_K, LSP_LAYER_V, LSP_LAYER_ROLES } lsp_layer_role;

/* Rows of X or of the context, one line of all batches cut into blocks. */
typedef struct lsp_layer_line {
    int64_t rows;   /* of a batch */
    int64_t *first; /* [ranks + 1] of the line */
    lsp_run *runs;  /* of this rank */
    int64_t run_count, begin, end;
} lsp_layer_line;

/* A thread's room beside that of projections. */
typedef struct lsp_layer_room {
    double *head;   /* [head_dim] */
    double *angles; /* [head_dim] with rope_base: of a row */
    lsp_rotary_state rotary;
} lsp_layer_room;

struct lsp_layer {
    lsp_context *ctx;
    lsp_layer_desc desc;
    lsp_dtype type; /* of projections: the result type of the computing type */
    lsp_attention *plan;
    lsp_layer_line x, context; /* context: used when cross */
    /* Weights in `type`; owned says which were converted. */
    void *qkv, *qkv_bias, *out, *out_bias;
    double *norm[2]; /* [head_dim] of q and of k, with qk_norm */
    bool owned;
    lsp_rotary rotary; /* with rope_base */
    lsp_exchange *query_exchange, *key_exchange, *out_exchange;
    bool query_same, key_same;      /* both distributions are one array, on all ranks */
    void *at_home[LSP_LAYER_ROLES]; /* q (and out later), k, v where they are projected */
    void *planned
        [LSP_LAYER_ROLES]; /* where they are attended with; the same array when the distributions are */
    void *planned_out;
    lsp_project_room *rooms;
    lsp_layer_room *head_rooms;
    int64_t bytes;
};

/* Local. Checks a description and fills in its defaults (LSP_ERR_USAGE). */
lsp_status lsp_layer_check(lsp_context *ctx, lsp_layer_desc *desc, const lsp_layer_weights *weights);

/* Local. Rows of this rank's home array of a line with so many heads, and where row `at` of the line stands in it. */
int64_t lsp_layer_home_rows(const lsp_layer_line *line, int64_t heads);
int64_t lsp_layer_home_place(const lsp_layer_line *line, int64_t heads, int64_t head, int64_t at);

/* Local. Heads of the fused projection, and the role of one of them with its number among its like. */
int64_t lsp_layer_heads(const lsp_layer_desc *desc);
lsp_layer_role lsp_layer_role_of(const lsp_layer_desc *desc, int64_t head, int64_t *number);

/* Local. Rows of x (operand LSP_LAYER_X) or context through the fused weight, normalised and turned, to at_home. */
void lsp_layer_project_heads(lsp_layer *layer, lsp_layer_operand operand, const void *rows);

/* Local. The attention's output at home through the output weight to y. */
void lsp_layer_project_out(lsp_layer *layer, const void *heads, void *y);

#endif
