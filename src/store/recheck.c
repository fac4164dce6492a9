/* The checksum of a whole tensor, read piece by piece. SPDX-License-Identifier: BSD-3-Clause */
#include "base/checked.h"
#include "base/memory.h"
#include "store/checksum.h"
#include "store/tensor.h"
#include "store/transfer.h"

enum { PIECE_BYTES = 16 << 20 };

/* Rows [*first, *first + count) of all, as far as one matrix holds them. */
static lsp_run next_run(const lsp_tensor_shape *shape, int64_t first, int64_t count)
{
    int64_t matrix = first / shape->n, row = first % shape->n;
    return (lsp_run){matrix / shape->heads, matrix % shape->heads, row, lsp_min(count, shape->n - row)};
}

static lsp_status add_piece(lsp_tensor *tensor, const lsp_run *run, void *buffer, lsp_tally *tally)
{
    lsp_error err;
    lsp_slabs slabs = {.items = NULL};
    char reason[LSP_H5_REASON] = "";
    lsp_status status = lsp_slabs_make(&tensor->placing, run, 1, &err, &slabs);
    if (status != LSP_OK) return lsp_context_fail(tensor->ctx, status, "%s", err.text);
    bool fine = lsp_transfer_read(tensor->dataset_id, &tensor->placing, &slabs, buffer, reason);
    lsp_slabs_free(&slabs);
    if (!fine)
        return lsp_context_fail(
            tensor->ctx, LSP_ERR_CONTENT,
            "rank %d cannot read dataset '%s' of '%s': %s; the data is damaged: copy or make "
            "the file again",
            tensor->ctx->layout.rank, tensor->dataset, tensor->file, reason);
    lsp_tally_add(tally, &tensor->placing, run, 1, buffer, tensor->ctx->layout.threads);
    return LSP_OK;
}

lsp_status lsp_tensor_checksum(lsp_tensor *tensor, uint64_t *checksum)
{
    lsp_h5_quiet quiet = lsp_h5_quiet_enter();
    lsp_context *ctx = tensor->ctx;
    const lsp_tensor_shape *shape = &tensor->placing.shape;
    int64_t row_bytes = lsp_placing_row_bytes(&tensor->placing);
    int64_t height = lsp_max(1, PIECE_BYTES / row_bytes);
    int64_t rows = shape->batch * shape->heads * shape->n, ranks = ctx->layout.ranks;
    int64_t share = lsp_ceil_div(rows, ranks), first = lsp_min(rows, share * ctx->layout.rank);
    int64_t last = lsp_min(rows, first + share);
    lsp_tally tally = {.rows = 0};
    lsp_status status = LSP_OK;
    void *buffer = lsp_memory_alloc(lsp_min(height, share), (size_t)row_bytes);
    if (!buffer)
        status = lsp_context_fail(ctx, LSP_ERR_LIMIT, "not enough memory to read '%s'", tensor->file);
    while (status == LSP_OK && first < last) {
        lsp_run run = next_run(shape, first, lsp_min(height, last - first));
        status = add_piece(tensor, &run, buffer, &tally);
        first += run.count;
    }
    lsp_memory_free(buffer);
    status = lsp_context_agree(ctx, status);
    if (status == LSP_OK) status = lsp_context_sum_u64(ctx, &tally.hashes, 1);
    if (status == LSP_OK) *checksum = tally.hashes;
    lsp_h5_quiet_leave(&quiet);
    return status;
}
