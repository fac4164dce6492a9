/* SPDX-License-Identifier: BSD-3-Clause */
#include "app/checksums.h"

#include "app/collect.h"
#include "base/memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { PATH_MOST = 1024 };

typedef struct listed_dataset {
    char path[PATH_MOST];
    lsp_view view;
    lsp_layout layout;
    bool has_checksum;
} listed_dataset;

typedef struct dataset_list {
    listed_dataset *items;
    int64_t count, room;
    bool full; /* out of memory */
} dataset_list;

static void add_dataset(void *user, const lsp_file_dataset *dataset)
{
    dataset_list *list = user;
    if (list->count == list->room) {
        int64_t room = list->room ? 2 * list->room : 16;
        listed_dataset *items = lsp_memory_alloc(room, sizeof *items);
        if (!items) {
            list->full = true;
            return;
        }
        if (list->count) memcpy(items, list->items, (size_t)list->count * sizeof *items);
        lsp_memory_free(list->items);
        list->items = items;
        list->room = room;
    }
    listed_dataset *item = &list->items[list->count++];
    memset(item, 0, sizeof *item);
    (void)snprintf(item->path, sizeof item->path, "%s", dataset->path);
    item->view = dataset->view;
    item->layout = dataset->layout;
    item->has_checksum = dataset->has_checksum;
}

/* Rank 0's list, on every rank. */
static lsp_status list_datasets(lsp_app *app, const char *file, dataset_list *list)
{
    lsp_status status = LSP_OK;
    if (app->layout.rank == 0) {
        status = lsp_file_datasets(app->ctx, file, add_dataset, list);
        if (status == LSP_OK && list->full)
            status =
                lsp_context_fail(app->ctx, LSP_ERR_LIMIT, "no memory for the list of datasets of %s", file);
    }
    status = lsp_context_agree(app->ctx, status);
    if (status != LSP_OK) return status;
    lsp_collect_broadcast(app->comm, &list->count, sizeof list->count);
    if (app->layout.rank != 0) {
        list->items = lsp_memory_alloc(list->count, sizeof *list->items);
        if (!list->items)
            status =
                lsp_context_fail(app->ctx, LSP_ERR_LIMIT, "no memory for the list of datasets of %s", file);
    }
    status = lsp_context_agree(app->ctx, status);
    if (status == LSP_OK && list->count > 0)
        lsp_collect_broadcast(app->comm, list->items, list->count * (int64_t)sizeof *list->items);
    return status;
}

lsp_status lsp_checksums_check(lsp_app *app, lsp_tensor *tensor, const char *dataset,
                               lsp_checksum_count *count)
{
    lsp_tensor_shape shape = lsp_tensor_get_shape(tensor);
    bool speaks = app->layout.rank == 0;
    if (!shape.has_checksum) {
        count->without++;
        if (speaks) (void)printf("  checksum %s: none is stored\n", dataset);
        return LSP_OK;
    }
    uint64_t found = 0;
    lsp_status status = lsp_tensor_checksum(tensor, &found);
    if (status != LSP_OK) return status;
    bool same = found == shape.checksum;
    count->checked++;
    count->failed += !same;
    if (speaks && same) (void)printf("  checksum %s: %016" PRIx64 ", as stored\n", dataset, found);
    if (speaks && !same)
        (void)printf("  checksum %s: %016" PRIx64 ", but stored is %016" PRIx64 "\n", dataset, found,
                     shape.checksum);
    return LSP_OK;
}

lsp_status lsp_checksums_check_file(lsp_app *app, const char *file, lsp_checksum_count *count)
{
    dataset_list list = {NULL, 0, 0, false};
    lsp_status status = list_datasets(app, file, &list);
    for (int64_t i = 0; status == LSP_OK && i < list.count; i++) {
        const listed_dataset *item = &list.items[i];
        if (!item->has_checksum) {
            count->without++;
            if (app->layout.rank == 0) (void)printf("  checksum %s: none is stored\n", item->path);
            continue;
        }
        lsp_tensor *tensor = NULL;
        status = lsp_tensor_open(app->ctx, file, item->path, item->view, item->layout, &tensor);
        if (status == LSP_OK) status = lsp_checksums_check(app, tensor, item->path, count);
        if (tensor) (void)lsp_tensor_close(&tensor);
    }
    lsp_memory_free(list.items);
    return status;
}

void lsp_checksums_add_json(cJSON *object, const lsp_checksum_count *count)
{
    cJSON *checksums = cJSON_AddObjectToObject(object, "checksums");
    (void)cJSON_AddNumberToObject(checksums, "checked", count->checked);
    (void)cJSON_AddNumberToObject(checksums, "failed", count->failed);
    (void)cJSON_AddNumberToObject(checksums, "without", count->without);
}
