/* SPDX-License-Identifier: BSD-3-Clause */
#include "app/report_file.h"

#include "app/report.h"
#include "base/memory.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { REPORT_MOST = 64 << 20 };

static lsp_status read_stream(lsp_app *app, FILE *stream, const char *file, char **text)
{
    size_t room = 1 << 16, length = 0;
    lsp_status status = LSP_OK;
    char *buffer = lsp_app_alloc(app, (int64_t)room, 1, "a report", &status);
    while (status == LSP_OK) {
        length += fread(buffer + length, 1, room - 1 - length, stream);
        if (length < room - 1) break;
        if (room >= REPORT_MOST) {
            status = lsp_context_fail(app->ctx, LSP_ERR_CONTENT, "%s is too long for a report", file);
            break;
        }
        char *larger = lsp_app_alloc(app, (int64_t)room * 2, 1, "a report", &status);
        if (!larger) break;
        memcpy(larger, buffer, length);
        lsp_memory_free(buffer);
        buffer = larger;
        room *= 2;
    }
    if (status == LSP_OK && ferror(stream))
        status = lsp_context_fail(app->ctx, LSP_ERR_FILE, "the report %s cannot be read: %s", file,
                                  strerror(errno));
    if (status != LSP_OK) {
        lsp_memory_free(buffer);
        return status;
    }
    buffer[length] = '\0';
    *text = buffer;
    return LSP_OK;
}

lsp_status lsp_report_file_read(lsp_app *app, const char *file, const char *key, cJSON **json)
{
    FILE *stream = fopen(file, "rb");
    if (!stream)
        return lsp_context_fail(app->ctx, LSP_ERR_FILE, "the report %s cannot be opened: %s; check --%s",
                                file, strerror(errno), key);
    char *text = NULL;
    lsp_status status = read_stream(app, stream, file, &text);
    (void)fclose(stream);
    if (status != LSP_OK) return status;
    *json = cJSON_Parse(text);
    lsp_memory_free(text);
    if (*json) return LSP_OK;
    if (lsp_json_starved())
        return lsp_context_fail(app->ctx, LSP_ERR_LIMIT, "no memory for the report %s", file);
    return lsp_context_fail(app->ctx, LSP_ERR_CONTENT,
                            "%s is not JSON; --%s takes what --report.json=FILE wrote", file, key);
}

double lsp_report_file_number(const cJSON *object, const char *name)
{
    return cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(object, name));
}

const char *lsp_report_file_text(const cJSON *object, const char *name)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
}
