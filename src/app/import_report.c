/* What an import tells. SPDX-License-Identifier: BSD-3-Clause */
#include "app/format.h"
#include "app/import.h"
#include "app/report.h"
#include "base/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- listing ---------------------------------------------------------------------------------------- */

void lsp_import_list(const lsp_foreign *file, const char *path)
{
    char shape[LSP_IMPORT_SHAPE];
    (void)printf("%s  %s, %" PRId64 " tensor%s, %" PRId64 " bytes\n", path, lsp_foreign_format(file),
                 lsp_foreign_count(file), lsp_foreign_count(file) == 1 ? "" : "s", lsp_foreign_bytes(file));
    for (int64_t i = 0; i < lsp_foreign_count(file); i++) {
        lsp_foreign_tensor tensor = lsp_foreign_get(file, i);
        (void)printf("%s%s%s%s\n", tensor.name, *tensor.name ? "  " : "", lsp_import_shape(&tensor, shape),
                     tensor.known ? "" : "  (not read)");
    }
}

static void add_dims(cJSON *object, const int64_t *dims, int axes)
{
    cJSON *shape = cJSON_AddArrayToObject(object, "shape");
    for (int a = 0; a < axes; a++) lsp_json_add_item(shape, cJSON_CreateNumber((double)dims[a]));
}

static void add_file(cJSON *files, const lsp_import_file *file)
{
    cJSON *object = cJSON_CreateObject();
    (void)cJSON_AddStringToObject(object, "path", file->path);
    (void)cJSON_AddStringToObject(object, "format", lsp_foreign_format(file->file));
    cJSON *tensors = cJSON_AddArrayToObject(object, "tensors");
    for (int64_t i = 0; i < lsp_foreign_count(file->file); i++) {
        lsp_foreign_tensor tensor = lsp_foreign_get(file->file, i);
        cJSON *one = cJSON_CreateObject();
        (void)cJSON_AddStringToObject(one, "name", tensor.name);
        (void)cJSON_AddStringToObject(one, "type", tensor.type_name);
        add_dims(one, tensor.dims, tensor.axes);
        lsp_json_add_item(tensors, one);
    }
    lsp_json_add_item(files, object);
}

lsp_status lsp_import_report_list(lsp_import *import)
{
    lsp_app *app = import->app;
    cJSON *json = lsp_json_begin(app);
    cJSON *files = cJSON_AddArrayToObject(json, "files");
    for (int i = 0; app->layout.rank == 0 && i < import->file_count; i++) {
        lsp_import_list(import->files[i].file, import->files[i].path);
        add_file(files, &import->files[i]);
    }
    return lsp_json_write(app, json);
}

/* ---- a dataset -------------------------------------------------------------------------------------- */

/* Where a part comes from: a tensor's name, or a file's, or "zeros". */
static const char *origin(const lsp_import *import, const lsp_import_part *part)
{
    if (part->from.file < 0) return "zeros";
    const char *name = lsp_import_tensor(import, part->from).name;
    return *name ? name : import->files[part->from.file].path;
}

static void print_dataset(const lsp_import *import, const lsp_import_dataset *dataset)
{
    lsp_foreign_tensor told = {.type_name = lsp_dtype_name(dataset->type), .axes = dataset->axes};
    char shape[LSP_IMPORT_SHAPE];
    memcpy(told.dims, dataset->dims, sizeof dataset->dims);
    (void)printf("  %-18s %s xxh64 %016" PRIx64 "\n", dataset->path, lsp_import_shape(&told, shape),
                 dataset->checksum);
    for (int p = 0; p < dataset->part_count; p++)
        (void)printf("      %s %s%s\n", p ? "and " : "from", origin(import, &dataset->parts[p]),
                     dataset->parts[p].transposed ? ", transposed" : "");
}

static void add_dataset(const lsp_import *import, cJSON *list, const lsp_import_dataset *dataset)
{
    cJSON *object = cJSON_CreateObject();
    (void)cJSON_AddStringToObject(object, "path", dataset->path);
    (void)cJSON_AddStringToObject(object, "type", lsp_dtype_name(dataset->type));
    add_dims(object, dataset->dims, dataset->axes);
    lsp_json_add_checksum(object, "xxh64", dataset->checksum);
    cJSON *from = cJSON_AddArrayToObject(object, "from");
    for (int p = 0; p < dataset->part_count; p++)
        lsp_json_add_item(from, cJSON_CreateString(origin(import, &dataset->parts[p])));
    lsp_json_add_item(list, object);
}

