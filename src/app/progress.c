/* SPDX-License-Identifier: BSD-3-Clause */
#include "app/progress.h"

#include "app/format.h"
#include "app/watchdog.h"
#include "base/clock.h"

#include <stdio.h>
#include <unistd.h>

enum { PROGRESS_AUTO = 0, PROGRESS_YES = 1, PROGRESS_NO = 2 }; /* the words of report.progress */

void lsp_progress_start(lsp_app *app, double flops, lsp_progress *progress)
{
    int mode = lsp_options_choice(app->options, LSP_KEY_REPORT_PROGRESS);
    *progress = (lsp_progress){.on = mode != PROGRESS_NO && app->layout.rank == 0,
                               .terminal = isatty(STDERR_FILENO) == 1,
                               .always = mode == PROGRESS_YES,
                               .flops = flops,
                               .started = lsp_clock()};
    progress->next = progress->started + (progress->terminal || progress->always ? 1 : 5);
}

static void print(lsp_progress *progress, double done, double now)
{
    char rate[LSP_FORMAT_SIZE], left[LSP_FORMAT_SIZE];
    double seconds = now - progress->started;
    if (seconds <= 0) return;
    (void)fprintf(stderr, "%slongspan: %5.1f %% done, %s, %s left%s", progress->terminal ? "\r" : "",
                  100 * done, lsp_format_rate(progress->flops * done / seconds, rate),
                  done > 0 ? lsp_format_seconds(seconds / done * (1 - done), left) : "unknown time",
                  progress->terminal ? "    " : "\n");
    (void)fflush(stderr);
    progress->printed = true;
}

void lsp_progress_update(void *user, double done)
{
    lsp_progress *progress = user;
    lsp_watchdog_beat();
    if (!progress->on) return;
    double now = lsp_clock();
    if (now < progress->next) return;
    print(progress, done, now);
    progress->next = now + (progress->terminal ? 0.5 : progress->always ? 1 : 10);
}

void lsp_progress_end(lsp_progress *progress)
{
    if (!progress->on) return;
    if (progress->always || (progress->terminal && progress->printed)) print(progress, 1, lsp_clock());
    if (progress->terminal && progress->printed) (void)fputc('\n', stderr);
    progress->on = false;
}
