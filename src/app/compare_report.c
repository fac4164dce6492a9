/* What `longspan compare` tells: the table and the JSON report. SPDX-License-Identifier: BSD-3-Clause */
#include "app/compare.h"
#include "app/format.h"
#include "app/lowrank.h"
#include "base/checked.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

static double share_of(const lsp_compare_job *job, int64_t i)
{
    return job->results[0].seconds > 0 ? job->results[i].seconds / job->results[0].seconds : 0;
}

static double gflops(const lsp_compare_job *job)
{
    const lsp_compare_result *r = &job->results[0];
    return r->seconds_compute > 0 ? r->estimate.flops / r->seconds_compute * 1e-9 : 0;
}

/* ---- summary ------------------------------------------------------------------------------------- */

static void print_head(const lsp_compare_job *job)
{
    const lsp_attention_desc *d = &job->input.desc;
    char rule[LSP_RULE_TEXT], batch[32] = "";
    if (d->batch > 1) (void)snprintf(batch, sizeof batch, "%" PRId64 " x ", d->batch);
    (void)printf("longspan %s compare: exact attention and approximations, %s%" PRId64 " head%s (%" PRId64
                 " of k and v), %" PRId64 " x %" PRId64 ", d_k %" PRId64 ", d_v %" PRId64 "\n",
                 lsp_version(), batch, d->heads, d->heads == 1 ? "" : "s", d->kv_heads, d->n, d->m, d->d_k,
                 d->d_v);
    (void)printf("  input    %s (%s, %s, %s), computed in %s: %s\n", job->input.q.file,
                 lsp_dtype_name(d->q_type), lsp_dtype_name(d->k_type), lsp_dtype_name(d->v_type),
                 lsp_dtype_name(d->compute), lsp_summary_rule(d, rule));
    if (d->row_begin != 0 || d->row_end != d->n || d->key_begin != 0 || d->key_end != d->m)
        (void)printf("  part     rows %" PRId64 ":%" PRId64 ", keys %" PRId64 ":%" PRId64 "\n", d->row_begin,
                     d->row_end, d->key_begin, d->key_end);
    lsp_summary_machine(job->app, job->results[0].isa);
}

/* "0.734 (0.012)": of the average row, and of the one that keeps least. */
static const char *retained_text(const lsp_compare_result *r, char *text)
{
    switch (r->retained) {
    case LSP_RETAINED_ALL: (void)snprintf(text, LSP_FORMAT_SIZE, "all"); break;
    case LSP_RETAINED_LSE:
    case LSP_RETAINED_CERTIFICATE:
        (void)snprintf(text, LSP_FORMAT_SIZE, "%.4f (%.4f)", r->retained_mean, r->retained_least);
        break;
    case LSP_RETAINED_ENERGY:
        (void)snprintf(text, LSP_FORMAT_SIZE, "%.4f (%.4f)e", r->retained_mean, r->retained_least);
        break;
    }
    return text;
}

static const char *certificate_text(const lsp_compare_result *r, char *text)
{
    text[0] = '\0';
    if (r->method == LSP_METHOD_BLOCK || r->method == LSP_METHOD_TOPK)
        (void)snprintf(text, LSP_FORMAT_SIZE, "row <= %.3g", r->out_error_bound);
    if (r->method == LSP_METHOD_LOWRANK) {
        const lsp_svd_certificate *c = &r->lowrank.whole;
        (void)snprintf(text, LSP_FORMAT_SIZE, "all <= %.3g, |W - W_r| %s%.3g", r->out_error_bound,
                       c->meaningful ? "" : "< ", c->meaningful ? c->frobenius_relative : c->floor);
    }
    return text;
}

static void print_table(const lsp_compare_job *job)
{
    (void)printf("\n    %-15s %9s %9s %8s %10s %9s %9s  %-15s  %s\n", "method", "compute s", "total s",
                 "of exact", "bytes/rank", "error", "worst row", "retained", "certificate");
    for (int64_t i = 0; i < job->count; i++) {
        const lsp_compare_result *r = &job->results[i];
        char name[LSP_COMPARE_NAME], bytes[LSP_FORMAT_SIZE], retained[LSP_FORMAT_SIZE],
            certificate[LSP_FORMAT_SIZE];
        (void)printf("  %c %-15s %9.4f %9.4f %8.4f %10s %9.3g %9.3g  %-*s%s\n", job->front[i] ? '*' : ' ',
                     lsp_compare_name(&job->items[i], name), r->seconds_compute, r->seconds, share_of(job, i),
                     lsp_format_bytes((double)r->estimate.footprint.total, bytes), r->out_error, r->row_error,
                     i > 0 ? 17 : 0, retained_text(r, retained), certificate_text(r, certificate));
    }
}

