/* Reading JSON reports of earlier runs. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_REPORT_FILE_H
#define LSP_APP_REPORT_FILE_H

#include "app/app.h"

#include <cjson/cJSON.h>

/* Local. The report in `file`, of at most 64 MiB, freed with cJSON_Delete. LSP_ERR_FILE when it cannot be read (`key` is what
 * the user should check), LSP_ERR_CONTENT when it is no JSON. */
lsp_status lsp_report_file_read(lsp_app *app, const char *file, const char *key, cJSON **json);

/* Local. NaN when the object has no such number. */
double lsp_report_file_number(const cJSON *object, const char *name);

/* Local. NULL when it has no such text. */
const char *lsp_report_file_text(const cJSON *object, const char *name);

#endif
