/* SPDX-License-Identifier: BSD-3-Clause */
#include "app/collect.h"

#include "base/checked.h"

#include <stdio.h>

void lsp_collect_check(MPI_Comm comm, int code)
{
    if (code == MPI_SUCCESS) return;
    char text[MPI_MAX_ERROR_STRING];
    int length = 0;
    if (MPI_Error_string(code, text, &length) != MPI_SUCCESS) length = 0;
    (void)fprintf(stderr,
                  "longspan: error: MPI failed between phases: %.*s; look at the nodes and their network, "
                  "and start it again\n",
                  length, text);
    (void)MPI_Abort(comm, LSP_ERR_RANK);
}

lsp_status lsp_collect_agree(MPI_Comm comm, int rank, lsp_status mine, lsp_error *error)
{
    struct {
        int code, rank;
    } verdict = {(int)mine, rank};
    lsp_collect_check(comm, MPI_Allreduce(MPI_IN_PLACE, &verdict, 1, MPI_2INT, MPI_MAXLOC, comm));
    if (verdict.code == LSP_OK) return LSP_OK;
    lsp_collect_check(comm, MPI_Bcast(error, (int)sizeof *error, MPI_BYTE, verdict.rank, comm));
    return (lsp_status)verdict.code;
}

void lsp_collect_statistics(lsp_app *app, const double *values, int count, lsp_statistic *statistics)
{
    for (int i = 0; i < count; i++) {
        struct {
            double value;
            int rank;
        } mine = {values[i], app->layout.rank}, most;
        double sum = 0, least = 0;
        lsp_collect_check(app->comm, MPI_Allreduce(&mine, &most, 1, MPI_DOUBLE_INT, MPI_MAXLOC, app->comm));
        lsp_collect_check(app->comm, MPI_Allreduce(&values[i], &sum, 1, MPI_DOUBLE, MPI_SUM, app->comm));
        lsp_collect_check(app->comm, MPI_Allreduce(&values[i], &least, 1, MPI_DOUBLE, MPI_MIN, app->comm));
        statistics[i] = (lsp_statistic){least, sum / app->layout.ranks, most.value, most.rank};
    }
}

static int64_t reduce_i64(lsp_app *app, int64_t value, MPI_Op op)
{
    int64_t result = 0;
    lsp_collect_check(app->comm, MPI_Allreduce(&value, &result, 1, MPI_INT64_T, op, app->comm));
    return result;
}

int64_t lsp_collect_min_i64(lsp_app *app, int64_t value)
{
    return reduce_i64(app, value, MPI_MIN);
}

int64_t lsp_collect_max_i64(lsp_app *app, int64_t value)
{
    return reduce_i64(app, value, MPI_MAX);
}

int64_t lsp_collect_sum_i64(lsp_app *app, int64_t value)
{
    return reduce_i64(app, value, MPI_SUM);
}

double lsp_collect_sum_f64(lsp_app *app, double value)
{
    double result = 0;
    lsp_collect_check(app->comm, MPI_Allreduce(&value, &result, 1, MPI_DOUBLE, MPI_SUM, app->comm));
    return result;
}

void lsp_collect_broadcast(MPI_Comm comm, void *data, int64_t bytes)
{
    int count = 0;
    if (!lsp_checked_int(bytes, &count)) lsp_collect_check(comm, MPI_ERR_COUNT);
    lsp_collect_check(comm, MPI_Bcast(data, count, MPI_BYTE, 0, comm));
}
