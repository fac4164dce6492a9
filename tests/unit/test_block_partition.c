/* Partitions of method block: rows cut between blocks, keys with the rows.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "partition_case.h"

#include <stdlib.h>

/* Every key of every unit has one owner and stands once in the sequence of tiles, a unit's keys ascending. */
static void check_owners(const lsp_partition *d, int group)
{
    const lsp_attention_desc *desc = &d->problem->desc;
    int64_t unit_begin, unit_end, row = 0, tiles = lsp_partition_owned_tile(d, group, d->group_ranks);
    lsp_partition_units(d, group, &unit_begin, &unit_end);
    int64_t *next = calloc((size_t)(unit_end - unit_begin) + 1, sizeof *next);
    assert_non_null(next);
    for (int64_t u = 0; u < unit_end - unit_begin; u++) next[u] = desc->key_begin;
    for (int r = 0; r < d->group_ranks; r++)
        for (int64_t t = lsp_partition_owned_tile(d, group, r); t < lsp_partition_owned_tile(d, group, r + 1);
             t++) {
            lsp_tile_place place = lsp_partition_tile(d, t);
            int64_t begin, end, first = t, last = t + 1;
            assert_int_equal(lsp_partition_tile_row(d, t), row);
            assert_int_equal(place.begin, next[place.unit]);
            assert_int_equal(place.first, place.begin / d->tile_keys * d->tile_keys);
            assert_true(place.end > place.begin && place.end <= place.first + d->tile_keys);
            lsp_partition_owned_keys(d, group, r, place.unit, &begin, &end);
            assert_true(begin <= place.begin && place.end <= end);
            lsp_partition_clip(d, place.unit, &first, &last);
            assert_true(first == t && last == t + 1);
            next[place.unit] = place.end;
            row += place.end - place.begin;
        }
    assert_int_equal(lsp_partition_tile_row(d, tiles), row);
    for (int64_t u = 0; u < unit_end - unit_begin; u++) assert_int_equal(next[u], desc->key_end);
    free(next);
}

/* With a block for each rank no rank sees a key of another's; without, rows are shared evenly as ever. */
static void keys_lie_with_the_rows_of_their_blocks(void **state)
{
    (void)state;
    const int64_t shapes[][2] = {{200, 200}, {200, 131}, {131, 200}, {9, 300}}, blocks[] = {1, 7, 8, 50, 131};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (size_t b = 0; b < sizeof blocks / sizeof *blocks; b++)
            for (int ranks = 2; ranks <= 6; ranks++)
                for (int part = 0; part < 2; part++) {
                    lsp_problem problem;
                    lsp_partition d;
                    lsp_attention_desc desc = plain(shapes[s][0], shapes[s][1]);
                    if (blocks[b] > desc.n) continue;
                    desc.method = LSP_METHOD_BLOCK;
                    desc.block_size = blocks[b];
                    desc.heads = desc.kv_heads = 3;
                    desc.head_groups = 1;
                    if (part) desc.key_begin = 3, desc.key_end = desc.m - 2;
                    make(&desc, &small_tiles, ranks, &problem, &d);
                    check_owners(&d, 0);
                    bool enough = lsp_ceil_div(desc.n, blocks[b]) >= ranks;
                    for (int r = 0; enough && r < ranks; r++)
                        assert_true(d.ranges[r].begin % blocks[b] == 0 || d.ranges[r].begin == desc.n);
                    if (!enough) assert_true(d.rows[0] <= desc.n / ranks + 1);
                    for (int r = 0; d.key_cuts && r < ranks; r++)
                        for (int o = 0; o < ranks; o++) {
                            int64_t begin = lsp_partition_owned_tile(&d, 0, o),
                                    end = lsp_partition_owned_tile(&d, 0, o + 1);
                            if (o != r && begin < end) assert_false(really_sees(&d, 0, r, begin, end));
                            if (o != r && begin < end) assert_false(lsp_partition_sees(&d, 0, r, begin, end));
                        }
                    if (enough && !part && desc.n / blocks[b] >= 2 * ranks) assert_non_null(d.key_cuts);
                    drop(&problem, &d);
                }
}

static void few_rows_of_many_leave_keys_shared_evenly(void **state)
{
    (void)state;
    lsp_problem problem;
    lsp_partition d;
    lsp_attention_desc desc = plain(10000, 10000);
    desc.method = LSP_METHOD_BLOCK;
    desc.block_size = 10;
    desc.row_end = 100;
    make(&desc, &small_tiles, 4, &problem, &d);
    for (int r = 0; r < 4; r++) {
        int64_t begin, end;
        lsp_partition_owned_keys(&d, 0, r, 0, &begin, &end);
        assert_true(end - begin < 2 * 10000 / 4);
    }
    drop(&problem, &d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_lie_with_the_rows_of_their_blocks),
        cmocka_unit_test(few_rows_of_many_leave_keys_shared_evenly),
    };
    return cmocka_run_group_tests_name("block partition", tests, NULL, NULL);
}
