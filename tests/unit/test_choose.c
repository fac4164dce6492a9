/* What `auto` decides: head groups, and the gather mode. SPDX-License-Identifier: BSD-3-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "method/choose.h"
#include "partition_case.h"

#include <stdlib.h>

static const int64_t MIB = 1 << 20;

static int groups_of(const lsp_attention_desc *desc, int ranks)
{
    lsp_problem problem;
    lsp_error error = {LSP_OK, ""};
    if (lsp_problem_make(desc, &problem, &error) != LSP_OK) fail_msg("%s", error.text);
    int groups = lsp_choose_groups(&problem, ranks);
    lsp_problem_free(&problem);
    return groups;
}

static lsp_gather_mode mode_of(const lsp_attention_desc *desc, int ranks, int64_t bytes)
{
    lsp_problem problem;
    lsp_error error = {LSP_OK, ""};
    if (lsp_problem_make(desc, &problem, &error) != LSP_OK) fail_msg("%s", error.text);
    lsp_gather_mode mode = lsp_choose_gather(&problem, ranks, bytes);
    lsp_problem_free(&problem);
    return mode;
}

/* Each case with rows in plenty and with few: heads of equal work are split as far as ranks allow. */
static void equal_heads_are_split_as_far_as_they_go(void **state)
{
    (void)state;
    const int cases[][3] = {/* heads, ranks, groups */
                            {1, 1, 1},   {1, 64, 1},  {32, 1, 1},   {32, 2, 2},  {32, 64, 32}, {32, 1024, 32},
                            {12, 64, 4}, {12, 6, 6},  {8, 12, 4},   {7, 64, 1},  {7, 14, 7},   {5, 2, 1},
                            {6, 4, 2},   {40, 48, 8}, {32, 96, 32}, {36, 48, 12}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        for (int64_t n = 3; n <= 1000003; n += 1000000) {
            lsp_attention_desc desc = plain(n, 100);
            desc.heads = desc.kv_heads = cases[c][0];
            if (groups_of(&desc, cases[c][1]) != cases[c][2])
                fail_msg("%d heads on %d ranks: %d groups", cases[c][0], cases[c][1],
                         groups_of(&desc, cases[c][1]));
        }
}

/* What is gathered are K/V heads of all batches. */
static void groups_share_the_heads_of_keys(void **state)
{
    (void)state;
    lsp_attention_desc desc = plain(100000, 100000);
    desc.heads = 32;
    desc.kv_heads = 8;
    assert_int_equal(groups_of(&desc, 64), 8);
    desc.batch = 4;
    assert_int_equal(groups_of(&desc, 64), 32);
    desc.mask = LSP_MASK_CAUSAL;
    assert_int_equal(groups_of(&desc, 64), 32);
}

/* Groups of unequal work would wait for one: heads are then split only where rows are few. */
static void unequal_heads_stay_together(void **state)
{
    (void)state;
    const int64_t lengths[] = {100000, 10}, heads_of[] = {0, 0, 0, 1};
    lsp_attention_desc desc = plain(100000, 100000);
    desc.batch = 2;
    desc.heads = desc.kv_heads = 4;
    assert_int_equal(groups_of(&desc, 4), 4);
    desc.key_lengths = lengths;
    assert_int_equal(groups_of(&desc, 4), 1);
    desc.row_end = 4;
    assert_int_equal(groups_of(&desc, 4), 4);
    desc.row_end = 0;
    desc.batch = 1;
    assert_int_equal(groups_of(&desc, 4), 4); /* one length for all */
    desc.key_lengths = NULL;
    desc.kv_heads = 2;
    assert_int_equal(groups_of(&desc, 4), 2);
    desc.kv_head_of = heads_of;
    assert_int_equal(groups_of(&desc, 4), 1);
}

static void little_is_gathered_at_once(void **state)
{
    (void)state;
    lsp_attention_desc desc = plain(1000, 1000);
    for (int masked = 0; masked < 2; masked++) {
        desc.mask = masked ? LSP_MASK_CAUSAL : LSP_MASK_NONE;
        assert_int_equal(mode_of(&desc, 2, 8 * MIB), LSP_GATHER_ALL);
        assert_int_equal(mode_of(&desc, 2, 8 * MIB + 1), LSP_GATHER_PANELS);
        assert_int_equal(mode_of(&desc, 4, 1024 * MIB), LSP_GATHER_PANELS);
        assert_int_equal(mode_of(&desc, 5, 1024 * MIB), LSP_GATHER_CHAIN);
        /* A chain takes the longer to fill the more ranks it has. */
        assert_int_equal(mode_of(&desc, 64, 32 * MIB), LSP_GATHER_ALL);
        assert_int_equal(mode_of(&desc, 64, 32 * MIB + 1), LSP_GATHER_CHAIN);
        /* What stands in every rank's memory has an end. */
        assert_int_equal(mode_of(&desc, 1024, 256 * MIB), LSP_GATHER_ALL);
        assert_int_equal(mode_of(&desc, 1024, 256 * MIB + 1), LSP_GATHER_CHAIN);
        assert_int_equal(mode_of(&desc, 1 << 30, INT64_MAX), LSP_GATHER_CHAIN);
    }
}

static void what_few_need_goes_to_few(void **state)
{
    (void)state;
    const int64_t documents[] = {0, 400, 1000};
    for (int ranks = 2; ranks <= 2000; ranks += 999)
        for (int64_t bytes = 1; bytes <= 1024 * MIB; bytes *= 64) {
            lsp_attention_desc desc = plain(1000, 1000);
            desc.mask = LSP_MASK_WINDOW;
            desc.window_left = 5;
            assert_int_equal(mode_of(&desc, ranks, bytes), LSP_GATHER_PANELS);
            desc = plain(1000, 1000);
            desc.documents = documents;
            desc.document_count = 2;
            assert_int_equal(mode_of(&desc, ranks, bytes), LSP_GATHER_PANELS);
            desc = plain(1000, 1000);
            desc.method = LSP_METHOD_BLOCK;
            desc.block_size = 10;
            assert_int_equal(mode_of(&desc, ranks, bytes), LSP_GATHER_PANELS);
        }
}

/* A partition takes both, unless it is told. */
static void partitions_follow(void **state)
{
    (void)state;
    lsp_problem problem;
    lsp_partition d;
    lsp_attention_desc desc = plain(100000, 1 << 20); /* 64 bytes a row: 64 MiB a head */
    desc.heads = desc.kv_heads = 4;
    make(&desc, &small_tiles, 8, &problem, &d);
    assert_int_equal(d.groups, 4);
    assert_int_equal(d.gather, LSP_GATHER_PANELS);
    drop(&problem, &d);
    desc.head_groups = 1;
    make(&desc, &small_tiles, 8, &problem, &d);
    assert_int_equal(d.groups, 1);
    assert_int_equal(d.gather, LSP_GATHER_CHAIN);
    drop(&problem, &d);
    desc.gather = LSP_GATHER_ALL;
    make(&desc, &small_tiles, 8, &problem, &d);
    assert_int_equal(d.gather, LSP_GATHER_ALL);
    drop(&problem, &d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_heads_are_split_as_far_as_they_go),
        cmocka_unit_test(groups_share_the_heads_of_keys),
        cmocka_unit_test(unequal_heads_stay_together),
        cmocka_unit_test(little_is_gathered_at_once),
        cmocka_unit_test(what_few_need_goes_to_few),
        cmocka_unit_test(partitions_follow),
    };
    return cmocka_run_group_tests_name("what auto chooses", tests, NULL, NULL);
}
