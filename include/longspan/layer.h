/* A multi-head attention layer over rows split across ranks.
 *
 *   Q = X Wq^T + bq,  K = C Wk^T + bk,  V = C Wv^T + bv   (C = X, or the context of cross-attention)
 *   per head: optional RMS norm of q and k, rotary positions, then attention by any method
 *   Y = concat(heads) Wo^T + bo
 *
 * X, C and Y are cut into blocks of LSP_LAYER_ROWS rows at absolute positions (rows of all batches in one line);
 * a rank has a contiguous share of the blocks, and projects them one at a time, short ones filled up with zeros.
 * So the bits of Y depend on the operands, the description, the instruction set and the BLAS library (its version
 * and the processor that it takes this one for) alone: not on ranks, threads, gather mode or partition.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LONGSPAN_LAYER_H
#define LONGSPAN_LAYER_H

#include <longspan/attention.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { LSP_LAYER_ROWS = 512 };

/* Which numbers of a head turn together: c and c + head_dim / 2, or 2 c and 2 c + 1. */
typedef enum lsp_rope_pairing { LSP_ROPE_HALF = 0, LSP_ROPE_INTERLEAVED = 1 } lsp_rope_pairing;

/* Zero-initialise, then set. All ranks pass the same values. */
typedef struct lsp_layer_desc {
    /* The attention inside: batch, heads, kv_heads, n, m, d_k = d_v = head_dim, method, mask, compute and so on.
     * Operand types are set by the layer; kv_head_of is NULL, rows and keys are all. */
    lsp_attention_desc attention;
    int64_t d_model; /* columns of X, of the context and of Y */
    bool cross;      /* keys and values from a context [batch, m, d_model]; else from X, m = n */
    lsp_dtype x_type, context_type; /* f32 or f64 */
    /* Rotary positions (Su et al. 2021): pair c of row i turns by position * rope_base^(-2 c / head_dim). 0: none.
     * In self-attention the position is the row's index in the sequence, in cross-attention a key's is its index
     * and a row's that of the masks (attention.align: i + m - n, or i); in documents both count inside of them. */
    double rope_base;
    lsp_rope_pairing rope_pairing;
    bool qk_norm;       /* q and k of each head over their root mean square, before they turn */
    double qk_norm_eps; /* added to the mean square; 0: 1e-6 */
} lsp_layer_desc;

/* Row-major, all of one type. Borrowed until the layer is destroyed. */
typedef struct lsp_layer_weights {
    lsp_dtype type;              /* f32 or f64 */
    const void *qkv;             /* [(heads + 2 kv_heads) head_dim, d_model]: rows q, then k, then v */
    const void *qkv_bias;        /* [(heads + 2 kv_heads) head_dim]; NULL: none */
    const void *out;             /* [d_model, heads head_dim] */
    const void *out_bias;        /* [d_model]; NULL: none */
    const void *q_norm, *k_norm; /* [head_dim], with qk_norm; NULL: ones */
} lsp_layer_weights;

typedef struct lsp_layer lsp_layer;

/* Collective. Checks the description, plans attention (lsp_attention_create) and allocates all that an execution
 * needs; memory_limit of the attention covers the layer too. Errors: LSP_ERR_USAGE, LSP_ERR_LIMIT. */
lsp_status lsp_layer_create(lsp_context *ctx, const lsp_layer_desc *desc, const lsp_layer_weights *weights,
                            lsp_layer **out);

typedef enum lsp_layer_operand { LSP_LAYER_X = 0, LSP_LAYER_CONTEXT = 1 } lsp_layer_operand;

/* Local. The runs of rows that this rank holds of X (and Y), or of the context: batch, head 0, row. An array is these
 * runs one after the other. Owned by the layer. */
void lsp_layer_runs(const lsp_layer *layer, lsp_layer_operand operand, const lsp_run **runs,
                    int64_t *run_count, int64_t *rows);

/* Local. The plan inside, for its estimate, instruction set and certificates. Owned by the layer. */
const lsp_attention *lsp_layer_attention(const lsp_layer *layer);

/* Local. The same to rest in and to save: for lsp_attention_set_pause, lsp_checkpoint_save and lsp_checkpoint_load, whose
 * `out` is *out. The next execution projects again, and attends from the state on. */
lsp_attention *lsp_layer_state(lsp_layer *layer, void **out);

/* Local. Bytes of this rank besides the plan's footprint and the caller's arrays and weights: blocks, rows on their
 * way between projections and attention, weights converted. */
int64_t lsp_layer_bytes(const lsp_layer *layer);

/* Statistics of one execution on this rank. */
typedef struct lsp_layer_stats {
    double seconds_total;
    double seconds_project;  /* both projections, with norm and rotation */
    double seconds_exchange; /* rows between the ranks that project them and those that attend with them */
    double project_flops; /* 2 per weight and row of this rank's rows; what fills up blocks is not counted */
    lsp_attention_stats attention;
} lsp_layer_stats;

/* Local. As lsp_attention_set_progress, over the attention inside. */
void lsp_layer_set_progress(lsp_layer *layer, lsp_progress_fn progress, void *user);

/* Collective. x [rows, d_model], context (NULL unless cross), y [rows, d_model] in the result type of the computing
 * type. stats may be NULL. May be called again. A row that sees no key gives the output bias.
 * Errors: LSP_ERR_LIMIT (allocation), LSP_ERR_RANK. */
lsp_status lsp_layer_execute(lsp_layer *layer, const void *x, const void *context, void *y,
                             lsp_layer_stats *stats);

/* Where projected rows are to go: runs of heads of the layer (queries, or K/V heads), room for these rows in the result
 * type of the computing type. Each row is on a rank as often as its runs name it. */
typedef struct lsp_layer_target {
    const lsp_run *runs;
    int64_t run_count;
    void *rows;
} lsp_layer_target;

/* Collective. The first step of lsp_layer_execute alone: q and k of the layer's heads, with norm and rotation, for what
 * looks at them otherwise than by the plan inside. stats may be NULL. Errors as lsp_layer_execute. */
lsp_status lsp_layer_project(lsp_layer *layer, const void *x, const void *context, const lsp_layer_target *q,
                             const lsp_layer_target *k, lsp_layer_stats *stats);

/* What the last execution had inside, in the runs of lsp_attention_runs and the result type of the computing type;
 * valid until the next one. */
typedef struct lsp_layer_inside {
    lsp_layer_desc desc; /* defaults filled in, the attention's operand types set */
    const void *q, *k, *v, *out;
} lsp_layer_inside;

/* Local. */
lsp_layer_inside lsp_layer_get_inside(const lsp_layer *layer);

/* Collective. Frees and sets *layer to NULL. NULL is allowed. */
lsp_status lsp_layer_destroy(lsp_layer **layer);

#ifdef __cplusplus
}
#endif
#endif
