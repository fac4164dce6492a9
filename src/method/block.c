/* Attention inside blocks of the sequence (source document, section 3.1): exact attention of rows whose sight
 * ends at their block's keys, which the mask cuts, so that tiles, panels and bits are those of the exact method.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "method/method.h"

static lsp_status check(const lsp_attention_desc *d, lsp_error *error)
{
    if (d->block_size >= 1 && d->block_size <= d->n) return LSP_OK;
    return lsp_error_set(
        error, LSP_ERR_USAGE,
        "block_size is %lld: a block has at least one row and at most the %lld rows there are "
        "(attention.block_size)",
        (long long)d->block_size, (long long)d->n);
}

const lsp_method_ops lsp_method_block = {
    .name = "block", .check = check, .state = lsp_exact_state, .execute = lsp_exact_execute};
