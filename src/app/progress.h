/* The progress of a long computation, on standard error. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_PROGRESS_H
#define LSP_APP_PROGRESS_H

#include "app/app.h"

typedef struct lsp_progress {
    bool on, terminal, always;
    double flops;         /* of all ranks */
    double started, next; /* lsp_clock(): begin, and when to print next */
    bool printed;         /* a line on the terminal waits for its end */
} lsp_progress;

/* Local. Prepares by report.progress: on a terminal one line is rewritten; in a log there is a line
 * after 5 s and then every 10 s (progress = yes: every second, and one at the end). Rank 0 alone prints. */
void lsp_progress_start(lsp_app *app, double flops, lsp_progress *progress);

/* Local. lsp_progress_fn; user is the lsp_progress. Rank 0's share stands for all. */
void lsp_progress_update(void *user, double done);

/* Local. Ends the line. */
void lsp_progress_end(lsp_progress *progress);

#endif
