/* Where the k largest scores of sampled rows end, over all ranks: the k-th score by halving the range of numbers and
 * counting, then the last of its keys likewise. SPDX-License-Identifier: BSD-3-Clause */
#include "base/checked.h"
#include "base/memory.h"
#include "study/sample.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* Rows looked at together: their scores stay in memory meanwhile. */
enum { ROWS_MOST = 64, SCORES_MOST = 1 << 22 };

typedef struct list {
    int64_t row, count;
    double *scores;
    int64_t *keys;
    int64_t low, high; /* of what is halved: numbers by their order, then keys */
    int64_t wanted;    /* places for keys with the k-th score itself */
} list;

/* Integers in the order of the numbers; -0 counts as 0. */
static int64_t order_of(double a)
{
    int64_t bits;
    a += 0.0;
    memcpy(&bits, &a, sizeof bits);
    return bits < 0 ? bits ^ INT64_MAX : bits;
}

static double number_of(int64_t order)
{
    int64_t bits = order < 0 ? order ^ INT64_MAX : order;
    double a;
    memcpy(&a, &bits, sizeof a);
    return a;
}

static int64_t middle_of(const list *l)
{
    return (l->low & l->high) + ((l->low ^ l->high) >> 1);
}

static int64_t count_above(const list *l, double limit)
{
    int64_t above = 0;
    for (int64_t i = 0; i < l->count; i++) above += l->scores[i] > limit;
    return above;
}

/* Keys up to `key` whose score is `score`. */
static int64_t count_equal(const list *l, double score, int64_t key)
{
    int64_t equal = 0;
    for (int64_t i = 0; i < l->count; i++) equal += l->scores[i] == score && l->keys[i] <= key;
    return equal;
}

static bool halve(list *l, bool upper)
{
    if (upper)
        l->high = middle_of(l);
    else
        l->low = middle_of(l);
    return l->low + 1 < l->high;
}

/* Collective. low: not fewer than k above; high: fewer; until they are neighbours. */
static lsp_status find_scores(lsp_sample *s, list *lists, int count, int64_t k)
{
    lsp_status status = LSP_OK;
    int64_t above[ROWS_MOST];
    for (int i = 0; i < count; i++) {
        /* A row that keeps all has its limit below every number. */
        lists[i].low = order_of(-INFINITY) - 1;
        lists[i].high = order_of(INFINITY);
    }
    for (bool more = true; status == LSP_OK && more;) {
        for (int i = 0; i < count; i++) above[i] = count_above(&lists[i], number_of(middle_of(&lists[i])));
        status = lsp_context_sum_i64(s->ctx, above, count);
        more = false;
        for (int i = 0; i < count; i++) {
            if (lists[i].low + 1 >= lists[i].high) continue;
            more = halve(&lists[i], above[i] < k) || more;
        }
    }
    for (int i = 0; i < count; i++) above[i] = count_above(&lists[i], number_of(lists[i].high));
    if (status == LSP_OK) status = lsp_context_sum_i64(s->ctx, above, count);
    for (int i = 0; i < count; i++) {
        s->cuts[lists[i].row].score = number_of(lists[i].high);
        lists[i].wanted = k - above[i];
    }
    return status;
}

/* Collective. The key at which the places for equal scores are used up. */
static lsp_status find_keys(lsp_sample *s, list *lists, int count)
{
    lsp_status status = LSP_OK;
    int64_t equal[ROWS_MOST];
    for (int i = 0; i < count; i++) {
        lists[i].low = -1;
        lists[i].high = s->desc.m;
    }
    for (bool more = true; status == LSP_OK && more;) {
        for (int i = 0; i < count; i++)
            equal[i] = count_equal(&lists[i], s->cuts[lists[i].row].score, middle_of(&lists[i]));
        status = lsp_context_sum_i64(s->ctx, equal, count);
        more = false;
        for (int i = 0; i < count; i++)
            if (lists[i].low + 1 < lists[i].high)
                more = halve(&lists[i], equal[i] >= lists[i].wanted) || more;
    }
    for (int i = 0; i < count; i++) s->cuts[lists[i].row].key = lists[i].high;
    return status;
}

/* Collective. How many pairs may have changed places: one of a larger score against what was dropped near it, one of
 * the k-th score against smaller ones. Keys of exactly equal scores have them in every precision, and do not. */
