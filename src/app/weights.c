/* SPDX-License-Identifier: BSD-3-Clause */
#include "app/weights.h"

#include "base/checked.h"
#include "base/memory.h"

#include <string.h>

/* What is written at once: entries, and runs of rows. */
enum { ENTRIES_MOST = 1 << 20, RUNS_MOST = 256 };

static int64_t rows_of(const lsp_attention_desc *d)
{
    return d->row_end - d->row_begin;
}

/* ---- counting ------------------------------------------------------------------------------------ */

/* Batches differ in their key lengths alone. */
static const int64_t *offsets_of(const lsp_weights *w, const lsp_attention_desc *d, int64_t batch)
{
    return w->offsets + (d->key_lengths ? batch : 0) * (rows_of(d) + 1);
}

static int64_t head_first(const lsp_weights *w, const lsp_attention_desc *d, int64_t batch, int64_t head)
{
    return w->batch[batch] + head * offsets_of(w, d, batch)[rows_of(d)];
}

lsp_status lsp_weights_open(lsp_app *app, const lsp_attention_desc *d, lsp_weights *w)
{
    *w = (lsp_weights){.wanted = false};
    if (d->method != LSP_METHOD_TOPK || !lsp_options_yes(app->options, LSP_KEY_OUTPUT_WEIGHTS)) return LSP_OK;
    w->wanted = true;
    int64_t batches = d->key_lengths ? d->batch : 1;
    lsp_status status = LSP_OK;
    w->offsets =
        lsp_app_alloc(app, batches * (rows_of(d) + 1), sizeof(int64_t), "the rows of /weights", &status);
    w->batch = lsp_app_alloc(app, d->batch + 1, sizeof(int64_t), "the rows of /weights", &status);
    for (int64_t b = 0; status == LSP_OK && b < batches; b++) {
        status = lsp_topk_offsets(d, b, w->offsets + b * (rows_of(d) + 1));
        if (status != LSP_OK)
            status = lsp_context_fail(app->ctx, status,
                                      "the entries of /weights cannot be counted: check "
                                      "attention.topk and the shapes");
    }
    status = lsp_context_agree(app->ctx, status);
    if (status != LSP_OK) return status;
    w->batch[0] = 0;
    for (int64_t b = 0; b < d->batch; b++)
        w->batch[b + 1] = w->batch[b] + d->heads * offsets_of(w, d, b)[rows_of(d)];
    return LSP_OK;
}

void lsp_weights_datasets(const lsp_weights *w, const lsp_attention_desc *d, int axes,
                          lsp_output_dataset *datasets)
{
    static const char *const names[] = {"/weights/indptr", "/weights/indices", "/weights/data"};
    const lsp_dtype types[] = {LSP_I64, LSP_I64, lsp_dtype_result(d->compute)};
    for (int i = 0; i < LSP_WEIGHTS_DATASETS; i++)
        datasets[i] = (lsp_output_dataset){.name = names[i],
                                           .type = types[i],
                                           .axes = 1,
                                           .dims = {w->batch[d->batch]},
                                           .view = LSP_VIEW_SCALARS,
                                           .axis_names = {"entry"}};
    const int64_t dims[] = {d->batch, d->heads, rows_of(d) + 1};
    static const char *const axis_names[] = {"batch", "head", "row_end"};
    lsp_output_dataset *indptr = &datasets[0];
    indptr->axes = axes - 1;
    for (int a = 0; a < indptr->axes; a++) {
        indptr->dims[a] = dims[3 - indptr->axes + a];
        indptr->axis_names[a] = axis_names[3 - indptr->axes + a];
    }
}

double lsp_weights_bytes(const lsp_weights *w, const lsp_attention_desc *d)
{
    if (!w->wanted) return 0;
    double entry = 8 + (double)lsp_dtype_size(lsp_dtype_result(d->compute));
    return (double)w->batch[d->batch] * entry + 8.0 * (double)(d->batch * d->heads * (rows_of(d) + 1));
}

void lsp_weights_free(lsp_weights *w)
{
    lsp_memory_free(w->offsets);
    lsp_memory_free(w->batch);
    *w = (lsp_weights){.wanted = false};
}

/* ---- writing ------------------------------------------------------------------------------------- */

/* Where this rank is: a row of one of its runs, and that row's place in its arrays. */
typedef struct cursor {
    int64_t run, row, local;
} cursor;

/* Some rows, ready to be written. */
typedef struct batch {
    int count; /* runs */
    lsp_run row_runs[RUNS_MOST], entry_runs[RUNS_MOST];
    int64_t pointers, entries;
} batch;

typedef struct writer {
    const lsp_weights *weights;
    const lsp_attention_desc *desc;
    const lsp_operands *operands;
    lsp_topk_weights kept;
    int64_t *pointers, *indices;
    char *data;
    int64_t pointers_most, entries_most; /* room */
} writer;

static int64_t entries_between(const writer *w, const lsp_run *run, int64_t row, int64_t end)
{
    const int64_t *offsets = offsets_of(w->weights, w->desc, run->batch);
    return offsets[end - w->desc->row_begin] - offsets[row - w->desc->row_begin];
}

