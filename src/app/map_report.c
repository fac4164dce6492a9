/* What `longspan map` tells: the summary and the JSON report. SPDX-License-Identifier: BSD-3-Clause */
#include "app/format.h"
#include "app/map.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { TOP_KEYS = 10, LINKS_TOLD = 1000, LABEL_WIDTH = 14, LABEL_ROOM = 4 * LABEL_WIDTH + 4 };

/* ---- the keys that receive most ------------------------------------------------------------------ */

int64_t lsp_map_top_keys(const lsp_map_job *job, const lsp_map_head *head, int64_t most, int64_t *keys)
{
    int64_t count = 0, begin = job->input.desc.key_begin;
    const double *mass = head->column_mass;
    for (int64_t j = 0; j < job->shape.keys; j++) {
        if (!(mass[j] > 0) || (count == most && !(mass[j] > mass[keys[count - 1] - begin]))) continue;
        int64_t at = count < most ? count++ : most - 1;
        for (; at > 0 && mass[j] > mass[keys[at - 1] - begin]; at--) keys[at] = keys[at - 1];
        keys[at] = begin + j;
    }
    return count;
}

/* ---- summary ------------------------------------------------------------------------------------- */

static void print_head(const lsp_map_job *job)
{
    const lsp_attention_desc *d = &job->input.desc;
    const lsp_context_layout *l = &job->app->layout;
    const lsp_map_shape *s = &job->shape;
    char rule[LSP_RULE_TEXT], keys[LSP_RULE_TEXT], batch[32] = "";
    if (d->batch > 1) (void)snprintf(batch, sizeof batch, "%" PRId64 " x ", d->batch);
    (void)printf("longspan %s map: what %s%" PRId64 " head%s attend%s to, %" PRId64 " x %" PRId64
                 ", d_k %" PRId64 "\n",
                 lsp_version(), batch, d->heads, d->heads == 1 ? "" : "s", d->heads == 1 ? "s" : "", s->rows,
                 s->keys, d->d_k);
    const char *files[3];
    (void)lsp_map_input_files(job, files);
    (void)printf("  input    %s (%s, %s), computed in %s: %s\n", files[0], lsp_dtype_name(d->q_type),
                 lsp_dtype_name(d->k_type), lsp_dtype_name(d->compute), lsp_summary_rule(d, rule));
    if (job->layer)
        (void)printf("  layer    x through the weights of %s to q and k in %.3f s\n", files[1],
                     job->project_seconds);
    if (d->row_begin != 0 || d->row_end != d->n || d->key_begin != 0 || d->key_end != d->m)
        (void)printf("  part     rows %" PRId64 ":%" PRId64 ", keys %" PRId64 ":%" PRId64 "\n", d->row_begin,
                     d->row_end, d->key_begin, d->key_end);
    (void)printf("  machine  %d rank%s x %d thread%s on %d node%s, %s\n", l->ranks, l->ranks == 1 ? "" : "s",
                 l->threads, l->threads == 1 ? "" : "s", l->nodes, l->nodes == 1 ? "" : "s",
                 lsp_isa_name(job->isa));
    (void)printf("  split    rows %s, %s\n", lsp_partition_kind_name(job->estimate.partition),
                 lsp_summary_keys(&job->estimate, l->ranks, keys));
    (void)printf("  pixels   %" PRId64 " x %" PRId64 ", each of %" PRId64 " row%s x %" PRId64 " key%s\n",
                 s->pixel_rows, s->pixel_keys, s->rows_per_pixel, s->rows_per_pixel == 1 ? "" : "s",
                 s->keys_per_pixel, s->keys_per_pixel == 1 ? "" : "s");
}

static void print_heads(const lsp_map_job *job)
{
    bool batches = job->input.desc.batch > 1;
    bool words = job->row_labels.count > 0 || job->key_labels.count > 0;
    (void)printf("  %s head  entropy  effective   distance    self   first  near %d   strongest link\n",
                 batches ? "batch" : "     ", LSP_MAP_WINDOW);
    for (int64_t i = 0; i < job->count; i++) {
        const lsp_map_head *h = &job->heads[i];
        const double *mean = h->mean;
        if (batches)
            (void)printf("  %5" PRId64, lsp_map_batch_of(job, i));
        else
            (void)printf("  %5s", "");
        (void)printf(" %4" PRId64 " %8.3f %10.1f %10.1f %7.4f %7.4f  %7.4f   ", lsp_map_head_of(job, i),
                     mean[LSP_MAP_ENTROPY], exp(mean[LSP_MAP_ENTROPY]), mean[LSP_MAP_DISTANCE],
                     mean[LSP_MAP_SELF], mean[LSP_MAP_FIRST], mean[LSP_MAP_NEAR]);
        if (h->link_count > 0) {
            char row[LABEL_ROOM], key[LABEL_ROOM];
            const lsp_link *link = &h->links[0];
            (void)printf("%.4f  %" PRId64 " -> %" PRId64, link->weight, link->row, link->key);
            if (words)
                (void)printf("  %s -> %s", lsp_labels_short(&job->row_labels, link->row, LABEL_WIDTH, row),
                             lsp_labels_short(&job->key_labels, link->key, LABEL_WIDTH, key));
        }
        (void)printf("\n");
    }
    (void)printf("\n");
}

