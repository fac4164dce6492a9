/* An output from its creation to its disposal. SPDX-License-Identifier: BSD-3-Clause */
#include "store/output.h"

#include "base/checked.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { METADATA_BYTES = 256 << 10 }; /* room for the file's metadata and attributes */

/* ---- what is asked for ----------------------------------------------------------------------------- */

static lsp_status describe_part(lsp_output *output, const lsp_output_dataset *dataset, lsp_output_part *part,
                                int64_t *bytes)
{
    lsp_context *ctx = output->ctx;
    lsp_error err;
    if (!dataset->name || dataset->name[0] != '/' || !dataset->name[1])
        return lsp_context_fail(ctx, LSP_ERR_USAGE, "a dataset of '%s' needs a name that begins with /",
                                output->file);
    part->name = lsp_memory_strdup(dataset->name);
    if (!part->name)
        return lsp_context_fail(ctx, LSP_ERR_LIMIT, "not enough memory to create '%s'", output->file);
    int64_t size = (int64_t)lsp_dtype_size(dataset->type);
    for (int a = 0; a < dataset->axes && a < 4; a++)
        if (dataset->dims[a] < 0 || !lsp_checked_mul(size, dataset->dims[a], &size))
            return lsp_context_fail(ctx, LSP_ERR_LIMIT,
                                    "dataset '%s' of '%s' would be larger than a file can be", part->name,
                                    output->file);
    lsp_status status = dataset->axes < 1 || dataset->axes > 4
                            ? lsp_error_set(&err, LSP_ERR_USAGE, "%d axes; 1 to 4 are written", dataset->axes)
                            : lsp_placing_make(dataset->axes, dataset->dims, dataset->view, dataset->layout,
                                               dataset->type, &err, &part->placing);
    if (status != LSP_OK)
        return lsp_context_fail(ctx, LSP_ERR_USAGE, "dataset '%s' has %s", part->name, err.text);
    if (__builtin_add_overflow(*bytes, size, bytes))
        return lsp_context_fail(ctx, LSP_ERR_LIMIT, "'%s' would be larger than a file can be", output->file);
    return LSP_OK;
}

static lsp_status begin(lsp_context *ctx, const char *file, bool overwrite,
                        const lsp_output_dataset *datasets, int count, lsp_output **out, int64_t *bytes)
{
    lsp_output *output = lsp_memory_zalloc(1, sizeof *output);
    *out = output;
    if (!output) return lsp_context_fail(ctx, LSP_ERR_LIMIT, "not enough memory to create '%s'", file);
    output->ctx = ctx;
    output->overwrite = overwrite;
    output->fd = -1;
    (void)snprintf(output->file, sizeof output->file, "%s", file);
    output->parts = lsp_memory_zalloc(count, sizeof *output->parts);
    if (!output->parts) return lsp_context_fail(ctx, LSP_ERR_LIMIT, "not enough memory to create '%s'", file);
    output->count = count;
    *bytes = METADATA_BYTES;
    lsp_status status = LSP_OK;
    for (int i = 0; i < count && status == LSP_OK; i++)
        status = describe_part(output, &datasets[i], &output->parts[i], bytes);
    return status;
}

/* ---- creating -------------------------------------------------------------------------------------- */

/* Rank 0. */
static lsp_status create_file(lsp_output *output, const char *file, const lsp_output_dataset *datasets,
                              int64_t bytes)
{
    lsp_status status = lsp_output_name(output, file);
    if (status == LSP_OK) status = lsp_output_check_space(output, bytes);
    if (status != LSP_OK) return status;
    output->fd = open(output->temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (output->fd < 0)
        return lsp_context_fail(output->ctx, LSP_ERR_FILE,
                                "cannot create '%s': %s; choose a folder that can be written", output->file,
                                strerror(errno));
    output->made = true;
    int64_t size = 0;
    status = lsp_output_make(output, datasets, &size);
    return status == LSP_OK ? lsp_output_reserve(output, size) : status;
}

/* Every rank opens the file by itself. */
static lsp_status open_file(lsp_output *output)
{
    if (output->fd < 0) output->fd = open(output->temporary, O_RDWR | O_CLOEXEC);
    if (output->fd >= 0) return LSP_OK;
    return lsp_context_fail(
        output->ctx, LSP_ERR_FILE,
        "rank %d cannot open '%s', which rank 0 has just made: %s; name an output on a file "
        "system that all nodes share",
        output->ctx->layout.rank, output->temporary, strerror(errno));
}

lsp_status lsp_output_create(lsp_context *ctx, const char *file, bool overwrite,
                             const lsp_output_dataset *datasets, int count, lsp_output **out)
{
    lsp_h5_quiet quiet = lsp_h5_quiet_enter();
    lsp_output *output = NULL;
    int64_t bytes = 0;
    lsp_status status = lsp_context_agree(ctx, begin(ctx, file, overwrite, datasets, count, &output, &bytes));
    if (status == LSP_OK) {
        if (ctx->layout.rank == 0) status = create_file(output, file, datasets, bytes);
        status = lsp_context_agree(ctx, status);
    }
    if (status == LSP_OK) status = lsp_context_broadcast(ctx, 0, output->file, (int64_t)sizeof output->file);
    if (status == LSP_OK)
        status = lsp_context_broadcast(ctx, 0, output->temporary, (int64_t)sizeof output->temporary);
    for (int i = 0; i < count && status == LSP_OK; i++)
        status = lsp_context_broadcast(ctx, 0, &output->parts[i].origin, (int64_t)sizeof(int64_t));
    if (status == LSP_OK) status = lsp_context_agree(ctx, open_file(output));
    if (status == LSP_OK) {
        *out = output;
    } else {
        lsp_output_free(output);
    }
    lsp_h5_quiet_leave(&quiet);
    return status;
}

/* ---- disposal -------------------------------------------------------------------------------------- */

void lsp_output_free(lsp_output *output)
{
    if (!output) return;
    if (output->fd >= 0) (void)close(output->fd);
    /* Where MPI has failed nobody knows whether rank 0 comes to this. */
    if (output->made || (output->ctx && output->ctx->broken && output->temporary[0]))
        (void)unlink(output->temporary);
    for (int i = 0; i < output->count; i++) lsp_memory_free(output->parts[i].name);
    lsp_memory_free(output->parts);
    for (lsp_attribute *next, *a = output->attributes; a; a = next) {
        next = a->next;
        lsp_memory_free(a->name);
        lsp_memory_free(a->text);
        lsp_memory_free(a);
    }
    lsp_memory_free(output);
}

lsp_status lsp_output_discard(lsp_output **output)
{
    if (!output || !*output) return LSP_OK;
    lsp_context *ctx = (*output)->ctx;
    lsp_output_free(*output);
    *output = NULL;
    return lsp_context_barrier(ctx);
}
