/* What longspan bench tells: the table and the JSON report. SPDX-License-Identifier: BSD-3-Clause */
#include "app/bench.h"

#include "app/format.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const double uneven = 0.1; /* more than clocks do by themselves */

/* ---- the machine --------------------------------------------------------------------------------- */

static double peak_of(const lsp_bench *b, int place, lsp_isa isa, lsp_dtype compute)
{
    for (int64_t i = 0; i < b->peak_count; i++) {
        const lsp_bench_peak *p = &b->peaks[i];
        if (p->place == place && p->isa == isa && p->compute == compute) return p->gflops;
    }
    return 0;
}

void lsp_bench_print_machine(const lsp_bench *b)
{
    const lsp_context_layout *l = &b->app->layout;
    char text[LSP_FORMAT_SIZE];
    (void)printf("longspan %s bench: %s, %d rank%s on %d node%s\n\n", lsp_version(), b->processor, l->ranks,
                 l->ranks == 1 ? "" : "s", l->nodes, l->nodes == 1 ? "" : "s");
    (void)printf("  FMA peak, GFLOP/s            f32         f64        bf16\n");
    for (int p = 0; p < b->place_count; p++) {
        for (int isa = LSP_ISA_AVX512; isa >= LSP_ISA_PORTABLE; isa--) {
            if (peak_of(b, p, (lsp_isa)isa, LSP_F32) <= 0) continue;
            (void)printf("    %-9s %3" PRId64 " thread%s %10.1f  %10.1f  %10.1f\n",
                         lsp_isa_name((lsp_isa)isa), b->threads[p], b->threads[p] == 1 ? " " : "s",
                         peak_of(b, p, (lsp_isa)isa, LSP_F32), peak_of(b, p, (lsp_isa)isa, LSP_F64),
                         peak_of(b, p, (lsp_isa)isa, LSP_BF16));
        }
    }
    (void)printf("  read bandwidth, GB/s\n");
    for (int p = 0; p < b->place_count; p++)
        (void)printf("              %3" PRId64 " thread%s %10.1f  (an array of %s each)\n", b->threads[p],
                     b->threads[p] == 1 ? " " : "s", b->bandwidths[p].bytes_per_second * 1e-9,
                     lsp_format_bytes((double)b->bandwidths[p].array_bytes, text));
    (void)fflush(stdout);
}

/* ---- cells --------------------------------------------------------------------------------------- */

static const char *pair_text(int64_t a, int64_t b, const char *between, char *text)
{
    (void)snprintf(text, LSP_FORMAT_SIZE, "%" PRId64 "%s%" PRId64, a, between, b);
    return text;
}

static const char *mask_text(const lsp_attention_desc *d, char *text)
{
    static const char *const names[] = {"none", "causal"};
    if (d->mask == LSP_MASK_WINDOW) {
        (void)snprintf(text, LSP_FORMAT_SIZE, "window %" PRId64 "+%" PRId64, d->window_left, d->window_right);
    } else {
        (void)snprintf(text, LSP_FORMAT_SIZE, "%s", names[d->mask]);
    }
    return text;
}

static void print_heading(const lsp_bench_cell *cell)
{
    const lsp_attention_desc *d = &cell->desc;
    bool fma = cell->limit == LSP_BENCH_FMA;
    char heads[LSP_FORMAT_SIZE] = "";
    if (d->batch * d->heads > 1)
        (void)snprintf(heads, sizeof heads, ", batch %" PRId64 ", heads %" PRId64 " (%" PRId64 " of k and v)",
                       d->batch, d->heads, d->kv_heads);
    (void)printf("\n  %s, %s%s\n", fma ? "GFLOP/s of attention" : "GB/s of one query row against many keys",
                 lsp_isa_name(cell->result.isa), heads);
    (void)printf("  type      d_k/d_v           n x m  mask         threads      best    median  %9s  share "
                 "median%s  repetitions\n",
                 fma ? "FMA peak" : "bandwidth", fma ? "  burst" : "");
}

