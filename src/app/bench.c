/* longspan bench: speed of attention, and of the machine. SPDX-License-Identifier: BSD-3-Clause */
#include "app/bench.h"

#include "app/format.h"
#include "base/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const double peak_seconds = 0.03, bandwidth_seconds = 0.3;

/* The context of another number of threads keeps the text of its failures to itself. */
static lsp_status adopt(lsp_bench *b, const lsp_context *ctx, const char *what, lsp_status status)
{
    char text[LSP_ERROR_TEXT];
    if (status == LSP_OK) return LSP_OK;
    (void)snprintf(text, sizeof text, "%s", lsp_context_message(ctx));
    if (status != LSP_ERR_LIMIT) return lsp_context_fail(b->app->ctx, status, "%s: %s", what, text);
    return lsp_context_fail(b->app->ctx, status, "%s: %s (the limit is that of %s)", what, text,
                            b->memory_source);
}

static void find_processor(char *text, size_t size)
{
    char line[256];
    (void)snprintf(text, size, "unknown processor");
    FILE *stream = fopen("/proc/cpuinfo", "r");
    if (!stream) return;
    while (fgets(line, sizeof line, stream)) {
        const char *colon = strstr(line, ": ");
        if (strncmp(line, "model name", strlen("model name")) != 0 || !colon) continue;
        (void)snprintf(text, size, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
        break;
    }
    (void)fclose(stream);
}

static lsp_status measure_machine(lsp_bench *b)
{
    lsp_status status = LSP_OK;
    for (int64_t i = 0; i < b->peak_count && status == LSP_OK; i++) {
        lsp_bench_peak *peak = &b->peaks[i];
        lsp_context *ctx = b->contexts[peak->place];
        status = lsp_measure_fma_peak(ctx, peak->isa, peak->compute, peak_seconds, &peak->gflops);
        status = adopt(b, ctx, "the FMA peak", status);
    }
    for (int p = 0; p < b->place_count && status == LSP_OK; p++) {
        lsp_bench_bandwidth *bandwidth = &b->bandwidths[p];
        status = lsp_measure_read_bandwidth(b->contexts[p], b->read_bytes, bandwidth_seconds,
                                            &bandwidth->bytes_per_second, &bandwidth->array_bytes);
        status = adopt(b, b->contexts[p], "the read bandwidth", status);
    }
    return status;
}

static lsp_status measure_cell(lsp_bench *b, lsp_bench_cell *cell)
{
    char name[LSP_BENCH_NAME];
    lsp_context *ctx = b->contexts[cell->place];
    const lsp_bench_options options = {b->seconds, cell->limit, b->read_bytes, b->verify_rows};
    lsp_status status = lsp_bench_attention(ctx, &cell->desc, &options, &cell->result);
    (void)lsp_bench_name(b, cell, name);
    if (status != LSP_OK) return adopt(b, ctx, name, status);
    const lsp_verify_result *v = &cell->result.verify;
    if (b->verify_rows == 0 || v->passed) return LSP_OK;
    return lsp_context_fail(b->app->ctx, LSP_ERR_VERIFY,
                            "%s: row %" PRId64 " of head %" PRId64 " (batch %" PRId64
                            ") is off by %.2e, tolerance %.1e: its speed means nothing",
                            name, v->worst[2], v->worst[1], v->worst[0], v->max_rel_err, v->tolerance);
}

static lsp_status report(lsp_bench *b)
{
    lsp_app *app = b->app;
    char time[LSP_FORMAT_SIZE];
    const char *took = lsp_format_seconds(lsp_clock() - app->started, time);
    if (app->layout.rank == 0) {
        lsp_bench_print_notes(b);
        if (*b->compare) lsp_bench_print_comparison(b);
        lsp_summary_unused(app);
    }
    lsp_status status = lsp_json_write(app, app->layout.rank == 0 ? lsp_bench_json(b) : NULL);
    if (status != LSP_OK || app->layout.rank != 0) return status;
    (void)printf("longspan: PASSED, %" PRId64 " measurements in %s", b->cell_count, took);
    if (*b->compare) (void)printf(", %" PRId64 " slower than in %s", b->slower, b->compare);
    (void)printf("\n");
    return LSP_OK;
}

lsp_status lsp_bench_run(lsp_app *app)
{
    lsp_bench b;
    lsp_status status = lsp_bench_open(app, &b);
    if (status == LSP_OK) status = lsp_json_probe(app);
    if (status == LSP_OK && *b.compare) status = lsp_bench_find_earlier(&b);
    if (status == LSP_OK) status = measure_machine(&b);
    if (app->layout.rank == 0) find_processor(b.processor, sizeof b.processor);
    if (status == LSP_OK && app->layout.rank == 0) lsp_bench_print_machine(&b);
    for (int64_t i = 0; i < b.cell_count && status == LSP_OK; i++) {
        status = measure_cell(&b, &b.cells[i]);
        b.slower += status == LSP_OK && lsp_bench_is_slower(&b.cells[i]);
        if (status == LSP_OK && app->layout.rank == 0) lsp_bench_print_cell(&b, i);
    }
    if (status == LSP_OK) status = report(&b);
    lsp_bench_close(&b);
    return status;
}
