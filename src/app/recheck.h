/* Sampled rows of a result computed again. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_RECHECK_H
#define LSP_APP_RECHECK_H

#include "app/operands.h"

/* Collective. lsp_verify_attention of `operands`, as verify.rows (which is not 0) and verify.tolerance ask. Method
 * lowrank: against the truncated matrices of the plan's last execution, whose runs are those of operands; no other
 * method needs the plan. LSP_OK also when the check does not pass. */
lsp_status lsp_recheck_rows(lsp_app *app, const lsp_attention_desc *desc, const lsp_attention *plan,
                            const lsp_operands *operands, lsp_verify_result *result);

#endif
