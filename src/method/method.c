/* The table of methods. SPDX-License-Identifier: BSD-3-Clause */
#include "method/method.h"

static const lsp_method_ops *const table[] = {[LSP_METHOD_EXACT] = &lsp_method_exact,
                                              [LSP_METHOD_BLOCK] = &lsp_method_block,
                                              [LSP_METHOD_TOPK] = &lsp_method_topk,
                                              [LSP_METHOD_LOWRANK] = &lsp_method_lowrank};

const lsp_method_ops *lsp_method_get(lsp_method method)
{
    return (size_t)method < sizeof table / sizeof *table ? table[method] : NULL;
}

const char *lsp_method_name(lsp_method method)
{
    const lsp_method_ops *ops = lsp_method_get(method);
    return ops ? ops->name : "unknown";
}