/* ---- the layer -------------------------------------------------------------------------------------- */

static bool is_taken(const lsp_import *import, lsp_import_ref ref)
{
    for (int i = 0; i < import->count; i++)
        for (int p = 0; p < import->datasets[i].part_count; p++) {
            lsp_import_ref from = import->datasets[i].parts[p].from;
            if (from.file == ref.file && from.tensor == ref.tensor) return true;
        }
    return false;
}

/* Tensors under the layer's prefix that no dataset has: told, as they may matter. */
static void add_left_out(const lsp_import *import, cJSON *list)
{
    const char *prefix = import->layer.prefix;
    size_t length = strlen(prefix);
    for (int f = 0; f < import->file_count; f++) {
        for (int64_t i = 0; !import->files[f].array && i < lsp_foreign_count(import->files[f].file); i++) {
            const char *name = lsp_foreign_get(import->files[f].file, i).name;
            if (length > 0 && (strncmp(name, prefix, length) != 0 || name[length] != '.')) continue;
            if (!is_taken(import, (lsp_import_ref){f, i})) lsp_json_add_item(list, cJSON_CreateString(name));
        }
    }
}

static void print_left_out(const cJSON *list)
{
    enum { SHOWN = 6 };
    int count = cJSON_GetArraySize(list), shown = 0;
    const cJSON *name = NULL;
    if (count == 0) return;
    (void)printf("  left out ");
    cJSON_ArrayForEach(name, list)
    {
        if (shown++ < SHOWN) (void)printf("%s%s", shown > 1 ? ", " : "", name->valuestring);
    }
    if (count > SHOWN) (void)printf(" and %d more", count - SHOWN);
    (void)printf("\n");
}

static cJSON *add_layer(const lsp_import *import, cJSON *json)
{
    const lsp_import_layer *layer = &import->layer;
    cJSON *object = cJSON_AddObjectToObject(json, "layer");
    (void)cJSON_AddStringToObject(object, "names", layer->names);
    (void)cJSON_AddStringToObject(object, "prefix", layer->prefix);
    lsp_json_add_number(object, "d_model", (double)layer->d_model);
    if (layer->head_dim > 0) {
        lsp_json_add_number(object, "heads", (double)layer->heads);
        lsp_json_add_number(object, "kv_heads", (double)layer->kv_heads);
        lsp_json_add_number(object, "head_dim", (double)layer->head_dim);
    }
    cJSON *left_out = cJSON_AddArrayToObject(object, "left_out");
    add_left_out(import, left_out);
    return left_out;
}

static void print_layer(const lsp_import_layer *layer)
{
    (void)printf("  layer    %s%sby the names of %s: d_model %" PRId64, layer->prefix,
                 *layer->prefix ? ", " : "", layer->names, layer->d_model);
    if (layer->head_dim > 0)
        (void)printf(", %" PRId64 " heads (%" PRId64 " of k and v) of %" PRId64 "\n", layer->heads,
                     layer->kv_heads, layer->head_dim);
    else
        (void)printf(", %" PRId64 " rows of q, %" PRId64 " of k and v\n", layer->q_rows, layer->kv_rows);
}

/* ---- the whole -------------------------------------------------------------------------------------- */

lsp_status lsp_import_report(lsp_import *import)
{
    lsp_app *app = import->app;
    const char *file = lsp_options_text(app->options, LSP_KEY_OUTPUT_FILE);
    double seconds = lsp_clock() - app->started;
    bool speaks = app->layout.rank == 0;
    cJSON *json = lsp_json_begin(app), *left_out = NULL;
    cJSON *times = cJSON_AddObjectToObject(json, "seconds");
    lsp_json_add_number(times, "total", seconds);
    if (speaks) (void)printf("longspan %s import: into %s\n", lsp_version(), file);
    if (import->layer.names) left_out = add_layer(import, json);
    if (speaks && import->layer.names) print_layer(&import->layer);
    cJSON *datasets = cJSON_AddArrayToObject(json, "datasets");
    for (int i = 0; i < import->count; i++) {
        add_dataset(import, datasets, &import->datasets[i]);
        if (speaks) print_dataset(import, &import->datasets[i]);
    }
    if (speaks) {
        if (left_out) print_left_out(left_out);
        lsp_summary_unused(app);
    }
    lsp_status status = lsp_json_write(app, json);
    char text[LSP_FORMAT_SIZE];
    if (speaks && status == LSP_OK)
        (void)printf("longspan: PASSED, wrote %s in %s\n", file, lsp_format_seconds(seconds, text));
    return status;
}
