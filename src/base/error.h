/* The text of a failure, kept until the caller asks. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_BASE_ERROR_H
#define LSP_BASE_ERROR_H

#include <longspan/status.h>
#include <stdarg.h>

enum { LSP_ERROR_TEXT = 1024 };

typedef struct lsp_error {
    lsp_status status;
    char text[LSP_ERROR_TEXT];
} lsp_error;

/* Local. Stores code and text (what, where, the remedy; no newline) and returns the code. err may be NULL. */
lsp_status lsp_error_set(lsp_error *err, lsp_status code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
lsp_status lsp_error_vset(lsp_error *err, lsp_status code, const char *format, va_list args);

#endif
