/* Completing an output: checksums, attributes, fsync, rename. SPDX-License-Identifier: BSD-3-Clause */
#ifndef _GNU_SOURCE
#    define _GNU_SOURCE
#endif
#include "base/memory.h"
#include "store/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Sums of all ranks; every row must have been written once. */
static lsp_status sum_parts(lsp_output *output, uint64_t *checksums)
{
    lsp_context *ctx = output->ctx;
    for (int i = 0; i < output->count; i++) {
        lsp_output_part *part = &output->parts[i];
        uint64_t sums[3] = {part->tally.rows, part->tally.indices, part->tally.hashes};
        lsp_status status = lsp_context_sum_u64(ctx, sums, 3);
        if (status != LSP_OK) return status;
        lsp_tally all = {.rows = sums[0], .indices = sums[1], .hashes = sums[2]};
        if (!lsp_tally_is_whole(&all, &part->placing)) {
            const lsp_tensor_shape *shape = &part->placing.shape;
            return lsp_context_fail(
                ctx, LSP_ERR_USAGE,
                "dataset '%s' of '%s' is incomplete: its %lld rows must be written once each, "
                "and %llu were written",
                part->name, output->file, (long long)(shape->batch * shape->heads * shape->n),
                (unsigned long long)all.rows);
        }
        checksums[i] = all.hashes;
    }
    return LSP_OK;
}

static lsp_status fail_file(lsp_output *output, const char *what, int why)
{
    return lsp_context_fail(output->ctx, LSP_ERR_FILE,
                            "rank %d cannot %s '%s': %s; check space and quota there, or name another folder",
                            output->ctx->layout.rank, what, output->file, strerror(why));
}

/* Every rank: what its node still holds in memory goes to the disk. */
static lsp_status settle_rows(lsp_output *output)
{
    return fsync(output->fd) == 0 ? LSP_OK : fail_file(output, "write", errno);
}

static lsp_status sync_folder(lsp_output *output)
{
    char folder[PATH_MAX];
    (void)snprintf(folder, sizeof folder, "%s", output->temporary);
    char *slash = strrchr(folder, '/');
    if (slash == folder)
        folder[1] = '\0';
    else if (slash)
        *slash = '\0';
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int result = fd < 0 ? -1 : fsync(fd), why = errno;
    if (fd >= 0) (void)close(fd);
    /* Some file systems cannot sync a folder, and say so with EINVAL. */
    return result == 0 || why == EINVAL || why == ENOTSUP ? LSP_OK : fail_file(output, "complete", why);
}

/* A second name first, so that there is a file under the final one at every moment. */
static lsp_status keep_previous(lsp_output *output)
{
    char previous[PATH_MAX + 8];
    (void)snprintf(previous, sizeof previous, "%s.prev", output->file);
    if (access(output->file, F_OK) != 0) return LSP_OK;
    if (unlink(previous) != 0 && errno != ENOENT)
        return fail_file(output, "replace the one before of", errno);
    if (link(output->file, previous) == 0) return LSP_OK;
    /* A file system without hard links: for a moment there is the second name alone. */
    return rename(output->file, previous) == 0 ? LSP_OK : fail_file(output, "keep the one before of", errno);
}

/* Without overwrite a file that came up meanwhile is not touched. */
static lsp_status take_name(lsp_output *output)
{
    int result, why = 0;
    if (output->overwrite) {
        result = rename(output->temporary, output->file);
        why = errno;
    } else {
        result = renameat2(AT_FDCWD, output->temporary, AT_FDCWD, output->file, RENAME_NOREPLACE);
        why = errno;
        if (result != 0 && (why == EINVAL || why == ENOSYS)) {
            /* Not known to this file system: a hard link does not replace either. */
            result = link(output->temporary, output->file);
            why = errno;
            if (result == 0) (void)unlink(output->temporary);
        }
    }
    if (result == 0) {
        output->made = false;
        return LSP_OK;
    }
    if (why == EEXIST)
        return lsp_context_fail(output->ctx, LSP_ERR_FILE,
                                "'%s' was made by someone else during this run; say output.overwrite=yes to "
                                "replace it, or name another file",
                                output->file);
    return fail_file(output, "rename the finished file to", why);
}

/* Rank 0. */
static lsp_status complete(lsp_output *output, const uint64_t *checksums)
{
    lsp_status status = lsp_output_finish(output, checksums);
    if (status != LSP_OK) return status;
    if (fsync(output->fd) != 0) return fail_file(output, "write", errno);
    if (output->keep_previous) status = keep_previous(output);
    if (status == LSP_OK) status = take_name(output);
    return status == LSP_OK ? sync_folder(output) : status;
}

static lsp_status commit(lsp_output *output)
{
    lsp_context *ctx = output->ctx;
    uint64_t *checksums = lsp_memory_zalloc(output->count, sizeof *checksums);
    lsp_status status = lsp_context_agree(
        ctx, checksums ? LSP_OK : lsp_context_fail(ctx, LSP_ERR_LIMIT, "not enough memory for checksums"));
    if (status == LSP_OK) status = lsp_context_agree(ctx, sum_parts(output, checksums));
    if (status == LSP_OK) status = lsp_context_agree(ctx, settle_rows(output));
    if (status == LSP_OK && ctx->layout.rank == 0) status = complete(output, checksums);
    lsp_memory_free(checksums);
    return lsp_context_agree(ctx, status);
}

lsp_status lsp_output_commit(lsp_output **output)
{
    lsp_h5_quiet quiet = lsp_h5_quiet_enter();
    lsp_status status = commit(*output);
    lsp_output_free(*output);
    *output = NULL;
    lsp_h5_quiet_leave(&quiet);
    return status;
}
