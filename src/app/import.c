/* longspan import: weights and arrays of other programs become datasets. SPDX-License-Identifier: BSD-3-Clause */
#include "app/import.h"
#include "app/report.h"
#include "app/result.h"
#include "app/runs.h"
#include "base/checked.h"
#include "base/memory.h"

#include <string.h>

enum { PIECE_BYTES = 16 << 20 };

/* ---- the output ------------------------------------------------------------------------------------- */

/* Names of the axes, as far as the dataset's name tells. */
static void name_axes(lsp_output_dataset *to)
{
    bool heads = strlen(to->name) == 2 && strchr("qkv", to->name[1]);
    bool weight = strstr(to->name, "_proj.weight") != NULL, bias = strstr(to->name, "_proj.bias") != NULL;
    static const char *const names[4] = {"batch", "head", "row", "column"};
    for (int a = 0; a < to->axes && to->axes > 1; a++) to->axis_names[a] = names[4 - to->axes + a];
    if (to->axes == 3 && !heads) to->axis_names[0] = names[0];
    if (weight && to->axes == 2) {
        to->axis_names[0] = "output";
        to->axis_names[1] = "input";
    }
    if (bias && to->axes == 1) to->axis_names[0] = "output";
}

static lsp_status create(lsp_import *import, lsp_output **output)
{
    lsp_app *app = import->app;
    lsp_status status = LSP_OK;
    lsp_output_dataset *datasets =
        lsp_app_alloc(app, import->count, sizeof *datasets, "the list of datasets", &status);
    status = lsp_context_agree(app->ctx, status);
    for (int i = 0; status == LSP_OK && i < import->count; i++) {
        const lsp_import_dataset *from = &import->datasets[i];
        datasets[i] = (lsp_output_dataset){.name = from->path,
                                           .type = from->type,
                                           .axes = from->axes,
                                           .view = from->axes == 1 ? LSP_VIEW_SCALARS : LSP_VIEW_ROWS};
        memcpy(datasets[i].dims, from->dims, sizeof from->dims);
        name_axes(&datasets[i]);
    }
    if (status == LSP_OK)
        status = lsp_output_create(app->ctx, lsp_options_text(app->options, LSP_KEY_OUTPUT_FILE),
                                   lsp_options_yes(app->options, LSP_KEY_OUTPUT_OVERWRITE), datasets,
                                   import->count, output);
    lsp_memory_free(datasets);
    return status;
}

/* ---- rows ------------------------------------------------------------------------------------------- */

/* A dataset as matrices of rows. */
typedef struct shape {
    int64_t matrices, heads, columns;
    size_t row_bytes; /* of a row in all matrices */
} shape;

static shape shape_of(const lsp_import_dataset *dataset)
{
    const int64_t *dims = dataset->dims;
    int axes = dataset->axes;
    shape s = {.heads = axes > 2 ? dims[axes - 3] : 1, .columns = axes > 1 ? dims[axes - 1] : 1};
    s.matrices = s.heads * (axes > 3 ? dims[0] : 1);
    s.row_bytes = (size_t)(s.matrices * s.columns) * lsp_dtype_size(dataset->type);
    return s;
}

/* Rows [first, last) of a part, of every matrix; all ranks call this equally often. */
static lsp_status write_piece(const lsp_import *import, lsp_output *output, int index,
                              const lsp_import_part *part, int64_t first, int64_t last, void *buffer)
{
    lsp_app *app = import->app;
    const lsp_import_dataset *dataset = &import->datasets[index];
    shape s = shape_of(dataset);
    int64_t count = last > first ? s.matrices : 0;
    lsp_status status = LSP_OK;
    lsp_run *runs = lsp_app_alloc(app, count, sizeof *runs, "the list of rows", &status);
    for (int64_t m = 0; runs && m < count; m++)
        runs[m] = (lsp_run){m / s.heads, m % s.heads, part->at + first, last - first};
    if (runs && count > 0 && part->from.file < 0)
        memset(buffer, 0, (size_t)(last - first) * s.row_bytes);
    else if (runs && count > 0)
        status = lsp_foreign_read(app->ctx, import->files[part->from.file].file, part->from.tensor,
                                  part->transposed, first, last - first, dataset->type, buffer);
    status = lsp_context_agree(app->ctx, status);
    if (status == LSP_OK) status = lsp_output_write(output, index, runs, count, buffer);
    lsp_memory_free(runs);
    return status;
}

