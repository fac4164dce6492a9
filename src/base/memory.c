/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/memory.h"

#include "base/checked.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { ALIGNMENT = 64, HUGE_PAGE = 2 << 20, HUGE_LEAST = 2 << 20 };

static _Atomic int64_t bytes_now, bytes_most;

/* What stands in the 64 bytes before the memory that the caller sees. */
typedef struct block_header {
    void *block;
    size_t bytes; /* that count */
} block_header;

static void count_bytes(size_t bytes)
{
    int64_t now = atomic_fetch_add(&bytes_now, (int64_t)bytes) + (int64_t)bytes;
    int64_t most = atomic_load(&bytes_most);
    while (now > most && !atomic_compare_exchange_weak(&bytes_most, &most, now)) {
    }
}

/* Large memory begins with a huge page and asks for such, whole ones alone: reading into fresh 4 KiB pages takes twice as
 * long as into these, and one more for the last few bytes may have to wait until the system has moved pages about. */
void *lsp_memory_alloc(int64_t count, size_t size)
{
    size_t bytes = 0;
    if (count < 0 || !lsp_checked_mul_size((size_t)count, size, &bytes)) return NULL;
    if (bytes > (size_t)INT64_MAX - 2 * HUGE_PAGE) return NULL;
    const size_t unit = bytes >= HUGE_LEAST ? HUGE_PAGE : ALIGNMENT,
                 rounded = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    char *block = aligned_alloc(ALIGNMENT, rounded + unit);
    if (!block) return NULL;
    char *pointer = block + unit - (uintptr_t)block % unit;
    if (unit == HUGE_PAGE) /* a wish; 4 KiB pages do as well */
        (void)madvise(pointer, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
    const block_header header = {block, rounded + ALIGNMENT};
    memcpy(pointer - ALIGNMENT, &header, sizeof header);
    count_bytes(header.bytes);
    return pointer;
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
    block_header header;
    memcpy(&header, (char *)pointer - ALIGNMENT, sizeof header);
    atomic_fetch_sub(&bytes_now, (int64_t)header.bytes);
    free(header.block);
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
