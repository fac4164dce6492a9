/* Opening a dataset by all ranks together. SPDX-License-Identifier: BSD-3-Clause */
#include "store/tensor.h"

#include "base/checked.h"
#include "base/memory.h"
#include "store/inspect.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Rank 0's verdict on the metadata, with the type and the axes that a tensor may have. */
static lsp_status inspect(lsp_context *ctx, const char *file, const char *dataset, lsp_view view,
                          lsp_layout layout, lsp_dataset_facts *facts, lsp_placing *placing)
{
    lsp_error err;
    lsp_status status = lsp_inspect_dataset(file, dataset, &err, facts);
    if (status != LSP_OK) return lsp_context_fail(ctx, status, "%s", err.text);
    bool readable = facts->known_type && (facts->type != LSP_I64 || view == LSP_VIEW_SCALARS);
    if (!readable)
        return lsp_context_fail(
            ctx, LSP_ERR_CONTENT,
            "dataset '%s' of '%s' has elements of type %s; f16, bf16 (uint16 with attribute "
            "dtype = \"bf16\"), f32 and f64 are read",
            dataset, file, facts->type_name);
    status = lsp_placing_make(facts->axes, facts->dims, view, layout, facts->type, &err, placing);
    if (status != LSP_OK)
        return lsp_context_fail(ctx, status, "dataset '%s' of '%s' has %s", dataset, file, err.text);
    placing->shape.has_checksum = facts->has_checksum;
    placing->shape.checksum = facts->checksum;
    return LSP_OK;
}

/* A rank whose node does not see the file must say so before the collective opening. */
static lsp_status check_visible(lsp_context *ctx, const char *file, int64_t bytes)
{
    struct stat about;
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &about) != 0) {
        int why = errno;
        if (fd >= 0) (void)close(fd);
        return lsp_context_fail(
            ctx, LSP_ERR_FILE,
            "rank %d cannot open '%s', which rank 0 can: %s; put it on a file system that all "
            "nodes share",
            ctx->layout.rank, file, strerror(why));
    }
    (void)close(fd);
    if ((int64_t)about.st_size == bytes) return LSP_OK;
    return lsp_context_fail(
        ctx, LSP_ERR_FILE,
        "rank %d sees '%s' with %lld bytes, rank 0 with %lld; wait until it is written, and "
        "put it on a file system that all nodes share",
        ctx->layout.rank, file, (long long)about.st_size, (long long)bytes);
}

/* Room for every chunk that one band of rows crosses, so that no chunk is unpacked twice. */
static hid_t dataset_access(const lsp_dataset_facts *facts, size_t element)
{
    const int64_t most = (int64_t)64 << 20, least = (int64_t)1 << 20;
    hid_t access = H5Pcreate(H5P_DATASET_ACCESS);
    if (access < 0 || !facts->chunked) return access;
    int64_t bytes = (int64_t)element;
    bool fits = true;
    for (int a = 0; a < facts->axes; a++) fits = fits && lsp_checked_mul(bytes, facts->chunk[a], &bytes);
    int last = facts->axes - 1;
    fits = fits && lsp_checked_mul(bytes, lsp_ceil_div(facts->dims[last], facts->chunk[last]), &bytes);
    if (!fits || bytes > most) bytes = most;
    bytes = lsp_max(bytes, least);
    if (H5Pset_chunk_cache(access, 521, (size_t)bytes, 1.0) < 0) {
        (void)H5Pclose(access);
        return H5I_INVALID_HID;
    }
    return access;
}

/* Each rank opens the file by itself: reading is not collective, and Open MPI 4.1 guards what it opens by a semaphore of
 * the machine that is named after the last part of the file's name, for which runs with files of one name, or after a run
 * that was killed, wait for ever. */