static void print_rows(const lsp_map_job *job)
{
    int64_t empty = 0, broken = 0;
    for (int64_t i = 0; i < job->count; i++) empty += job->heads[i].empty, broken += job->heads[i].broken;
    if (empty > 0) (void)printf("  empty    %" PRId64 " rows see no key: they have no figures\n", empty);
    if (broken > 0)
        (void)printf("  NOTE     %" PRId64 " rows have scores that are not finite: they are left out\n",
                     broken);
    if (job->nonfinite > 0)
        (void)printf("  NaN, Inf %" PRId64 " in the input, as compute.nonfinite = propagate asks\n",
                     job->nonfinite);
}

void lsp_map_print(const lsp_map_job *job)
{
    char one[LSP_FORMAT_SIZE], two[LSP_FORMAT_SIZE];
    print_head(job);
    lsp_summary_phases(job->phases);
    print_heads(job);
    (void)printf("  speed    %s", lsp_format_rate(job->gflops * 1e9, one));
    if (job->peak_gflops > 0)
        (void)printf(", %.1f %% of the FMA peak (%s)", 100 * job->gflops / job->peak_gflops,
                     lsp_format_rate(job->peak_gflops * 1e9, two));
    (void)printf("\n  memory   %s at most on a rank, %s gathered\n",
                 lsp_format_bytes((double)job->rss_max, one), lsp_format_bytes(job->received_all, two));
    print_rows(job);
    if (job->verified)
        (void)printf("  verify   %" PRId64
                     " rows in double precision: figures off by %.2e at most (tolerance "
                     "%.1e); pictures add up to %.1e of their rows\n",
                     job->check.rows, job->check.max_error, job->check.tolerance, job->check.map_sum_error);
    if (job->written) (void)printf("  output   %s: /map\n", job->written);
    const lsp_key files[] = {LSP_KEY_REPORT_PLOT, LSP_KEY_REPORT_HTML};
    static const char *const what[] = {"picture", "page"};
    for (int i = 0; i < 2; i++) {
        const char *file = lsp_options_text(job->app->options, files[i]);
        if (*file) (void)printf("  %-8s %s\n", what[i], file);
    }
    lsp_summary_unused(job->app);
}

/* ---- JSON ---------------------------------------------------------------------------------------- */

static void add_label(cJSON *object, const char *name, const lsp_labels *labels, int64_t i)
{
    const char *text = lsp_labels_get(labels, i);
    if (text) (void)cJSON_AddStringToObject(object, name, text);
}

static void add_links(cJSON *object, const lsp_map_job *job, const lsp_map_head *h)
{
    cJSON *links = cJSON_AddArrayToObject(object, "links");
    for (int64_t i = 0; links && i < h->link_count && i < LINKS_TOLD; i++) {
        const lsp_link *link = &h->links[i];
        cJSON *one = cJSON_CreateObject();
        lsp_json_add_number(one, "row", (double)link->row);
        lsp_json_add_number(one, "key", (double)link->key);
        lsp_json_add_number(one, "weight", link->weight);
        add_label(one, "row_label", &job->row_labels, link->row);
        add_label(one, "key_label", &job->key_labels, link->key);
        lsp_json_add_item(links, one);
    }
}

static void add_top_keys(cJSON *object, const lsp_map_job *job, const lsp_map_head *h)
{
    int64_t top[TOP_KEYS], count = lsp_map_top_keys(job, h, TOP_KEYS, top);
    cJSON *keys = cJSON_AddArrayToObject(object, "top_keys");
    for (int64_t i = 0; keys && i < count; i++) {
        cJSON *one = cJSON_CreateObject();
        lsp_json_add_number(one, "key", (double)top[i]);
        lsp_json_add_number(one, "mass", h->column_mass[top[i] - job->input.desc.key_begin]);
        add_label(one, "label", &job->key_labels, top[i]);
        lsp_json_add_item(keys, one);
    }
}

