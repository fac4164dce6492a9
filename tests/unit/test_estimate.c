/* Estimates against numbers worked out by hand.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <longspan/attention.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The height of a key tile at d_k = 64, d_v = 32, f32: a stored result's bits hang on it. */
enum { TILE = 512 };

/* 4 query heads on 2 K/V heads, 1000 rows, 3 whole tiles of keys. */
static lsp_attention_desc base_desc(void)
{
    return (lsp_attention_desc){.batch = 1,
                                .heads = 4,
                                .kv_heads = 2,
                                .n = 1000,
                                .m = 3 * TILE,
                                .d_k = 64,
                                .d_v = 32,
                                .q_type = LSP_F16,
                                .k_type = LSP_F32,
                                .v_type = LSP_F64,
                                .compute = LSP_F32,
                                .panel_rows = 1,
                                .head_groups = 1,
                                .gather = LSP_GATHER_PANELS,
                                .partition = LSP_PARTITION_CONTIGUOUS};
}

/* Bytes of a row of K (f32) and V (f64). */
enum { K_ROW = 64 * 4, V_ROW = 32 * 8, KV_ROW = K_ROW + V_ROW };

static lsp_estimate estimate(const lsp_attention_desc *desc, int ranks, int ranks_per_node)
{
    lsp_estimate e;
    char message[256] = "";
    if (lsp_attention_estimate(desc, ranks, ranks_per_node, 1, &e, message, sizeof message) != LSP_OK)
        fail_msg("%s", message);
    return e;
}

static void estimate_of_two_ranks(void **state)
{
    (void)state;
    lsp_attention_desc desc = base_desc();
    lsp_estimate e = estimate(&desc, 2, 2);
    assert_int_equal(e.tile_keys, TILE);
    assert_int_equal(e.panel_keys, TILE); /* one row rounded up to a tile */
    assert_int_equal(e.panels, 6);
    assert_int_equal(e.head_groups, 1);
    assert_int_equal(e.gather, LSP_GATHER_PANELS);
    assert_int_equal(e.partition, LSP_PARTITION_CONTIGUOUS);
    assert_int_equal(e.idle_ranks, 0);
    assert_true(e.pairs == 4.0 * 1000 * 3 * TILE);
    assert_true(e.pairs_max == e.pairs / 2);
    assert_true(e.flops == 2.0 * (64 + 32) * e.pairs);
    /* Each rank owns one K/V head and receives the other. */
    assert_true(e.bytes_received_max == 3.0 * TILE * KV_ROW);
    assert_true(e.bytes_received == 2 * e.bytes_received_max);
    const lsp_footprint *f = &e.footprint;
    assert_int_equal(f->q, 4 * 500 * 64 * 2);
    assert_int_equal(f->k, 3 * TILE * K_ROW);
    assert_int_equal(f->v, 3 * TILE * V_ROW);
    assert_int_equal(f->out, 4 * 500 * 32 * 4);
    assert_int_equal(f->lse, 4 * 500 * 4);
    assert_int_equal(f->panels, 3 * TILE * KV_ROW); /* one computed, two coming */
    assert_int_equal(f->packed, TILE * (64 + 32) * 4);
    assert_true(f->work >= 2 * 4 * 500 * 4 && f->work < 2 * 1024 * 1024);
    assert_int_equal(f->total, f->q + f->k + f->v + f->out + f->lse + f->panels + f->packed + f->work);
}

static void estimate_of_the_gather_modes(void **state)
{
    (void)state;
    lsp_attention_desc desc = base_desc();
    desc.gather = LSP_GATHER_ALL;
    assert_int_equal(estimate(&desc, 2, 2).footprint.panels, 6 * TILE * KV_ROW);
    desc.gather = LSP_GATHER_CHAIN;
    assert_int_equal(estimate(&desc, 2, 2).footprint.panels, 3 * TILE * KV_ROW);
    desc.gather = LSP_GATHER_NODE; /* a node's ranks share one copy */
    assert_int_equal(estimate(&desc, 6, 1).footprint.panels, 3 * TILE * KV_ROW);
    assert_int_equal(estimate(&desc, 6, 3).footprint.panels, TILE * KV_ROW);
    desc.head_groups = 2; /* every group has a copy of its own */
    assert_int_equal(estimate(&desc, 6, 6).footprint.panels, TILE * KV_ROW);
    for (int mode = LSP_GATHER_PANELS; mode <= LSP_GATHER_CHAIN; mode++) {
        desc = base_desc();
        desc.gather = (lsp_gather_mode)mode;
        assert_int_equal(estimate(&desc, 1, 1).footprint.panels, 0);
        assert_true(estimate(&desc, 1, 1).bytes_received == 0);
    }
}

