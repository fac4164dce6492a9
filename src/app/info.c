/* longspan info: what is in a file. SPDX-License-Identifier: BSD-3-Clause */
#include "app/app.h"

#include <stdio.h>

static void print_line(void *user, const char *text)
{
    (void)user;
    (void)printf("%s\n", text);
}

lsp_status lsp_info_run(lsp_app *app)
{
    lsp_status status = LSP_OK;
    if (app->layout.rank == 0) status = lsp_file_describe(app->ctx, app->operand, print_line, NULL);
    return lsp_context_agree(app->ctx, status);
}
