/* Partitions: every row and key once, panels in order, nothing visible left out, work shared evenly.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "partition_case.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- rows ---------------------------------------------------------------------------------------- */

static void check_rows(const lsp_attention_desc *desc, int ranks)
{
    lsp_problem problem;
    lsp_partition d;
    make(desc, &small_tiles, ranks, &problem, &d);
    int64_t begin = problem.desc.row_begin, end = problem.desc.row_end, total = 0;
    unsigned char *times = calloc((size_t)desc->n, 1);
    assert_non_null(times);
    for (int r = 0; r < d.group_ranks; r++) {
        int64_t rows = 0, last = begin;
        for (int64_t i = d.range_first[r]; i < d.range_first[r + 1]; i++) {
            assert_true(d.ranges[i].begin >= last && d.ranges[i].begin <= d.ranges[i].end);
            last = d.ranges[i].end;
            assert_true(last <= end);
            rows += d.ranges[i].end - d.ranges[i].begin;
            for (int64_t row = d.ranges[i].begin; row < last; row++) times[row]++;
        }
        assert_int_equal(d.rows[r], rows);
        total += rows;
    }
    assert_int_equal(total, end - begin);
    for (int64_t row = 0; row < desc->n; row++)
        if (times[row] != (row >= begin && row < end))
            fail_msg("n=%d ranks=%d kind=%s: row %d is dealt %d times", (int)desc->n, ranks,
                     lsp_partition_kind_name(d.kind), (int)row, times[row]);
    free(times);
    drop(&problem, &d);
}

static void rows_are_dealt_once(void **state)
{
    (void)state;
    const int64_t sizes[] = {1, 2, 3, 47, 48, 49, 97, 1000, 4801};
    const int ranks[] = {1, 2, 3, 4, 7, 16, 64, 150};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (size_t p = 0; p < sizeof ranks / sizeof *ranks; p++)
            for (int kind = LSP_PARTITION_AUTO; kind <= LSP_PARTITION_CYCLIC; kind++)
                for (int mask = LSP_MASK_NONE; mask <= LSP_MASK_WINDOW; mask++) {
                    int64_t n = sizes[s], documents[] = {0, n / 5, n / 5, n / 3, n};
                    lsp_attention_desc desc = plain(n, n);
                    desc.partition = (lsp_partition_kind)kind;
                    desc.mask = (lsp_mask_kind)mask;
                    desc.window_left = 5;
                    check_rows(&desc, ranks[p]);
                    desc.documents = documents;
                    desc.document_count = 4;
                    check_rows(&desc, ranks[p]);
                    desc.row_begin = n / 4;
                    desc.row_end = n - n / 7;
                    check_rows(&desc, ranks[p]);
                }
}

static void equal_work_is_cut_into_equal_rows(void **state)
{
    (void)state;
    for (int kind = LSP_PARTITION_CONTIGUOUS; kind <= LSP_PARTITION_BALANCED; kind++)
        for (int ranks = 1; ranks <= 40; ranks++) {
            lsp_problem problem;
            lsp_partition d;
            lsp_attention_desc desc = plain(37, 50);
            desc.partition = (lsp_partition_kind)kind;
            make(&desc, &small_tiles, ranks, &problem, &d);
            for (int r = 0; r < ranks; r++)
                assert_true(d.rows[r] == 37 / ranks || d.rows[r] == 37 / ranks + 1);
            drop(&problem, &d);
        }
}

/* ---- head groups --------------------------------------------------------------------------------- */

