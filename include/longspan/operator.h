/* One head's attention matrix as a linear operator, never formed.
 *
 *   W [n, m] = softmax(scale * Q K^T + mask),   Y = W X,   X = W^T Y   for any number of columns.
 *
 * W X is attention with V := X. W^T Y recomputes the same scores and weights, to the bit, from the rows'
 * maxima and sums. The bits of both, and of the norm, depend on the operands, the description and the
 * instruction set alone: not on ranks, threads or gather mode.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LONGSPAN_OPERATOR_H
#define LONGSPAN_OPERATOR_H

#include <longspan/attention.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lsp_operator lsp_operator;

/* Collective. An operator for the description, of which batch, heads and kv_heads are 1, compute is f32
 * or f64, and d_v is the number of columns to take through the kernels at a time (0: 256; more columns
 * go in several turns, each of which computes the scores anew). v_type is not used. Rows and keys are
 * split contiguously, by rank: partition cyclic is taken as balanced. Rows and keys outside of the part
 * (row_begin, ...) are no rows and columns of W.
 * Errors: LSP_ERR_USAGE, LSP_ERR_LIMIT as lsp_attention_create. */
lsp_status lsp_operator_create(lsp_context *ctx, const lsp_attention_desc *desc, lsp_operator **out);

/* Local. The one run (or none) of rows of this rank, in the manner of lsp_attention_runs. LSP_QUERIES:
 * of Q and Y, LSP_KEYS: of K and X. Ranks have them in ascending order. */
lsp_status lsp_operator_runs(const lsp_operator *op, lsp_operand operand, const lsp_run **runs,
                             int64_t *run_count, int64_t *rows);

/* Collective. Sets the operands: this rank's runs of Q and K (types as described). They stay the
 * caller's and must stay as they are until the next bind or the end. */
lsp_status lsp_operator_bind(lsp_operator *op, const void *q, const void *k);

/* Collective. y = W x: x [keys of this rank, columns], y [rows of this rank, columns], row-major in the
 * computing type. A row of W that sees no key is zero. columns >= 1, the same on every rank.
 * Errors: LSP_ERR_USAGE (columns, nothing bound), LSP_ERR_LIMIT, LSP_ERR_RANK. */
lsp_status lsp_operator_apply(lsp_operator *op, const void *x, int64_t columns, void *y);

/* Collective. x = W^T y, shapes and errors as lsp_operator_apply. */
lsp_status lsp_operator_apply_transposed(lsp_operator *op, const void *y, int64_t columns, void *x);

/* Collective. *square = ||W||_F^2, the sum of the squared weights. It comes out of the first W^T Y; a
 * pass of its own is made when there was none. */
lsp_status lsp_operator_norm(lsp_operator *op, double *square);

/* Collective. lse [rows of this rank]: the rows' log-sum-exp (natural, -inf where a row sees no key) in the computing
 * type. It comes out of the first W X; a pass of its own is made when there was none. Errors: as apply. */
lsp_status lsp_operator_lse(lsp_operator *op, void *lse);

/* What the calls so far cost. */
typedef struct lsp_operator_stats {
    int64_t applied, applied_transposed;           /* calls */
    double seconds_apply, seconds_transposed;      /* of this rank */
    double seconds_gather_exposed, bytes_received; /* of this rank, in both */
    double flops_apply,
        flops_transposed; /* of all ranks: 2 (d_k + columns of the turn) per visible pair and turn */
    int64_t empty_rows;   /* of this rank: rows that see no key */
} lsp_operator_stats;

/* Local. */
lsp_operator_stats lsp_operator_get_stats(const lsp_operator *op);
/* Local. What was decided, for one turn of W X. */
lsp_estimate lsp_operator_get_estimate(const lsp_operator *op);
lsp_isa lsp_operator_get_isa(const lsp_operator *op);

/* Collective. Frees and sets *op to NULL. NULL is allowed. */
lsp_status lsp_operator_destroy(lsp_operator **op);

#ifdef __cplusplus
}
#endif
#endif
