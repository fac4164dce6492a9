/* SPDX-License-Identifier: BSD-3-Clause */
#include "app/completed.h"

#include "app/checksums.h"
#include "app/collect.h"
#include "app/report.h"
#include "base/memory.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char attribute[] = "state_id";

static const char *output_of(const lsp_keeper *k)
{
    return lsp_options_text(k->app->options, LSP_KEY_OUTPUT_FILE);
}

bool lsp_completed_may_be(lsp_keeper *k)
{
    if (!k->base || !k->resumed.found || lsp_options_yes(k->app->options, LSP_KEY_OUTPUT_OVERWRITE))
        return false;
    bool there = false;
    if (k->app->layout.rank == 0) there = *output_of(k) && access(output_of(k), F_OK) == 0;
    lsp_collect_broadcast(k->app->comm, &there, sizeof there);
    return there;
}

char *lsp_completed_marks(const lsp_keeper *k)
{
    static const lsp_key keys[] = {LSP_KEY_OUTPUT_LSE, LSP_KEY_OUTPUT_VECTORS, LSP_KEY_OUTPUT_WEIGHTS};
    enum { ROOM = 200 };
    size_t used = strlen(k->marks), size = used + ROOM;
    char *marks = lsp_memory_alloc((int64_t)size, 1);
    if (!marks) return NULL;
    memcpy(marks, k->marks, used + 1);
    for (size_t i = 0; i < sizeof keys / sizeof *keys && used < size; i++)
        used += (size_t)snprintf(marks + used, size - used, "output.%s = %s\n", lsp_option_get(keys[i])->name,
                                 lsp_options_peek(k->app->options, keys[i]));
    return marks;
}

lsp_status lsp_completed_sign(lsp_output *output, const char *id)
{
    return *id ? lsp_output_attribute_text(output, -1, attribute, id) : LSP_OK;
}

/* Collective. A file that tells no id, or cannot be read, is somebody else's. */
static bool is_ours(lsp_keeper *k, const char *id)
{
    char told[LSP_STATE_ID] = "";
    bool found = false;
    if (k->app->layout.rank == 0 && *id)
        found = lsp_file_attribute_text(k->app->ctx, output_of(k), attribute, told, sizeof told, &found) ==
                    LSP_OK &&
                strcmp(told, id) == 0;
    lsp_collect_broadcast(k->app->comm, &found, sizeof found);
    return found;
}

static cJSON *to_json(const lsp_keeper *k, const lsp_checksum_count *checksums)
{
    cJSON *object = lsp_json_begin(k->app);
    (void)cJSON_AddBoolToObject(object, "complete_before", true);
    (void)cJSON_AddStringToObject(object, "output", output_of(k));
    lsp_checksums_add_json(object, checksums);
    return object;
}

static lsp_status take(lsp_keeper *k)
{
    lsp_app *app = k->app;
    lsp_checksum_count checksums = {0, 0, 0};
    bool speaks = app->layout.rank == 0;
    if (speaks)
        (void)printf(
            "longspan %s %s: %s is there, and was made by this deck from this input: a run was ended "
            "before it removed its checkpoint\n",
            lsp_version(), app->command->name, output_of(k));
    lsp_status status = lsp_checksums_check_file(app, output_of(k), &checksums);
    if (status == LSP_OK && checksums.failed > 0)
        return lsp_context_fail(
            app->ctx, LSP_ERR_VERIFY,
            "%s, which a run has completed, was damaged since: %d of %d checksums do not fit; "
            "remove it, and start again to go on from %s",
            output_of(k), checksums.failed, checksums.checked, k->resumed.file);
    if (status == LSP_OK) status = lsp_keeper_finish(k);
    if (status == LSP_OK) status = lsp_json_write(app, to_json(k, &checksums));
    if (status == LSP_OK && speaks)
        (void)printf(
            "longspan: PASSED, %d checksums checked; the result is in %s, and nothing was left to do\n",
            checksums.checked, output_of(k));
    return status;
}

lsp_status lsp_completed_take(lsp_keeper *k, const char *id, bool *taken)
{
    *taken = lsp_completed_may_be(k) && is_ours(k, id);
    return *taken ? take(k) : LSP_OK;
}
