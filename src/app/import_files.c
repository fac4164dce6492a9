/* The files that an import reads, and finding tensors in them. SPDX-License-Identifier: BSD-3-Clause */
#include "app/import.h"
#include "app/value.h"
#include "base/memory.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* ---- lists ------------------------------------------------------------------------------------------ */

char *lsp_import_item(lsp_import *import, const char **list, lsp_status *status)
{
    while (**list == ',' || isspace((unsigned char)**list)) ++*list;
    if (**list == '\0') return NULL;
    size_t whole = strcspn(*list, ","), length = whole;
    while (length > 0 && isspace((unsigned char)(*list)[length - 1])) length--;
    char *item = lsp_app_alloc(import->app, (int64_t)length + 1, 1, "a name", status);
    if (item) {
        memcpy(item, *list, length);
        item[length] = '\0';
    }
    *list += whole;
    return item;
}

static int count_items(const char *list)
{
    int count = *list != '\0';
    for (; *list; list++) count += *list == ',';
    return count;
}

/* ---- opening ---------------------------------------------------------------------------------------- */

static lsp_status open_one(lsp_import *import, char *path, bool array)
{
    lsp_import_file *file = &import->files[import->file_count++];
    *file = (lsp_import_file){.path = path, .array = array};
    lsp_status status = lsp_foreign_open(import->app->ctx, path, &file->file);
    if (status != LSP_OK) return status;
    bool npy = strcmp(lsp_foreign_format(file->file), "npy") == 0;
    if (npy == array) return LSP_OK;
    return lsp_context_fail(
        import->app->ctx, LSP_ERR_CONTENT,
        array ? "'%s' is no .npy file; import.arrays wants NAME=FILE.npy, safetensors belong into "
                "import.source"
              : "'%s' is a .npy file; import.source wants safetensors, arrays belong into "
                "import.arrays = NAME=FILE.npy",
        path);
}

static lsp_status open_source(lsp_import *import, const char *list)
{
    lsp_status status = LSP_OK;
    for (char *path; status == LSP_OK && (path = lsp_import_item(import, &list, &status));)
        status = open_one(import, path, false);
    return status;
}

static lsp_status open_arrays(lsp_import *import, const char *list)
{
    lsp_status status = LSP_OK;
    for (char *pair; status == LSP_OK && (pair = lsp_import_item(import, &list, &status));) {
        const char *equals = strchr(pair, '=');
        if (!equals || equals == pair || equals[1] == '\0') {
            status = lsp_context_fail(import->app->ctx, LSP_ERR_USAGE,
                                      "import.arrays: '%s' is not of the form NAME=FILE.npy", pair);
        } else {
            char *path = lsp_memory_strdup(equals + 1);
            status = path ? open_one(import, path, true)
                          : lsp_context_fail(import->app->ctx, LSP_ERR_LIMIT, "no memory for a name");
        }
        lsp_memory_free(pair);
    }
    return status;
}

/* A model in several files has each tensor in one of them. */
static lsp_status check_twice(lsp_import *import)
{
    for (int f = 1; f < import->file_count; f++) {
        const lsp_import_file *file = &import->files[f];
        for (int64_t i = 0; !file->array && i < lsp_foreign_count(file->file); i++) {
            const char *name = lsp_foreign_get(file->file, i).name;
            int other = lsp_import_lookup(import, name).file;
            if (other == f) continue;
            return lsp_context_fail(
                import->app->ctx, LSP_ERR_CONTENT,
                "tensor '%.*s' is in '%s' and in '%s'; name files of one model in import.source",
                LSP_IMPORT_SHOWN, name, import->files[other].path, file->path);
        }
    }
    return LSP_OK;
}

lsp_status lsp_import_open(lsp_import *import)
{
    lsp_app *app = import->app;
    const char *source = lsp_options_text(app->options, LSP_KEY_IMPORT_SOURCE);
    const char *arrays = lsp_options_text(app->options, LSP_KEY_IMPORT_ARRAYS);
    lsp_status status = LSP_OK;
    if (!*arrays) status = lsp_app_require(app, LSP_KEY_IMPORT_SOURCE);
    if (status != LSP_OK) return status;
    import->files = lsp_app_alloc(app, count_items(source) + count_items(arrays), sizeof *import->files,
                                  "the list of files", &status);
    if (status == LSP_OK) status = open_source(import, source);
    if (status == LSP_OK) status = open_arrays(import, arrays);
    return status == LSP_OK ? check_twice(import) : status;
}

