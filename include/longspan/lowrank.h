/* What attention by truncated matrices left out (LSP_METHOD_LOWRANK).
 *
 *   O^ = U_r S_r (V_r^T V),   W ~ U_r S_r V_r^T for each query head (see svd.h).
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LONGSPAN_LOWRANK_H
#define LONGSPAN_LOWRANK_H

#include <longspan/svd.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One query head. The bound: O - O^ = (W - W_r) (V - V_r V_r^T V), as U_r S_r = W V_r, so that ||O - O^||_F is at most
 * ||W - W_r||_F times the 2-norm of what of V lies outside of V_r. That norm is computed (the root of the largest
 * eigenvalue of the d_v x d_v Gram matrix), and no larger than ||V||_2. */
typedef struct lsp_lowrank_head {
    int64_t batch, head;
    int64_t rank;
    lsp_svd_certificate certificate;
    double values_norm;     /* ||V - V_r V_r^T V||_2 */
    double out_error_bound; /* on ||O - O^||_F; infinite where V is not finite. Where the certificate is not
                               meaningful, from its floor */
    bool tolerance_met;
    double seconds; /* of this rank */
} lsp_lowrank_head;

/* All heads together, as of one matrix with the heads as its blocks. */
typedef struct lsp_lowrank_certificate {
    int64_t heads;             /* query heads of all batches */
    int64_t rank, rank_least;  /* most and least of any head */
    lsp_svd_certificate whole; /* meaningful when every head's is */
    double out_error_bound;    /* on ||O - O^||_F */
    int64_t unclear, unmet; /* heads whose certificate is not meaningful; that did not meet the tolerance */
} lsp_lowrank_certificate;

/* Local. Of the plan's last execution, the same on every rank. LSP_ERR_USAGE unless the plan's method is lowrank and it
 * was executed. */
lsp_status lsp_lowrank_get_certificate(const lsp_attention *plan, lsp_lowrank_certificate *certificate);

/* Local. The same of every head, batch by batch in the order of K/V heads; owned by the plan, until the next execution.
 * Errors as above. */
lsp_status lsp_lowrank_get_heads(const lsp_attention *plan, const lsp_lowrank_head **heads, int64_t *count);

/* Local. With keep_values: the values V_r V_r^T V with which W gives O^, in the computing type. For each run of
 * LSP_KEYS, one block [keys of the run, d_v] for each query head of its K/V head, by ascending head. Owned by the plan,
 * until the next execution. lsp_verify_attention takes them for v when the method is lowrank. Errors as above. */
lsp_status lsp_lowrank_get_values(const lsp_attention *plan, const void **values);

#ifdef __cplusplus
}
#endif
#endif
