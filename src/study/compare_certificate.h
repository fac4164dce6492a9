/* What compared methods tell of themselves. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_STUDY_COMPARE_CERTIFICATE_H
#define LSP_STUDY_COMPARE_CERTIFICATE_H

#include "comm/context.h"

#include <longspan/compare.h>

/* Collective. Verifies sampled rows of the plan's last execution, as lsp_verify_attention takes them; of lowrank what
 * the truncated matrices, taken for granted, give. */
lsp_status lsp_compare_verify(lsp_context *ctx, const lsp_attention *plan, const lsp_attention_desc *desc,
                              const lsp_compare_options *options, const void *q, const void *k, const void *v,
                              const void *out, const void *lse, lsp_compare_result *result);

/* Collective. Fills what the certificate of the plan's last execution says: certificate, retained, out_error_bound. What
 * the rows showed stays where there is none. heads may be NULL. */
lsp_status lsp_compare_certify(lsp_context *ctx, const lsp_attention *plan, const lsp_attention_desc *desc,
                               lsp_compare_result *result, lsp_compare_head *heads);

#endif
