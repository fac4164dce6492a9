/* Writing rows, and attributes that wait for commit. SPDX-License-Identifier: BSD-3-Clause */
#include "base/memory.h"
#include "store/output.h"
#include "store/transfer.h"

#include <string.h>
#include <sys/statvfs.h>

static lsp_status check_index(lsp_output *output, int index, int least)
{
    if (index >= least && index < output->count) return LSP_OK;
    return lsp_context_fail(output->ctx, LSP_ERR_USAGE, "'%s' has no dataset number %d (it has %d)",
                            output->file, index, output->count);
}

static lsp_status write_mine(lsp_output *output, int index, const lsp_run *runs, int64_t run_count,
                             const void *buffer)
{
    lsp_error err;
    lsp_context *ctx = output->ctx;
    lsp_slabs slabs = {.items = NULL};
    char reason[LSP_H5_REASON] = "";
    lsp_status status = check_index(output, index, 0);
    if (status != LSP_OK) return status;
    lsp_output_part *part = &output->parts[index];
    status = lsp_slabs_make(&part->placing, runs, run_count, &err, &slabs);
    if (status != LSP_OK)
        return lsp_context_fail(ctx, status, "writing dataset '%s' of '%s': %s", part->name, output->file,
                                err.text);
    bool fine = lsp_transfer_write(output->fd, part->origin, &part->placing, &slabs, buffer, reason);
    lsp_slabs_free(&slabs);
    if (fine) {
        lsp_tally_add(&part->tally, &part->placing, runs, run_count, buffer, ctx->layout.threads);
        return LSP_OK;
    }
    struct statvfs about;
    unsigned long long left =
        fstatvfs(output->fd, &about) == 0 ? (unsigned long long)about.f_bavail * about.f_frsize : 0;
    return lsp_context_fail(
        ctx, LSP_ERR_FILE,
        "rank %d cannot write dataset '%s' of '%s': %s (%llu bytes are free); check space, "
        "quota and limits (ulimit -f) there, or name another folder",
        ctx->layout.rank, part->name, output->file, reason, left);
}

lsp_status lsp_output_write(lsp_output *output, int index, const lsp_run *runs, int64_t run_count,
                            const void *buffer)
{
    lsp_h5_quiet quiet = lsp_h5_quiet_enter();
    lsp_status status = lsp_context_agree(output->ctx, write_mine(output, index, runs, run_count, buffer));
    lsp_h5_quiet_leave(&quiet);
    return status;
}

lsp_status lsp_output_checksum(lsp_output *output, int index, uint64_t *checksum)
{
    lsp_status status = lsp_context_agree(output->ctx, check_index(output, index, 0));
    if (status != LSP_OK) return status;
    uint64_t sum = output->parts[index].tally.hashes;
    status = lsp_context_sum_u64(output->ctx, &sum, 1);
    if (status == LSP_OK) *checksum = sum;
    return status;
}

/* ---- attributes -------------------------------------------------------------------------------------- */

/* HDF5 keeps an attribute inside the object's header, whose messages are less than 64 KiB. */
enum { ATTRIBUTE_MOST = 60000 };

static lsp_status remember(lsp_output *output, lsp_attribute attribute, const char *name, const char *text)
{
    lsp_context *ctx = output->ctx;
    lsp_status status = check_index(output, attribute.index, -1);
    if (status != LSP_OK) return status;
    if (text && strlen(text) > ATTRIBUTE_MOST)
        return lsp_context_fail(ctx, LSP_ERR_LIMIT,
                                "attribute '%s' has %zu characters; at most %d are stored", name,
                                strlen(text), ATTRIBUTE_MOST);
    if (ctx->layout.rank != 0) return LSP_OK;
    lsp_attribute *kept = lsp_memory_alloc(1, sizeof *kept);
    attribute.name = lsp_memory_strdup(name);
    attribute.text = text ? lsp_memory_strdup(text) : NULL;
    if (!kept || !attribute.name || (text && !attribute.text)) {
        lsp_memory_free(kept);
        lsp_memory_free(attribute.name);
        lsp_memory_free(attribute.text);
        return lsp_context_fail(ctx, LSP_ERR_LIMIT, "not enough memory for attribute '%s'", name);
    }
    *kept = attribute;
    /* In order: the last of the same name stays. */
    lsp_attribute **end = &output->attributes;
    while (*end) end = &(*end)->next;
    *end = kept;
    return LSP_OK;
}

lsp_status lsp_output_attribute_text(lsp_output *output, int index, const char *name, const char *value)
{
    lsp_attribute attribute = {.index = index, .kind = LSP_ATTRIBUTE_TEXT};
    return lsp_context_agree(output->ctx, remember(output, attribute, name, value));
}

lsp_status lsp_output_attribute_i64(lsp_output *output, int index, const char *name, int64_t value)
{
    lsp_attribute attribute = {.index = index, .kind = LSP_ATTRIBUTE_I64, .integer = value};
    return lsp_context_agree(output->ctx, remember(output, attribute, name, NULL));
}

lsp_status lsp_output_attribute_f64(lsp_output *output, int index, const char *name, double value)
{
    lsp_attribute attribute = {.index = index, .kind = LSP_ATTRIBUTE_F64, .real = value};
    return lsp_context_agree(output->ctx, remember(output, attribute, name, NULL));
}
