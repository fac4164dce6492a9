/* Inside of a comparison. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_STUDY_COMPARE_INSIDE_H
#define LSP_STUDY_COMPARE_INSIDE_H

#include "study/compare_rows.h"

#include <longspan/checkpoint.h>

struct lsp_compare {
    lsp_context *ctx;
    lsp_attention_desc desc; /* exact; ends filled in */
    lsp_compare_options options;
    lsp_attention *plan; /* exact, until it was executed */
    lsp_estimate estimate;
    lsp_run *query_runs, *key_runs; /* of exact */
    int64_t query_run_count, key_run_count, query_rows, key_rows;
    const void *q, *k, *v; /* the caller's */
    lsp_compare_rows rows;
    char *identity;  /* what a state belongs to: exact's plan, [LSP_SAVED_TEXT] */
    lsp_pause pause; /* of executions; want NULL: they never rest */
    lsp_progress_fn progress;
    void *user;
    int64_t execution; /* of the running call */
};

/* Local. Whether the description of exact's plan, for states, was made. */
bool lsp_compare_describe(lsp_compare *compare);

#endif