static void estimate_of_head_groups(void **state)
{
    (void)state;
    lsp_attention_desc desc = base_desc();
    desc.head_groups = 2;
    lsp_estimate e = estimate(&desc, 2, 2); /* a rank a K/V head: nothing to send */
    assert_int_equal(e.head_groups, 2);
    assert_true(e.bytes_received == 0 && e.pairs_max == e.pairs / 2);
    assert_int_equal(e.footprint.q, 2 * 1000 * 64 * 2);
    e = estimate(&desc, 4, 4); /* two ranks a K/V head, with one tile and two tiles */
    assert_true(e.bytes_received == 2.0 * 3 * TILE * KV_ROW);
    assert_true(e.bytes_received_max == 2.0 * TILE * KV_ROW);
    assert_int_equal(e.footprint.k, 2 * TILE * K_ROW);
    desc.head_groups = 4; /* more groups than K/V heads */
    e = estimate(&desc, 4, 4);
    assert_int_equal(e.idle_ranks, 2);
    assert_true(e.pairs_max == e.pairs / 2);
}

static void estimate_of_uneven_heads_and_key_lengths(void **state)
{
    (void)state;
    const int64_t heads_of[] = {0, 1, 0, 0}, lengths[] = {3 * TILE, 100};
    lsp_attention_desc desc = base_desc();
    desc.kv_head_of = heads_of;
    desc.head_groups = 2;
    assert_true(estimate(&desc, 2, 2).pairs_max == 3.0 * 1000 * 3 * TILE);
    desc = base_desc();
    desc.batch = 2;
    desc.key_lengths = lengths;
    desc.head_groups = 2; /* a group a batch */
    lsp_estimate e = estimate(&desc, 2, 2);
    assert_true(e.pairs == 4.0 * 1000 * (3 * TILE + 100));
    assert_true(e.pairs_max == 4.0 * 1000 * 3 * TILE);
}

static void estimate_of_idle_ranks(void **state)
{
    (void)state;
    lsp_attention_desc desc = base_desc();
    desc.n = 3;
    for (int kind = LSP_PARTITION_CONTIGUOUS; kind <= LSP_PARTITION_CYCLIC; kind++) {
        desc.partition = (lsp_partition_kind)kind;
        lsp_estimate e = estimate(&desc, 7, 7);
        assert_int_equal(e.idle_ranks, 4);
        assert_true(e.pairs_max == e.pairs / 3);
        /* A rank with rows receives all keys but its own tile; one without rows receives nothing. */
        assert_true(e.bytes_received >= 3 * 5.0 * TILE * KV_ROW &&
                    e.bytes_received <= 3 * 6.0 * TILE * KV_ROW);
        assert_true(e.bytes_received_max <= 6.0 * TILE * KV_ROW);
    }
}

static void estimate_of_a_window(void **state)
{
    (void)state;
    lsp_attention_desc desc = base_desc();
    desc.heads = desc.kv_heads = 1;
    desc.n = desc.m = 4 * TILE;
    desc.mask = LSP_MASK_WINDOW;
    desc.window_left = 9;
    lsp_estimate e = estimate(&desc, 4, 4);
    assert_true(e.pairs == 10.0 * 4 * TILE - 45);
    /* Ranks 1, 2, 3 look back 9 keys into the tile of the rank before: that panel comes as a whole. */
    assert_true(e.bytes_received == 3.0 * TILE * KV_ROW);
    assert_true(e.bytes_received_max == 1.0 * TILE * KV_ROW);
    desc.gather = LSP_GATHER_ALL;
    assert_true(estimate(&desc, 4, 4).bytes_received == 4 * 3.0 * TILE * KV_ROW);
    desc.gather = LSP_GATHER_AUTO; /* never everything for a window */
    assert_int_equal(estimate(&desc, 4, 4).gather, LSP_GATHER_PANELS);
    desc.mask = LSP_MASK_NONE;
    assert_int_equal(estimate(&desc, 4, 4).gather, LSP_GATHER_ALL);
}

/* Blocks of rows dealt to two ranks: a key that several of a rank's blocks see comes to it once. */
static void estimate_of_dealt_rows(void **state)
{
    (void)state;
    lsp_attention_desc desc = base_desc();
    desc.heads = desc.kv_heads = 1;
    desc.n = desc.m = 4 * TILE;
    desc.mask = LSP_MASK_CAUSAL;
    desc.partition = LSP_PARTITION_CYCLIC;
    lsp_estimate e = estimate(&desc, 2, 2);
    assert_true(e.bytes_received_max == 2.0 * TILE * KV_ROW);
    assert_true(e.bytes_received == 2 * e.bytes_received_max);
}

