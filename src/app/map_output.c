/* The file of `longspan map`. SPDX-License-Identifier: BSD-3-Clause */
#include "app/map.h"
#include "app/result.h"
#include "app/runs.h"
#include "base/checked.h"
#include "base/memory.h"

#include <string.h>

/* Numbers of the datasets; those of rows begin with the figures. */
enum { MEAN = LSP_MAP_FIGURES, MAX, MASS, LINK_ROW, LINK_KEY, LINK_WEIGHT, LSE, DATASETS };

typedef struct dataset_name {
    const char *name, *units;
} dataset_name;

static const dataset_name names[DATASETS] = {
    [LSP_MAP_ENTROPY] = {"/map/entropy", "nats"},
    [LSP_MAP_DISTANCE] = {"/map/distance", "keys"},
    [LSP_MAP_SELF] = {"/map/self", "1"},
    [LSP_MAP_FIRST] = {"/map/first", "1"},
    [LSP_MAP_NEAR] = {"/map/near", "1"},
    [MEAN] = {"/map/mean", "weight of a row and key"},
    [MAX] = {"/map/max", "weight of a row and key"},
    [MASS] = {"/map/column_mass", "rows"},
    [LINK_ROW] = {"/map/links/row", "row"},
    [LINK_KEY] = {"/map/links/key", "key"},
    [LINK_WEIGHT] = {"/map/links/weight", "1"},
    [LSE] = {"/lse", "natural logarithm"},
};

/* A file has no links where none were asked for, and lse at its end if at all: places in the file. */
static int place_of(const lsp_map_job *job, int dataset)
{
    return dataset == LSE && job->options.links == 0 ? LINK_ROW : dataset;
}

static lsp_output_dataset dataset_of(const lsp_map_job *job, int which)
{
    const lsp_attention_desc *d = &job->input.desc;
    const lsp_map_shape *s = &job->shape;
    lsp_dtype type = lsp_dtype_result(d->compute);
    lsp_view view = LSP_VIEW_SCALARS;
    lsp_layout layout = LSP_BHND;
    int64_t last[2] = {s->rows, 1};
    const char *axis = "row";
    if (which < MEAN || which == LSE) layout = job->input.q.shape.layout;
    if (which == MEAN || which == MAX) {
        view = LSP_VIEW_ROWS;
        last[0] = s->pixel_rows, last[1] = s->pixel_keys;
        axis = "pixel_row";
    } else if (which == MASS) {
        last[0] = s->keys;
        axis = "key";
        type = LSP_F64;
    } else if (which == LINK_ROW || which == LINK_KEY || which == LINK_WEIGHT) {
        last[0] = job->options.links;
        axis = "link";
        type = which == LINK_WEIGHT ? LSP_F64 : LSP_I64;
    }
    const int64_t shape[4] = {d->batch, d->heads, last[0], last[1]};
    lsp_output_dataset dataset =
        lsp_result_dataset(names[which].name, type, view, layout, job->input.q.shape.axes, shape);
    for (int a = 0; a < dataset.axes; a++)
        if (strcmp(dataset.axis_names[a], "row") == 0) dataset.axis_names[a] = axis;
    if (view == LSP_VIEW_ROWS) dataset.axis_names[dataset.axes - 1] = "pixel_key";
    dataset.units = names[which].units;
    return dataset;
}

lsp_status lsp_map_output_create(lsp_map_job *job)
{
    lsp_app *app = job->app;
    const char *file = lsp_options_text(app->options, LSP_KEY_OUTPUT_FILE);
    const char *inputs[3];
    int input_count = lsp_map_input_files(job, inputs);
    if (!*file) return LSP_OK;
    lsp_status status = lsp_result_check_target(app, inputs, input_count);
    if (status != LSP_OK) return status;
    lsp_output_dataset datasets[DATASETS];
    int count = 0;
    for (int i = 0; i < DATASETS; i++) {
        bool links = i == LINK_ROW || i == LINK_KEY || i == LINK_WEIGHT;
        if ((links && job->options.links == 0) || (i == LSE && !job->has_lse)) continue;
        datasets[count++] = dataset_of(job, i);
    }
    return lsp_output_create(app->ctx, file, lsp_options_yes(app->options, LSP_KEY_OUTPUT_OVERWRITE),
                             datasets, count, &job->output);
}

/* ---- rows ---------------------------------------------------------------------------------------- */

static lsp_status write_rows(lsp_map_job *job)
{
    lsp_app *app = job->app;
    const void *figures = NULL, *lse = NULL;
    size_t element = lsp_dtype_size(lsp_dtype_result(job->input.desc.compute));
    lsp_status status = lsp_map_get_rows(job->map, &figures, &lse);
    char *one = lsp_app_alloc(app, job->query_rows, element, "a figure of all rows", &status);
    lsp_run *runs = lsp_runs_map(job->query_runs, job->query_run_count, NULL, -job->input.desc.row_begin);
    if (!runs && status == LSP_OK)
        status = lsp_context_fail(app->ctx, LSP_ERR_LIMIT, "no memory for the list of rows");
    status = lsp_context_agree(app->ctx, status);
    for (int f = 0; status == LSP_OK && f < LSP_MAP_FIGURES; f++) {
        const char *from = (const char *)figures + (size_t)f * element;
        for (int64_t r = 0; r < job->query_rows; r++)
            memcpy(one + (size_t)r * element, from + (size_t)(r * LSP_MAP_FIGURES) * element, element);
        status = lsp_output_write(job->output, f, runs, job->query_run_count, one);
    }
    if (status == LSP_OK && job->has_lse)
        status = lsp_output_write(job->output, place_of(job, LSE), runs, job->query_run_count, lse);
    lsp_memory_free(one);
    lsp_memory_free(runs);
    return status;
}

