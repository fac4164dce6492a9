/* The closing summary, for people. SPDX-License-Identifier: BSD-3-Clause */
#include "app/certificate.h"
#include "app/format.h"
#include "app/report.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Appends to a text of LSP_RULE_TEXT bytes, cut at its end. */
static void append(char *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void append(char *text, const char *format, ...)
{
    size_t used = strlen(text);
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text + used, LSP_RULE_TEXT - used, format, args);
    va_end(args);
}

const char *lsp_summary_rule(const lsp_attention_desc *desc, char *text)
{
    const char *align = desc->align == LSP_ALIGN_TOP_LEFT ? "top-left" : "bottom-right";
    text[0] = '\0';
    switch (desc->mask) {
    case LSP_MASK_NONE: append(text, "no mask"); break;
    case LSP_MASK_CAUSAL: append(text, "causal (%s)", align); break;
    case LSP_MASK_WINDOW:
        append(text, "window -%" PRId64 "..+%" PRId64 " (%s)", desc->window_left, desc->window_right, align);
        break;
    }
    if (desc->method == LSP_METHOD_BLOCK) append(text, ", blocks of %" PRId64 " rows", desc->block_size);
    if (desc->method == LSP_METHOD_TOPK)
        append(text, ", top %" PRId64 " of each row%s", desc->topk,
               desc->renormalize ? ", renormalised" : "");
    if (desc->method == LSP_METHOD_LOWRANK) {
        if (desc->rank > 0) append(text, ", rank %" PRId64, desc->rank);
        if (desc->tolerance > 0)
            append(text, "%s, tolerance %g", desc->rank > 0 ? " at most" : "", desc->tolerance);
        append(text, ", by %s", desc->svd == LSP_SVD_FULL ? "the full SVD" : "block Krylov");
    }
    if (desc->documents) append(text, ", %" PRId64 " documents", desc->document_count);
    if (desc->key_lengths) append(text, ", key lengths");
    if (desc->scale != 0) append(text, ", scale %g", desc->scale);
    if (desc->softcap != 0) append(text, ", softcap %g", desc->softcap);
    if (desc->alibi_slopes) append(text, ", ALiBi");
    return text;
}

const char *lsp_summary_keys(const lsp_estimate *e, int ranks, char *text)
{
    text[0] = '\0';
    if (e->head_groups < ranks) {
        append(text, "keys by %s (%" PRId64 " of up to %" PRId64 " keys)", lsp_gather_mode_name(e->gather),
               e->panels, e->panel_keys);
    } else {
        append(text, "nothing gathered (%" PRId64 " panel%s of up to %" PRId64 " keys)", e->panels,
               e->panels == 1 ? "" : "s", e->panel_keys);
    }
    if (e->head_groups > 1) append(text, ", %d head groups", e->head_groups);
    return text;
}

/* ---- what summaries share ------------------------------------------------------------------------------ */

const lsp_phase_name lsp_phase_names[LSP_PHASE_COUNT] = {
    {"read", "read"},     {"compute", "compute"}, {"gather_exposed", "exposed gather"},
    {"verify", "verify"}, {"write", "write"},     {"total", "total"}};

void lsp_summary_machine(const lsp_app *app, lsp_isa isa)
{
    const lsp_context_layout *l = &app->layout;
    (void)printf("  machine  %d rank%s x %d thread%s on %d node%s, %s\n", l->ranks, l->ranks == 1 ? "" : "s",
                 l->threads, l->threads == 1 ? "" : "s", l->nodes, l->nodes == 1 ? "" : "s",
                 lsp_isa_name(isa));
}

void lsp_summary_times(const lsp_phase_name *names, const lsp_statistic *of, int count)
{
    (void)printf("\n  %-16s %12s %12s %12s  %s\n", "seconds", "min", "mean", "max", "rank of max");
    for (int i = 0; i < count; i++)
        (void)printf("  %-16s %12.4f %12.4f %12.4f  %11d\n", names[i].text, of[i].min, of[i].mean, of[i].max,
                     of[i].max_rank);
    (void)printf("\n");
}

void lsp_summary_phases(const lsp_statistic *phases)
{
    lsp_summary_times(lsp_phase_names, phases, LSP_PHASE_COUNT);
}

void lsp_summary_memory(int64_t rss_max, double received)
{
    char one[LSP_FORMAT_SIZE], two[LSP_FORMAT_SIZE];
    (void)printf("  memory   %s at most on a rank, %s gathered\n", lsp_format_bytes((double)rss_max, one),
                 lsp_format_bytes(received, two));
}

void lsp_summary_nonfinite(int64_t count)
{
    if (count > 0)
        (void)printf("  NaN, Inf %" PRId64 " in the input, as compute.nonfinite = propagate asks\n", count);
}

void lsp_summary_verdict(const lsp_verify_result *verify, const char *output)
{
    if (!verify)
        (void)printf("longspan: PASSED, not verified (verify.rows = 0); the result is in %s\n", output);
    else if (verify->passed)
        (void)printf("longspan: PASSED, %" PRId64 " sampled rows verified; the result is in %s\n",
                     verify->rows, output);
    else
        (void)printf("longspan: FAILED, the result differs from the reference; no output was written\n");
}

void lsp_summary_unused(const lsp_app *app)
{
    char unused[1024];
    lsp_options_unused(app->options, unused, sizeof unused);
    if (unused[0]) (void)printf("  unused   %s\n", unused);
}