/* Ranks share the rows of each part. */
static lsp_status write_dataset(const lsp_import *import, lsp_output *output, int index)
{
    lsp_app *app = import->app;
    const lsp_import_dataset *dataset = &import->datasets[index];
    shape s = shape_of(dataset);
    int64_t most = 0;
    for (int p = 0; p < dataset->part_count; p++) most = lsp_max(most, dataset->parts[p].rows);
    int64_t height =
        lsp_min(lsp_max(1, PIECE_BYTES / (int64_t)s.row_bytes), lsp_ceil_div(most, app->layout.ranks));
    lsp_status status = LSP_OK;
    void *buffer = lsp_app_alloc(app, height, s.row_bytes, dataset->path, &status);
    status = lsp_context_agree(app->ctx, status);
    for (int p = 0; p < dataset->part_count; p++) {
        const lsp_import_part *part = &dataset->parts[p];
        int64_t first = 0, last = 0,
                pieces = lsp_ceil_div(lsp_ceil_div(part->rows, app->layout.ranks), height);
        lsp_runs_share(part->rows, app->layout.rank, app->layout.ranks, &first, &last);
        for (int64_t piece = 0; status == LSP_OK && piece < pieces; piece++) {
            int64_t end = lsp_min(last, first + height);
            status = write_piece(import, output, index, part, first, end, buffer);
            first = end;
        }
    }
    lsp_memory_free(buffer);
    return status;
}

/* ---- the whole -------------------------------------------------------------------------------------- */

static lsp_status sign(const lsp_import *import, lsp_output *output)
{
    const lsp_import_layer *layer = &import->layer;
    lsp_status status = lsp_result_sign(import->app, output);
    if (status != LSP_OK || !layer->names) return status;
    const struct {
        const char *name;
        int64_t value;
    } numbers[] = {{"d_model", layer->d_model},
                   {"heads", layer->heads},
                   {"kv_heads", layer->kv_heads},
                   {"head_dim", layer->head_dim}};
    status = lsp_output_attribute_text(output, -1, "names", layer->names);
    if (status == LSP_OK) status = lsp_output_attribute_text(output, -1, "prefix", layer->prefix);
    for (size_t i = 0; status == LSP_OK && i < sizeof numbers / sizeof *numbers; i++)
        if (numbers[i].value > 0)
            status = lsp_output_attribute_i64(output, -1, numbers[i].name, numbers[i].value);
    return status;
}

static lsp_status write_all(lsp_import *import)
{
    lsp_output *output = NULL;
    lsp_status status = create(import, &output);
    for (int i = 0; status == LSP_OK && i < import->count; i++) {
        status = write_dataset(import, output, i);
        if (status == LSP_OK) status = lsp_output_checksum(output, i, &import->datasets[i].checksum);
    }
    if (status == LSP_OK) status = sign(import, output);
    if (status == LSP_OK) status = lsp_output_commit(&output);
    if (output) (void)lsp_output_discard(&output);
    return status;
}

/* What is read must not be replaced. */
static lsp_status check_target(const lsp_import *import)
{
    lsp_status status = LSP_OK;
    for (int i = 0; status == LSP_OK && i < import->file_count; i++) {
        const char *const path[] = {import->files[i].path};
        status = lsp_result_check_target(import->app, path, 1);
    }
    return status;
}

static lsp_status choose(lsp_import *import)
{
    lsp_status status = lsp_import_find_layer(import);
    if (status == LSP_OK) status = lsp_import_take_layer(import);
    if (status == LSP_OK) status = lsp_import_take_copies(import);
    if (status == LSP_OK && import->count == 0)
        status = lsp_context_fail(
            import->app->ctx, LSP_ERR_USAGE,
            "nothing is to be imported: with import.names=none, name tensors in import.tensors "
            "or arrays in import.arrays");
    return status;
}

static lsp_status run(lsp_import *import)
{
    lsp_app *app = import->app;
    bool list = lsp_options_yes(app->options, LSP_KEY_IMPORT_LIST);
    lsp_status status = list ? LSP_OK : lsp_app_require(app, LSP_KEY_OUTPUT_FILE);
    if (status == LSP_OK) status = lsp_json_probe(app);
    if (status != LSP_OK) return status;
    /* Each rank by itself: that all can read the files is known before any row is read. */
    status = lsp_context_agree(app->ctx, lsp_import_open(import));
    if (list) return status == LSP_OK ? lsp_import_report_list(import) : status;
    if (status == LSP_OK) status = lsp_context_agree(app->ctx, choose(import));
    if (status == LSP_OK) status = check_target(import);
    if (status == LSP_OK) status = write_all(import);
    return status == LSP_OK ? lsp_import_report(import) : status;
}

lsp_status lsp_import_run(lsp_app *app)
{
    lsp_import import = {.app = app};
    lsp_status status = run(&import);
    lsp_import_close(&import);
    return status;
}