/* What all heads together hide: which head an approximation suits. */
static void print_heads(const lsp_compare_job *job)
{
    enum { SHOWN_MOST = 8 };
    const lsp_attention_desc *d = &job->input.desc;
    int64_t matrices = d->batch * d->heads;
    if (matrices < 2 || matrices > SHOWN_MOST || job->count < 2) return;
    (void)printf("\n    %-15s", "error by head");
    for (int64_t m = 0; m < matrices; m++) {
        char name[LSP_FORMAT_SIZE];
        int64_t head = lsp_compare_file_head(job, m % d->heads);
        if (d->batch > 1)
            (void)snprintf(name, sizeof name, "%" PRId64 ", %" PRId64, m / d->heads, head);
        else
            (void)snprintf(name, sizeof name, "%" PRId64, head);
        (void)printf(" %9s", name);
    }
    for (int64_t i = 1; i < job->count; i++) {
        char name[LSP_COMPARE_NAME];
        (void)printf("\n    %-15s", lsp_compare_name(&job->items[i], name));
        for (int64_t m = 0; m < matrices; m++) (void)printf(" %9.3g", job->items[i].heads[m].out_error);
    }
    (void)printf("\n");
}

static void print_legend(const lsp_compare_job *job)
{
    (void)printf(
        "\n  *        no other is better in both error and time\n"
        "  seconds  of the slowest rank, by the wall, in the fastest of %" PRId64
        " execution%s; total: with waiting for keys\n"
        "  error    ||O - O^|| / ||O|| (Frobenius) over all %" PRId64
        " rows; worst row: the largest ||o - o^|| / ||o||\n"
        "  retained share of a row's softmax, mean (least) of all rows; e: of ||W||^2, all heads (least)\n"
        "  bounds   on ||o - o^|| of each row; lowrank: on ||O - O^|| of all, and ||W - W_r|| over ||W||\n",
        job->options.repeats, job->options.repeats == 1 ? "" : "s", job->results[0].rows);
}

static void print_scaled(const lsp_compare_job *job)
{
    if (!job->scaled) return;
    const char *between = "";
    (void)printf("  NOTE     ");
    for (int64_t i = 1; i < job->count; i++) {
        const lsp_compare_item *item = &job->items[i];
        bool first = item->desc.method != job->items[i - 1].desc.method;
        if (!first || !(job->scaled & 1u << item->desc.method)) continue;
        (void)printf("%sattention.%s", between, item->parameter);
        between = ", ";
    }
    (void)printf(" not given: values scaled to %" PRId64 " x %" PRId64 "\n", job->input.desc.n,
                 job->input.desc.m);
}

static void print_remarks(const lsp_compare_job *job)
{
    bool leaks = false;
    const lsp_lowrank_certificate *worst = NULL;
    int64_t asked = 0;
    if (job->left_out) (void)printf("  NOTE     lowrank left out: %s\n", job->left_out);
    for (int64_t i = 1; i < job->count; i++) {
        if (job->results[i].method != LSP_METHOD_LOWRANK) continue;
        leaks = lsp_lowrank_leaks(&job->input.desc);
        const lsp_lowrank_certificate *l = &job->results[i].lowrank;
        if (worst && l->unmet <= worst->unmet) continue;
        worst = l;
        asked = job->items[i].desc.rank;
    }
    lsp_lowrank_print_leak(leaks);
    if (worst) lsp_lowrank_print_unmet(worst->unmet, worst->rank, asked);
}

static void print_slower(const lsp_compare_job *job)
{
    const char *between = "  NOTE     longer than exact, which has no error: ";
    for (int64_t i = 1; i < job->count; i++) {
        char name[LSP_COMPARE_NAME];
        if (job->results[i].seconds < job->results[0].seconds) continue;
        (void)printf("%s%s", between, lsp_compare_name(&job->items[i], name));
        between = ", ";
    }
    if (*between == ',') (void)printf("\n");
}

static void print_verify(const lsp_compare_job *job)
{
    double others = 0;
    const lsp_compare_result *exact = &job->results[0];
    if (!exact->verified) return;
    (void)printf("  verify   %" PRId64
                 " rows in double precision: exact's relative error %.2e at most (tolerance %.1e)",
                 exact->verify.rows, exact->verify.max_rel_err, exact->verify.tolerance);
    for (int64_t i = 1; i < job->count; i++) others = fmax(others, job->results[i].verify.max_rel_err);
    if (job->count > 1) (void)printf("; the others are what they should be to %.2e", others);
    (void)printf("\n");
}

