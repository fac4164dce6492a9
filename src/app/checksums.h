/* Stored checksums, compared with what a file holds. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_CHECKSUMS_H
#define LSP_APP_CHECKSUMS_H

#include "app/app.h"

#include <cjson/cJSON.h>

typedef struct lsp_checksum_count {
    int checked, failed, without;
} lsp_checksum_count;

/* Collective. Reads the tensor whole and compares; rank 0 prints a line. Adds to the count. */
lsp_status lsp_checksums_check(lsp_app *app, lsp_tensor *tensor, const char *dataset,
                               lsp_checksum_count *count);

/* Collective. The same for all datasets of a file that tell a checksum. */
lsp_status lsp_checksums_check_file(lsp_app *app, const char *file, lsp_checksum_count *count);

/* Local. Adds `checksums` to a report. */
void lsp_checksums_add_json(cJSON *object, const lsp_checksum_count *count);

#endif
