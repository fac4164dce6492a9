/* longspan scaling: the table, as text, CSV and JSON. SPDX-License-Identifier: BSD-3-Clause */
#include "app/report.h"
#include "app/scaling.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static double share(const lsp_scaling_point *p, lsp_scaling_time time)
{
    return p->seconds[time] / p->seconds[LSP_SCALING_TOTAL];
}

void lsp_scaling_print(const lsp_scaling *s)
{
    const char *label = "";
    (void)printf("longspan %s scaling: a %s study, %" PRId64 " runs\n", lsp_version(),
                 s->weak ? "weak" : "strong", s->run_count);
    for (int64_t i = 0; i < s->point_count; i++) {
        const lsp_scaling_point *p = &s->points[i];
        const lsp_scaling_run *r = p->first;
        if (strcmp(label, r->label) != 0)
            (void)printf(
                "\n  %s\n"
                "  nodes  ranks  threads            n x m  runs    seconds  scatter  speed-up  efficiency  "
                "of work  compute  gather  I/O\n",
                r->label);
        label = r->label;
        char shape[48];
        (void)snprintf(shape, sizeof shape, "%" PRId64 " x %" PRId64, r->n, r->m);
        (void)printf("  %5" PRId64 "  %5" PRId64 "  %7" PRId64 "  %15s  %4" PRId64
                     "  %9.4g  %5.1f %%  %8.2f  %8.1f %%  %5.1f %%  %5.1f %%  %4.1f %%  %3.0f %%%s\n",
                     r->nodes, r->ranks, r->threads, shape, p->runs, p->seconds[LSP_SCALING_TOTAL],
                     100 * (p->most - p->least) / p->seconds[LSP_SCALING_TOTAL], p->speedup,
                     100 * p->efficiency, 100 * p->work_efficiency, 100 * share(p, LSP_SCALING_COMPUTE),
                     100 * share(p, LSP_SCALING_GATHER), 100 * share(p, LSP_SCALING_IO),
                     p->is_base ? "  <" : "");
    }
    (void)printf(
        "\n  seconds: median of the runs' totals; scatter: slowest less fastest, over it. speed-up: ratio of "
        "flops a second\n  against the fewest cores (<); efficiency: that over the ratio of cores; of work: "
        "the "
        "same of computing and\n  exposed gather alone. The rest of the time is verification and set-up.\n");
}

static void write_csv(const lsp_scaling *s, FILE *stream)
{
    (void)fprintf(stream,
                  "label,nodes,ranks,threads,cores,n,m,flops,runs,total,total_least,total_most,compute,"
                  "gather_exposed,io,speedup,efficiency,work_speedup,work_efficiency\n");
    for (int64_t i = 0; i < s->point_count; i++) {
        const lsp_scaling_point *p = &s->points[i];
        const lsp_scaling_run *r = p->first;
        (void)fprintf(stream,
                      "\"%s\",%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64
                      ",%.17g,%" PRId64 ",%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g\n",
                      r->label, r->nodes, r->ranks, r->threads, lsp_scaling_cores(r), r->n, r->m, r->flops,
                      p->runs, p->seconds[LSP_SCALING_TOTAL], p->least, p->most,
                      p->seconds[LSP_SCALING_COMPUTE], p->seconds[LSP_SCALING_GATHER],
                      p->seconds[LSP_SCALING_IO], p->speedup, p->efficiency, p->work_speedup,
                      p->work_efficiency);
    }
}

lsp_status lsp_scaling_write_csv(const lsp_scaling *s)
{
    const char *file = lsp_options_text(s->app->options, LSP_KEY_SCALING_CSV);
    if (!*file) return LSP_OK;
    char name[PATH_MAX];
    (void)snprintf(name, sizeof name, "%s.%ld.tmp", file, (long)getpid());
    FILE *stream = fopen(name, "w");
    bool written = stream != NULL;
    if (written) {
        write_csv(s, stream);
        written = ferror(stream) == 0;
        written = fclose(stream) == 0 && written;
    }
    if (written && rename(name, file) == 0) return LSP_OK;
    lsp_status status =
        lsp_context_fail(s->app->ctx, LSP_ERR_FILE, "the table %s cannot be written: %s; check --scaling.csv",
                         file, strerror(errno));
    (void)unlink(name);
    return status;
}

void lsp_scaling_add_json(const lsp_scaling *s, cJSON *json)
{
    (void)cJSON_AddStringToObject(json, "kind", s->weak ? "weak" : "strong");
    lsp_json_add_number(json, "runs", (double)s->run_count);
    cJSON *points = cJSON_AddArrayToObject(json, "points");
    for (int64_t i = 0; i < s->point_count; i++) {
        const lsp_scaling_point *p = &s->points[i];
        const lsp_scaling_run *r = p->first;
        cJSON *point = cJSON_CreateObject();
        lsp_json_add_item(points, point);
        (void)cJSON_AddStringToObject(point, "label", r->label);
        const struct {
            const char *name;
            double value;
        } numbers[] = {{"nodes", (double)r->nodes},
                       {"ranks", (double)r->ranks},
                       {"threads", (double)r->threads},
                       {"n", (double)r->n},
                       {"m", (double)r->m},
                       {"flops", r->flops},
                       {"runs", (double)p->runs},
                       {"speedup", p->speedup},
                       {"efficiency", p->efficiency},
                       {"work_speedup", p->work_speedup},
                       {"work_efficiency", p->work_efficiency}};
        for (size_t j = 0; j < sizeof numbers / sizeof *numbers; j++)
            lsp_json_add_number(point, numbers[j].name, numbers[j].value);
        cJSON *seconds = cJSON_AddObjectToObject(point, "seconds");
        lsp_json_add_number(seconds, "total", p->seconds[LSP_SCALING_TOTAL]);
        lsp_json_add_number(seconds, "total_least", p->least);
        lsp_json_add_number(seconds, "total_most", p->most);
        lsp_json_add_number(seconds, "compute", p->seconds[LSP_SCALING_COMPUTE]);
        lsp_json_add_number(seconds, "gather_exposed", p->seconds[LSP_SCALING_GATHER]);
        lsp_json_add_number(seconds, "io", p->seconds[LSP_SCALING_IO]);
    }
}
