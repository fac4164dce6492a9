/* What the sub-commands share. SPDX-License-Identifier: BSD-3-Clause */
#include "app/app.h"

#include "app/format.h"
#include "base/memory.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

lsp_status lsp_app_require(lsp_app *app, lsp_key key)
{
    lsp_error error = {LSP_OK, ""};
    if (lsp_options_require(app->options, key, app->command->name, &error) == LSP_OK) return LSP_OK;
    return lsp_context_fail(app->ctx, error.status, "%s", error.text);
}

lsp_status lsp_app_require_one(lsp_app *app, lsp_key key, int64_t *value)
{
    lsp_error error = {LSP_OK, ""};
    lsp_status status = lsp_options_require(app->options, key, app->command->name, &error);
    if (status == LSP_OK) status = lsp_options_one(app->options, key, app->command->name, value, &error);
    return status == LSP_OK ? LSP_OK : lsp_context_fail(app->ctx, status, "%s", error.text);
}

void *lsp_app_alloc(lsp_app *app, int64_t count, size_t size, const char *what, lsp_status *status)
{
    void *pointer = lsp_memory_alloc(count, size);
    if (!pointer && *status == LSP_OK) {
        char bytes[LSP_FORMAT_SIZE];
        *status =
            lsp_context_fail(app->ctx, LSP_ERR_LIMIT,
                             "no memory for %s (%s on this rank); use more nodes, or fewer ranks a node",
                             what, lsp_format_bytes((double)count * (double)size, bytes));
    }
    return pointer;
}

bool lsp_app_same_file(const char *one, const char *other)
{
    char folders[2][PATH_MAX];
    const char *const files[] = {one, other}, *names[2];
    struct stat about[2];
    bool there[2];
    for (int i = 0; i < 2; i++) {
        const char *slash = strrchr(files[i], '/');
        names[i] = slash ? slash + 1 : files[i];
        (void)snprintf(folders[i], PATH_MAX, "%.*s", slash ? (int)(slash - files[i]) + 1 : 1,
                       slash ? files[i] : ".");
        there[i] = stat(files[i], &about[i]) == 0;
    }
    if (there[0] != there[1] || (!there[0] && strcmp(names[0], names[1]) != 0)) return false;
    for (int i = 0; i < 2 && !there[0]; i++)
        if (stat(folders[i], &about[i]) != 0) return false;
    return about[0].st_dev == about[1].st_dev && about[0].st_ino == about[1].st_ino;
}