void lsp_bench_print_cell(const lsp_bench *b, int64_t index)
{
    const lsp_bench_cell *cell = &b->cells[index];
    const lsp_attention_desc *d = &cell->desc;
    const lsp_bench_result *r = &cell->result;
    char columns[LSP_FORMAT_SIZE], shape[LSP_FORMAT_SIZE], mask[LSP_FORMAT_SIZE];
    if (index == 0 || b->cells[index - 1].limit != cell->limit) print_heading(cell);
    char burst[LSP_FORMAT_SIZE] = "";
    if (cell->limit == LSP_BENCH_FMA)
        (void)snprintf(burst, sizeof burst, "  %.3f", lsp_bench_rate(cell) / r->burst_best);
    (void)printf("  %-6s %10s %15s  %-12s %7" PRId64 " %9.1f %9.1f  %9.1f  %.3f  %.3f%s  %11" PRId64 "\n",
                 lsp_dtype_name(d->compute), pair_text(d->d_k, d->d_v, "/", columns),
                 pair_text(d->n, d->m, " x ", shape), mask_text(d, mask), b->threads[cell->place],
                 lsp_bench_rate(cell) * 1e-9, r->work / r->seconds_median * 1e-9, r->limit_best * 1e-9,
                 r->share_best, r->share_median, burst, r->repetitions);
    (void)fflush(stdout);
}

void lsp_bench_print_notes(const lsp_bench *b)
{
    double most = 0;
    bool fma = false;
    for (int64_t i = 0; i < b->cell_count; i++) {
        most = fmax(most, b->cells[i].result.limit_scatter);
        fma = fma || b->cells[i].limit == LSP_BENCH_FMA;
    }
    if (fma)
        (void)printf(
            "  FMA peak: FMAs alone for as long as a repetition, the best of several; share: best "
            "beside best; median:\n  of each repetition beside the FMAs around it; burst: beside their best "
            "millisecond\n");
    if (most > uneven)
        (void)printf(
            "  the limits themselves changed by up to %.0f %% from one repetition to the next: something "
            "else runs here, and\n  shares are uncertain\n",
            100 * most);
}

void lsp_bench_print_comparison(const lsp_bench *b)
{
    int64_t unknown = 0;
    (void)printf("\n  compared with %s (best of each; GFLOP/s, for one row GB/s)\n", b->compare);
    (void)printf("  type      d_k/d_v           n x m  mask         threads   earlier       now  ratio  "
                 "limit's ratio\n");
    for (int64_t i = 0; i < b->cell_count; i++) {
        const lsp_bench_cell *cell = &b->cells[i];
        const lsp_attention_desc *d = &cell->desc;
        char columns[LSP_FORMAT_SIZE], shape[LSP_FORMAT_SIZE], mask[LSP_FORMAT_SIZE];
        unknown += !cell->earlier.known;
        if (!cell->earlier.known) continue;
        (void)printf("  %-6s %10s %15s  %-12s %7" PRId64 " %9.1f %9.1f  %.3f  %.3f%s\n",
                     lsp_dtype_name(d->compute), pair_text(d->d_k, d->d_v, "/", columns),
                     pair_text(d->n, d->m, " x ", shape), mask_text(d, mask), b->threads[cell->place],
                     cell->earlier.rate * 1e-9, lsp_bench_rate(cell) * 1e-9,
                     lsp_bench_rate(cell) / cell->earlier.rate, cell->result.limit_best / cell->earlier.limit,
                     lsp_bench_is_slower(cell) ? "          SLOWER" : "");
    }
    if (unknown > 0) (void)printf("  %" PRId64 " measurements are not in that file\n", unknown);
}

/* ---- JSON ---------------------------------------------------------------------------------------- */

static void add_numbers(cJSON *object, const char *const *names, const double *values, size_t count)
{
    for (size_t i = 0; i < count; i++) (void)cJSON_AddNumberToObject(object, names[i], values[i]);
}

static void add_place(cJSON *cell, const lsp_bench *b, const lsp_bench_cell *c)
{
    const lsp_attention_desc *d = &c->desc;
    static const char *const masks[] = {"none", "causal", "window"};
    (void)cJSON_AddStringToObject(cell, "limit", c->limit == LSP_BENCH_FMA ? "fma" : "read");
    (void)cJSON_AddStringToObject(cell, "dtype", lsp_dtype_name(d->compute));
    (void)cJSON_AddStringToObject(cell, "operands", lsp_dtype_name(d->q_type));
    (void)cJSON_AddStringToObject(cell, "mask", masks[d->mask]);
    (void)cJSON_AddStringToObject(cell, "isa", lsp_isa_name(c->result.isa));
    static const char *const names[] = {"window_left", "window_right", "threads"};
    const double values[] = {(double)d->window_left, (double)d->window_right, (double)b->threads[c->place]};
    add_numbers(cell, names, values, 3);
    lsp_json_add_shape(cell, d);
}

