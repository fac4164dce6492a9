/* Reading runs of rows, with the checksum where the whole is read. SPDX-License-Identifier: BSD-3-Clause */
#include "base/checked.h"
#include "base/memory.h"
#include "store/checksum.h"
#include "store/inspect.h"
#include "store/tensor.h"
#include "store/transfer.h"

#include <inttypes.h>
#include <string.h>

static lsp_status read_runs(lsp_tensor *tensor, const lsp_run *runs, int64_t run_count, void *buffer)
{
    lsp_error err;
    lsp_slabs slabs = {.items = NULL};
    char reason[LSP_H5_REASON] = "";
    lsp_status status = lsp_slabs_make(&tensor->placing, runs, run_count, &err, &slabs);
    if (status != LSP_OK)
        return lsp_context_fail(tensor->ctx, status, "reading dataset '%s' of '%s': %s", tensor->dataset,
                                tensor->file, err.text);
    bool fine = lsp_transfer_read(tensor->dataset_id, &tensor->placing, &slabs, buffer, reason);
    lsp_slabs_free(&slabs);
    if (fine) return LSP_OK;
    /* A call of the system that failed is named so; everything else is about the content. */
    bool device = strstr(reason, "file read failed");
    return lsp_context_fail(tensor->ctx, device ? LSP_ERR_FILE : LSP_ERR_CONTENT,
                            "rank %d cannot read dataset '%s' of '%s': %s; %s", tensor->ctx->layout.rank,
                            tensor->dataset, tensor->file, reason,
                            device ? "check the file system"
                                   : "the data is damaged: copy or make the file again");
}

/* The same in pieces that are hashed while they are in the cache: half the cost of hashing afterwards. */
static lsp_status read_and_hash(lsp_tensor *tensor, const lsp_run *runs, int64_t run_count, char *buffer,
                                lsp_tally *tally)
{
    enum { PIECE_BYTES = 1 << 20, PIECE_RUNS = 512 };
    int64_t row_bytes = lsp_placing_row_bytes(&tensor->placing), most = lsp_max(PIECE_BYTES / row_bytes, 1);
    lsp_run piece[PIECE_RUNS];
    for (int64_t i = 0, taken = 0; i < run_count;) {
        int64_t count = 0, rows = 0;
        while (i < run_count && count < PIECE_RUNS && rows < most) {
            int64_t step = lsp_min(runs[i].count - taken, most - rows);
            piece[count++] = (lsp_run){runs[i].batch, runs[i].head, runs[i].begin + taken, step};
            rows += step;
            taken += step;
            if (taken == runs[i].count) {
                taken = 0;
                i++;
            }
        }
        lsp_status status = read_runs(tensor, piece, count, buffer);
        if (status != LSP_OK) return status;
        lsp_tally_add(tally, &tensor->placing, piece, count, buffer, tensor->ctx->layout.threads);
        buffer += rows * row_bytes;
    }
    return LSP_OK;
}

/* Whether the ranks together read every row once. */
static lsp_status find_cover(lsp_tensor *tensor, const lsp_run *runs, int64_t run_count, bool *whole)
{
    lsp_tally tally = {.rows = 0};
    lsp_tally_add(&tally, &tensor->placing, runs, run_count, NULL, 1);
    uint64_t covered[2] = {tally.rows, tally.indices};
    lsp_status status = lsp_context_sum_u64(tensor->ctx, covered, 2);
    tally = (lsp_tally){.rows = covered[0], .indices = covered[1]};
    *whole = lsp_tally_is_whole(&tally, &tensor->placing);
    return status;
}

static lsp_status compare_sum(lsp_tensor *tensor, uint64_t computed)
{
    const lsp_tensor_shape *shape = &tensor->placing.shape;
    lsp_status status = lsp_context_sum_u64(tensor->ctx, &computed, 1);
    if (status != LSP_OK || computed == shape->checksum) return status;
    status = lsp_context_fail(
        tensor->ctx, LSP_ERR_CONTENT,
        "dataset '%s' of '%s' does not fit its checksum: stored %016" PRIx64 ", computed %016" PRIx64
        "; it was damaged or changed after it was written: restore or make it again (if it was changed "
        "on purpose, delete its attribute '%s')",
        tensor->dataset, tensor->file, shape->checksum, computed, LSP_CHECKSUM_ATTRIBUTE);
    return lsp_context_agree(tensor->ctx, status);
}

static lsp_status read_tensor(lsp_tensor *tensor, const lsp_run *runs, int64_t run_count, void *buffer)
{
    lsp_context *ctx = tensor->ctx;
    lsp_error err;
    lsp_tally tally = {.rows = 0};
    bool whole = false;
    lsp_status status = lsp_runs_check(&tensor->placing, runs, run_count, &err);
    if (status != LSP_OK)
        status = lsp_context_fail(ctx, status, "reading dataset '%s' of '%s': %s", tensor->dataset,
                                  tensor->file, err.text);
    status = lsp_context_agree(ctx, status);
    if (status == LSP_OK && tensor->placing.shape.has_checksum)
        status = find_cover(tensor, runs, run_count, &whole);
    if (status != LSP_OK) return status;
    bool hashed = whole && tensor->plain;
    status = lsp_context_agree(ctx, hashed ? read_and_hash(tensor, runs, run_count, buffer, &tally)
                                           : read_runs(tensor, runs, run_count, buffer));
    if (status != LSP_OK || !whole) return status;
    if (!hashed) lsp_tally_add(&tally, &tensor->placing, runs, run_count, buffer, ctx->layout.threads);
    return compare_sum(tensor, tally.hashes);
}