/* Takes rows, one at least, until the room is full. */
static void take_rows(const writer *w, cursor *at, batch *b)
{
    const lsp_attention_desc *d = w->desc;
    b->count = 0;
    b->pointers = b->entries = 0;
    while (at->run < w->operands->query_run_count && b->count < RUNS_MOST) {
        const lsp_run *run = &w->operands->query_runs[at->run];
        int64_t begin = run->begin + at->row, stop = run->begin + run->count, end = begin, more = 0;
        while (end < stop && b->pointers + end - begin + 1 < ENTRIES_MOST) {
            int64_t next = entries_between(w, run, begin, end + 1);
            if (b->entries + next > ENTRIES_MOST && (b->entries > 0 || end > begin)) break;
            more = next;
            end++;
        }
        if (end == begin) return;
        int64_t first = head_first(w->weights, d, run->batch, run->head);
        const int64_t *offsets = offsets_of(w->weights, d, run->batch);
        bool last = end == d->row_end; /* its head's last row brings the end too */
        b->row_runs[b->count] = (lsp_run){run->batch, run->head, begin - d->row_begin, end - begin + last};
        b->entry_runs[b->count++] = (lsp_run){0, 0, first + offsets[begin - d->row_begin], more};
        b->pointers += end - begin + last;
        b->entries += more;
        at->row += end - begin;
        at->local += end - begin;
        if (end == stop) {
            at->run++;
            at->row = 0;
        }
    }
}

/* Copies the batch's rows, which begin at local row `local`. False when a row has not as many entries as counted. */
static bool copy_rows(writer *w, const batch *b, int64_t local)
{
    size_t element = lsp_dtype_size(lsp_dtype_result(w->desc->compute));
    int64_t pointers = 0, entries = 0;
    for (int r = 0; r < b->count; r++) {
        const lsp_run *run = &b->row_runs[r];
        const int64_t *offsets = offsets_of(w->weights, w->desc, run->batch);
        int64_t first = head_first(w->weights, w->desc, run->batch, run->head);
        for (int64_t row = run->begin; row < run->begin + run->count; row++) {
            w->pointers[pointers++] = first + offsets[row];
            if (row == rows_of(w->desc)) continue;
            int64_t count = offsets[row + 1] - offsets[row], from = local * w->kept.stride;
            if (count != w->kept.counts[local++]) return false;
            for (int64_t e = 0; e < count; e++) w->indices[entries + e] = w->kept.keys[from + e];
            memcpy(w->data + (size_t)entries * element,
                   (const char *)w->kept.weights + (size_t)from * element, (size_t)count * element);
            entries += count;
        }
    }
    return true;
}

static lsp_status write_batch(lsp_app *app, writer *w, const batch *b, int64_t local, lsp_output *output)
{
    int first = w->weights->first;
    lsp_status status = LSP_OK;
    if (!copy_rows(w, b, local))
        status = lsp_context_fail(app->ctx, LSP_ERR_VERIFY,
                                  "a row of /weights has not as many entries as its mask "
                                  "shows: report this as a defect");
    status = lsp_context_agree(app->ctx, status);
    if (status == LSP_OK) status = lsp_output_write(output, first, b->row_runs, b->count, w->pointers);
    if (status == LSP_OK) status = lsp_output_write(output, first + 1, b->entry_runs, b->count, w->indices);
    if (status == LSP_OK) status = lsp_output_write(output, first + 2, b->entry_runs, b->count, w->data);
    return status;
}

/* How often this rank has to write; room for the largest of it. */
static int64_t count_batches(writer *w, batch *b)
{
    int64_t batches = 0;
    for (cursor at = {0}; at.run < w->operands->query_run_count; batches++) {
        take_rows(w, &at, b);
        w->pointers_most = lsp_max(w->pointers_most, b->pointers);
        w->entries_most = lsp_max(w->entries_most, b->entries);
    }
    return batches;
}

lsp_status lsp_weights_write(lsp_app *app, const lsp_weights *weights, const lsp_attention_desc *desc,
                             const lsp_attention *plan, const lsp_operands *operands, lsp_output *output)
{
    if (!weights->wanted) return LSP_OK;
    writer w = {.weights = weights, .desc = desc, .operands = operands};
    lsp_status status = lsp_topk_get_weights(plan, &w.kept);
    batch *b = lsp_app_alloc(app, 1, sizeof *b, "/weights", &status);
    int64_t batches = status == LSP_OK ? count_batches(&w, b) : 0;
    w.pointers = lsp_app_alloc(app, w.pointers_most, sizeof *w.pointers, "/weights", &status);
    w.indices = lsp_app_alloc(app, w.entries_most, sizeof *w.indices, "/weights", &status);
    w.data = lsp_app_alloc(app, w.entries_most, lsp_dtype_size(lsp_dtype_result(desc->compute)), "/weights",
                           &status);
    status = lsp_context_agree(app->ctx, status);
    /* Not by lsp_collect_max_i64, which ends the program: the unfinished output is to be removed. */
    if (status == LSP_OK &&
        MPI_Allreduce(MPI_IN_PLACE, &batches, 1, MPI_INT64_T, MPI_MAX, app->comm) != MPI_SUCCESS)
        status = lsp_context_fail(app->ctx, LSP_ERR_RANK, "MPI failed in counting batches; start it again");
    cursor at = {0};
    for (int64_t i = 0; status == LSP_OK && i < batches; i++) {
        int64_t local = at.local;
        take_rows(&w, &at, b);
        status = write_batch(app, &w, b, local, output);
    }
    lsp_memory_free(b);
    lsp_memory_free(w.pointers);
    lsp_memory_free(w.indices);
    lsp_memory_free(w.data);
    return status;
}
