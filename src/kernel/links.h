/* The strongest links met so far, as a heap whose root is the weakest of them.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_LINKS_H
#define LSP_KERNEL_LINKS_H

#include <longspan/map.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct lsp_links {
    int64_t most, count;
    lsp_link *items; /* [most] */
} lsp_links;

/* Local. Whether a stands after b: weaker, or as strong in a later row, or there at a later key. */
static inline bool links_after(const lsp_link *a, const lsp_link *b)
{
    if (a->weight != b->weight) return a->weight < b->weight;
    return a->row != b->row ? a->row > b->row : a->key > b->key;
}

/* Local. Puts a link at place `at` of the heap, whose root stands after all others, or below it. */
static inline void links_sink(lsp_links *links, int64_t at, lsp_link link)
{
    for (int64_t child = 2 * at + 1; child < links->count; child = 2 * at + 1) {
        if (child + 1 < links->count && links_after(&links->items[child + 1], &links->items[child])) child++;
        if (!links_after(&links->items[child], &link)) break;
        links->items[at] = links->items[child];
        at = child;
    }
    links->items[at] = link;
}

/* Local. Takes a link if it is among the strongest; most > 0. */
static inline void links_offer(lsp_links *links, lsp_link link)
{
    if (links->count == links->most) {
        if (links_after(&links->items[0], &link)) links_sink(links, 0, link);
        return;
    }
    int64_t at = links->count++;
    for (; at > 0 && links_after(&link, &links->items[(at - 1) / 2]); at = (at - 1) / 2)
        links->items[at] = links->items[(at - 1) / 2];
    links->items[at] = link;
}

#endif
