/* longspan scaling: the command. SPDX-License-Identifier: BSD-3-Clause */
#include "app/scaling.h"

#include "app/plot.h"
#include "app/report.h"
#include "base/memory.h"

#include <stdio.h>

enum { PICTURE_WIDTH = 1100, PICTURE_HEIGHT = 480 };

static lsp_status study(lsp_scaling *s)
{
    lsp_status status = LSP_OK;
    if (s->app->layout.rank == 0) {
        status = lsp_scaling_read(s);
        if (status == LSP_OK) status = lsp_scaling_reduce(s);
        if (status == LSP_OK) lsp_scaling_print(s);
        if (status == LSP_OK) status = lsp_scaling_write_csv(s);
    }
    return lsp_context_agree(s->app->ctx, status);
}

static lsp_status report(lsp_scaling *s)
{
    cJSON *json = NULL;
    if (s->app->layout.rank == 0) {
        lsp_summary_unused(s->app);
        json = lsp_json_begin(s->app);
        lsp_scaling_add_json(s, json);
    }
    lsp_status status = lsp_json_write(s->app, json);
    if (status == LSP_OK)
        status = lsp_plot_make_both(s->app, PICTURE_WIDTH, PICTURE_HEIGHT, lsp_scaling_plot, s);
    if (status == LSP_OK && s->app->layout.rank == 0)
        (void)printf("longspan: PASSED, %lld reports\n", (long long)s->run_count);
    return status;
}

lsp_status lsp_scaling_run_command(lsp_app *app)
{
    lsp_scaling s = {.app = app};
    lsp_status status = lsp_json_probe(app);
    if (status == LSP_OK) status = lsp_plot_probe(app);
    if (status == LSP_OK) status = study(&s);
    if (status == LSP_OK) status = report(&s);
    lsp_memory_free(s.points);
    lsp_memory_free(s.runs);
    return status;
}
