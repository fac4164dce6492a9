/* Inside of the method topk. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_METHOD_TOPK_H
#define LSP_METHOD_TOPK_H

#include "method/attention.h"
#include "method/method.h"
#include "method/walk.h"

#include <longspan/topk.h>

/* lsp_attention.phase */
enum { LSP_TOPK_KEYS = 0, LSP_TOPK_VALUES = 1 };

/* State of one plan; rows are those of this rank. */
typedef struct lsp_topk {
    lsp_candidates candidates;
    lsp_gather *values;   /* V alone */
    lsp_row_state recent; /* maxima and sums since the last fold; no output */
    double *sums;         /* [rows][d_v] output */
    int32_t *added;       /* [rows] entries that are in sums, or fewer: where to look for the next ones */
    double *dropped;      /* [rows] dropped mass; NaN where the row's sum is not a number */
    double *lengths;      /* [units of all batches and heads] longest row of V that is seen */
    lsp_topk_certificate certificate;
    bool done; /* something was executed */
} lsp_topk;

/* One execution. */
typedef struct lsp_topk_pass {
    lsp_attention *plan;
    lsp_topk *topk;
    const lsp_method_arrays *arrays;
} lsp_topk_pass;

/* Local. Maxima and sums from local row `row` on, in all and since the last fold, and candidates. */
lsp_row_state lsp_topk_totals(const lsp_topk_pass *pass, int64_t row);
lsp_row_state lsp_topk_recent(const lsp_topk_pass *pass, int64_t row);
lsp_candidates lsp_topk_candidates(const lsp_topk_pass *pass, int64_t row);

/* Local. The functions of the first pass's walk; user: the pass. */
void lsp_topk_pack(void *user, const lsp_walk_panel *panel, int64_t tile);
void lsp_topk_choose(void *user, const lsp_walk_chunk *chunk);

/* Local. k, but no more than there are keys. */
int64_t lsp_topk_most(const lsp_attention_desc *desc);

/* Collective. Fills lengths from this rank's V, and the certificate from dropped and the counts. */
lsp_status lsp_topk_certify(lsp_attention *plan, lsp_topk *topk, const void *v);

/* Local. What a saved state holds in the plan's phase. */
int lsp_topk_state(lsp_attention *plan, lsp_state_rows *arrays);

#endif
