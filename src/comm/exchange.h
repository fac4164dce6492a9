/* Rows that ranks hold in one way, brought to where another way wants them.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_COMM_EXCHANGE_H
#define LSP_COMM_EXCHANGE_H

#include "comm/context.h"

#include <longspan/tensor.h>

typedef struct lsp_exchange lsp_exchange;

/* Collective. A way from the rows of `from` to those of `to`, each this rank's runs of one tensor (batch, head, row), an
 * array being the runs one after the other. The runs of `from` of all ranks hold a row once at most; `to` may want it
 * on several ranks. Errors: LSP_ERR_USAGE when a row that is wanted is held by nobody, LSP_ERR_LIMIT, LSP_ERR_RANK. */
lsp_status lsp_exchange_create(lsp_context *ctx, const lsp_run *from, int64_t from_count, const lsp_run *to,
                               int64_t to_count, lsp_exchange **out);

/* Local; the same answer on every rank. Whether every rank holds the rows it wants, in their order: nothing is to be
 * done, and the array itself can serve. */
bool lsp_exchange_is_none(const lsp_exchange *exchange);

/* Collective. Brings rows of row_bytes bytes; `to` is another array than `from`. Takes as much memory again as this rank
 * gets from and sends to others. Errors: LSP_ERR_LIMIT, LSP_ERR_RANK. */
lsp_status lsp_exchange_rows(const lsp_exchange *exchange, int64_t row_bytes, const void *from, void *to);

/* Local. Frees and sets to NULL. NULL is allowed. */
void lsp_exchange_destroy(lsp_exchange **exchange);

#endif
