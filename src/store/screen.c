/* Finding NaN and Inf. SPDX-License-Identifier: BSD-3-Clause */
#include "base/checked.h"
#include "comm/context.h"
#include "store/tensor.h"

enum { BLOCK = 4096 }; /* elements; its count fits in 16 bits, so the loops below stay in narrow lanes */

/* An element is NaN or Inf when all bits of its exponent are set. Integers never are. */
static int64_t count_16(const uint16_t *x, int64_t count, uint16_t exponent)
{
    uint16_t bad = 0;
    for (int64_t i = 0; i < count; i++) bad = (uint16_t)(bad + ((x[i] & exponent) == exponent));
    return bad;
}

static int64_t count_32(const uint32_t *x, int64_t count)
{
    const uint32_t exponent = 0x7f800000u;
    uint32_t bad = 0;
    for (int64_t i = 0; i < count; i++) bad += (x[i] & exponent) == exponent;
    return bad;
}

static int64_t count_64(const uint64_t *x, int64_t count)
{
    const uint64_t exponent = 0x7ff0000000000000u;
    uint64_t bad = 0;
    for (int64_t i = 0; i < count; i++) bad += (x[i] & exponent) == exponent;
    return (int64_t)bad;
}

static int64_t count_block(lsp_dtype type, const char *elements, int64_t count)
{
    switch (type) {
    case LSP_F16: return count_16((const uint16_t *)(const void *)elements, count, 0x7c00);
    case LSP_BF16: return count_16((const uint16_t *)(const void *)elements, count, 0x7f80);
    case LSP_F32: return count_32((const uint32_t *)(const void *)elements, count);
    case LSP_F64: return count_64((const uint64_t *)(const void *)elements, count);
    case LSP_I64: return 0;
    }
    return 0;
}

/* Counts in one run; *first becomes its first one (element of the run) when there is one. */
static int64_t screen_run(lsp_dtype type, const char *elements, int64_t count, int threads, int64_t *first)
{
    int64_t bad = 0, lowest = count, size = (int64_t)lsp_dtype_size(type),
            blocks = lsp_ceil_div(count, BLOCK);
#pragma omp parallel for num_threads(threads) reduction(+ : bad) reduction(min : lowest) if (blocks > 64)
    for (int64_t b = 0; b < blocks; b++) {
        int64_t from = b * BLOCK, to = lsp_min(from + BLOCK, count);
        int64_t here = count_block(type, elements + from * size, to - from);
        bad += here;
        if (here == 0 || from >= lowest) continue;
        for (int64_t i = from; i < to; i++) {
            if (count_block(type, elements + i * size, 1) == 0) continue;
            lowest = i;
            break;
        }
    }
    if (bad > 0) *first = lowest;
    return bad;
}

lsp_status lsp_tensor_screen(lsp_tensor *tensor, const lsp_run *runs, int64_t run_count, const void *buffer,
                             int64_t *count, int64_t first[4])
{
    const lsp_tensor_shape *shape = &tensor->placing.shape;
    const char *elements = buffer;
    int64_t bad = 0, lowest = INT64_MAX;
    for (int64_t i = 0; i < run_count; i++) {
        const lsp_run *run = &runs[i];
        int64_t here = 0, length = run->count * shape->d;
        int64_t found = screen_run(shape->type, elements, length, tensor->ctx->layout.threads, &here);
        int64_t start = ((run->batch * shape->heads + run->head) * shape->n + run->begin) * shape->d;
        if (found > 0) lowest = lsp_min(lowest, start + here);
        bad += found;
        elements += length * (int64_t)lsp_dtype_size(shape->type);
    }
    lsp_status status = lsp_context_sum_i64(tensor->ctx, &bad, 1);
    if (status == LSP_OK) status = lsp_context_min_i64(tensor->ctx, &lowest, 1);
    if (status != LSP_OK) return status;
    *count = bad;
    if (bad == 0) return LSP_OK;
    first[3] = lowest % shape->d;
    first[2] = lowest / shape->d % shape->n;
    first[1] = lowest / shape->d / shape->n % shape->heads;
    first[0] = lowest / shape->d / shape->n / shape->heads;
    return LSP_OK;
}
