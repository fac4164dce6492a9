/* Inside of the method lowrank. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_METHOD_LOWRANK_H
#define LSP_METHOD_LOWRANK_H

#include "method/attention.h"

#include <longspan/lowrank.h>

/* State of one plan. */
typedef struct lsp_lowrank {
    lsp_lowrank_head *heads; /* [matrix_count] */
    void *values;            /* [matrix_count][keys of this rank][d_v] with keep_values, else NULL */
    lsp_lowrank_certificate certificate;
    bool done; /* something was executed */
} lsp_lowrank;

/* Local. The operator of one query head. */
lsp_attention_desc lsp_lowrank_operator(const lsp_attention_desc *desc, int64_t batch, int64_t head,
                                        lsp_partition_kind kind);

/* Local. */
lsp_svd_options lsp_lowrank_options(const lsp_attention_desc *desc);

/* Local. See lsp_method_ops. */
lsp_status lsp_lowrank_estimate(const lsp_partition *partition, int ranks_per_node, int threads,
                                lsp_estimate *estimate, lsp_error *error);

/* Collective. What is left of the values (v [keys][d_v] in double, becomes V - V_r V_r^T V) fills head's norm and
 * bound; head->certificate is there. */
lsp_status lsp_lowrank_bound(lsp_context *ctx, int64_t keys, int64_t d_v, const double *left,
                             lsp_lowrank_head *head);

/* Local. All heads together. */
lsp_lowrank_certificate lsp_lowrank_together(const lsp_lowrank_head *heads, int64_t count);

#endif