void lsp_compare_print(const lsp_compare_job *job)
{
    char one[LSP_FORMAT_SIZE], two[LSP_FORMAT_SIZE];
    const lsp_compare_result *exact = &job->results[0];
    print_head(job);
    print_table(job);
    print_heads(job);
    print_legend(job);
    print_scaled(job);
    print_remarks(job);
    print_slower(job);
    (void)printf("  speed    exact: %s", lsp_format_rate(gflops(job) * 1e9, one));
    if (job->peak_gflops > 0)
        (void)printf(", %.1f %% of the FMA peak (%s)", 100 * gflops(job) / job->peak_gflops,
                     lsp_format_rate(job->peak_gflops * 1e9, two));
    (void)printf("\n  time     %s reading and planning, %s comparing\n", lsp_format_seconds(job->read, one),
                 lsp_format_seconds(job->compared, two));
    (void)printf("  memory   %s at most on a rank, for all of it\n",
                 lsp_format_bytes((double)job->rss_max, one));
    if (exact->empty_rows > 0)
        (void)printf("  empty    %" PRId64 " rows see no key: they are left out of retained\n",
                     exact->empty_rows);
    if (job->operands.nonfinite > 0)
        (void)printf("  NaN, Inf %" PRId64 " in the input; %" PRId64 " rows are not finite, and left out\n",
                     job->operands.nonfinite, exact->left_out);
    print_verify(job);
    lsp_keeper_print(&job->keeper);
    const char *plot = lsp_options_text(job->app->options, LSP_KEY_REPORT_PLOT);
    if (*plot) (void)printf("  picture  %s\n", plot);
    lsp_summary_unused(job->app);
}

/* ---- JSON ---------------------------------------------------------------------------------------- */

static void add_seconds(cJSON *object, const lsp_compare_result *r)
{
    cJSON *seconds = cJSON_AddObjectToObject(object, "seconds");
    lsp_json_add_number(seconds, "total", r->seconds);
    lsp_json_add_number(seconds, "compute", r->seconds_compute);
    lsp_json_add_number(seconds, "gather_exposed", r->seconds_gather);
    lsp_json_add_number(seconds, "median", r->seconds_median);
}

static void add_error(cJSON *object, const lsp_compare_job *job, const lsp_compare_result *r)
{
    cJSON *error = cJSON_AddObjectToObject(object, "out_error");
    lsp_json_add_number(error, "frobenius_relative", r->out_error);
    lsp_json_add_number(error, "row_max", r->row_error);
    cJSON *worst = cJSON_AddObjectToObject(error, "worst");
    lsp_json_add_number(worst, "batch", (double)r->worst[0]);
    lsp_json_add_number(worst, "head", (double)lsp_compare_file_head(job, r->worst[1]));
    lsp_json_add_number(worst, "row", (double)r->worst[2]);
    lsp_json_add_number(error, "rows", (double)r->rows);
    lsp_json_add_number(error, "left_out", (double)r->left_out);
}

static void add_retained(cJSON *object, const lsp_compare_result *r)
{
    static const char *const kinds[] = {"all", "lse", "certificate", "energy"};
    cJSON *retained = cJSON_AddObjectToObject(object, "retained");
    (void)cJSON_AddStringToObject(retained, "from", kinds[r->retained]);
    lsp_json_add_number(retained, "mean", r->retained_mean);
    lsp_json_add_number(retained, "min", r->retained_least);
}

static void add_certificate(cJSON *object, const lsp_compare_job *job, const lsp_compare_result *r)
{
    if (r->method == LSP_METHOD_LOWRANK) {
        cJSON *to = cJSON_AddObjectToObject(object, "certificate");
        lsp_lowrank_add_numbers(to, r->lowrank.rank, &r->lowrank.whole, r->out_error_bound);
        (void)cJSON_AddBoolToObject(to, "tolerance_met", r->lowrank.unmet == 0);
        return;
    }
    if (r->method != LSP_METHOD_BLOCK) {
        const lsp_certificate certificate = {.method = r->method, .topk = r->topk};
        lsp_certificate_add_json(object, &certificate);
        return;
    }
    /* Of all rows, as exact's log-sum-exp is there: not the sample that `attend` has. */
    cJSON *certificate = cJSON_AddObjectToObject(object, "certificate");
    lsp_json_add_number(certificate, "dropped_mass_mean", 1 - r->retained_mean);
    lsp_json_add_number(certificate, "dropped_mass_max", 1 - r->retained_least);
    lsp_json_add_number(certificate, "out_error_bound", r->out_error_bound);
    lsp_json_add_number(certificate, "rows", (double)(r->rows - job->results[0].empty_rows));
}

