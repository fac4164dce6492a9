/* longspan scaling: reports of runs, and what they are together. SPDX-License-Identifier: BSD-3-Clause */
#include "app/report_file.h"
#include "app/scaling.h"
#include "base/memory.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- reports ----------------------------------------------------------------------------------------- */

static lsp_status grow(lsp_scaling *s)
{
    if (s->run_count < s->room) return LSP_OK;
    lsp_status status = LSP_OK;
    int64_t room = s->room ? 2 * s->room : 64;
    lsp_scaling_run *larger = lsp_app_alloc(s->app, room, sizeof *larger, "the reports", &status);
    if (!larger) return status;
    if (s->runs) memcpy(larger, s->runs, (size_t)s->run_count * sizeof *larger);
    lsp_memory_free(s->runs);
    s->runs = larger;
    s->room = room;
    return LSP_OK;
}

/* A whole number of 1 or more; 0 otherwise. */
static int64_t count_of(const cJSON *object, const char *name)
{
    double value = lsp_report_file_number(object, name);
    return value >= 1 && value <= 9e15 && floor(value) == value ? (int64_t)value : 0;
}

/* False when something is missing. */
static bool take_run(const cJSON *json, lsp_scaling_run *run)
{
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(json, "shape");
    const cJSON *seconds = cJSON_GetObjectItemCaseSensitive(json, "seconds");
    const char *names[] = {"command", "method", "rule", "dtype", "gather"};
    size_t length = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *text = lsp_report_file_text(json, names[i]);
        if (!text || (i == 0 && strcmp(text, "attend") == 0)) continue;
        int written =
            snprintf(run->label + length, LSP_SCALING_LABEL - length, "%s%s", length ? ", " : "", text);
        if (written < 0 || (size_t)written >= LSP_SCALING_LABEL - length) return false;
        length += (size_t)written;
    }
    run->nodes = count_of(json, "nodes");
    run->ranks = count_of(json, "ranks");
    run->threads = count_of(json, "threads");
    run->n = count_of(shape, "n");
    run->m = count_of(shape, "m");
    run->flops = lsp_report_file_number(json, "flops");
    double *t = run->seconds;
    t[LSP_SCALING_TOTAL] = lsp_report_file_number(seconds, "total");
    t[LSP_SCALING_COMPUTE] = lsp_report_file_number(seconds, "compute");
    t[LSP_SCALING_GATHER] = lsp_report_file_number(seconds, "gather_exposed");
    t[LSP_SCALING_WORK] = t[LSP_SCALING_COMPUTE] + t[LSP_SCALING_GATHER];
    t[LSP_SCALING_IO] = lsp_report_file_number(seconds, "read") + lsp_report_file_number(seconds, "write");
    for (int i = 0; i < LSP_SCALING_TIMES; i++)
        if (!(t[i] >= 0)) return false;
    return run->nodes && run->ranks && run->threads && run->n && run->m && run->flops > 0 &&
           t[LSP_SCALING_TOTAL] > 0 && t[LSP_SCALING_WORK] > 0;
}

static lsp_status read_one(lsp_scaling *s, const char *file, const char *key)
{
    cJSON *json = NULL;
    lsp_status status = lsp_report_file_read(s->app, file, key, &json);
    if (status != LSP_OK) return status;
    const char *command = lsp_report_file_text(json, "command");
    /* The study's own report may stand in the same folder. */
    if (!command || strcmp(command, "scaling") != 0) status = grow(s);
    if (status == LSP_OK && !(command && strcmp(command, "scaling") == 0)) {
        lsp_scaling_run *run = &s->runs[s->run_count];
        memset(run, 0, sizeof *run);
        if (take_run(json, run))
            s->run_count++;
        else
            status = lsp_context_fail(
                s->app->ctx, LSP_ERR_CONTENT,
                "%s is no report of a run of attention: it lacks ranks, threads, shape, flops "
                "or seconds; --%s takes what `attend --report.json=FILE` wrote",
                file, key);
    }
    cJSON_Delete(json);
    return status;
}

static int is_report(const struct dirent *entry)
{
    size_t length = strlen(entry->d_name);
    return length > 5 && strcmp(entry->d_name + length - 5, ".json") == 0 && entry->d_name[0] != '.';
}

static lsp_status read_folder(lsp_scaling *s, const char *folder)
{
    struct dirent **entries = NULL;
    int count = scandir(folder, &entries, is_report, alphasort);
    if (count < 0)
        return lsp_context_fail(s->app->ctx, LSP_ERR_FILE,
                                "the folder %s cannot be read: %s; check --scaling.folder", folder,
                                strerror(errno));
    lsp_status status = LSP_OK;
    for (int i = 0; i < count; i++) {
        char file[PATH_MAX];
        (void)snprintf(file, sizeof file, "%s/%s", folder, entries[i]->d_name);
        if (status == LSP_OK) status = read_one(s, file, "scaling.folder");
        free(entries[i]);
    }
    free(entries);
    return status;
}

