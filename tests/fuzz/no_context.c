/* Stands in where the parsers are built without MPI: nothing here has a context. SPDX-License-Identifier: BSD-3-Clause */
#include <longspan/context.h>

lsp_status lsp_context_fail(lsp_context *ctx, lsp_status code, const char *format, ...)
{
    (void)ctx;
    (void)format;
    return code;
}