static void head_groups_share_the_heads(void **state)
{
    (void)state;
    const int64_t heads_of[] = {2, 0, 0, 2, 2};
    for (int ranks = 1; ranks <= 12; ranks++)
        for (int groups = 0; groups <= ranks; groups++) {
            lsp_problem problem;
            lsp_partition d;
            lsp_error error = {LSP_OK, ""};
            lsp_attention_desc desc = plain(10, 20);
            desc.batch = 2;
            desc.heads = 5;
            desc.kv_heads = 3; /* K/V head 1 serves no query head */
            desc.kv_head_of = heads_of;
            desc.head_groups = groups;
            assert_int_equal(lsp_problem_make(&desc, &problem, &error), LSP_OK);
            if (groups > 0 && ranks % groups != 0) {
                assert_int_equal(lsp_partition_make(&problem, &small_tiles, ranks, &d, &error),
                                 LSP_ERR_USAGE);
                assert_non_null(strstr(error.text, "head_groups"));
                lsp_problem_free(&problem);
                continue;
            }
            assert_int_equal(lsp_partition_make(&problem, &small_tiles, ranks, &d, &error), LSP_OK);
            if (groups > 0) assert_int_equal(d.groups, groups);
            int64_t at = 0, matrices = 0;
            for (int g = 0; g < d.groups; g++) {
                int64_t begin, end;
                lsp_partition_units(&d, g, &begin, &end);
                assert_int_equal(begin, at);
                assert_true(end >= begin);
                if (groups == 0) assert_int_equal(end - begin, 6 / d.groups); /* chosen: equal work */
                at = end;
                matrices += lsp_partition_matrices(&d, g);
            }
            assert_int_equal(at, 6);
            assert_int_equal(matrices, 10);
            drop(&problem, &d);
        }
}

static void heads_are_split_when_rows_are_few(void **state)
{
    (void)state;
    lsp_problem problem;
    lsp_partition d;
    lsp_attention_desc desc = plain(4, 100);
    desc.heads = desc.kv_heads = 8;
    make(&desc, &small_tiles, 4, &problem, &d);
    assert_int_equal(d.groups, 4);
    drop(&problem, &d);
    desc.n = 100000; /* of equal work: always */
    make(&desc, &small_tiles, 4, &problem, &d);
    assert_int_equal(d.groups, 4);
    drop(&problem, &d);
}

/* ---- keys ---------------------------------------------------------------------------------------- */

/* Walks the panels of a group: key by key in the order of unit and key, each once. */
static void check_panels(const lsp_partition *d, int group)
{
    const lsp_attention_desc *desc = &d->problem->desc;
    lsp_error error = {LSP_OK, ""};
    lsp_panel_spec *panels = NULL;
    int64_t *first_tiles = NULL, count = 0, unit_begin, unit_end, row = 0, tile = 0;
    assert_int_equal(lsp_partition_panels(d, group, &panels, &first_tiles, &count, &error), LSP_OK);
    lsp_partition_units(d, group, &unit_begin, &unit_end);
    for (int64_t p = 0; p < count; p++) {
        assert_int_equal(panels[p].first, row);
        assert_int_equal(first_tiles[p], tile);
        assert_true(first_tiles[p + 1] > tile && first_tiles[p + 1] - tile <= d->panel_tiles);
        assert_true(panels[p].owner >= (p ? panels[p - 1].owner : 0) && panels[p].owner < d->group_ranks);
        assert_true(lsp_partition_owned_tile(d, group, panels[p].owner) <= tile);
        assert_true(lsp_partition_owned_tile(d, group, panels[p].owner + 1) >= first_tiles[p + 1]);
        for (; tile < first_tiles[p + 1]; tile++) {
            lsp_tile_place place = lsp_partition_tile(d, tile);
            assert_int_equal(lsp_partition_tile_row(d, tile), row);
            assert_int_equal(place.unit, row / d->unit_keys);
            assert_int_equal(place.begin, desc->key_begin + row % d->unit_keys);
            assert_int_equal(place.first, place.begin / d->tile_keys * d->tile_keys); /* absolute */
            assert_true(place.end > place.begin && place.end <= place.first + d->tile_keys);
            assert_true(place.end <= desc->key_end);
            row += place.end - place.begin;
        }
        assert_int_equal(panels[p].first + panels[p].count, row);
    }
    assert_int_equal(row, (unit_end - unit_begin) * (desc->key_end - desc->key_begin));
    assert_int_equal(first_tiles[count], tile);
    lsp_memory_free(panels);
    lsp_memory_free(first_tiles);
}

