/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/memory.h"

#include "base/checked.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { ALIGNMENT = 64, HUGE_PAGE = 2 << 20, HUGE_LEAST = 4 << 20 };

static _Atomic int64_t bytes_now, bytes_most;

/* The size stands in the 64 bytes before the block. */
void *lsp_memory_alloc(int64_t count, size_t size)
{
    size_t bytes = 0;
    if (count < 0 || !lsp_checked_mul_size((size_t)count, size, &bytes)) return NULL;
    if (bytes > (size_t)INT64_MAX - 2 * HUGE_PAGE) return NULL;
    /* Large blocks ask for huge pages: reading into fresh 4 KiB pages takes twice as long as into these. */
    size_t unit = bytes >= HUGE_LEAST ? HUGE_PAGE : ALIGNMENT;
    size_t whole = (bytes + ALIGNMENT + unit - 1) / unit * unit;
    char *block = aligned_alloc(unit, whole);
    if (!block) return NULL;
    if (unit == HUGE_PAGE) (void)madvise(block, whole, MADV_HUGEPAGE); /* a wish; 4 KiB pages do as well */
    memcpy(block, &whole, sizeof whole);
    int64_t now = atomic_fetch_add(&bytes_now, (int64_t)whole) + (int64_t)whole;
    int64_t most = atomic_load(&bytes_most);
    while (now > most && !atomic_compare_exchange_weak(&bytes_most, &most, now)) {
    }
    return block + ALIGNMENT;
}

void *lsp_memory_zalloc(int64_t count, size_t size)
{
    void *pointer = lsp_memory_alloc(count, size);
    if (pointer) memset(pointer, 0, (size_t)count * size);
    return pointer;
}

void lsp_memory_free(void *pointer)
{
    if (!pointer) return;
    char *block = (char *)pointer - ALIGNMENT;
    size_t whole = 0;
    memcpy(&whole, block, sizeof whole);
    atomic_fetch_sub(&bytes_now, (int64_t)whole);
    free(block);
}

void lsp_free(void *pointer);
void lsp_free(void *pointer)
{
    lsp_memory_free(pointer);
}

int64_t lsp_memory_now(void)
{
    return atomic_load(&bytes_now);
}

int64_t lsp_memory_most(void)
{
    return atomic_load(&bytes_most);
}

char *lsp_memory_strdup(const char *text)
{
    size_t length = strlen(text) + 1;
    char *copy = lsp_memory_alloc((int64_t)length, 1);
    if (copy) memcpy(copy, text, length);
    return copy;
}
