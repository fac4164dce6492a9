/* What attention with the k largest weights of each row kept (LSP_METHOD_TOPK).
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LONGSPAN_TOPK_H
#define LONGSPAN_TOPK_H

#include <longspan/attention.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Rows whose dropped mass is below 1e-6, 1e-5, ..., 0.1, and at most 1. */
enum { LSP_TOPK_BINS = 7 };

/* Over all rows of all ranks. A row's dropped mass is 1 minus the sum of the weights (as the full softmax gives them)
 * that it keeps: it is known for every row, and not a sample. Its output then differs from that of exact attention by
 * a vector no longer than the dropped mass times the longest row of V (twice that when renormalised). */
typedef struct lsp_topk_certificate {
    int64_t rows, kept; /* rows with keys; entries of all rows */
    double dropped_mass_mean, dropped_mass_max;
    int64_t histogram[LSP_TOPK_BINS];
    double out_error_bound; /* largest row; with an allowance for rounding where anything was dropped */
} lsp_topk_certificate;

/* Local. Of the plan's last execution. LSP_ERR_USAGE unless the plan's method is topk and it was executed. */
lsp_status lsp_topk_get_certificate(const lsp_attention *plan, lsp_topk_certificate *certificate);

/* The sparse weights of this rank's query rows: entry e < counts[r] of row r is keys[r * stride + e] with
 * weights[r * stride + e] (of the computing type's results), keys ascending. Rows in the order of the rank's runs. */
typedef struct lsp_topk_weights {
    int64_t rows, stride;
    const int32_t *counts, *keys;
    const void *weights;
} lsp_topk_weights;

/* Local. Of the plan's last execution; valid until the next one or the plan's end. Errors as above. */
lsp_status lsp_topk_get_weights(const lsp_attention *plan, lsp_topk_weights *weights);

/* Local. offsets [row_end - row_begin + 1]: how many entries the rows before each one keep, of one head of batch
 * `batch`. It follows from k and the mask alone. LSP_ERR_USAGE when the description is not one of topk. */
lsp_status lsp_topk_offsets(const lsp_attention_desc *desc, int64_t batch, int64_t *offsets);

#ifdef __cplusplus
}
#endif
#endif