void lsp_import_close(lsp_import *import)
{
    for (int i = 0; i < import->file_count; i++) {
        lsp_foreign_close(&import->files[i].file);
        lsp_memory_free(import->files[i].path);
    }
    for (int i = 0; i < import->count; i++) lsp_memory_free(import->datasets[i].path);
    lsp_memory_free(import->files);
    lsp_memory_free(import->datasets);
}

/* ---- tensors ---------------------------------------------------------------------------------------- */

lsp_import_ref lsp_import_lookup(const lsp_import *import, const char *name)
{
    for (int f = 0; f < import->file_count; f++) {
        if (import->files[f].array) continue;
        int64_t tensor = lsp_foreign_find(import->files[f].file, name);
        if (tensor >= 0) return (lsp_import_ref){f, tensor};
    }
    return (lsp_import_ref){-1, -1};
}

lsp_foreign_tensor lsp_import_tensor(const lsp_import *import, lsp_import_ref ref)
{
    return lsp_foreign_get(import->files[ref.file].file, ref.tensor);
}

/* Names differ near their ends; distances look at 63 bytes. */
static const char *tail(const char *name)
{
    enum { COMPARED = 63 };
    size_t length = strlen(name);
    return length > COMPARED ? name + length - COMPARED : name;
}

const char *lsp_import_nearest(const lsp_import *import, const char *name)
{
    const char *nearest = NULL;
    int least = 1000;
    for (int f = 0; f < import->file_count; f++) {
        for (int64_t i = 0; !import->files[f].array && i < lsp_foreign_count(import->files[f].file); i++) {
            const char *candidate = lsp_foreign_get(import->files[f].file, i).name;
            int distance = lsp_value_distance(tail(name), tail(candidate));
            if (distance >= least) continue;
            least = distance;
            nearest = candidate;
        }
    }
    return nearest;
}

const char *lsp_import_shape(const lsp_foreign_tensor *tensor, char *text)
{
    int at = snprintf(text, LSP_IMPORT_SHAPE, "[");
    for (int a = 0; a < tensor->axes; a++)
        at += snprintf(text + at, (size_t)(LSP_IMPORT_SHAPE - at), "%s%lld", a ? ", " : "",
                       (long long)tensor->dims[a]);
    (void)snprintf(text + at, (size_t)(LSP_IMPORT_SHAPE - at), "] %s", tensor->type_name);
    return text;
}

/* ---- datasets --------------------------------------------------------------------------------------- */

/* One is the other, or a group that the other stands in. */
static bool collide(const char *a, const char *b)
{
    size_t shorter = strlen(a) < strlen(b) ? strlen(a) : strlen(b);
    return strncmp(a, b, shorter) == 0 &&
           (a[shorter] == b[shorter] || a[shorter] == '/' || b[shorter] == '/');
}

lsp_import_dataset *lsp_import_add(lsp_import *import, const char *path, int axes, const int64_t *dims,
                                   lsp_status *status)
{
    enum { STEP = 16 };
    for (int i = 0; i < import->count; i++) {
        if (!collide(import->datasets[i].path, path)) continue;
        *status = lsp_context_fail(import->app->ctx, LSP_ERR_USAGE,
                                   "dataset %s cannot be written beside %s; give one of them another name",
                                   path, import->datasets[i].path);
        return NULL;
    }
    if (import->count == import->room) {
        lsp_import_dataset *more =
            lsp_app_alloc(import->app, import->room + STEP, sizeof *more, "datasets", status);
        if (!more) return NULL;
        if (import->count > 0) memcpy(more, import->datasets, (size_t)import->count * sizeof *more);
        lsp_memory_free(import->datasets);
        import->datasets = more;
        import->room += STEP;
    }
    lsp_import_dataset *dataset = &import->datasets[import->count];
    *dataset = (lsp_import_dataset){.path = lsp_memory_strdup(path), .axes = axes};
    if (!dataset->path) {
        *status = lsp_context_fail(import->app->ctx, LSP_ERR_LIMIT, "no memory for the name %s", path);
        return NULL;
    }
    memcpy(dataset->dims, dims, (size_t)axes * sizeof *dims);
    import->count++;
    return dataset;
}
