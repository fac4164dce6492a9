/* Inside of `longspan map`: what its parts share. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_MAP_H
#define LSP_APP_MAP_H

#include "app/labels.h"
#include "app/report.h"

#include <longspan/map.h>
#include <stdio.h>

typedef struct lsp_map_job {
    lsp_app *app;
    lsp_input input;
    struct lsp_map_layer *layer; /* q and k are projected from its input; NULL: they are in files */
    double project_seconds;      /* of this rank; then the largest */
    lsp_map_options options;
    lsp_map *map;
    lsp_map_shape shape;
    const lsp_run *query_runs, *key_runs; /* of the map */
    int64_t query_run_count, key_run_count, query_rows, key_rows;
    void *q, *k;
    lsp_labels row_labels, key_labels; /* rank 0 has the texts */
    int64_t count;                     /* heads of all batches */
    lsp_map_head *heads;               /* [count], once computed */
    lsp_map_check check;
    bool verified; /* check holds a result */
    lsp_output *output;
    bool has_lse;
    const char *written; /* the file, once it is there */
    const char *memory_source;
    lsp_isa isa;
    lsp_estimate estimate;
    int64_t nonfinite;
    double seconds[LSP_PHASE_COUNT]; /* of this rank */
    double flops, peak_gflops, received;
    /* Over all ranks. */
    lsp_statistic phases[LSP_PHASE_COUNT];
    double received_all, gflops;
    int64_t rss_max;
} lsp_map_job;

/* Collective. Opens q and k, or a layer's x and weights where a key of a layer is given, and fills input. On failure too,
 * lsp_map_input_close is to be called. */
lsp_status lsp_map_input_open(lsp_map_job *job);

/* Collective. Makes q, k and the list of heads for the map's runs, and reads or projects. */
lsp_status lsp_map_input_read(lsp_map_job *job);

/* Local. The files that are read, the one first that rows come from; returns how many. */
int lsp_map_input_files(const lsp_map_job *job, const char *files[3]);

/* Collective. */
void lsp_map_input_close(lsp_map_job *job);

/* Local. Batch and head, as the file counts them, of head i of the job. */
int64_t lsp_map_batch_of(const lsp_map_job *job, int64_t i);
int64_t lsp_map_head_of(const lsp_map_job *job, int64_t i);

/* Local. The keys with the largest mass of a head, at most `most`, of equal ones the lower; returns how many have any.
 * Keys count in the whole. */
int64_t lsp_map_top_keys(const lsp_map_job *job, const lsp_map_head *head, int64_t most, int64_t *keys);

/* Collective. Creates output.file when it is given; writes all; attributes, checksums and the file's name. */
lsp_status lsp_map_output_create(lsp_map_job *job);
lsp_status lsp_map_output_write(lsp_map_job *job);

/* Local (rank 0). The summary without the last line; the report. */
void lsp_map_print(const lsp_map_job *job);
cJSON *lsp_map_json(const lsp_map_job *job);

/* Collective. Fails early when report.plot is given and this program makes no pictures (LSP_ERR_USAGE), or it or
 * report.html cannot be written (LSP_ERR_FILE). */
lsp_status lsp_map_probe(lsp_app *app);

/* Collective. The PNG of report.plot and the page of report.html, complete or not at all. */
lsp_status lsp_map_draw(const lsp_map_job *job);

#endif
