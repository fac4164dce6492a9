/* The file of `longspan svd`. SPDX-License-Identifier: BSD-3-Clause */
#include "app/completed.h"
#include "app/result.h"
#include "app/svd.h"
#include "base/checked.h"
#include "base/memory.h"

#include <string.h>

enum { VALUES = 0, LEFT = 1, RIGHT = 2, ROWS_BYTES = 64 << 20 /* of /vt, at a time on a rank */ };

static lsp_output_dataset dataset_of(const lsp_svd_job *job, const char *name, lsp_view view, int64_t n,
                                     int64_t d, const char *row, const char *column)
{
    const lsp_attention_desc *desc = &job->input.desc;
    const int64_t shape[4] = {desc->batch, desc->heads, n, d};
    lsp_output_dataset dataset =
        lsp_result_dataset(name, LSP_F64, view, LSP_BHND, job->input.q.shape.axes, shape);
    dataset.axis_names[dataset.axes - (view == LSP_VIEW_SCALARS ? 1 : 2)] = row;
    if (view == LSP_VIEW_ROWS) dataset.axis_names[dataset.axes - 1] = column;
    dataset.units = "1";
    return dataset;
}

lsp_status lsp_svd_output_create(lsp_svd_job *job)
{
    lsp_app *app = job->app;
    const lsp_attention_desc *d = &job->input.desc;
    const char *file = lsp_options_text(app->options, LSP_KEY_OUTPUT_FILE);
    const char *const inputs[] = {job->input.q.file, job->input.k.file};
    if (!*file) return LSP_OK;
    lsp_status status = lsp_result_check_target(app, inputs, 2);
    if (status != LSP_OK) return status;
    /* With a tolerance the first call only tries whether the file can be made: ranks are not known. */
    int64_t rank = job->options.tolerance > 0 && job->done == 0 ? 1 : job->rank;
    const lsp_output_dataset datasets[] = {
        dataset_of(job, "/singular_values", LSP_VIEW_SCALARS, rank, 1, "component", NULL),
        dataset_of(job, "/u", LSP_VIEW_ROWS, d->row_end - d->row_begin, rank, "row", "component"),
        dataset_of(job, "/vt", LSP_VIEW_ROWS, rank, d->key_end - d->key_begin, "component", "key")};
    return lsp_output_create(app->ctx, file, lsp_options_yes(app->options, LSP_KEY_OUTPUT_OVERWRITE),
                             datasets, job->vectors ? 3 : 1, &job->output);
}

/* ---- one head ------------------------------------------------------------------------------------ */

/* Singular values of a head that has fewer than others are followed by zeros. */
static lsp_status write_values(lsp_svd_job *job, const lsp_svd_head *head)
{
    lsp_app *app = job->app;
    lsp_status status = LSP_OK;
    double *values = lsp_app_alloc(app, job->rank, sizeof *values, "the singular values", &status);
    status = lsp_context_agree(app->ctx, status);
    if (status == LSP_OK) {
        memset(values, 0, (size_t)job->rank * sizeof *values);
        memcpy(values, head->svd->sigma, (size_t)head->svd->rank * sizeof *values);
        lsp_run run = {head->batch, head->head, 0, job->rank};
        status = lsp_output_write(job->output, VALUES, &run, app->layout.rank == 0, values);
    }
    lsp_memory_free(values);
    return status;
}

static lsp_status write_left(lsp_svd_job *job, const lsp_svd_head *head)
{
    lsp_app *app = job->app;
    const lsp_svd *svd = head->svd;
    lsp_status status = LSP_OK;
    double *rows =
        lsp_app_alloc(app, svd->rows * job->rank, sizeof *rows, "the left singular vectors", &status);
    status = lsp_context_agree(app->ctx, status);
    if (status == LSP_OK) {
        memset(rows, 0, (size_t)(svd->rows * job->rank) * sizeof *rows);
        for (int64_t i = 0; i < svd->rows; i++)
            memcpy(rows + i * job->rank, svd->u + i * svd->rank, (size_t)svd->rank * sizeof *rows);
        lsp_run run = head->query_run;
        run.begin -= job->input.desc.row_begin;
        status = lsp_output_write(job->output, LEFT, &run, svd->rows > 0, rows);
    }
    lsp_memory_free(rows);
    return status;
}

/* Where each rank's keys stand in a row of V^T. */
typedef struct shares {
    int *counts, *firsts; /* [ranks] elements of `rows` rows */
    int64_t *keys;        /* [ranks + 1] first key of each */
} shares;

/* Collective. Rows [first, first + count) of V^T on rank `root`, which has room for them in whole; part is room for
 * [count][keys of this rank]. */
static lsp_status gather_rows(lsp_svd_job *job, const lsp_svd *svd, const shares *s, int64_t first,
                              int64_t count, int root, double *part, double *moved, double *whole)
{
    lsp_app *app = job->app;
    int64_t m = s->keys[app->layout.ranks];
    int mine = 0;
    for (int64_t c = 0; c < count; c++)
        for (int64_t j = 0; j < svd->keys; j++)
            part[c * svd->keys + j] = first + c < svd->rank ? svd->v[j * svd->rank + first + c] : 0;
    bool fits = lsp_checked_int(count * m, &mine);
    for (int r = 0; fits && r < app->layout.ranks; r++) {
        s->counts[r] = (int)(count * (s->keys[r + 1] - s->keys[r]));
        s->firsts[r] = (int)(count * s->keys[r]);
    }
    if (!fits) return lsp_context_fail(app->ctx, LSP_ERR_LIMIT, "a row of /vt is longer than MPI can count");
    int code = MPI_Gatherv(part, s->counts[app->layout.rank], MPI_DOUBLE, moved, s->counts, s->firsts,
                           MPI_DOUBLE, root, app->comm);
    if (code != MPI_SUCCESS)
        return lsp_context_fail(app->ctx, LSP_ERR_RANK, "MPI failed in gathering /vt; start it again");
    for (int r = 0; app->layout.rank == root && r < app->layout.ranks; r++)
        for (int64_t c = 0, keys = s->keys[r + 1] - s->keys[r]; c < count; c++)
            memcpy(whole + c * m + s->keys[r], moved + count * s->keys[r] + c * keys,
                   (size_t)keys * sizeof *whole);
    return LSP_OK;
}

