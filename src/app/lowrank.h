/* The certificate of method lowrank, in words and as JSON. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_LOWRANK_H
#define LSP_APP_LOWRANK_H

#include "app/certificate.h"

/* Local. Fills what belongs to lowrank. */
lsp_status lsp_lowrank_certificate_make(const lsp_attention_desc *desc, const lsp_attention *plan,
                                        lsp_certificate *certificate);

/* Local (rank 0). */
void lsp_lowrank_certificate_print(const lsp_certificate *certificate);

/* Local (rank 0). The line about `heads` heads that reached `rank` before the tolerance; asked: attention.rank, 0: not
 * given. Nothing where there are none. */
void lsp_lowrank_print_unmet(int64_t heads, int64_t rank, int64_t asked);

/* Local. Whether there is a mask, which truncation does not keep; and (rank 0) the line that says so. */
bool lsp_lowrank_leaks(const lsp_attention_desc *desc);
void lsp_lowrank_print_leak(bool leaks);

/* Local. Adds its fields to the certificate's object. */
void lsp_lowrank_certificate_add_json(cJSON *object, const lsp_certificate *certificate);

/* Local. rank, norm, frobenius_error, frobenius_relative, floor, out_error_bound (null when below 0: not known),
 * meaningful: what lowrank and svd tell. */
void lsp_lowrank_add_numbers(cJSON *object, int64_t rank, const lsp_svd_certificate *certificate,
                             double bound);

#endif
