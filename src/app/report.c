/* SPDX-License-Identifier: BSD-3-Clause */
#include "app/report.h"

void lsp_report_collect(lsp_app *app, lsp_report *report)
{
    lsp_collect_statistics(app, report->seconds, LSP_PHASE_COUNT, report->phases);
    report->received_all = lsp_collect_sum_f64(app, report->received);
    report->empty_rows = lsp_collect_sum_i64(app, report->empty_rows);
    report->rss_max = lsp_collect_max_i64(app, lsp_memory_peak());
    double compute = report->phases[LSP_PHASE_COMPUTE].max;
    double flops = report->flops * (1 - report->keeper->first.done); /* of this run */
    report->gflops = compute > 0 ? flops / compute * 1e-9 : 0;
    report->efficiency = report->peak_gflops > 0 ? report->gflops / report->peak_gflops : 0;
}
