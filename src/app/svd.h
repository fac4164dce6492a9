/* Inside of `longspan svd`: what its parts share. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_SVD_H
#define LSP_APP_SVD_H

#include "app/report.h"

#include <stdio.h>

/* One head's matrix. */
typedef struct lsp_svd_head {
    int64_t batch, head;        /* of the description */
    int64_t key_count;          /* columns of the matrix that exist for this batch */
    lsp_run query_run, key_run; /* of this rank, in the description's rows; count 0: none */
    lsp_svd *svd;
    lsp_spectrum spectrum;
    lsp_verify_result verify;
    lsp_svd_sampled sampled; /* of as many rows as are verified */
} lsp_svd_head;

typedef struct lsp_svd_job {
    lsp_app *app;
    lsp_input input;
    lsp_svd_options options;
    bool full, vectors, verified; /* verified: rows were checked; whether they passed is with the heads */
    int64_t rank;                 /* singular values of every head in the file: the most of any head */
    lsp_svd_head *heads;
    int64_t count, done; /* heads, and those decomposed */
    lsp_output *output;
    const char *written; /* the file, once it is there */
    const char *memory_source;
    lsp_isa isa;
    lsp_keeper keeper;
    char id[LSP_STATE_ID]; /* of the run; "" without checkpoints */
    bool completed;        /* by another run: nothing is to be done */
    int64_t nonfinite, empty_rows;
    double seconds[LSP_PHASE_COUNT]; /* of this rank */
    double seconds_products;
    double flops, peak_gflops, received;
    /* Over all ranks. */
    lsp_statistic phases[LSP_PHASE_COUNT], products;
    double received_all;
    int64_t rss_max;
    bool passed;
} lsp_svd_job;

/* Collective. Creates output.file for job->rank singular values a head. */
lsp_status lsp_svd_output_create(lsp_svd_job *job);

/* Collective. Writes what is there of a head. */
lsp_status lsp_svd_output_write(lsp_svd_job *job, const lsp_svd_head *head);

/* Collective. Attributes, checksums, and the file's name. */
lsp_status lsp_svd_output_commit(lsp_svd_job *job);

/* Local (rank 0). The summary without the last line; the report; the picture's commands (lsp_plot_fn). */
void lsp_svd_print(const lsp_svd_job *job);
cJSON *lsp_svd_json(const lsp_svd_job *job);
void lsp_svd_plot(FILE *stream, const void *job);

/* Local. The certificate of all heads together: errors and norms as of one matrix with the heads as its blocks. */
lsp_svd_certificate lsp_svd_together(const lsp_svd_job *job);

#endif