/* ---- a run of attention -------------------------------------------------------------------------------- */

static void print_head(const lsp_app *app, const lsp_report *report)
{
    const lsp_input *input = report->input;
    const lsp_attention_desc *d = &input->desc;
    const lsp_estimate *e = &report->estimate;
    char rule[LSP_RULE_TEXT], keys[LSP_RULE_TEXT], batch[32] = "";
    if (d->batch > 1) (void)snprintf(batch, sizeof batch, "%" PRId64 " x ", d->batch);
    (void)printf("longspan %s %s: %s attention, %s%" PRId64 " head%s (%" PRId64 " of k and v), %" PRId64
                 " x %" PRId64 ", d_k %" PRId64 ", d_v %" PRId64 "\n",
                 lsp_version(), app->command->name, lsp_method_name(d->method), batch, d->heads,
                 d->heads == 1 ? "" : "s", d->kv_heads, d->n, d->m, d->d_k, d->d_v);
    (void)printf("  input    %s (%s, %s, %s), computed in %s: %s\n", input->q.file, lsp_dtype_name(d->q_type),
                 lsp_dtype_name(d->k_type), lsp_dtype_name(d->v_type), lsp_dtype_name(d->compute),
                 lsp_summary_rule(d, rule));
    if (d->row_begin != 0 || d->row_end != d->n || d->key_begin != 0 || d->key_end != d->m) {
        (void)printf("  part     rows %" PRId64 ":%" PRId64 ", keys %" PRId64 ":%" PRId64 "\n", d->row_begin,
                     d->row_end, d->key_begin, d->key_end);
    }
    lsp_summary_machine(app, report->isa);
    (void)printf("  split    rows %s, %s\n", lsp_partition_kind_name(e->partition),
                 lsp_summary_keys(e, app->layout.ranks, keys));
}

static void print_result(const lsp_report *report)
{
    char one[LSP_FORMAT_SIZE], two[LSP_FORMAT_SIZE];
    (void)printf("  speed    %s", lsp_format_rate(report->gflops * 1e9, one));
    if (report->peak_gflops > 0)
        (void)printf(", %.1f %% of the FMA peak (%s)", 100 * report->efficiency,
                     lsp_format_rate(report->peak_gflops * 1e9, two));
    if (report->estimate.work > report->flops)
        (void)printf("\n           as exact attention counts; method lowrank takes %.3g times that",
                     report->estimate.work / report->flops);
    (void)printf("\n");
    lsp_summary_memory(report->rss_max, report->received_all);
    if (report->empty_rows > 0)
        (void)printf("  empty    %" PRId64 " rows see no key: out = 0, lse = -inf\n", report->empty_rows);
    lsp_summary_nonfinite(report->nonfinite);
    if (report->verified) {
        (void)printf("  verify   %" PRId64
                     " rows in double precision: relative error %.2e at most (tolerance %.1e)\n",
                     report->verify.rows, report->verify.max_rel_err, report->verify.tolerance);
        if (report->verify.near_ties > 0)
            (void)printf("  ties     %" PRId64
                         " of them have scores about the k-th that %s cannot tell apart, and may "
                         "differ by what that changes\n",
                         report->verify.near_ties, lsp_dtype_name(report->input->desc.compute));
    }
    lsp_certificate_print(&report->certificate);
    lsp_keeper_print(report->keeper);
    if (report->output) {
        (void)printf("  output   %s: /out xxh64 %016" PRIx64, report->output, report->out_checksum);
        if (report->has_lse) (void)printf(", /lse xxh64 %016" PRIx64, report->lse_checksum);
        (void)printf("\n");
    }
}

/* What could be better, and the option to change. */
static void print_notes(const lsp_app *app, const lsp_report *report)
{
    enum { SHORT = 1 }; /* a run that takes less than this many seconds is not worth tuning */
    const lsp_statistic *compute = &report->phases[LSP_PHASE_COMPUTE];
    const lsp_statistic *gather = &report->phases[LSP_PHASE_GATHER];
    double busy = compute->mean + gather->mean;
    if (report->estimate.idle_ranks > 0)
        (void)printf("  NOTE     %" PRId64 " of %d ranks have no query row; start fewer ranks\n",
                     report->estimate.idle_ranks, app->layout.ranks);
    if (busy < SHORT) return;
    if (gather->mean > 0.1 * busy)
        (void)printf("  NOTE     %.0f %% of the time is waiting for keys; try larger --compute.panel_rows, "
                     "--compute.gather=node, or fewer ranks\n",
                     100 * gather->mean / busy);
    if (compute->max > 1.15 * compute->mean)
        (void)printf(
            "  NOTE     rank %d computes %.2f times as long as the mean; try --compute.partition=%s\n",
            compute->max_rank, compute->max / compute->mean,
            report->estimate.partition == LSP_PARTITION_CYCLIC ? "balanced" : "cyclic");
    if (report->phases[LSP_PHASE_VERIFY].max > 0.2 * busy)
        (void)printf("  NOTE     verification takes %.0f %% as long as computing; lower --verify.rows\n",
                     100 * report->phases[LSP_PHASE_VERIFY].max / busy);
}

void lsp_summary_print(lsp_app *app, const lsp_report *report)
{
    print_head(app, report);
    lsp_summary_phases(report->phases);
    print_result(report);
    lsp_summary_unused(app);
    print_notes(app, report);
}
