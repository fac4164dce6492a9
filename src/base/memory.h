/* One allocator that counts. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_BASE_MEMORY_H
#define LSP_BASE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/* Local. count * size bytes aligned to 64, or NULL (also when the product overflows). count 0 gives a
 * valid pointer. Freed with lsp_memory_free. */
void *lsp_memory_alloc(int64_t count, size_t size);

/* Local. The same, zeroed. */
void *lsp_memory_zalloc(int64_t count, size_t size);

/* Local. NULL is allowed. */
void lsp_memory_free(void *pointer);

/* Local. Bytes allocated now, and the most so far, by this allocator in this process. */
int64_t lsp_memory_now(void);
int64_t lsp_memory_most(void);

/* Local. A copy of `text` (NULL when out of memory). */
char *lsp_memory_strdup(const char *text);

#endif
