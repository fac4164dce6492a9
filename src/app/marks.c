/* SPDX-License-Identifier: BSD-3-Clause */
#include "app/marks.h"

#include "app/collect.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static lsp_status too_long(lsp_app *app)
{
    return lsp_context_fail(app->ctx, LSP_ERR_USAGE,
                            "input.heads and the names of the input are too long for a checkpoint: name "
                            "ranges of heads (0-99), or say checkpoint.file=none");
}

/* Rank 0. */
static lsp_status mark_source(lsp_app *app, const lsp_kept_source *kept, char *marks, size_t *used)
{
    struct stat about;
    const lsp_source *source = kept->source;
    if (!source->tensor) return LSP_OK;
    if (stat(source->file, &about) != 0)
        return lsp_context_fail(app->ctx, LSP_ERR_FILE, "cannot look at '%s': %s", source->file,
                                strerror(errno));
    char sum[24] = "none";
    if (source->shape.has_checksum) (void)snprintf(sum, sizeof sum, "%016" PRIx64, source->shape.checksum);
    int length = snprintf(marks + *used, LSP_MARKS_SIZE - *used,
                          "%s = %s of a file of %lld bytes, modified at %lld.%09ld, xxh64 %s\n", kept->name,
                          source->dataset, (long long)about.st_size, (long long)about.st_mtim.tv_sec,
                          about.st_mtim.tv_nsec, sum);
    *used += length > 0 ? (size_t)length : LSP_MARKS_SIZE;
    return *used < LSP_MARKS_SIZE ? LSP_OK : too_long(app);
}

lsp_status lsp_marks_make(lsp_app *app, const lsp_kept *kept, char **marks)
{
    lsp_status status = LSP_OK;
    *marks = lsp_app_alloc(app, LSP_MARKS_SIZE, 1, "the marks of a checkpoint", &status);
    status = lsp_context_agree(app->ctx, status);
    if (status != LSP_OK) return status;
    size_t used = strlen(kept->lines);
    if (used >= LSP_MARKS_SIZE - 1) return too_long(app);
    memcpy(*marks, kept->lines, used + 1);
    for (int i = 0; app->layout.rank == 0 && status == LSP_OK && i < kept->count; i++)
        status = mark_source(app, &kept->sources[i], *marks, &used);
    status = lsp_context_agree(app->ctx, status);
    if (status == LSP_OK) lsp_collect_broadcast(app->comm, *marks, LSP_MARKS_SIZE);
    return status;
}
