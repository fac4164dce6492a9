/* Masks against the definition of visibility, pair by pair.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/checked.h"
#include "kernel/mask.h"

#include <stdbool.h>

/* ---- the definition ------------------------------------------------------------------------------ */

/* Where row i of a sequence with n rows and m keys stands. */
static int64_t position_of(const lsp_mask *mask, int64_t i, int64_t n, int64_t m)
{
    return mask->align == LSP_ALIGN_TOP_LEFT ? i : i + m - n;
}

static bool rule_shows(const lsp_mask *mask, int64_t p, int64_t j)
{
    if (mask->kind == LSP_MASK_CAUSAL) return j <= p;
    if (mask->kind == LSP_MASK_WINDOW)
        return (p <= j || p - j <= mask->window_left) && (j <= p || j - p <= mask->window_right);
    return true;
}

/* Whether row i sees key j of a batch with `keys` keys. A document is a sequence of its own, with the keys
 * that exist. *position is absolute. */
static bool shows(const lsp_mask *mask, int64_t keys, int64_t i, int64_t j, int64_t *position)
{
    int64_t row0 = 0, rows = mask->n, key0 = 0, key_count = keys, whole_row = i;
    for (int64_t d = 0; mask->documents && d < mask->document_count; d++) {
        if (i < mask->documents[d] || i >= mask->documents[d + 1]) continue;
        row0 = mask->documents[d];
        rows = mask->documents[d + 1] - row0;
        key0 = mask->documents_k[d];
        key_count = 0;
        for (int64_t key = key0; key < mask->documents_k[d + 1]; key++) key_count += key < keys;
    }
    int64_t p = position_of(mask, i - row0, rows, key_count);
    *position = key0 + p;
    if (j < key0 || j >= key0 + key_count || j < mask->key_begin || j >= mask->key_end) return false;
    if (mask->block_size > 0) {
        int64_t begin = 0, end = mask->block_size;
        for (; !(begin <= whole_row && whole_row < end); begin += mask->block_size)
            end = begin + 2 * mask->block_size;
        if (end > mask->n) end = mask->n;
        if (j < begin * mask->m / mask->n || j >= end * mask->m / mask->n) return false;
    }
    return rule_shows(mask, p, j - key0);
}

/* Rows in runs of all lengths, which begin anywhere, have the sights that each has alone. */
static void check_runs(const lsp_mask *mask, int64_t batch, const char *what)
{
    lsp_sight run[64];
    for (int64_t begin = 0; begin < mask->n; begin++)
        for (int64_t count = 1; count <= mask->n - begin && count <= 64; count += 3) {
            lsp_mask_sights(mask, batch, begin, count, run);
            for (int64_t i = 0; i < count; i++) {
                lsp_sight alone = lsp_mask_sight(mask, batch, begin + i);
                if (run[i].begin != alone.begin || run[i].end != alone.end ||
                    run[i].position != alone.position)
                    fail_msg("%s: row %d differs in a run from %d on", what, (int)(begin + i), (int)begin);
            }
        }
}

static void check_mask(const lsp_mask *mask, int64_t batches, const char *what)
{
    for (int64_t b = 0; b < batches; b++) {
        int64_t keys = mask->key_lengths ? mask->key_lengths[b] : mask->m, begin = 0, end = 0;
        int64_t prefix[80] = {0};
        for (int64_t i = 0; i < mask->n; i++) {
            lsp_sight sight = lsp_mask_sight(mask, b, i);
            int64_t position = 0, seen = 0;
            for (int64_t j = 0; j < mask->m; j++) {
                bool visible = shows(mask, keys, i, j, &position);
                if (visible != (sight.begin <= j && j < sight.end))
                    fail_msg("%s n=%d m=%d batch %d: row %d key %d must be %s", what, (int)mask->n,
                             (int)mask->m, (int)b, (int)i, (int)j, visible ? "visible" : "hidden");
                seen += visible;
            }
            if (seen > 0) assert_int_equal(sight.position, position);
            assert_int_equal(sight.end - sight.begin, seen); /* also for keys past m: there are none */
            if (mask->block_size >
                0) { /* also of rows that see nothing: another rank may have what is outside */
                int64_t first = i / mask->block_size * mask->block_size,
                        last = lsp_min(mask->n, first + mask->block_size);
                int64_t low = lsp_max(mask->key_begin, lsp_min(mask->key_end, first * mask->m / mask->n));
                int64_t high = lsp_max(mask->key_begin, lsp_min(mask->key_end, last * mask->m / mask->n));
                if (sight.begin < low || sight.end > high)
                    fail_msg("%s n=%d m=%d batch %d: row %d looks outside of its block", what, (int)mask->n,
                             (int)mask->m, (int)b, (int)i);
            }
            if (sight.begin < begin || sight.end < end)
                fail_msg("%s n=%d m=%d batch %d: sight goes back at row %d", what, (int)mask->n, (int)mask->m,
                         (int)b, (int)i);
            begin = sight.begin;
            end = sight.end;
            prefix[i + 1] = prefix[i] + seen;
        }
        for (int64_t from = 0; from <= mask->n; from++)
            for (int64_t to = from; to <= mask->n; to++)
                if (lsp_mask_pairs(mask, b, from, to) != (double)(prefix[to] - prefix[from]))
                    fail_msg("%s n=%d m=%d batch %d: rows %d to %d have %d pairs, not %g", what, (int)mask->n,
                             (int)mask->m, (int)b, (int)from, (int)to, (int)(prefix[to] - prefix[from]),
                             lsp_mask_pairs(mask, b, from, to));
    }
    for (int64_t batch = 0; batch < batches; batch++) check_runs(mask, batch, what);
}

