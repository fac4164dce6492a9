/* SPDX-License-Identifier: BSD-3-Clause */
#include "layer/project.h"

#include "base/checked.h"
#include "kernel/kernel.h"
#include "linalg/gemm.h"

#include <omp.h>
#include <string.h>

/* Wide enough that packing rows and weights inside of BLAS is little beside the product (0.94 of a large product's
 * rate, measured with d_model = 768), narrow enough that the products stay in the second cache. */
enum { GROUP_COLUMNS = 768 };

int64_t lsp_project_group(int64_t columns, int64_t unit)
{
    int64_t units = columns / unit, groups = lsp_max(1, (columns + GROUP_COLUMNS / 2) / GROUP_COLUMNS);
    return lsp_ceil_div(units, lsp_min(groups, units)) * unit;
}

/* A short block is filled up with zeros. */
static const void *load_block(const lsp_project *p, int64_t row, int64_t count, void *room)
{
    const void *rows = p->load(p->user, row, count, room);
    if (count == LSP_LAYER_ROWS) return rows;
    size_t bytes = (size_t)p->depth * lsp_dtype_size(p->type), used = (size_t)count * bytes;
    if (rows != room) memcpy(room, rows, used);
    memset((char *)room + used, 0, LSP_LAYER_ROWS * bytes - used);
    return room;
}

static void run_task(const lsp_project *p, int64_t row, int64_t column, const lsp_project_room *room,
                     int thread)
{
    int64_t count = lsp_min(LSP_LAYER_ROWS, p->end - row), columns = lsp_min(p->group, p->columns - column);
    size_t element = lsp_dtype_size(p->type);
    /* Sizes were checked to fit when the layer was made. */
    int depth = (int)p->depth, width = (int)columns;
    lsp_gemm_matrix rows = {load_block(p, row, count, room->block), depth};
    lsp_gemm_matrix weight = {(const char *)p->weight + (size_t)(column * p->depth) * element, depth};
    lsp_gemm(p->type, LSP_LAYER_ROWS, width, depth, rows, weight, true, 0, room->columns, width);
    p->store(p->user, row, count, column, columns, room->columns, thread);
}

void lsp_project_run(const lsp_project *p, int threads, const lsp_project_room *rooms)
{
    int64_t blocks = lsp_ceil_div(p->end - p->begin, LSP_LAYER_ROWS),
            groups = lsp_ceil_div(p->columns, p->group);
#pragma omp parallel num_threads(threads)
    {
        uint64_t mode = lsp_fpmode_enter();
        int thread = omp_get_thread_num();
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < blocks * groups; task++)
            run_task(p, p->begin + task / groups * LSP_LAYER_ROWS, task % groups * p->group, &rooms[thread],
                     thread);
        lsp_fpmode_leave(mode);
    }
}