static void add_head(cJSON *list, const lsp_map_job *job, int64_t i)
{
    const lsp_map_head *h = &job->heads[i];
    cJSON *object = cJSON_CreateObject();
    lsp_json_add_number(object, "batch", (double)lsp_map_batch_of(job, i));
    lsp_json_add_number(object, "head", (double)lsp_map_head_of(job, i));
    lsp_json_add_number(object, "rows_weighed", (double)h->weighed);
    lsp_json_add_number(object, "rows_empty", (double)h->empty);
    lsp_json_add_number(object, "rows_broken", (double)h->broken);
    for (int f = 0; f < LSP_MAP_FIGURES; f++)
        lsp_json_add_number(object, lsp_map_figure_name((lsp_map_figure)f), h->mean[f]);
    add_top_keys(object, job, h);
    lsp_json_add_number(object, "link_count", (double)h->link_count);
    add_links(object, job, h);
    lsp_json_add_item(list, object);
}

static void add_check(cJSON *object, const lsp_map_job *job)
{
    const lsp_map_check *c = &job->check;
    if (!job->verified) {
        (void)cJSON_AddNullToObject(object, "verify");
        return;
    }
    cJSON *verify = cJSON_AddObjectToObject(object, "verify");
    lsp_json_add_number(verify, "rows", (double)c->rows);
    lsp_json_add_number(verify, "max_error", c->max_error);
    lsp_json_add_number(verify, "tolerance", c->tolerance);
    lsp_json_add_number(verify, "max_abs_score", c->max_abs_score);
    lsp_json_add_number(verify, "map_sum_error", c->map_sum_error);
    (void)cJSON_AddBoolToObject(verify, "passed", c->passed);
}

cJSON *lsp_map_json(const lsp_map_job *job)
{
    const lsp_attention_desc *d = &job->input.desc;
    const lsp_map_shape *s = &job->shape;
    char text[LSP_RULE_TEXT];
    cJSON *object = lsp_json_begin(job->app);
    (void)cJSON_AddStringToObject(object, "isa", lsp_isa_name(job->isa));
    lsp_json_add_shape(object, d);
    lsp_json_add_part(object, d);
    (void)cJSON_AddStringToObject(object, "method", lsp_method_name(d->method));
    (void)cJSON_AddStringToObject(object, "dtype", lsp_dtype_name(d->compute));
    (void)cJSON_AddStringToObject(object, "rule", lsp_summary_rule(d, text));
    cJSON *map = cJSON_AddObjectToObject(object, "map");
    lsp_json_add_number(map, "pixel_rows", (double)s->pixel_rows);
    lsp_json_add_number(map, "pixel_keys", (double)s->pixel_keys);
    lsp_json_add_number(map, "rows_per_pixel", (double)s->rows_per_pixel);
    lsp_json_add_number(map, "keys_per_pixel", (double)s->keys_per_pixel);
    lsp_json_add_number(map, "window", LSP_MAP_WINDOW);
    lsp_json_add_phases(object, job->phases);
    if (job->layer) {
        const char *files[3];
        (void)lsp_map_input_files(job, files);
        cJSON *layer = cJSON_AddObjectToObject(object, "layer");
        (void)cJSON_AddStringToObject(layer, "x", files[0]);
        (void)cJSON_AddStringToObject(layer, "weights", files[1]);
        lsp_json_add_number(layer, "seconds_project", job->project_seconds);
    }
    lsp_json_add_number(object, "flops", job->flops);
    lsp_json_add_number(object, "gflops", job->gflops);
    lsp_json_add_number(object, "fma_peak_gflops", job->peak_gflops);
    lsp_json_add_number(object, "efficiency", job->peak_gflops > 0 ? job->gflops / job->peak_gflops : 0);
    cJSON *bytes = cJSON_AddObjectToObject(object, "bytes");
    lsp_json_add_number(bytes, "gathered", job->received_all);
    lsp_json_add_number(bytes, "peak_rss_max", (double)job->rss_max);
    lsp_json_add_number(object, "nonfinite", (double)job->nonfinite);
    add_check(object, job);
    cJSON *heads = cJSON_AddArrayToObject(object, "heads");
    for (int64_t i = 0; heads && i < job->count; i++) add_head(heads, job, i);
    if (job->written)
        (void)cJSON_AddStringToObject(object, "output", job->written);
    else
        (void)cJSON_AddNullToObject(object, "output");
    return object;
}
