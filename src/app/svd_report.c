/* What `longspan svd` tells: the summary and the JSON report. SPDX-License-Identifier: BSD-3-Clause */
#include "app/format.h"
#include "app/launch.h"
#include "app/lowrank.h"
#include "app/svd.h"
#include "base/checked.h"
#include "linalg/version.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

lsp_svd_certificate lsp_svd_together(const lsp_svd_job *job)
{
    double norm = 0, error = 0;
    lsp_svd_certificate all = {.meaningful = true};
    for (int64_t i = 0; i < job->count; i++) {
        const lsp_svd_certificate *c = &job->heads[i].svd->certificate;
        norm += c->norm * c->norm;
        error += c->frobenius_error * c->frobenius_error;
        all.floor = c->floor;
        all.meaningful = all.meaningful && c->meaningful;
    }
    all.norm = sqrt(norm);
    all.frobenius_error = sqrt(error);
    all.frobenius_relative = norm > 0 ? sqrt(error / norm) : 0;
    return all;
}

/* Of any head: that of those which did not meet the tolerance, as they kept the most. */
static int64_t most_rank(const lsp_svd_job *job)
{
    int64_t rank = 0;
    for (int64_t i = 0; i < job->count; i++) rank = lsp_max(rank, job->heads[i].svd->rank);
    return rank;
}

static double gflops(const lsp_svd_job *job)
{
    return job->products.max > 0 ? job->flops / job->products.max * 1e-9 : 0;
}

/* ---- summary ------------------------------------------------------------------------------------- */

static void print_head(const lsp_svd_job *job)
{
    const lsp_attention_desc *d = &job->input.desc;
    const lsp_svd_options *o = &job->options;
    char rule[LSP_RULE_TEXT], batch[32] = "";
    if (d->batch > 1) (void)snprintf(batch, sizeof batch, "%" PRId64 " x ", d->batch);
    (void)printf("longspan %s svd: the attention matrices of %s%" PRId64 " head%s, %" PRId64 " x %" PRId64
                 ", d_k %" PRId64 "\n",
                 lsp_version(), batch, d->heads, d->heads == 1 ? "" : "s", d->row_end - d->row_begin,
                 d->key_end - d->key_begin, d->d_k);
    (void)printf("  input    %s (%s, %s), computed in %s: %s\n", job->input.q.file, lsp_dtype_name(d->q_type),
                 lsp_dtype_name(d->k_type), lsp_dtype_name(d->compute), lsp_summary_rule(d, rule));
    lsp_summary_machine(job->app, job->isa);
    if (job->full)
        (void)printf("  method   the whole matrix, by ScaLAPACK's pdgesvd\n");
    else
        (void)printf("  method   block Krylov, %" PRId64 " step%s, blocks of rank + %" PRId64
                     " columns, seed %" PRIu64 "\n",
                     o->steps, o->steps == 1 ? "" : "s", o->oversample, o->seed);
    if (o->tolerance > 0)
        (void)printf("  rank     the least with a relative error of %g, at most %s\n", o->tolerance,
                     o->rank > 0 ? lsp_options_peek(job->app->options, LSP_KEY_ATTENTION_RANK)
                     : job->full ? "all"
                                 : "what the Krylov basis gives");
}

static const char *rank_text(int64_t rank, int64_t most, char *text)
{
    (void)snprintf(text, LSP_FORMAT_SIZE, rank < 0 ? "> %" PRId64 : "%" PRId64, rank < 0 ? most : rank);
    return text;
}

static void print_spectra(const lsp_svd_job *job)
{
    const lsp_attention_desc *d = &job->input.desc;
    char a[LSP_FORMAT_SIZE], b[LSP_FORMAT_SIZE], c[LSP_FORMAT_SIZE], error[LSP_FORMAT_SIZE],
        sampled[LSP_FORMAT_SIZE] = "-";
    (void)printf("  %s  head   rank   error/norm   sampled       norm    sigma_1  effective     90 %%     99 "
                 "%%   99.9 %%\n",
                 d->batch > 1 ? "batch" : "     ");
    for (int64_t i = 0; i < job->count; i++) {
        const lsp_svd_head *h = &job->heads[i];
        const lsp_svd *s = h->svd;
        int64_t head = job->input.heads ? job->input.heads[h->head] : h->head;
        if (s->certificate.meaningful)
            (void)snprintf(error, sizeof error, "%.5f", s->certificate.frobenius_relative);
        else
            (void)snprintf(error, sizeof error, "< %.1e", s->certificate.floor);
        if (job->verified) (void)snprintf(sampled, sizeof sampled, "%.5f", h->sampled.frobenius_relative);
        if (d->batch > 1)
            (void)printf("  %5" PRId64, h->batch);
        else
            (void)printf("  %5s", "");
        (void)printf("  %4" PRId64 "  %5" PRId64 "   %10s %9s %10.4g %10.4g %10.1f %8s %8s %8s%s\n", head,
                     s->rank, error, sampled, s->certificate.norm, s->rank > 0 ? s->sigma[0] : 0,
                     h->spectrum.effective_rank, rank_text(h->spectrum.rank_90, s->rank, a),
                     rank_text(h->spectrum.rank_99, s->rank, b), rank_text(h->spectrum.rank_999, s->rank, c),
                     s->tolerance_met ? "" : "  tolerance not met");
    }
    (void)printf("\n");
}

