/* Single tensors and arrays that an import copies to datasets of their own. SPDX-License-Identifier: BSD-3-Clause */
#include "app/import.h"
#include "base/memory.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* A path of plain names; the first slash may be left out. */
static bool take_path(const char *text, char *path)
{
    (void)snprintf(path, LSP_IMPORT_NAME, "%s%s", *text == '/' ? "" : "/", text);
    size_t length = strlen(path);
    if (length < 2 || path[length - 1] == '/' || strstr(path, "//") || strlen(text) + 2 > LSP_IMPORT_NAME)
        return false;
    for (const char *at = path; at; at = strchr(at + 1, '/')) {
        size_t part = strcspn(at + 1, "/");
        if (strspn(at + 1, ".") == part) return false;
    }
    for (const char *c = path; *c; c++)
        if (!isalnum((unsigned char)*c) && !strchr("/._-", *c)) return false;
    return true;
}

/* What the layer reads is f32 or f64. */
static bool wants_f32(const char *path)
{
    static const char *const endings[] = {".weight", ".bias"};
    size_t length = strlen(path);
    if (strcmp(path, "/x") == 0 || strcmp(path, "/context") == 0) return true;
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        size_t tail = strlen(endings[i]);
        if (length > tail && strcmp(path + length - tail, endings[i]) == 0) return true;
    }
    return false;
}

static lsp_status add_copy(lsp_import *import, const char *key, const char *target, lsp_import_ref ref)
{
    lsp_context *ctx = import->app->ctx;
    lsp_foreign_tensor tensor = lsp_import_tensor(import, ref);
    const char *file = import->files[ref.file].path;
    char path[LSP_IMPORT_NAME], shape[LSP_IMPORT_SHAPE];
    lsp_status status = LSP_OK;
    if (!take_path(target, path))
        return lsp_context_fail(
            ctx, LSP_ERR_USAGE,
            "%s: '%s' is no path of a dataset; letters, digits, '.', '_', '-' and / make one", key, target);
    if (!tensor.known || tensor.axes < 1 || tensor.axes > 4 || tensor.bytes == 0)
        return lsp_context_fail(
            ctx, LSP_ERR_CONTENT,
            "%s%.*s%s'%s' is %s; datasets have 1 to 4 axes, at least one number, and a type out of "
            "F64, F32, F16, BF16 and integers",
            *tensor.name ? "tensor '" : "", LSP_IMPORT_SHOWN, tensor.name, *tensor.name ? "' of " : "", file,
            lsp_import_shape(&tensor, shape));
    lsp_import_dataset *dataset = lsp_import_add(import, path, tensor.axes, tensor.dims, &status);
    if (!dataset) return status;
    bool small = tensor.type == LSP_F16 || tensor.type == LSP_BF16;
    dataset->type = small && wants_f32(path) ? LSP_F32 : tensor.type;
    dataset->parts[0] =
        (lsp_import_part){.from = ref, .rows = tensor.dims[tensor.axes > 1 ? tensor.axes - 2 : 0]};
    dataset->part_count = 1;
    return LSP_OK;
}

/* NAME=/path. A tensor's name may hold an equals sign, a path does not. */
static lsp_status take_tensor(lsp_import *import, char *pair)
{
    char *equals = strrchr(pair, '=');
    if (!equals || equals == pair || equals[1] == '\0')
        return lsp_context_fail(import->app->ctx, LSP_ERR_USAGE,
                                "import.tensors: '%s' is not of the form NAME=/path", pair);
    *equals = '\0';
    lsp_import_ref ref = lsp_import_lookup(import, pair);
    if (ref.file >= 0) return add_copy(import, "import.tensors", equals + 1, ref);
    const char *nearest = lsp_import_nearest(import, pair);
    if (!nearest)
        return lsp_context_fail(import->app->ctx, LSP_ERR_CONTENT,
                                "import.tensors: there is no tensor '%s': import.source holds none", pair);
    return lsp_context_fail(import->app->ctx, LSP_ERR_CONTENT,
                            "import.tensors: there is no tensor '%s' in import.source; the nearest is '%.*s' "
                            "(import.list=yes lists all)",
                            pair, LSP_IMPORT_SHOWN, nearest);
}

lsp_status lsp_import_take_copies(lsp_import *import)
{
    lsp_options *options = import->app->options;
    const char *tensors = lsp_options_text(options, LSP_KEY_IMPORT_TENSORS);
    const char *arrays = lsp_options_text(options, LSP_KEY_IMPORT_ARRAYS);
    lsp_status status = LSP_OK;
    for (char *pair; status == LSP_OK && (pair = lsp_import_item(import, &tensors, &status));) {
        status = take_tensor(import, pair);
        lsp_memory_free(pair);
    }
    int file = 0;
    for (char *pair; status == LSP_OK && (pair = lsp_import_item(import, &arrays, &status)); file++) {
        while (!import->files[file].array) file++; /* as many, in the same order */
        *strchr(pair, '=') = '\0';
        status = add_copy(import, "import.arrays", pair, (lsp_import_ref){file, 0});
        lsp_memory_free(pair);
    }
    return status;
}
