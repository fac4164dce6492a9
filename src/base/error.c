/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/error.h"

#include <stdio.h>

lsp_status lsp_error_vset(lsp_error *err, lsp_status code, const char *format, va_list args)
{
    if (err) {
        err->status = code;
        (void)vsnprintf(err->text, sizeof err->text, format, args);
    }
    return code;
}

lsp_status lsp_error_set(lsp_error *err, lsp_status code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    lsp_error_vset(err, code, format, args);
    va_end(args);
    return code;
}

const char *lsp_status_name(lsp_status status)
{
    switch (status) {
    case LSP_OK: return "ok";
    case LSP_ERR_USAGE: return "usage";
    case LSP_ERR_CONTENT: return "content";
    case LSP_ERR_VERIFY: return "verify";
    case LSP_ERR_LIMIT: return "limit";
    case LSP_ERR_FILE: return "file";
    case LSP_ERR_RANK: return "rank";
    case LSP_INTERRUPTED: return "interrupted";
    case LSP_TERMINATED: return "terminated";
    }
    return "unknown";
}
