/* base/memory.h for simulated ranks: large blocks, whose contents nobody looks at, are the same memory for all ranks. Nothing is
 * freed: a run allocates at its start.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "base/memory.h"

#include "base/checked.h"

#include <smpi/smpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHARED_LEAST = 1 << 20 };

void *lsp_memory_alloc(int64_t count, size_t size)
{
    size_t bytes = 0;
    if (count < 0 || !lsp_checked_mul_size((size_t)count, size, &bytes)) return NULL;
    if (bytes < SHARED_LEAST) return calloc(1, bytes ? bytes : 1);
    char name[32]; /* SMPI takes blocks of one name for one block, whatever their sizes */
    (void)snprintf(name, sizeof name, "block-%zu", bytes);
    return smpi_shared_malloc(bytes, name, 0);
}

void *lsp_memory_zalloc(int64_t count, size_t size)
{
    return calloc((size_t)(count > 0 ? count : 1), size); /* state of a rank, which is looked at */
}

void lsp_memory_free(void *pointer)
{
    (void)pointer;
}