static void print_remarks(const lsp_svd_job *job)
{
    lsp_svd_certificate all = lsp_svd_together(job);
    int64_t unclear = 0, unmet = 0, reached = most_rank(job);
    for (int64_t i = 0; i < job->count; i++) {
        unclear += !job->heads[i].svd->certificate.meaningful;
        unmet += !job->heads[i].svd->tolerance_met;
    }
    (void)printf("  error    ||W - W_r||_F = %.6g, %.4g of ||W||_F, all heads together\n",
                 all.frobenius_error, all.frobenius_relative);
    if (unclear > 0)
        (void)printf("  NOTE     of %" PRId64
                     " head%s the certificate tells no more than that the relative error is below "
                     "%.1e: what\n           is smaller is lost in the difference of ||W||^2 and the "
                     "singular values'; "
                     "f64 tells more\n",
                     unclear, unclear == 1 ? "" : "s", all.floor);
    lsp_lowrank_print_unmet(unmet, reached, job->options.rank);
    lsp_lowrank_print_leak(lsp_lowrank_leaks(&job->input.desc));
}

/* Only where the program could not be started again (app/blas_core.c), or the user chose so. */
static void print_blas(const lsp_svd_job *job)
{
    const char *taken = NULL, *core = lsp_launch_blas_core(job->isa, &taken);
    if (core)
        (void)printf(
            "  NOTE     OpenBLAS took this processor for an old one (%s), which costs most of its speed in "
            "QR; set\n           OPENBLAS_CORETYPE=%s in the environment\n",
            taken, core);
}

void lsp_svd_print(const lsp_svd_job *job)
{
    char one[LSP_FORMAT_SIZE], two[LSP_FORMAT_SIZE];
    print_head(job);
    lsp_summary_phases(job->phases);
    print_spectra(job);
    print_remarks(job);
    (void)printf("  speed    W X and W'Y: %s", lsp_format_rate(gflops(job) * 1e9, one));
    if (job->peak_gflops > 0)
        (void)printf(", %.1f %% of the FMA peak (%s)", 100 * gflops(job) / job->peak_gflops,
                     lsp_format_rate(job->peak_gflops * 1e9, two));
    (void)printf("\n");
    lsp_summary_memory(job->rss_max, job->received_all);
    if (job->empty_rows > 0)
        (void)printf("  empty    %" PRId64 " rows see no key: they are zero in W\n", job->empty_rows);
    lsp_summary_nonfinite(job->nonfinite);
    if (job->verified) {
        double worst = 0, tolerance = 0;
        for (int64_t i = 0; i < job->count; i++) {
            worst = fmax(worst, job->heads[i].verify.max_rel_err);
            tolerance = fmax(tolerance, job->heads[i].verify.tolerance);
        }
        (void)printf("  verify   W V = U sigma in %" PRId64
                     " rows of each head in double precision: relative error %.2e at most (tolerance %.1e)\n",
                     job->heads[0].verify.rows, worst, tolerance);
    }
    lsp_keeper_print(&job->keeper);
    print_blas(job);
    const char *plot = lsp_options_text(job->app->options, LSP_KEY_REPORT_PLOT);
    if (*plot) (void)printf("  picture  %s\n", plot);
    lsp_summary_unused(job->app);
}

/* ---- JSON ---------------------------------------------------------------------------------------- */

static void add_rank(cJSON *object, const char *name, int64_t rank)
{
    if (rank < 0)
        (void)cJSON_AddNullToObject(object, name); /* more than were computed */
    else
        lsp_json_add_number(object, name, (double)rank);
}

