/* The command's own reductions over ranks. A failure of MPI here cannot be agreed on: it ends the run
 * with MPI_Abort (exit code 70).
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_COLLECT_H
#define LSP_APP_COLLECT_H

#include "app/app.h"

/* Least, mean and largest of a number over ranks, and the rank of the largest. */
typedef struct lsp_statistic {
    double min, mean, max;
    int max_rank;
} lsp_statistic;

/* Local. Ends the run when an MPI code is none of success. */
void lsp_collect_check(MPI_Comm comm, int mpi_code);

/* Collective. The same as lsp_context_agree where there is no context yet: the worst status of all ranks, with its text. */
lsp_status lsp_collect_agree(MPI_Comm comm, int rank, lsp_status mine, lsp_error *error);

/* Collective. */
void lsp_collect_statistics(lsp_app *app, const double *values, int count, lsp_statistic *statistics);
int64_t lsp_collect_min_i64(lsp_app *app, int64_t value);
int64_t lsp_collect_max_i64(lsp_app *app, int64_t value);
int64_t lsp_collect_sum_i64(lsp_app *app, int64_t value);
double lsp_collect_sum_f64(lsp_app *app, double value);

/* Collective. Gives rank 0's bytes to all ranks. */
void lsp_collect_broadcast(MPI_Comm comm, void *data, int64_t bytes);

#endif