static void panels_hold_every_key_once_in_order(void **state)
{
    (void)state;
    const int64_t parts[][3] = {{1, 0, 0}, {8, 0, 0}, {9, 0, 0}, {200, 0, 0}, {200, 13, 150}, {200, 17, 18}};
    const int64_t panel_rows[] = {0, 1, 17, 64, 100000};
    for (size_t s = 0; s < sizeof parts / sizeof *parts; s++)
        for (int ranks = 1; ranks <= 9; ranks++)
            for (size_t i = 0; i < sizeof panel_rows / sizeof *panel_rows; i++)
                for (int groups = 1; groups <= ranks; groups++) {
                    if (ranks % groups != 0) continue;
                    lsp_problem problem;
                    lsp_partition d;
                    lsp_attention_desc desc = plain(20, parts[s][0]);
                    desc.key_begin = parts[s][1];
                    desc.key_end = parts[s][2];
                    desc.heads = desc.kv_heads = 3;
                    desc.batch = 2;
                    desc.panel_rows = panel_rows[i];
                    desc.head_groups = groups;
                    make(&desc, &small_tiles, ranks, &problem, &d);
                    if (panel_rows[i] > 0) assert_true(d.panel_tiles <= lsp_ceil_div(panel_rows[i], 8));
                    for (int g = 0; g < groups; g++) check_panels(&d, g);
                    drop(&problem, &d);
                }
}

/* ---- who sees what ------------------------------------------------------------------------------- */

/* Never a no for what is seen; with `exact`, never a yes for what is not. Returns the number of noes. */
static int check_sees(const lsp_attention_desc *desc, int ranks, bool exact)
{
    lsp_problem problem;
    lsp_partition d;
    int noes = 0;
    make(desc, &small_tiles, ranks, &problem, &d);
    for (int g = 0; g < d.groups; g++) {
        int64_t tiles = lsp_partition_owned_tile(&d, g, d.group_ranks);
        for (int r = 0; r < d.group_ranks; r++)
            for (int64_t width = 1; width <= tiles; width = width * 3 + 1)
                for (int64_t t = 0; t + width <= tiles; t += width) {
                    bool yes = lsp_partition_sees(&d, g, r, t, t + width);
                    bool truth = really_sees(&d, g, r, t, t + width);
                    if ((truth && !yes) || (exact && yes && !truth))
                        fail_msg("%s, %d ranks, group %d rank %d, tiles %d to %d: says %d", "sees", ranks, g,
                                 r, (int)t, (int)(t + width), yes);
                    noes += !yes;
                }
    }
    drop(&problem, &d);
    return noes;
}

static void no_visible_panel_is_left_out(void **state)
{
    (void)state;
    const int64_t documents[] = {0, 40, 40, 47, 180, 300}, documents_k[] = {0, 30, 60, 61, 200, 220};
    const int64_t lengths[] = {220, 35};
    for (int ranks = 1; ranks <= 7; ranks += 3)
        for (int kind = LSP_PARTITION_CONTIGUOUS; kind <= LSP_PARTITION_CYCLIC; kind++)
            for (int mask = LSP_MASK_NONE; mask <= LSP_MASK_WINDOW; mask++)
                for (int more = 0; more < 4; more++) {
                    lsp_attention_desc desc = plain(300, 220);
                    desc.batch = 2;
                    desc.kv_heads = desc.heads = 2;
                    desc.partition = (lsp_partition_kind)kind;
                    desc.mask = (lsp_mask_kind)mask;
                    desc.align = more % 2 ? LSP_ALIGN_TOP_LEFT : LSP_ALIGN_BOTTOM_RIGHT;
                    desc.window_left = 20;
                    desc.window_right = 3;
                    desc.head_groups = 1;
                    if (more & 1) {
                        desc.documents = documents;
                        desc.documents_k = documents_k;
                        desc.document_count = 5;
                    }
                    if (more & 2) {
                        desc.key_lengths = lengths;
                        desc.key_begin = 5;
                        desc.key_end = 190;
                    }
                    check_sees(&desc, ranks, false);
                }
}

