/* Allocations. What Longspan allocates is remembered until it is freed. SPDX-License-Identifier: BSD-3-Clause */
#include "fault.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *pointer, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *pointer);

enum { BUCKETS = 1 << 14 };

typedef struct block {
    const void *pointer;
    struct block *next;
} block;

static block *buckets[BUCKETS];
static long live;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static block **bucket_of(const void *pointer)
{
    return &buckets[((uintptr_t)pointer >> 4) % BUCKETS];
}

static void remember(const void *pointer, const void *caller)
{
    if (!pointer || !fault_is_ours(caller, true)) return;
    block *one = __libc_malloc(sizeof *one);
    if (!one) abort();
    (void)pthread_mutex_lock(&lock);
    block **bucket = bucket_of(pointer);
    *one = (block){pointer, *bucket};
    *bucket = one;
    live++;
    (void)pthread_mutex_unlock(&lock);
}

static void forget(const void *pointer)
{
    block *found = NULL;
    if (!pointer || __atomic_load_n(bucket_of(pointer), __ATOMIC_RELAXED) == NULL) return;
    (void)pthread_mutex_lock(&lock);
    block **at = bucket_of(pointer);
    while (*at && (*at)->pointer != pointer) at = &(*at)->next;
    if (*at) {
        found = *at;
        *at = found->next;
        live--;
    }
    (void)pthread_mutex_unlock(&lock);
    __libc_free(found);
}

long fault_live_blocks(void)
{
    return live;
}

static void *refuse(void)
{
    errno = ENOMEM;
    return NULL;
}

void *malloc(size_t size)
{
    if (fault_now(FAULT_ALLOC, "malloc", FAULT_CALLER)) return refuse();
    void *pointer = __libc_malloc(size);
    remember(pointer, FAULT_CALLER);
    return pointer;
}

void *calloc(size_t count, size_t size)
{
    if (fault_now(FAULT_ALLOC, "calloc", FAULT_CALLER)) return refuse();
    void *pointer = __libc_calloc(count, size);
    remember(pointer, FAULT_CALLER);
    return pointer;
}

void *realloc(void *pointer, size_t size)
{
    if (fault_now(FAULT_ALLOC, "realloc", FAULT_CALLER)) return refuse();
    void *moved = __libc_realloc(pointer, size);
    if (moved || size == 0) forget(pointer);
    remember(moved, FAULT_CALLER);
    return moved;
}

void *aligned_alloc(size_t alignment, size_t size)
{
    if (fault_now(FAULT_ALLOC, "aligned_alloc", FAULT_CALLER)) return refuse();
    void *pointer = __libc_memalign(alignment, size);
    remember(pointer, FAULT_CALLER);
    return pointer;
}

int posix_memalign(void **pointer, size_t alignment, size_t size)
{
    if (fault_now(FAULT_ALLOC, "posix_memalign", FAULT_CALLER)) return ENOMEM;
    void *made = __libc_memalign(alignment, size);
    if (!made) return ENOMEM;
    remember(made, FAULT_CALLER);
    *pointer = made;
    return 0;
}

char *strdup(const char *text)
{
    if (fault_now(FAULT_ALLOC, "strdup", FAULT_CALLER)) return refuse();
    size_t length = strlen(text) + 1;
    char *copy = __libc_malloc(length);
    if (copy) memcpy(copy, text, length);
    remember(copy, FAULT_CALLER);
    return copy;
}

void free(void *pointer)
{
    forget(pointer);
    __libc_free(pointer);
}