static lsp_status find_swaps(lsp_sample *s, list *lists, int count)
{
    enum { UPPER, KEPT, EQUAL_DROPPED, LOWER, KINDS };
    int64_t found[ROWS_MOST * KINDS] = {0};
    for (int i = 0; i < count; i++) {
        const lsp_reference_cut *cut = &s->cuts[lists[i].row];
        for (int64_t j = 0; j < lists[i].count; j++) {
            double away = lists[i].scores[j] - cut->score;
            if (!(fabs(away) <= cut->near)) continue;
            int kind = away > 0                      ? UPPER
                       : away < 0                    ? LOWER
                       : lists[i].keys[j] > cut->key ? EQUAL_DROPPED
                                                     : KEPT;
            found[i * KINDS + kind]++;
        }
    }
    lsp_status status = lsp_context_sum_i64(s->ctx, found, count * KINDS);
    for (int i = 0; i < count; i++) {
        const int64_t *f = found + i * KINDS;
        s->cuts[lists[i].row].swaps =
            lsp_min(f[UPPER] + f[KEPT], f[LOWER]) + lsp_min(f[UPPER], f[EQUAL_DROPPED]);
    }
    return status;
}

/* Scores are off by what lsp_check_tolerance allows for; two of them by twice that. */
static double near_of(const lsp_attention_desc *d, double size)
{
    if (d->compute == LSP_BF16) return 2 * 0x1p-8 * size;
    double unit = d->compute == LSP_F64 ? DBL_EPSILON : FLT_EPSILON;
    return (8 + sqrt((double)d->d_k)) * unit * size;
}

/* Collective. The cuts of `count` rows from row `first` on; more than there are keys: none. */
static lsp_status cut_rows(lsp_sample *s, int64_t first, int count, list *lists)
{
    int cut = 0;
    lsp_status status = LSP_OK;
    double longest[ROWS_MOST] = {0};
    for (int i = 0; i < count; i++) {
        int64_t row = first + i;
        if (lsp_sample_kind(s, row) != LSP_REFERENCE_ORDINARY || (int64_t)s->met[2 * row] <= s->desc.topk)
            continue;
        list *l = &lists[cut++];
        *l = (list){.row = row, .count = s->held[row]};
        l->scores = lsp_memory_alloc(l->count, sizeof *l->scores);
        l->keys = lsp_memory_alloc(l->count, sizeof *l->keys);
        s->cuts[row].near = near_of(&s->desc, s->peaks[row * LSP_PEAK_VALUES + LSP_PEAK_SIZE]);
        s->rows[row].cut = &s->cuts[row];
        if (!l->scores || !l->keys)
            status = lsp_context_fail(s->ctx, LSP_ERR_LIMIT, "verify: no memory for the scores of a row");
        else
            lsp_reference_list(&s->keys, &s->rows[row], l->scores, l->keys, s->scratch);
    }
    status = lsp_context_agree(s->ctx, status);
    if (status == LSP_OK && cut > 0) status = find_scores(s, lists, cut, s->desc.topk);
    if (status == LSP_OK && cut > 0) status = find_keys(s, lists, cut);
    if (status == LSP_OK && cut > 0) status = find_swaps(s, lists, cut);
    for (int i = 0; status == LSP_OK && i < cut; i++)
        if (s->cuts[lists[i].row].swaps > 0)
            longest[i] = lsp_reference_longest(&s->keys, &s->rows[lists[i].row], s->scratch);
    if (status == LSP_OK && cut > 0) status = lsp_context_max_f64(s->ctx, longest, cut);
    for (int i = 0; i < cut; i++) {
        s->cuts[lists[i].row].length = longest[i];
        lsp_memory_free(lists[i].scores);
        lsp_memory_free(lists[i].keys);
    }
    return status;
}

lsp_status lsp_sample_cut(lsp_sample *s)
{
    list lists[ROWS_MOST];
    /* As many rows as fit, were each to see all keys of the rank that has most. */
    int64_t rows = lsp_max(1, lsp_min(ROWS_MOST, SCORES_MOST * (int64_t)s->ctx->layout.ranks / s->desc.m));
    lsp_status status = LSP_OK;
    for (int64_t first = 0; status == LSP_OK && first < s->count; first += rows)
        status = cut_rows(s, first, (int)lsp_min(rows, s->count - first), lists);
    return status;
}
