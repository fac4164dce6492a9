/* Pictures by gnuplot, on rank 0. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_PLOT_H
#define LSP_APP_PLOT_H

#include "app/app.h"

#include <stdio.h>

/* Writes gnuplot commands (after terminal and output are set) to the stream. */
typedef void (*lsp_plot_fn)(FILE *stream, const void *user);

/* Collective. Fails early when report.plot is given and gnuplot is not to be found (LSP_ERR_USAGE) or the file cannot
 * be created (LSP_ERR_FILE). */
lsp_status lsp_plot_probe(lsp_app *app);

/* Collective. When report.plot is given: rank 0 has gnuplot make that file, SVG when its name ends so, otherwise PNG, of
 * width x height points, complete or not at all. LSP_ERR_FILE when it does not. make_both: the other one beside it too. */
lsp_status lsp_plot_make(lsp_app *app, int width, int height, lsp_plot_fn commands, const void *user);
lsp_status lsp_plot_make_both(lsp_app *app, int width, int height, lsp_plot_fn commands, const void *user);

#endif
