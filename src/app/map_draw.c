/* SPDX-License-Identifier: BSD-3-Clause */
#include "app/map.h"
lsp_status lsp_map_probe(lsp_app *app)
{
    (void)app;
    return LSP_OK;
}
lsp_status lsp_map_draw(const lsp_map_job *job)
{
    (void)job;
    return LSP_OK;
}