static void add_cell(cJSON *cells, const lsp_bench *b, const lsp_bench_cell *c)
{
    const lsp_bench_result *r = &c->result;
    cJSON *cell = cJSON_CreateObject();
    lsp_json_add_item(cells, cell);
    add_place(cell, b, c);
    bool fma = c->limit == LSP_BENCH_FMA;
    static const char *const flops[] = {"flops",           "gflops",     "gflops_median",
                                        "fma_peak_gflops", "efficiency", "efficiency_median"};
    static const char *const bytes[] = {
        "bytes_read", "gbytes_per_second", "gbytes_per_second_median", "read_gbytes_per_second",
        "read_share", "read_share_median"};
    const double values[] = {
        r->work,       lsp_bench_rate(c) * 1e-9, r->work / r->seconds_median * 1e-9, r->limit_best * 1e-9,
        r->share_best, r->share_median};
    add_numbers(cell, fma ? flops : bytes, values, 6);
    static const char *const names[] = {"repetitions", "scatter", "limit_scatter", "fma_burst_gflops",
                                        "efficiency_burst"};
    const double counts[] = {(double)r->repetitions, r->scatter, r->limit_scatter, r->burst_best * 1e-9,
                             fma ? lsp_bench_rate(c) / r->burst_best : 0};
    add_numbers(cell, names, counts, fma ? 5 : 3);
    cJSON *seconds = cJSON_AddObjectToObject(cell, "seconds");
    static const char *const times[] = {"best", "median", "gather_exposed"};
    const double taken[] = {r->seconds_best, r->seconds_median, r->seconds_gather};
    add_numbers(seconds, times, taken, 3);
    lsp_json_add_verify(cell, b->verify_rows > 0 ? &r->verify : NULL);
    if (!c->earlier.known) return;
    cJSON *earlier = cJSON_AddObjectToObject(cell, "earlier");
    (void)cJSON_AddNumberToObject(earlier, fma ? flops[1] : bytes[1], c->earlier.rate * 1e-9);
    (void)cJSON_AddNumberToObject(earlier, "ratio", lsp_bench_rate(c) / c->earlier.rate);
    (void)cJSON_AddNumberToObject(earlier, "limit_ratio", r->limit_best / c->earlier.limit);
    (void)cJSON_AddBoolToObject(earlier, "slower", lsp_bench_is_slower(c));
}

static void add_machine(cJSON *json, const lsp_bench *b)
{
    cJSON *peaks = cJSON_AddArrayToObject(json, "fma_peak"),
          *reads = cJSON_AddArrayToObject(json, "read_bandwidth");
    for (int64_t i = 0; i < b->peak_count; i++) {
        cJSON *peak = cJSON_CreateObject();
        lsp_json_add_item(peaks, peak);
        (void)cJSON_AddStringToObject(peak, "isa", lsp_isa_name(b->peaks[i].isa));
        (void)cJSON_AddStringToObject(peak, "dtype", lsp_dtype_name(b->peaks[i].compute));
        (void)cJSON_AddNumberToObject(peak, "threads", (double)b->threads[b->peaks[i].place]);
        (void)cJSON_AddNumberToObject(peak, "gflops", b->peaks[i].gflops);
    }
    for (int p = 0; p < b->place_count; p++) {
        cJSON *read = cJSON_CreateObject();
        lsp_json_add_item(reads, read);
        (void)cJSON_AddNumberToObject(read, "threads", (double)b->threads[p]);
        (void)cJSON_AddNumberToObject(read, "gbytes_per_second", b->bandwidths[p].bytes_per_second * 1e-9);
        (void)cJSON_AddNumberToObject(read, "array_bytes", (double)b->bandwidths[p].array_bytes);
    }
}

cJSON *lsp_bench_json(const lsp_bench *b)
{
    cJSON *json = lsp_json_begin(b->app);
    char date[32] = "";
    time_t now = time(NULL);
    struct tm broken_down;
    if (gmtime_r(&now, &broken_down)) (void)strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &broken_down);
    (void)cJSON_AddStringToObject(json, "date", date);
    (void)cJSON_AddStringToObject(json, "processor", b->processor);
    if (b->cell_count > 0) (void)cJSON_AddStringToObject(json, "isa", lsp_isa_name(b->cells[0].result.isa));
    add_machine(json, b);
    cJSON *cells = cJSON_AddArrayToObject(json, "cells");
    for (int64_t i = 0; i < b->cell_count; i++) add_cell(cells, b, &b->cells[i]);
    if (*b->compare) (void)cJSON_AddStringToObject(json, "compared_with", b->compare);
    return json;
}