/* ---- cases --------------------------------------------------------------------------------------- */

typedef struct rule {
    const char *name;
    lsp_mask_kind kind;
    int64_t left, right;
} rule;

static const rule rules[] = {{"none", LSP_MASK_NONE, 0, 0},
                             {"causal", LSP_MASK_CAUSAL, 0, 0},
                             {"window 0 0", LSP_MASK_WINDOW, 0, 0},
                             {"window 3 0", LSP_MASK_WINDOW, 3, 0},
                             {"window 0 2", LSP_MASK_WINDOW, 0, 2},
                             {"window 2 5", LSP_MASK_WINDOW, 2, 5},
                             {"window all 1", LSP_MASK_WINDOW, INT64_MAX, 1},
                             {"window 1 all", LSP_MASK_WINDOW, 1, INT64_MAX}};
enum { RULES = sizeof rules / sizeof *rules };

/* All rules and both alignments, on top of what `base` says. */
static void check_rules(lsp_mask base, int64_t batches)
{
    for (int r = 0; r < RULES; r++)
        for (int align = 0; align < 2; align++) {
            lsp_mask mask = base;
            mask.kind = rules[r].kind;
            mask.window_left = rules[r].left;
            mask.window_right = rules[r].right;
            mask.align = align ? LSP_ALIGN_TOP_LEFT : LSP_ALIGN_BOTTOM_RIGHT;
            check_mask(&mask, batches, rules[r].name);
        }
}

static lsp_mask plain(int64_t n, int64_t m)
{
    return (lsp_mask){.n = n, .m = m, .key_end = m};
}

