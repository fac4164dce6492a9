/* Numbers for people. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_FORMAT_H
#define LSP_APP_FORMAT_H

#include <longspan/tensor.h>

/* Local. Each writes into text (a small array of the caller) and returns it. */
enum { LSP_FORMAT_SIZE = 96 };
const char *lsp_format_bytes(double bytes, char *text);           /* "1.50 GiB" */
const char *lsp_format_seconds(double seconds, char *text);       /* "1.234 s", "3 min 05 s", "2 h 07 min" */
const char *lsp_format_rate(double flops_per_second, char *text); /* "1.23 TFLOP/s" */
const char *lsp_format_shape(const lsp_tensor_shape *shape,
                             char *text); /* "[4, 100, 64] f16", as in the file */

#endif
