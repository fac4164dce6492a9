/* Joins runs of rows into regular selections. SPDX-License-Identifier: BSD-3-Clause */
#include "store/slab.h"

#include "base/checked.h"
#include "base/memory.h"

#include <stdlib.h>

lsp_status lsp_placing_make(int axes, const int64_t dims[4], lsp_view view, lsp_layout layout, lsp_dtype type,
                            lsp_error *err, lsp_placing *out)
{
    int leading = view == LSP_VIEW_ROWS ? axes - 1 : axes;
    if (leading < 1 || leading > 3)
        return lsp_error_set(err, LSP_ERR_CONTENT, "%d axes; %s", axes,
                             view == LSP_VIEW_ROWS ? "[n, d], [H, n, d] or [B, H, n, d] is needed"
                                                   : "[n], [H, n] or [B, H, n] is needed");
    lsp_tensor_shape shape = {.type = type, .axes = axes, .layout = layout, .batch = 1, .heads = 1};
    int rows_axis = layout == LSP_BNHD && leading > 1 ? leading - 2 : leading - 1;
    int heads_axis = layout == LSP_BNHD ? leading - 1 : leading - 2;
    shape.n = dims[rows_axis];
    if (leading > 1) shape.heads = dims[heads_axis];
    if (leading > 2) shape.batch = dims[0];
    shape.d = view == LSP_VIEW_ROWS ? dims[axes - 1] : 1;
    *out = (lsp_placing){.shape = shape, .view = view};
    return LSP_OK;
}

int64_t lsp_placing_row_bytes(const lsp_placing *placing)
{
    return placing->shape.d * (int64_t)lsp_dtype_size(placing->shape.type);
}

int64_t lsp_slab_rows(const lsp_slab *slab)
{
    return slab->batches * slab->heads * slab->blocks * slab->block;
}

bool lsp_slab_same_rows(const lsp_slab *a, const lsp_slab *b)
{
    return a->batch == b->batch && a->begin == b->begin && a->block == b->block;
}

bool lsp_slab_select(const lsp_placing *placing, const lsp_slab *slab, hid_t space)
{
    hsize_t start[4] = {0}, stride[4] = {1, 1, 1, 1}, count[4] = {1, 1, 1, 1}, block[4] = {1, 1, 1, 1};
    bool rows_view = placing->view == LSP_VIEW_ROWS, bnhd = placing->shape.layout == LSP_BNHD;
    int axes = placing->shape.axes, leading = rows_view ? axes - 1 : axes;
    int rows_axis = bnhd && leading > 1 ? leading - 2 : leading - 1;
    int heads_axis = bnhd ? leading - 1 : leading - 2;
    if (leading > 2) {
        start[0] = (hsize_t)slab->batch;
        block[0] = (hsize_t)slab->batches;
    }
    if (leading > 1) {
        start[heads_axis] = (hsize_t)slab->head;
        block[heads_axis] = (hsize_t)slab->heads;
    }
    start[rows_axis] = (hsize_t)slab->begin;
    block[rows_axis] = (hsize_t)slab->block;
    if (slab->blocks > 1) {
        stride[rows_axis] = (hsize_t)slab->stride;
        count[rows_axis] = (hsize_t)slab->blocks;
    }
    if (rows_view) block[axes - 1] = (hsize_t)placing->shape.d;
    /* HDF5 wants stride >= block also where there is one block only. */
    for (int a = 0; a < axes; a++)
        if (stride[a] < block[a]) stride[a] = block[a];
    return H5Sselect_hyperslab(space, H5S_SELECT_SET, start, stride, count, block) >= 0;
}

/* ---- joining ----------------------------------------------------------------------------------- */

static lsp_status check_run(const lsp_placing *placing, const lsp_run *run, lsp_error *err)
{
    const lsp_tensor_shape *shape = &placing->shape;
    bool inside = run->batch >= 0 && run->batch < shape->batch && run->head >= 0 &&
                  run->head < shape->heads && run->begin >= 0 && run->count >= 0 && run->begin <= shape->n &&
                  run->count <= shape->n - run->begin;
    if (inside) return LSP_OK;
    return lsp_error_set(err, LSP_ERR_USAGE,
                         "run (batch %lld, head %lld, rows %lld to %lld) is outside of [%lld, %lld, %lld]",
                         (long long)run->batch, (long long)run->head, (long long)run->begin,
                         (long long)run->begin + (long long)run->count, (long long)shape->batch,
                         (long long)shape->heads, (long long)shape->n);
}

