/* Partitions to test, made of a description. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_TEST_PARTITION_CASE_H
#define LSP_TEST_PARTITION_CASE_H

#include "base/checked.h"
#include "base/memory.h"
#include "method/partition.h"

static const lsp_tile_shape small_tiles = {
    .d_k = 8, .d_v = 8, .tile_keys = 8, .strip_keys = 8, .v_stride = 8};

static inline lsp_attention_desc plain(int64_t n, int64_t m)
{
    return (lsp_attention_desc){.batch = 1,
                                .heads = 1,
                                .kv_heads = 1,
                                .n = n,
                                .m = m,
                                .d_k = 8,
                                .d_v = 8,
                                .q_type = LSP_F32,
                                .k_type = LSP_F32,
                                .v_type = LSP_F32,
                                .compute = LSP_F32};
}

static inline void make(const lsp_attention_desc *desc, const lsp_tile_shape *shape, int ranks,
                        lsp_problem *problem, lsp_partition *d)
{
    lsp_error error = {LSP_OK, ""};
    if (lsp_problem_make(desc, problem, &error) != LSP_OK) fail_msg("%s", error.text);
    if (lsp_partition_make(problem, shape, ranks, d, &error) != LSP_OK) fail_msg("%s", error.text);
    assert_int_equal(d->groups * d->group_ranks, ranks);
}

static inline void drop(lsp_problem *problem, lsp_partition *d)
{
    lsp_partition_free(d);
    lsp_problem_free(problem);
}

/* Whether group rank r sees one of the keys of tiles [begin, end), row by row. */
static inline bool really_sees(const lsp_partition *d, int group, int r, int64_t begin, int64_t end)
{
    int64_t unit_begin, unit_end;
    lsp_partition_units(d, group, &unit_begin, &unit_end);
    for (int64_t t = begin; t < end; t++) {
        lsp_tile_place place = lsp_partition_tile(d, t);
        int64_t batch = (unit_begin + place.unit) / d->problem->desc.kv_heads;
        for (int64_t i = d->range_first[r]; i < d->range_first[r + 1]; i++)
            for (int64_t row = d->ranges[i].begin; row < d->ranges[i].end; row++) {
                lsp_sight sight = lsp_mask_sight(&d->problem->mask, batch, row);
                if (lsp_max(sight.begin, place.begin) < lsp_min(sight.end, place.end)) return true;
            }
    }
    return false;
}

#endif