static void ranks_do_not_ask_for_what_they_do_not_see(void **state)
{
    (void)state;
    lsp_attention_desc desc = plain(300, 300);
    desc.mask = LSP_MASK_WINDOW;
    desc.window_left = 20;
    assert_true(check_sees(&desc, 7, true) > 0);
    desc.mask = LSP_MASK_CAUSAL;
    desc.partition = LSP_PARTITION_CONTIGUOUS;
    assert_true(check_sees(&desc, 7, true) > 0);
    desc.partition = LSP_PARTITION_CYCLIC;
    check_sees(&desc, 3, true);
    desc = plain(3, 300); /* idle ranks need nothing */
    assert_true(check_sees(&desc, 5, true) > 0);
}

/* ---- balance ------------------------------------------------------------------------------------- */

/* Pairs of the rank that has most, over the mean. */
static double imbalance(const lsp_attention_desc *desc, int ranks)
{
    lsp_problem problem;
    lsp_partition d;
    make(desc, &small_tiles, ranks, &problem, &d);
    double most = 0, total = 0;
    for (int r = 0; r < d.group_ranks; r++) {
        double pairs = 0;
        for (int64_t i = d.range_first[r]; i < d.range_first[r + 1]; i++)
            pairs += lsp_problem_pairs(&problem, d.ranges[i].begin, d.ranges[i].end);
        most = fmax(most, pairs);
        total += pairs;
    }
    int group_ranks = d.group_ranks;
    drop(&problem, &d);
    return most * group_ranks / total;
}

static void work_is_shared_evenly(void **state)
{
    (void)state;
    const int64_t n = 200000;
    const int ranks[] = {2, 3, 7, 16, 64};
    enum { DOCUMENTS = 400 };
    int64_t documents[DOCUMENTS + 1] = {0};
    for (int i = 0; i < DOCUMENTS; i++) /* lengths from 0 to 1000, summing to n */
        documents[i + 1] = documents[i] + (i % 2 ? 1000 - documents[i] % 997 : documents[i] % 997);
    documents[DOCUMENTS] = n;
    for (size_t i = 0; i < sizeof ranks / sizeof *ranks; i++) {
        lsp_attention_desc desc = plain(n, n);
        assert_true(imbalance(&desc, ranks[i]) < 1.001);
        desc.mask = LSP_MASK_CAUSAL; /* chosen: cyclic */
        assert_true(imbalance(&desc, ranks[i]) < 1.005);
        desc.partition = LSP_PARTITION_CONTIGUOUS;
        assert_true(imbalance(&desc, ranks[i]) > 1.4); /* what the above avoids */
        desc.partition = LSP_PARTITION_BALANCED;
        assert_true(imbalance(&desc, ranks[i]) < 1.01);
        desc.partition = LSP_PARTITION_AUTO;
        desc.mask = LSP_MASK_WINDOW;
        desc.window_left = 4000;
        assert_true(imbalance(&desc, ranks[i]) < 1.01);
        desc.mask = LSP_MASK_NONE;
        desc.documents = documents;
        desc.document_count = DOCUMENTS;
        assert_true(imbalance(&desc, ranks[i]) < 1.1);
        desc.mask = LSP_MASK_CAUSAL;
        assert_true(imbalance(&desc, ranks[i]) < 1.1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_dealt_once),
        cmocka_unit_test(equal_work_is_cut_into_equal_rows),
        cmocka_unit_test(head_groups_share_the_heads),
        cmocka_unit_test(heads_are_split_when_rows_are_few),
        cmocka_unit_test(panels_hold_every_key_once_in_order),
        cmocka_unit_test(no_visible_panel_is_left_out),
        cmocka_unit_test(ranks_do_not_ask_for_what_they_do_not_see),
        cmocka_unit_test(work_is_shared_evenly),
    };
    return cmocka_run_group_tests_name("partition", tests, NULL, NULL);
}