lsp_status lsp_scaling_read(lsp_scaling *s)
{
    const char *folder = lsp_options_text(s->app->options, LSP_KEY_SCALING_FOLDER);
    const char *list = lsp_options_text(s->app->options, LSP_KEY_SCALING_REPORTS);
    lsp_status status = LSP_OK;
    if (!*folder && !*list)
        return lsp_context_fail(
            s->app->ctx, LSP_ERR_USAGE,
            "scaling needs reports: --scaling.folder=FOLDER, or --scaling.reports=FILE,FILE");
    if (*folder) status = read_folder(s, folder);
    while (status == LSP_OK && *list) {
        size_t length = strcspn(list, ",");
        char file[PATH_MAX];
        (void)snprintf(file, sizeof file, "%.*s", (int)length, list);
        if (length > 0) status = read_one(s, file, "scaling.reports");
        list += length + (list[length] == ',');
    }
    if (status == LSP_OK && s->run_count == 0)
        status = lsp_context_fail(s->app->ctx, LSP_ERR_CONTENT,
                                  "there is no report (*.json) in %s; runs write one with --report.json=FILE",
                                  *folder ? folder : "scaling.reports");
    return status;
}

/* ---- points ------------------------------------------------------------------------------------------ */

static int compare_counts(int64_t a, int64_t b)
{
    return (a > b) - (a < b);
}

static int compare_runs(const void *left, const void *right)
{
    const lsp_scaling_run *a = left, *b = right;
    int order = strcmp(a->label, b->label);
    if (order == 0) order = compare_counts(a->threads, b->threads);
    if (order == 0) order = compare_counts(a->ranks, b->ranks);
    if (order == 0) order = compare_counts(a->nodes, b->nodes);
    if (order == 0) order = compare_counts(a->n, b->n);
    if (order == 0) order = compare_counts(a->m, b->m);
    return order != 0 ? order : (a->flops > b->flops) - (a->flops < b->flops);
}

static int compare_numbers(const void *left, const void *right)
{
    const double *a = left, *b = right;
    return (*a > *b) - (*a < *b);
}

static double median(double *values, int64_t count)
{
    qsort(values, (size_t)count, sizeof *values, compare_numbers);
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

static void take_medians(lsp_scaling_point *p, double *values)
{
    for (int time = LSP_SCALING_TIMES - 1; time >= 0; time--) { /* the total last: its ends are kept */
        for (int64_t i = 0; i < p->runs; i++) values[i] = p->first[i].seconds[time];
        p->seconds[time] = median(values, p->runs);
    }
    p->least = values[0];
    p->most = values[p->runs - 1];
}

/* The point with the fewest cores of that label; of as many, the one with more threads a rank comes later. */
static lsp_scaling_point *base_of(lsp_scaling *s, const char *label)
{
    lsp_scaling_point *base = NULL;
    for (int64_t i = 0; i < s->point_count; i++) {
        lsp_scaling_point *p = &s->points[i];
        if (strcmp(p->first->label, label) != 0) continue;
        if (!base || lsp_scaling_cores(p->first) < lsp_scaling_cores(base->first)) base = p;
    }
    return base;
}

static void relate(lsp_scaling *s)
{
    for (int64_t i = 0; i < s->point_count; i++) {
        lsp_scaling_point *p = &s->points[i], *base = base_of(s, p->first->label);
        double work = p->first->flops / base->first->flops;
        double cores = (double)lsp_scaling_cores(p->first) / (double)lsp_scaling_cores(base->first);
        p->speedup = work * base->seconds[LSP_SCALING_TOTAL] / p->seconds[LSP_SCALING_TOTAL];
        p->work_speedup = work * base->seconds[LSP_SCALING_WORK] / p->seconds[LSP_SCALING_WORK];
        p->efficiency = p->speedup / cores;
        p->work_efficiency = p->work_speedup / cores;
        p->is_base = p == base;
    }
}

static lsp_status check_kind(lsp_scaling *s)
{
    enum { KIND_AUTO, KIND_STRONG, KIND_WEAK };
    int kind = lsp_options_choice(s->app->options, LSP_KEY_SCALING_KIND);
    const lsp_scaling_point *differs = NULL;
    for (int64_t i = 0; i < s->point_count && !differs; i++) {
        const lsp_scaling_point *p = &s->points[i], *base = base_of(s, p->first->label);
        if (p->first->flops != base->first->flops) differs = p;
    }
    s->weak = kind == KIND_WEAK || (kind == KIND_AUTO && differs);
    if (kind != KIND_STRONG || !differs) return LSP_OK;
    return lsp_context_fail(s->app->ctx, LSP_ERR_CONTENT,
                            "these runs are no strong study: %" PRId64 " x %" PRId64 " on %" PRId64
                            " ranks is other work than that on the fewest cores; use scaling.kind = weak, or "
                            "reports of one input",
                            differs->first->n, differs->first->m, differs->first->ranks);
}

lsp_status lsp_scaling_reduce(lsp_scaling *s)
{
    lsp_status status = LSP_OK;
    qsort(s->runs, (size_t)s->run_count, sizeof *s->runs, compare_runs);
    s->points = lsp_app_alloc(s->app, s->run_count, sizeof *s->points, "the study", &status);
    double *values = lsp_app_alloc(s->app, s->run_count, sizeof *values, "the study", &status);
    for (int64_t i = 0; status == LSP_OK && i < s->run_count;) {
        lsp_scaling_point *p = &s->points[s->point_count++];
        memset(p, 0, sizeof *p);
        p->first = &s->runs[i];
        while (i < s->run_count && compare_runs(p->first, &s->runs[i]) == 0) {
            p->runs++;
            i++;
        }
        take_medians(p, values);
    }
    if (status == LSP_OK) status = check_kind(s);
    if (status == LSP_OK) relate(s);
    lsp_memory_free(values);
    return status;
}