/* out_error_bound would need V, which is not read here: ||O - O_r||_F <= frobenius_error ||V||_2. */
static void add_certificate(cJSON *object, const lsp_svd_certificate *c, int64_t rank)
{
    lsp_lowrank_add_numbers(cJSON_AddObjectToObject(object, "certificate"), rank, c, -1);
}

static void add_head(cJSON *list, const lsp_svd_job *job, const lsp_svd_head *h)
{
    cJSON *object = cJSON_CreateObject();
    const lsp_svd *s = h->svd;
    lsp_json_add_number(object, "batch", (double)h->batch);
    lsp_json_add_number(object, "head", (double)(job->input.heads ? job->input.heads[h->head] : h->head));
    add_certificate(object, &s->certificate, s->rank);
    lsp_json_add_number(object, "effective_rank", h->spectrum.effective_rank);
    add_rank(object, "rank_90", h->spectrum.rank_90);
    add_rank(object, "rank_99", h->spectrum.rank_99);
    add_rank(object, "rank_999", h->spectrum.rank_999);
    (void)cJSON_AddBoolToObject(object, "tolerance_met", s->tolerance_met);
    lsp_json_add_number(object, "basis", (double)s->basis);
    lsp_json_add_number(object, "attempts", (double)s->attempts);
    lsp_json_add_number(object, "seconds", s->seconds);
    lsp_json_add_number(object, "seconds_products", s->seconds_products);
    lsp_json_add_verify(object, job->verified ? &h->verify : NULL);
    if (job->verified) {
        cJSON *sampled = cJSON_AddObjectToObject(object, "sampled");
        lsp_json_add_number(sampled, "rows", (double)h->sampled.rows);
        lsp_json_add_number(sampled, "frobenius_error", h->sampled.frobenius_error);
        lsp_json_add_number(sampled, "frobenius_relative", h->sampled.frobenius_relative);
    } else {
        (void)cJSON_AddNullToObject(object, "sampled");
    }
    cJSON *values = cJSON_AddArrayToObject(object, "singular_values");
    for (int64_t r = 0; values && r < s->rank; r++)
        lsp_json_add_item(values, cJSON_CreateNumber(s->sigma[r]));
    lsp_json_add_item(list, object);
}

cJSON *lsp_svd_json(const lsp_svd_job *job)
{
    const lsp_attention_desc *d = &job->input.desc;
    const lsp_svd_options *o = &job->options;
    char text[LSP_RULE_TEXT];
    cJSON *object = lsp_json_begin(job->app);
    (void)cJSON_AddStringToObject(object, "isa", lsp_isa_name(job->isa));
    lsp_json_add_shape(object, d);
    lsp_json_add_part(object, d);
    (void)cJSON_AddStringToObject(object, "method", "lowrank");
    (void)cJSON_AddStringToObject(object, "svd", job->full ? "full" : "krylov");
    (void)cJSON_AddStringToObject(object, "dtype", lsp_dtype_name(d->compute));
    (void)cJSON_AddStringToObject(object, "rule", lsp_summary_rule(d, text));
    lsp_json_add_number(object, "oversample", (double)o->oversample);
    lsp_json_add_number(object, "steps", (double)o->steps);
    lsp_json_add_number(object, "tolerance", o->tolerance);
    (void)cJSON_AddBoolToObject(object, "leak", lsp_lowrank_leaks(d));
    lsp_json_add_phases(object, job->phases);
    lsp_json_add_number(object, "flops", job->flops);
    lsp_json_add_number(object, "seconds_products", job->products.max);
    lsp_json_add_number(object, "gflops", gflops(job));
    lsp_json_add_number(object, "fma_peak_gflops", job->peak_gflops);
    lsp_json_add_number(object, "efficiency", job->peak_gflops > 0 ? gflops(job) / job->peak_gflops : 0);
    lsp_keeper_add_json(object, &job->keeper);
    lsp_json_add_bytes(object, job->received_all, job->rss_max);
    lsp_json_add_number(object, "empty_rows", (double)job->empty_rows);
    lsp_json_add_number(object, "nonfinite", (double)job->nonfinite);
    lsp_svd_certificate all = lsp_svd_together(job);
    add_certificate(object, &all, most_rank(job));
    cJSON *heads = cJSON_AddArrayToObject(object, "heads");
    for (int64_t i = 0; heads && i < job->count; i++) add_head(heads, job, &job->heads[i]);
    if (job->written)
        (void)cJSON_AddStringToObject(object, "output", job->written);
    else
        (void)cJSON_AddNullToObject(object, "output");
    return object;
}