static void estimate_of_a_part(void **state)
{
    (void)state;
    lsp_attention_desc desc = base_desc();
    desc.row_begin = 100;
    desc.row_end = 300;
    desc.key_begin = TILE - 1;
    desc.key_end = TILE + 2;
    lsp_estimate e = estimate(&desc, 2, 2);
    assert_true(e.pairs == 4.0 * 200 * 3);
    assert_int_equal(e.panels, 4); /* the part touches two tiles of each K/V head */
    assert_int_equal(e.footprint.q, 4 * 100 * 64 * 2);
    assert_int_equal(e.footprint.k, 3 * K_ROW);
}

/* What a plan must answer at once; a slow answer runs into the test's time limit. */
static void estimate_of_a_large_machine(void **state)
{
    (void)state;
    enum { DOCUMENTS = 100000 };
    const int64_t n = 10000000;
    int64_t *documents = calloc(DOCUMENTS + 1, sizeof *documents);
    assert_non_null(documents);
    for (int i = 0; i <= DOCUMENTS; i++) documents[i] = n / DOCUMENTS * i;
    lsp_attention_desc desc = base_desc();
    desc.n = desc.m = n;
    desc.heads = desc.kv_heads = 8;
    desc.panel_rows = 0;
    desc.partition = LSP_PARTITION_AUTO;
    for (int mask = LSP_MASK_NONE; mask <= LSP_MASK_WINDOW; mask++) {
        desc.mask = (lsp_mask_kind)mask;
        desc.window_left = 1024;
        lsp_estimate e = estimate(&desc, 1024, 64);
        assert_true(e.pairs_max * 1024 < 1.01 * e.pairs);
        assert_true(e.footprint.panels < 64 << 20);
    }
    desc.documents = documents;
    desc.document_count = DOCUMENTS;
    assert_true(estimate(&desc, 1024, 64).pairs_max * 1024 < 1.01 * estimate(&desc, 1024, 64).pairs);
    free(documents);
}

static void estimate_refuses_what_cannot_be(void **state)
{
    (void)state;
    lsp_attention_desc desc = base_desc();
    lsp_estimate e;
    char message[256] = "";
    assert_int_equal(lsp_attention_estimate(&desc, 0, 1, 1, &e, message, sizeof message), LSP_ERR_USAGE);
    assert_non_null(strstr(message, "ranks"));
    desc.head_groups = 2;
    assert_int_equal(lsp_attention_estimate(&desc, 3, 1, 1, &e, message, sizeof message), LSP_ERR_USAGE);
    assert_non_null(strstr(message, "head_groups"));
    desc = base_desc();
    desc.n = (int64_t)1 << 40;
    desc.batch = (int64_t)1 << 20;
    assert_int_equal(lsp_attention_estimate(&desc, 3, 1, 1, &e, message, sizeof message), LSP_ERR_LIMIT);
    desc.n = 0;
    assert_int_equal(lsp_attention_estimate(&desc, 3, 1, 1, &e, NULL, 0), LSP_ERR_USAGE);
}

static void slopes_are_those_of_the_paper(void **state)
{
    (void)state;
    for (int h = 0; h < 8; h++) assert_true(lsp_alibi_slope(h, 8) == ldexp(1, -(h + 1)));
    assert_true(lsp_alibi_slope(0, 1) == ldexp(1, -8));
    assert_true(lsp_alibi_slope(15, 16) == ldexp(1, -8));
    /* 12 heads: those of 8, then every second one of 16, from the first. */
    for (int h = 0; h < 8; h++) assert_true(lsp_alibi_slope(h, 12) == lsp_alibi_slope(h, 8));
    for (int h = 0; h < 4; h++) assert_true(lsp_alibi_slope(8 + h, 12) == lsp_alibi_slope(2 * h, 16));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(estimate_of_two_ranks),
        cmocka_unit_test(estimate_of_the_gather_modes),
        cmocka_unit_test(estimate_of_head_groups),
        cmocka_unit_test(estimate_of_uneven_heads_and_key_lengths),
        cmocka_unit_test(estimate_of_idle_ranks),
        cmocka_unit_test(estimate_of_a_window),
        cmocka_unit_test(estimate_of_dealt_rows),
        cmocka_unit_test(estimate_of_a_part),
        cmocka_unit_test(estimate_of_a_large_machine),
        cmocka_unit_test(estimate_refuses_what_cannot_be),
        cmocka_unit_test(slopes_are_those_of_the_paper),
    };
    return cmocka_run_group_tests_name("estimate", tests, NULL, NULL);
}