static void mask_follows_its_definition(void **state)
{
    (void)state;
    const int64_t shapes[][2] = {{1, 1}, {1, 9}, {9, 1}, {7, 7}, {5, 11}, {11, 5}, {13, 12}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        check_rules(plain(shapes[s][0], shapes[s][1]), 1);
}

static void mask_hides_keys_outside_the_selection(void **state)
{
    (void)state;
    const int64_t parts[][2] = {{0, 1}, {3, 8}, {10, 11}, {5, 6}, {0, 10}};
    for (size_t s = 0; s < sizeof parts / sizeof *parts; s++) {
        lsp_mask mask = plain(8, 11);
        mask.key_begin = parts[s][0];
        mask.key_end = parts[s][1];
        check_rules(mask, 1);
        mask.n = 17;
        check_rules(mask, 1);
    }
}

static void mask_ends_at_key_lengths(void **state)
{
    (void)state;
    const int64_t lengths[] = {11, 0, 1, 6, 10};
    lsp_mask mask = plain(8, 11);
    mask.key_lengths = lengths;
    check_rules(mask, 5);
    mask.key_begin = 4;
    mask.key_end = 8;
    check_rules(mask, 5);
}

static void mask_keeps_documents_apart(void **state)
{
    (void)state;
    const int64_t same[][6] = {
        {0, 4, 4, 9, 12, 12}, {0, 0, 1, 2, 2, 12}, {0, 12, 12, 12, 12, 12}, {0, 2, 4, 6, 8, 12}};
    for (size_t s = 0; s < sizeof same / sizeof *same; s++) {
        lsp_mask mask = plain(12, 12);
        mask.documents = mask.documents_k = same[s];
        mask.document_count = 5;
        check_rules(mask, 1);
    }
}

/* Documents with more keys than rows, fewer, none at all; keys of documents without rows. */
static void mask_takes_documents_of_their_own_over_keys(void **state)
{
    (void)state;
    const int64_t rows[] = {0, 3, 3, 8, 10, 14}, keys[] = {0, 5, 7, 9, 9, 10};
    const int64_t lengths[] = {10, 0, 4, 6, 8};
    lsp_mask mask = plain(14, 10);
    mask.documents = rows;
    mask.documents_k = keys;
    mask.document_count = 5;
    check_rules(mask, 1);
    mask.key_lengths = lengths;
    check_rules(mask, 5);
    mask.key_begin = 2;
    mask.key_end = 8;
    check_rules(mask, 5);
}

/* Blocks cut what the mask, a selection, lengths and documents leave; positions stay those of the whole. */
static void mask_ends_at_blocks(void **state)
{
    (void)state;
    const int64_t rows[] = {0, 3, 3, 8, 10, 14}, keys[] = {0, 5, 7, 9, 9, 10}, lengths[] = {10, 0, 4, 6, 8};
    const int64_t shapes[][2] = {{1, 9}, {9, 1}, {7, 7}, {14, 10}, {10, 13}};
    for (int64_t block = 1; block <= 15; block++) {
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
            lsp_mask mask = plain(shapes[s][0], shapes[s][1]);
            mask.block_size = block;
            check_rules(mask, 1);
        }
        lsp_mask mask = plain(14, 10);
        mask.block_size = block;
        mask.documents = rows;
        mask.documents_k = keys;
        mask.document_count = 5;
        check_rules(mask, 1);
        mask.key_lengths = lengths;
        check_rules(mask, 5);
        mask.key_begin = 2;
        mask.key_end = 8;
        check_rules(mask, 5);
    }
    for (int64_t block = 1; block <= 15; block++)
        for (int64_t m = 1; m <= 20; m++) {
            lsp_mask mask = plain(14, m);
            mask.block_size = block;
            for (int64_t begin = 0; begin < m; begin++)
                for (int64_t end = begin + 1; end <= m + 3; end++) {
                    bool parts = false;
                    for (int64_t row = block; row < 14; row += block)
                        parts = parts || (row * m / 14 > begin && row * m / 14 < end && row * m / 14 < m);
                    assert_int_equal(lsp_mask_parts(&mask, begin, end), parts);
                }
        }
    lsp_mask huge = plain((int64_t)1 << 40, ((int64_t)1 << 40) - 1);
    huge.block_size = ((int64_t)1 << 39) + 1;
    lsp_sight sight = lsp_mask_sight(&huge, 0, huge.n - 1);
    assert_true(sight.begin == ((int64_t)1 << 39) && sight.end == huge.m);
}

static void one_document_is_the_same_as_none(void **state)
{
    (void)state;
    const int64_t rows[] = {0, 8}, keys[] = {0, 11}, lengths[] = {11, 5, 0, 9};
    for (int align = 0; align < 2; align++)
        for (int64_t b = 0; b < 4; b++)
            for (int64_t i = 0; i < 8; i++) {
                lsp_mask mask = plain(8, 11);
                mask.kind = LSP_MASK_CAUSAL;
                mask.align = align ? LSP_ALIGN_TOP_LEFT : LSP_ALIGN_BOTTOM_RIGHT;
                mask.key_lengths = lengths;
                lsp_sight without = lsp_mask_sight(&mask, b, i);
                mask.documents = rows;
                mask.documents_k = keys;
                mask.document_count = 1;
                lsp_sight with = lsp_mask_sight(&mask, b, i);
                assert_memory_equal(&with, &without, sizeof with);
            }
}

static void pairs_of_long_sequences_are_exact(void **state)
{
    (void)state;
    const int64_t n = 10000000;
    lsp_mask mask = plain(n, n);
    assert_true(lsp_mask_pairs(&mask, 0, 0, n) == 1e14);
    mask.kind = LSP_MASK_CAUSAL;
    assert_true(lsp_mask_pairs(&mask, 0, 0, n) == 5e6 * 1e7 + 5e6);
    assert_true(lsp_mask_pairs(&mask, 0, n - 1, n) == 1e7);
    mask.kind = LSP_MASK_WINDOW;
    mask.window_left = 1000;
    mask.window_right = 10;
    /* 1011 keys a row, less those that stand before the first key and after the last. */
    assert_true(lsp_mask_pairs(&mask, 0, 0, n) == 1011e7 - 1000 * 1001 / 2 - 10 * 11 / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mask_follows_its_definition),
        cmocka_unit_test(mask_hides_keys_outside_the_selection),
        cmocka_unit_test(mask_ends_at_key_lengths),
        cmocka_unit_test(mask_keeps_documents_apart),
        cmocka_unit_test(mask_takes_documents_of_their_own_over_keys),
        cmocka_unit_test(mask_ends_at_blocks),
        cmocka_unit_test(one_document_is_the_same_as_none),
        cmocka_unit_test(pairs_of_long_sequences_are_exact),
    };
    return cmocka_run_group_tests_name("mask", tests, NULL, NULL);
}
