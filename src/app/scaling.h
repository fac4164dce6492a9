/* longspan scaling: what the parts of the command share. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_SCALING_H
#define LSP_APP_SCALING_H

#include "app/app.h"

#include <cjson/cJSON.h>
#include <stdio.h>

typedef enum lsp_scaling_time {
    LSP_SCALING_TOTAL,
    LSP_SCALING_WORK, /* computing and exposed gather */
    LSP_SCALING_COMPUTE,
    LSP_SCALING_GATHER,
    LSP_SCALING_IO, /* reading and writing */
    LSP_SCALING_TIMES
} lsp_scaling_time;

enum { LSP_SCALING_LABEL = 160 };

/* One run, as its report tells. */
typedef struct lsp_scaling_run {
    char label[LSP_SCALING_LABEL]; /* what must be equal along a curve: command, method, rule, type, gather */
    int64_t nodes, ranks, threads, n, m;
    double flops, seconds[LSP_SCALING_TIMES];
} lsp_scaling_run;

/* Runs of one kind on the same machine: medians. */
typedef struct lsp_scaling_point {
    const lsp_scaling_run *first; /* label, nodes, ranks, threads, shape, flops */
    int64_t runs;
    double seconds[LSP_SCALING_TIMES], least, most; /* medians; least and most of the totals */
    /* Against the point of the same label with the fewest cores: the ratio of flops a second, and that over the ratio of
     * cores; by total time, and by that of the work. In a strong study flops are equal, and these are ratios of times. */
    double speedup, efficiency, work_speedup, work_efficiency;
    bool is_base;
} lsp_scaling_point;

typedef struct lsp_scaling {
    lsp_app *app;
    lsp_scaling_run *runs;
    lsp_scaling_point *points; /* by label, threads, ranks, nodes */
    int64_t run_count, point_count, room;
    bool weak;
} lsp_scaling;

static inline int64_t lsp_scaling_cores(const lsp_scaling_run *run)
{
    return run->ranks * run->threads;
}

/* Local (rank 0). Reads the reports of scaling.folder and scaling.reports. Errors: LSP_ERR_USAGE (neither is given),
 * LSP_ERR_FILE, LSP_ERR_CONTENT (not a report of a run; a mixture that is no study). */
lsp_status lsp_scaling_read(lsp_scaling *s);

/* Local (rank 0). Points from runs. LSP_ERR_CONTENT when these are no study of the kind asked for. */
lsp_status lsp_scaling_reduce(lsp_scaling *s);

/* Local (rank 0). The table; the CSV file; the report; the picture (lsp_plot_fn). */
void lsp_scaling_print(const lsp_scaling *s);
lsp_status lsp_scaling_write_csv(const lsp_scaling *s);
void lsp_scaling_add_json(const lsp_scaling *s, cJSON *json);
void lsp_scaling_plot(FILE *stream, const void *scaling);

#endif