/* ---- heads --------------------------------------------------------------------------------------- */

/* Heads that this rank writes: every rank has all. */
static int64_t list_own(const lsp_map_job *job, int64_t height, lsp_run *runs)
{
    int64_t own = 0, heads = job->input.desc.heads;
    for (int64_t i = job->app->layout.rank; i < job->count; i += job->app->layout.ranks)
        runs[own++] = (lsp_run){i / heads, i % heads, 0, height};
    return own;
}

/* Pixel values of a head in the file's type. */
static void fill_pixels(const lsp_map_job *job, const lsp_map_head *head, int which, char *to)
{
    const lsp_map_shape *s = &job->shape;
    bool wide = job->input.desc.compute == LSP_F64;
    for (int64_t r = 0; r < s->pixel_rows; r++)
        for (int64_t c = 0; c < s->pixel_keys; c++) {
            int64_t at = r * s->pixel_keys + c;
            int64_t rows = lsp_min(s->rows_per_pixel, s->rows - r * s->rows_per_pixel);
            int64_t keys = lsp_min(s->keys_per_pixel, s->keys - c * s->keys_per_pixel);
            double value = which == MAX ? head->max[at] : head->sum[at] / ((double)rows * (double)keys);
            if (wide)
                ((double *)(void *)to)[at] = value;
            else
                ((float *)(void *)to)[at] = (float)value;
        }
}

/* Links of a head; where there are fewer, row and key are -1. */
static void fill_links(const lsp_map_job *job, const lsp_map_head *head, int which, char *to)
{
    for (int64_t i = 0; i < job->options.links; i++) {
        bool there = i < head->link_count;
        if (which == LINK_WEIGHT)
            ((double *)(void *)to)[i] = there ? head->links[i].weight : 0;
        else
            ((int64_t *)(void *)to)[i] = !there              ? -1
                                         : which == LINK_ROW ? head->links[i].row
                                                             : head->links[i].key;
    }
}

static lsp_status write_heads(lsp_map_job *job, int which)
{
    lsp_app *app = job->app;
    const lsp_map_shape *s = &job->shape;
    lsp_status status = LSP_OK;
    bool pixels = which == MEAN || which == MAX;
    int64_t height = pixels ? s->pixel_rows : which == MASS ? s->keys : job->options.links;
    int64_t numbers = height * (pixels ? s->pixel_keys : 1);
    size_t bytes = (size_t)numbers *
                   (pixels ? lsp_dtype_size(lsp_dtype_result(job->input.desc.compute)) : sizeof(double));
    int64_t share = lsp_ceil_div(job->count, app->layout.ranks);
    lsp_run *runs = lsp_app_alloc(app, share, sizeof *runs, "the list of heads", &status);
    char *buffer = lsp_app_alloc(app, share, bytes, names[which].name, &status);
    status = lsp_context_agree(app->ctx, status);
    int64_t own = status == LSP_OK ? list_own(job, height, runs) : 0;
    for (int64_t i = 0; i < own; i++) {
        const lsp_map_head *head = &job->heads[runs[i].batch * job->input.desc.heads + runs[i].head];
        char *to = buffer + (size_t)i * bytes;
        if (pixels)
            fill_pixels(job, head, which, to);
        else if (which == MASS)
            memcpy(to, head->column_mass, bytes);
        else
            fill_links(job, head, which, to);
    }
    if (status == LSP_OK) status = lsp_output_write(job->output, which, runs, own, buffer);
    lsp_memory_free(runs);
    lsp_memory_free(buffer);
    return status;
}

/* ---- the end ------------------------------------------------------------------------------------- */

static lsp_status describe(lsp_map_job *job)
{
    const lsp_map_shape *s = &job->shape;
    const struct {
        const char *name;
        int64_t value;
    } numbers[] = {{"rows_per_pixel", s->rows_per_pixel},
                   {"keys_per_pixel", s->keys_per_pixel},
                   {"window", LSP_MAP_WINDOW}};
    lsp_status status = lsp_result_describe(job->app, &job->input, job->isa, job->output);
    for (size_t i = 0; status == LSP_OK && i < sizeof numbers / sizeof *numbers; i++)
        status = lsp_output_attribute_i64(job->output, -1, numbers[i].name, numbers[i].value);
    return status;
}

lsp_status lsp_map_output_write(lsp_map_job *job)
{
    if (!job->output) return LSP_OK;
    lsp_status status = write_rows(job);
    for (int which = MEAN; status == LSP_OK && which < LSE; which++)
        if (which <= MASS || job->options.links > 0) status = write_heads(job, which);
    if (status == LSP_OK) status = describe(job);
    if (status == LSP_OK) status = lsp_output_commit(&job->output);
    if (status == LSP_OK) job->written = lsp_options_text(job->app->options, LSP_KEY_OUTPUT_FILE);
    return status;
}
