/* longspan info: what is in a file. SPDX-License-Identifier: BSD-3-Clause */
#include "app/import.h"

#include <stdio.h>

static void print_line(void *user, const char *text)
{
    (void)user;
    (void)printf("%s\n", text);
}

static lsp_status list_foreign(lsp_app *app)
{
    lsp_foreign *file = NULL;
    lsp_status status = lsp_foreign_open(app->ctx, app->operand, &file);
    if (status != LSP_OK) return status;
    lsp_import_list(file, app->operand);
    lsp_foreign_close(&file);
    return LSP_OK;
}

lsp_status lsp_info_run(lsp_app *app)
{
    lsp_status status = LSP_OK;
    if (app->layout.rank == 0 && lsp_foreign_is(app->operand))
        status = list_foreign(app);
    else if (app->layout.rank == 0)
        status = lsp_file_describe(app->ctx, app->operand, print_line, NULL);
    return lsp_context_agree(app->ctx, status);
}
