/* A checked description of one attention: everything set, every array owned.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_METHOD_PROBLEM_H
#define LSP_METHOD_PROBLEM_H

#include "base/error.h"
#include "kernel/mask.h"

/* What a plan is for when it is not for attention's output. */
struct lsp_method_ops;
typedef struct lsp_plan_kind {
    const struct lsp_method_ops *ops;
    const void *options; /* for these; borrowed as long as the plan lives */
    int64_t row_grain;
} lsp_plan_kind;

typedef struct lsp_problem {
    lsp_attention_desc desc; /* row_end, key_end, scale set; pointers are those below */
    lsp_mask mask;
    int64_t units;    /* batch * kv_heads: the matrices of K and V */
    bool whole_heads; /* see method/method.h */
    /* Query heads of K/V head h: query_heads[query_first[h] .. query_first[h + 1]). */
    int64_t *query_heads, *query_first;
    int64_t *kv_head_of, *documents, *documents_k, *key_lengths;
    double *slopes;
    const struct lsp_method_ops *ops; /* of desc.method, unless the plan is one of another kind */
    const void *options;              /* for these; borrowed */
    int64_t row_grain; /* ranks and chunks are cut at multiples of so many rows of the part; 1: anywhere */
} lsp_problem;

/* Local. Checks and copies a description. On failure *problem holds nothing. */
lsp_status lsp_problem_make(const lsp_attention_desc *desc, lsp_problem *problem, lsp_error *error);

/* Local. */
void lsp_problem_free(lsp_problem *problem);

/* Local. A number that differs when descriptions differ (for comparing ranks). */
uint64_t lsp_problem_hash(const lsp_problem *problem);

/* Local. Visible pairs of rows [begin, end), summed over the batch (one head). */
double lsp_problem_pairs(const lsp_problem *problem, int64_t begin, int64_t end);

/* Local. Keys that a row sees at most, by window and documents. */
int64_t lsp_problem_reach(const lsp_problem *problem);

#endif