lsp_status lsp_tensor_read(lsp_tensor *tensor, const lsp_run *runs, int64_t run_count, void *buffer)
{
    lsp_h5_quiet quiet = lsp_h5_quiet_enter();
    lsp_status status = read_tensor(tensor, runs, run_count, buffer);
    lsp_h5_quiet_leave(&quiet);
    return status;
}

/* ---- small integer tables ------------------------------------------------------------------------ */

enum { TABLE_MOST = 1 << 27 };

static H5T_conv_ret_t refuse_range(H5T_conv_except_t kind, hid_t from, hid_t to, void *source, void *target,
                                   void *user)
{
    (void)from, (void)to, (void)source, (void)target, (void)user;
    return kind == H5T_CONV_EXCEPT_RANGE_HI || kind == H5T_CONV_EXCEPT_RANGE_LOW ? H5T_CONV_ABORT
                                                                                 : H5T_CONV_UNHANDLED;
}

static lsp_status check_table(lsp_context *ctx, const char *file, const char *dataset, int64_t *count)
{
    lsp_error err;
    lsp_dataset_facts facts;
    lsp_status status = lsp_inspect_dataset(file, dataset, &err, &facts);
    if (status != LSP_OK) return lsp_context_fail(ctx, status, "%s", err.text);
    if (!facts.integer)
        return lsp_context_fail(ctx, LSP_ERR_CONTENT,
                                "dataset '%s' of '%s' has elements of type %s; integers are needed", dataset,
                                file, facts.type_name);
    if (facts.axes != 1)
        return lsp_context_fail(ctx, LSP_ERR_CONTENT, "dataset '%s' of '%s' has %d axes; one is needed",
                                dataset, file, facts.axes);
    if (facts.dims[0] > TABLE_MOST)
        return lsp_context_fail(
            ctx, LSP_ERR_LIMIT,
            "dataset '%s' of '%s' has %lld numbers, and every rank would hold all of them: at "
            "most %d are read",
            dataset, file, (long long)facts.dims[0], TABLE_MOST);
    *count = facts.dims[0];
    return LSP_OK;
}

static lsp_status read_table(lsp_context *ctx, const char *file, const char *dataset, int64_t *values)
{
    lsp_h5_handles handles = {.count = 0};
    char reason[LSP_H5_REASON] = "";
    hid_t access = lsp_h5_keep(&handles, lsp_h5_access_serial(true));
    hid_t transfer = lsp_h5_keep(&handles, H5Pcreate(H5P_DATASET_XFER));
    hid_t file_id = lsp_h5_keep(&handles, H5Fopen(file, H5F_ACC_RDONLY, access));
    hid_t id = file_id < 0 ? file_id : lsp_h5_keep(&handles, H5Dopen2(file_id, dataset, H5P_DEFAULT));
    bool fine = id >= 0 && transfer >= 0 && H5Pset_type_conv_cb(transfer, refuse_range, NULL) >= 0 &&
                H5Dread(id, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, transfer, values) >= 0;
    if (!fine) (void)lsp_h5_reason(reason, sizeof reason);
    (void)lsp_h5_close(&handles);
    if (fine) return LSP_OK;
    return lsp_context_fail(ctx, LSP_ERR_CONTENT,
                            "cannot read dataset '%s' of '%s': %s; its numbers must fit in int64", dataset,
                            file, reason);
}

lsp_status lsp_tensor_read_i64(lsp_context *ctx, const char *file, const char *dataset, int64_t **values,
                               int64_t *count)
{
    lsp_h5_quiet quiet = lsp_h5_quiet_enter();
    bool first = ctx->layout.rank == 0;
    int64_t number = 0, *table = NULL;
    lsp_status status = lsp_context_agree(ctx, first ? check_table(ctx, file, dataset, &number) : LSP_OK);
    if (status == LSP_OK) status = lsp_context_broadcast(ctx, 0, &number, (int64_t)sizeof number);
    if (status == LSP_OK) {
        table = lsp_memory_alloc(number, sizeof *table);
        if (!table)
            status = lsp_context_fail(ctx, LSP_ERR_LIMIT, "not enough memory for the %lld numbers of '%s'",
                                      (long long)number, dataset);
        else if (first)
            status = read_table(ctx, file, dataset, table);
        status = lsp_context_agree(ctx, status);
    }
    if (status == LSP_OK) status = lsp_context_broadcast(ctx, 0, table, number * (int64_t)sizeof *table);
    if (status == LSP_OK) {
        *values = table;
        *count = number;
    } else {
        lsp_memory_free(table);
    }
    lsp_h5_quiet_leave(&quiet);
    return status;
}