static lsp_status open_handles(lsp_tensor *tensor, const lsp_dataset_facts *facts)
{
    lsp_context *ctx = tensor->ctx;
    char reason[LSP_H5_REASON] = "";
    hid_t access = H5I_INVALID_HID, of_dataset = dataset_access(facts, lsp_dtype_size(facts->type));
    lsp_status status = LSP_OK;
    if (of_dataset < 0)
        status = lsp_context_fail(ctx, LSP_ERR_FILE, "cannot open '%s': %s; check the file system",
                                  tensor->file, lsp_h5_reason(reason, sizeof reason));
    status = lsp_context_agree(ctx, status);
    if (status != LSP_OK) {
        (void)lsp_h5_close_one(of_dataset);
        return status;
    }
    access = lsp_h5_access_serial(true);
    if (access >= 0) tensor->file_id = H5Fopen(tensor->file, H5F_ACC_RDONLY, access);
    if (tensor->file_id < 0)
        status =
            lsp_context_fail(ctx, LSP_ERR_FILE, "cannot open '%s' on all ranks: %s; check the file system",
                             tensor->file, lsp_h5_reason(reason, sizeof reason));
    status = lsp_context_agree(ctx, status);
    if (status == LSP_OK) {
        tensor->dataset_id = H5Dopen2(tensor->file_id, tensor->dataset, of_dataset);
        if (tensor->dataset_id < 0) {
            (void)lsp_h5_reason(reason, sizeof reason);
            status = lsp_context_fail(
                ctx, LSP_ERR_CONTENT,
                "cannot open dataset '%s' of '%s' on all ranks: %s; copy or make the file again",
                tensor->dataset, tensor->file, reason);
        }
        status = lsp_context_agree(ctx, status);
    }
    (void)lsp_h5_close_one(of_dataset);
    (void)lsp_h5_close_one(access);
    return status;
}

static lsp_status make(lsp_context *ctx, const char *file, const char *dataset, lsp_tensor **out)
{
    lsp_tensor *tensor = lsp_memory_zalloc(1, sizeof *tensor);
    if (tensor) {
        tensor->ctx = ctx;
        tensor->file = lsp_memory_strdup(file);
        tensor->dataset = lsp_memory_strdup(dataset);
        tensor->file_id = tensor->dataset_id = H5I_INVALID_HID;
    }
    *out = tensor;
    if (tensor && tensor->file && tensor->dataset) return LSP_OK;
    return lsp_context_fail(ctx, LSP_ERR_LIMIT, "not enough memory to open '%s'", file);
}

/* Closing waits for the other ranks, which never come when MPI has failed here. */
static bool dispose(lsp_tensor *tensor)
{
    if (!tensor) return true;
    bool alone = lsp_context_deserted(tensor->ctx);
    bool fine = alone || lsp_h5_close_one(tensor->dataset_id);
    fine = (alone || lsp_h5_close_one(tensor->file_id)) && fine;
    lsp_memory_free(tensor->file);
    lsp_memory_free(tensor->dataset);
    lsp_memory_free(tensor);
    return fine;
}

lsp_status lsp_tensor_open(lsp_context *ctx, const char *file, const char *dataset, lsp_view view,
                           lsp_layout layout, lsp_tensor **out)
{
    lsp_h5_quiet quiet = lsp_h5_quiet_enter();
    lsp_dataset_facts facts = {.axes = 0};
    lsp_placing placing = {.view = view};
    lsp_tensor *tensor = NULL;
    lsp_status status = LSP_OK;
    if (ctx->layout.rank == 0) status = inspect(ctx, file, dataset, view, layout, &facts, &placing);
    status = lsp_context_agree(ctx, status);
    if (status == LSP_OK) status = lsp_context_broadcast(ctx, 0, &facts, (int64_t)sizeof facts);
    if (status == LSP_OK) status = lsp_context_broadcast(ctx, 0, &placing, (int64_t)sizeof placing);
    if (status == LSP_OK) {
        status = make(ctx, file, dataset, &tensor);
        if (status == LSP_OK) status = check_visible(ctx, file, facts.file_bytes);
        status = lsp_context_agree(ctx, status);
    }
    if (status == LSP_OK) {
        tensor->placing = placing;
        tensor->plain =
            !facts.chunked && !facts.virtual_set && (layout == LSP_BHND || placing.shape.heads == 1);
        status = open_handles(tensor, &facts);
    }
    if (status == LSP_OK)
        *out = tensor;
    else
        (void)dispose(tensor);
    lsp_h5_quiet_leave(&quiet);
    return status;
}

lsp_tensor_shape lsp_tensor_get_shape(const lsp_tensor *tensor)
{
    return tensor->placing.shape;
}

lsp_status lsp_tensor_close(lsp_tensor **tensor)
{
    if (!tensor || !*tensor) return LSP_OK;
    lsp_h5_quiet quiet = lsp_h5_quiet_enter();
    lsp_context *ctx = (*tensor)->ctx;
    lsp_status status = LSP_OK;
    if (!dispose(*tensor)) status = lsp_context_fail(ctx, LSP_ERR_FILE, "closing an input file failed");
    *tensor = NULL;
    lsp_h5_quiet_leave(&quiet);
    return lsp_context_agree(ctx, status);
}