lsp_status lsp_runs_check(const lsp_placing *placing, const lsp_run *runs, int64_t run_count, lsp_error *err)
{
    lsp_status status = LSP_OK;
    for (int64_t i = 0; i < run_count && status == LSP_OK; i++) status = check_run(placing, &runs[i], err);
    return status;
}

/* Each step below looks at the last slab only, so joining is linear. */

static bool extend_rows(lsp_slab *last, const lsp_slab *next)
{
    if (last->batch != next->batch || last->head != next->head || last->begin + last->block != next->begin)
        return false;
    last->block += next->block;
    return true;
}

static bool extend_blocks(lsp_slab *last, const lsp_slab *next)
{
    if (last->batch != next->batch || last->head != next->head || last->block != next->block) return false;
    int64_t stride = next->begin - (last->begin + (last->blocks - 1) * last->stride);
    if (last->blocks == 1 ? stride <= last->block : stride != last->stride) return false;
    last->stride = stride;
    last->blocks++;
    return true;
}

static bool same_rows(const lsp_slab *a, const lsp_slab *b)
{
    return a->begin == b->begin && a->block == b->block && a->blocks == b->blocks &&
           (a->blocks == 1 || a->stride == b->stride);
}

static bool extend_heads(lsp_slab *last, const lsp_slab *next)
{
    if (last->batch != next->batch || last->head + last->heads != next->head || !same_rows(last, next))
        return false;
    last->heads += next->heads;
    return true;
}

static bool extend_batches(lsp_slab *last, const lsp_slab *next)
{
    if (last->batch + last->batches != next->batch || last->head != next->head ||
        last->heads != next->heads || !same_rows(last, next))
        return false;
    last->batches += next->batches;
    return true;
}

static void join(lsp_slabs *slabs, bool (*extend)(lsp_slab *last, const lsp_slab *next))
{
    int64_t kept = 0;
    for (int64_t i = 0; i < slabs->count; i++)
        if (kept == 0 || !extend(&slabs->items[kept - 1], &slabs->items[i]))
            slabs->items[kept++] = slabs->items[i];
    slabs->count = kept;
}

static int compare_rows_then_head(const void *left, const void *right)
{
    const lsp_slab *a = left, *b = right;
    if (a->batch != b->batch) return a->batch < b->batch ? -1 : 1;
    if (a->begin != b->begin) return a->begin < b->begin ? -1 : 1;
    if (a->block != b->block) return a->block < b->block ? -1 : 1;
    if (a->head != b->head) return a->head < b->head ? -1 : 1;
    return (a->at > b->at) - (a->at < b->at);
}

lsp_status lsp_slabs_make(const lsp_placing *placing, const lsp_run *runs, int64_t run_count, lsp_error *err,
                          lsp_slabs *out)
{
    lsp_status status = lsp_runs_check(placing, runs, run_count, err);
    if (status != LSP_OK) return status;
    lsp_slabs slabs = {.items = lsp_memory_alloc(run_count, sizeof(lsp_slab))};
    if (!slabs.items)
        return lsp_error_set(err, LSP_ERR_LIMIT, "not enough memory for %lld runs", (long long)run_count);
    for (int64_t i = 0; i < run_count; i++) {
        if (runs[i].count == 0) continue;
        slabs.items[slabs.count++] = (lsp_slab){.batch = runs[i].batch,
                                                .batches = 1,
                                                .head = runs[i].head,
                                                .heads = 1,
                                                .begin = runs[i].begin,
                                                .block = runs[i].count,
                                                .stride = runs[i].count,
                                                .blocks = 1,
                                                .at = slabs.rows};
        slabs.rows += runs[i].count;
    }
    join(&slabs, extend_rows);
    if (placing->shape.layout == LSP_BNHD && placing->shape.heads > 1) {
        qsort(slabs.items, (size_t)slabs.count, sizeof(lsp_slab), compare_rows_then_head);
    } else {
        join(&slabs, extend_blocks);
        join(&slabs, extend_heads);
        join(&slabs, extend_batches);
    }
    *out = slabs;
    return LSP_OK;
}

void lsp_slabs_free(lsp_slabs *slabs)
{
    lsp_memory_free(slabs->items);
    *slabs = (lsp_slabs){.items = NULL};
}
