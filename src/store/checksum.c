/* Checksums of rows. SPDX-License-Identifier: BSD-3-Clause */
#include "store/checksum.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#    error "checksums are over little-endian bytes: this file needs a byte swap on big-endian machines"
#endif

static uint64_t run_index(const lsp_tensor_shape *shape, const lsp_run *run)
{
    return (uint64_t)((run->batch * shape->heads + run->head) * shape->n + run->begin);
}

/* 0 + 1 + ... + (count - 1) modulo 2^64: the even factor is halved before the product. */
static uint64_t triangle(uint64_t count)
{
    return count % 2 == 0 ? count / 2 * (count - 1) : (count - 1) / 2 * count;
}

static uint64_t hash_rows(const char *rows, int64_t row_bytes, int64_t count, uint64_t first, int threads)
{
    uint64_t sum = 0;
#pragma omp parallel for num_threads(threads) reduction(+ : sum) schedule(static) if (count * row_bytes > 1 << 20)
    for (int64_t r = 0; r < count; r++)
        sum += (uint64_t)XXH64(rows + r * row_bytes, (size_t)row_bytes, first + (uint64_t)r);
    return sum;
}

void lsp_tally_add(lsp_tally *tally, const lsp_placing *placing, const lsp_run *runs, int64_t run_count,
                   const void *buffer, int threads)
{
    const char *rows = buffer;
    int64_t row_bytes = lsp_placing_row_bytes(placing);
    for (int64_t i = 0; i < run_count; i++) {
        if (runs[i].count == 0) continue;
        uint64_t first = run_index(&placing->shape, &runs[i]), count = (uint64_t)runs[i].count;
        tally->rows += count;
        tally->indices += count * first + triangle(count);
        if (!rows) continue;
        tally->hashes += hash_rows(rows, row_bytes, runs[i].count, first, threads);
        rows += runs[i].count * row_bytes;
    }
}

bool lsp_tally_is_whole(const lsp_tally *tally, const lsp_placing *placing)
{
    const lsp_tensor_shape *shape = &placing->shape;
    uint64_t rows = (uint64_t)(shape->batch * shape->heads * shape->n);
    return tally->rows == rows && tally->indices == triangle(rows);
}

bool lsp_checksum_stored(hid_t dataset, bool *stored, uint64_t *checksum)
{
    char text[32] = "", *end = NULL;
    htri_t exists = H5Aexists(dataset, LSP_CHECKSUM_ATTRIBUTE);
    *stored = exists > 0;
    if (exists <= 0) return exists == 0;
    if (!lsp_h5_attribute_text(dataset, LSP_CHECKSUM_ATTRIBUTE, text, sizeof text)) return false;
    *checksum = strtoull(text, &end, 16);
    return strlen(text) == 16 && strspn(text, "0123456789abcdef") == 16;
}

bool lsp_checksum_store(hid_t dataset, uint64_t checksum)
{
    char text[32];
    (void)snprintf(text, sizeof text, "%016" PRIx64, checksum);
    return lsp_h5_put_text(dataset, LSP_CHECKSUM_ATTRIBUTE, text) &&
           lsp_h5_put_text(dataset, LSP_CHECKSUM_RULE_ATTRIBUTE, LSP_CHECKSUM_RULE);
}