static lsp_status write_blocks(lsp_svd_job *job, const lsp_svd_head *head, const shares *s)
{
    lsp_app *app = job->app;
    int64_t m = s->keys[app->layout.ranks];
    int64_t height = lsp_max(1, lsp_min(job->rank, ROWS_BYTES / (m * (int64_t)sizeof(double))));
    lsp_status status = LSP_OK;
    double *part = lsp_app_alloc(app, height * head->svd->keys, sizeof *part, "rows of /vt", &status);
    double *moved = lsp_app_alloc(app, height * m, sizeof *moved, "rows of /vt", &status);
    double *whole = lsp_app_alloc(app, height * m, sizeof *whole, "rows of /vt", &status);
    status = lsp_context_agree(app->ctx, status);
    int root = 0; /* the ranks take turns */
    for (int64_t first = 0; status == LSP_OK && first < job->rank;
         first += height, root = (root + 1) % app->layout.ranks) {
        int64_t count = lsp_min(height, job->rank - first);
        status = gather_rows(job, head->svd, s, first, count, root, part, moved, whole);
        status = lsp_context_agree(app->ctx, status);
        lsp_run run = {head->batch, head->head, first, count};
        if (status == LSP_OK)
            status = lsp_output_write(job->output, RIGHT, &run, app->layout.rank == root, whole);
    }
    lsp_memory_free(part);
    lsp_memory_free(moved);
    lsp_memory_free(whole);
    return status;
}

static lsp_status write_right(lsp_svd_job *job, const lsp_svd_head *head)
{
    lsp_app *app = job->app;
    int ranks = app->layout.ranks;
    lsp_status status = LSP_OK;
    shares s = {lsp_app_alloc(app, ranks, sizeof(int), "the shares of keys", &status),
                lsp_app_alloc(app, ranks, sizeof(int), "the shares of keys", &status),
                lsp_app_alloc(app, (int64_t)ranks + 1, sizeof(int64_t), "the shares of keys", &status)};
    status = lsp_context_agree(app->ctx, status);
    if (status == LSP_OK &&
        MPI_Allgather(&head->svd->keys, 1, MPI_INT64_T, s.keys + 1, 1, MPI_INT64_T, app->comm) != MPI_SUCCESS)
        status = lsp_context_fail(app->ctx, LSP_ERR_RANK, "MPI failed in counting keys; start it again");
    if (status == LSP_OK) {
        s.keys[0] = 0;
        for (int r = 0; r < ranks; r++) s.keys[r + 1] += s.keys[r];
        status = write_blocks(job, head, &s);
    }
    lsp_memory_free(s.counts);
    lsp_memory_free(s.firsts);
    lsp_memory_free(s.keys);
    return status;
}

lsp_status lsp_svd_output_write(lsp_svd_job *job, const lsp_svd_head *head)
{
    lsp_status status = write_values(job, head);
    if (status == LSP_OK && job->vectors) status = write_left(job, head);
    if (status == LSP_OK && job->vectors) status = write_right(job, head);
    return status;
}

/* ---- the end ------------------------------------------------------------------------------------- */

lsp_status lsp_svd_output_commit(lsp_svd_job *job)
{
    lsp_app *app = job->app;
    const lsp_attention_desc *d = &job->input.desc;
    lsp_svd_certificate all = lsp_svd_together(job);
    char rule[LSP_RULE_TEXT];
    const struct {
        const char *name;
        int64_t value;
    } numbers[] = {{"row_begin", d->row_begin},
                   {"row_end", d->row_end},
                   {"key_begin", d->key_begin},
                   {"key_end", d->key_end},
                   {"n", d->n},
                   {"m", d->m},
                   {"rank", job->rank},
                   {"meaningful", all.meaningful}};
    const struct {
        const char *name, *value;
    } texts[] = {{"svd", job->full ? "full" : "krylov"},
                 {"rule", lsp_summary_rule(d, rule)},
                 {"heads", lsp_options_text(app->options, LSP_KEY_INPUT_HEADS)},
                 {"isa", lsp_isa_name(job->isa)}};
    lsp_status status = lsp_result_sign(app, job->output);
    if (status == LSP_OK) status = lsp_completed_sign(job->output, job->id);
    for (size_t i = 0; status == LSP_OK && i < sizeof texts / sizeof *texts; i++)
        status = lsp_output_attribute_text(job->output, -1, texts[i].name, texts[i].value);
    for (size_t i = 0; status == LSP_OK && i < sizeof numbers / sizeof *numbers; i++)
        status = lsp_output_attribute_i64(job->output, -1, numbers[i].name, numbers[i].value);
    if (status == LSP_OK)
        status = lsp_output_attribute_f64(job->output, -1, "frobenius_error", all.frobenius_error);
    if (status == LSP_OK)
        status = lsp_output_attribute_f64(job->output, -1, "frobenius_relative", all.frobenius_relative);
    if (status == LSP_OK) status = lsp_output_commit(&job->output);
    if (status == LSP_OK) job->written = lsp_options_text(app->options, LSP_KEY_OUTPUT_FILE);
    return status;
}
