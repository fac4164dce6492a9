/* Visibility and positions. SPDX-License-Identifier: BSD-3-Clause */
#include "kernel/mask.h"

#include "base/checked.h"

/* Beyond any sequence, and far enough from overflow to add to positions. */
#define UNLIMITED (INT64_MAX / 4)

/* One document (or the whole): its rows, what its rows may see at most, and the shift from a row to
 * its position among the keys. Every row sees clamp(row + shift - left), clamp(row + shift + right + 1). */
typedef struct span {
    int64_t row_begin, row_end, lower, upper, shift;
} span;

static int64_t clamp(int64_t x, int64_t low, int64_t high)
{
    return x < low ? low : x > high ? high : x;
}

static int64_t reach_left(const lsp_mask *mask)
{
    return mask->kind == LSP_MASK_WINDOW ? lsp_min(mask->window_left, UNLIMITED) : UNLIMITED;
}

static int64_t reach_right(const lsp_mask *mask)
{
    if (mask->kind == LSP_MASK_CAUSAL) return 0;
    return mask->kind == LSP_MASK_WINDOW ? lsp_min(mask->window_right, UNLIMITED) : UNLIMITED;
}

/* The last document whose first row is at most `row` and which is not empty there. */
static int64_t find_document(const lsp_mask *mask, int64_t row)
{
    int64_t low = 0, high = mask->document_count; /* documents[low] <= row < documents[high] */
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (mask->documents[middle] <= row)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static span document_span(const lsp_mask *mask, int64_t batch, int64_t document)
{
    int64_t keys = mask->key_lengths ? mask->key_lengths[batch] : mask->m;
    int64_t q0 = 0, q1 = mask->n, k0 = 0, k1 = keys;
    if (mask->documents) {
        q0 = mask->documents[document];
        q1 = mask->documents[document + 1];
        /* The key length cuts the document too: one document over all rows is the same as none. */
        k0 = lsp_min(mask->documents_k[document], keys);
        k1 = lsp_min(mask->documents_k[document + 1], keys);
    }
    int64_t shift = k0 - q0;
    if (mask->align == LSP_ALIGN_BOTTOM_RIGHT) shift += (k1 - k0) - (q1 - q0);
    int64_t lower = lsp_max(k0, mask->key_begin);
    int64_t upper = lsp_max(lower, lsp_min(k1, mask->key_end));
    return (span){q0, q1, lower, upper, shift};
}

int64_t lsp_mask_block_key(const lsp_mask *mask, int64_t row)
{
    __extension__ typedef __int128 wide;
    return (int64_t)((wide)row * mask->m / mask->n);
}

bool lsp_mask_parts(const lsp_mask *mask, int64_t begin, int64_t end)
{
    if (mask->block_size <= 0 || begin + 1 >= lsp_min(end, mask->m)) return false;
    /* The first row of a block whose first key is after `begin`: block_key(row) > begin. */
    __extension__ typedef __int128 wide;
    wide row = (wide)(begin + 1) * mask->n; /* row m >= (begin + 1) n */
    int64_t first = (int64_t)((row + mask->m - 1) / mask->m);
    wide block = (first + mask->block_size - 1) / mask->block_size;
    if (block * mask->block_size >= mask->n) return false;
    return lsp_mask_block_key(mask, (int64_t)block * mask->block_size) < end;
}

/* The part of a span that the block of row `row` shows: its rows, and the limits of what they see. Limits of
 * later blocks are never lower. */
static span block_part(const lsp_mask *mask, span s, int64_t row)
{
    if (mask->block_size <= 0) return s;
    int64_t first = row - row % mask->block_size;
    int64_t end = mask->n - first <= mask->block_size ? mask->n : first + mask->block_size;
    int64_t low = clamp(lsp_mask_block_key(mask, first), mask->key_begin, mask->key_end);
    int64_t high = clamp(lsp_mask_block_key(mask, end), mask->key_begin, mask->key_end);
    s.row_begin = lsp_max(s.row_begin, first);
    s.row_end = lsp_min(s.row_end, end);
    /* A row that sees nothing looks inside of its block too: the keys after it may be on another rank, and who has the
     * block must not wait for them. */
    s.lower = clamp(s.lower, low, high);
    s.upper = clamp(s.upper, s.lower, high);
    return s;
}

lsp_sight lsp_mask_sight(const lsp_mask *mask, int64_t batch, int64_t row)
{
    lsp_sight sight;
    lsp_mask_sights(mask, batch, row, 1, &sight);
    return sight;
}

void lsp_mask_sights(const lsp_mask *mask, int64_t batch, int64_t row, int64_t count, lsp_sight *sights)
{
    int64_t left = reach_left(mask), right = reach_right(mask), end = row + count;
    while (row < end) {
        span s = document_span(mask, batch, mask->documents ? find_document(mask, row) : 0);
        s = block_part(mask, s, row);
        int64_t same_end = lsp_max(row + 1, lsp_min(end, s.row_end));
        for (; row < same_end; row++) {
            int64_t position = row + s.shift;
            *sights++ = (lsp_sight){clamp(position - left, s.lower, s.upper),
                                    clamp(position + right + 1, s.lower, s.upper), position};
        }
    }
}

void lsp_mask_first_keys(const lsp_mask *mask, int64_t batch, int64_t row, int64_t count, int64_t *keys)
{
    for (int64_t end = row + count; row < end;) {
        span s = document_span(mask, batch, mask->documents ? find_document(mask, row) : 0);
        for (int64_t same_end = lsp_max(row + 1, lsp_min(end, s.row_end)); row < same_end; row++)
            *keys++ = s.lower;
    }
}

/* Sum of clamp(i + shift, low, high) for i in [begin, end); in double, exact below 2^53. */
static double clamp_sum(int64_t begin, int64_t end, int64_t shift, int64_t low, int64_t high)
{
    int64_t first = clamp(low - shift, begin, end), last = clamp(high - shift, begin, end);
    double ramp = (double)(last - first);
    return (double)(first - begin) * (double)low + ramp * ((double)(first + shift) + (ramp - 1) / 2) +
           (double)(end - last) * (double)high;
}

static double span_pairs(const lsp_mask *mask, const span *s, int64_t begin, int64_t end)
{
    begin = lsp_max(begin, s->row_begin);
    end = lsp_min(end, s->row_end);
    if (begin >= end || s->lower >= s->upper) return 0;
    return clamp_sum(begin, end, s->shift + reach_right(mask) + 1, s->lower, s->upper) -
           clamp_sum(begin, end, s->shift - reach_left(mask), s->lower, s->upper);
}

double lsp_mask_pairs(const lsp_mask *mask, int64_t batch, int64_t begin, int64_t end)
{
    if (begin >= end) return 0;
    int64_t first = mask->documents ? find_document(mask, begin) : 0;
    int64_t last = mask->documents ? find_document(mask, end - 1) : 0;
    double pairs = 0;
    for (int64_t d = first; d <= last; d++) {
        span whole = document_span(mask, batch, d);
        int64_t stop = lsp_min(end, whole.row_end);
        for (int64_t row = lsp_max(begin, whole.row_begin); row < stop;) {
            span s = block_part(mask, whole, row);
            pairs += span_pairs(mask, &s, begin, end);
            row = s.row_end;
        }
    }
    return pairs;
}