static void add_heads(cJSON *object, const lsp_compare_job *job, const lsp_compare_item *item)
{
    int64_t heads = job->input.desc.heads, count = job->input.desc.batch * heads;
    cJSON *list = cJSON_AddArrayToObject(object, "heads");
    for (int64_t i = 0; list && i < count; i++) {
        const lsp_compare_head *h = &item->heads[i];
        cJSON *head = cJSON_CreateObject();
        lsp_json_add_number(head, "batch", (double)(i / heads));
        lsp_json_add_number(head, "head", (double)lsp_compare_file_head(job, i % heads));
        lsp_json_add_number(head, "out_error", h->out_error);
        lsp_json_add_number(head, "row_max", h->row_error);
        lsp_json_add_number(head, "retained", h->retained);
        if (item->result->method == LSP_METHOD_LOWRANK)
            lsp_lowrank_add_numbers(cJSON_AddObjectToObject(head, "certificate"), h->lowrank.rank,
                                    &h->lowrank.certificate, h->lowrank.out_error_bound);
        lsp_json_add_item(list, head);
    }
}

static void add_item(cJSON *list, const lsp_compare_job *job, int64_t i)
{
    const lsp_compare_item *item = &job->items[i];
    const lsp_compare_result *r = item->result;
    char text[LSP_RULE_TEXT];
    cJSON *object = cJSON_CreateObject(), *bytes = NULL;
    (void)cJSON_AddStringToObject(object, "name", lsp_compare_name(item, text));
    (void)cJSON_AddStringToObject(object, "method", lsp_method_name(r->method));
    if (*item->parameter) lsp_json_add_number(object, item->parameter, item->value);
    if (r->method == LSP_METHOD_TOPK)
        (void)cJSON_AddBoolToObject(object, "renormalize", item->desc.renormalize);
    add_seconds(object, r);
    lsp_json_add_number(object, "share_of_exact", share_of(job, i));
    bytes = cJSON_AddObjectToObject(object, "bytes");
    lsp_json_add_number(bytes, "per_rank", (double)r->estimate.footprint.total);
    lsp_json_add_number(bytes, "gathered", r->bytes_received);
    (void)cJSON_AddStringToObject(object, "gather", lsp_gather_mode_name(r->estimate.gather));
    (void)cJSON_AddStringToObject(object, "partition", lsp_partition_kind_name(r->estimate.partition));
    add_error(object, job, r);
    add_retained(object, r);
    add_certificate(object, job, r);
    (void)cJSON_AddBoolToObject(object, "front", job->front[i]);
    lsp_json_add_verify(object, r->verified ? &r->verify : NULL);
    add_heads(object, job, item);
    lsp_json_add_item(list, object);
}

cJSON *lsp_compare_json(const lsp_compare_job *job)
{
    const lsp_attention_desc *d = &job->input.desc;
    const lsp_compare_result *exact = &job->results[0];
    char text[LSP_RULE_TEXT];
    cJSON *object = lsp_json_begin(job->app);
    (void)cJSON_AddStringToObject(object, "isa", lsp_isa_name(exact->isa));
    lsp_json_add_shape(object, d);
    lsp_json_add_part(object, d);
    (void)cJSON_AddStringToObject(object, "dtype", lsp_dtype_name(d->compute));
    (void)cJSON_AddStringToObject(object, "rule", lsp_summary_rule(d, text));
    lsp_json_add_number(object, "repeats", (double)job->options.repeats);
    cJSON *seconds = cJSON_AddObjectToObject(object, "seconds");
    lsp_json_add_number(seconds, "read", job->read);
    lsp_json_add_number(seconds, "compare", job->compared);
    lsp_json_add_number(object, "flops", exact->estimate.flops);
    lsp_json_add_number(object, "gflops", gflops(job));
    lsp_json_add_number(object, "fma_peak_gflops", job->peak_gflops);
    lsp_json_add_number(object, "efficiency", job->peak_gflops > 0 ? gflops(job) / job->peak_gflops : 0);
    cJSON *bytes = cJSON_AddObjectToObject(object, "bytes");
    lsp_json_add_number(bytes, "peak_rss_max", (double)job->rss_max);
    lsp_json_add_number(object, "empty_rows", (double)exact->empty_rows);
    lsp_json_add_number(object, "nonfinite", (double)job->operands.nonfinite);
    lsp_keeper_add_json(object, &job->keeper);
    if (job->left_out) (void)cJSON_AddStringToObject(object, "lowrank_left_out", job->left_out);
    cJSON *items = cJSON_AddArrayToObject(object, "methods");
    for (int64_t i = 0; items && i < job->count; i++) add_item(items, job, i);
    return object;
}
