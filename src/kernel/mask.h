/* Which keys a query row sees: always one interval. Pure arithmetic on positions.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_MASK_H
#define LSP_KERNEL_MASK_H

#include <longspan/attention.h>
#include <stdbool.h>
#include <stdint.h>

/* Everything that decides visibility, of one attention. Pointers are owned by whoever made it. */
typedef struct lsp_mask {
    lsp_mask_kind kind;
    lsp_causal_align align;
    int64_t window_left, window_right;
    int64_t n, m;                           /* of the whole */
    int64_t key_begin, key_end;             /* keys outside do not contribute */
    const int64_t *documents, *documents_k; /* offsets [document_count + 1]; NULL: none */
    int64_t document_count;
    const int64_t *key_lengths; /* [batch]; NULL: all m */
    int64_t block_size;         /* rows of a block, which sees its share of the keys only; 0: one block */
} lsp_mask;

/* What one row sees: keys [begin, end) (empty: begin == end), and its position p among the keys (for
 * causal, window and ALiBi), all absolute. */
typedef struct lsp_sight {
    int64_t begin, end, position;
} lsp_sight;

/* Local. Sight of row `row` (of the whole) in batch `batch`. begin and end do not decrease from one row to the next. */
lsp_sight lsp_mask_sight(const lsp_mask *mask, int64_t batch, int64_t row);

/* Local. The same for rows [row, row + count), into sights[0 .. count). */
void lsp_mask_sights(const lsp_mask *mask, int64_t batch, int64_t row, int64_t count, lsp_sight *sights);

/* Local. The first key that may contribute to the rows of the document of rows [row, row + count), into keys[0 .. count):
 * its own first one, or that of the selection. */
void lsp_mask_first_keys(const lsp_mask *mask, int64_t batch, int64_t row, int64_t count, int64_t *keys);

/* Local. First key of the block that begins at row `row` (or, at the last row's end, m): floor(row m / n). */
int64_t lsp_mask_block_key(const lsp_mask *mask, int64_t row);

/* Local. Whether some block ends between keys begin and end, so that rows see one part of them alone. */
bool lsp_mask_parts(const lsp_mask *mask, int64_t begin, int64_t end);

/* Local. Visible pairs of rows [begin, end) in batch `batch`, in closed form or O(documents + blocks). */
double lsp_mask_pairs(const lsp_mask *mask, int64_t batch, int64_t begin, int64_t end);

#endif
