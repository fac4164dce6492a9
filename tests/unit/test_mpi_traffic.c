/* The estimate of what is gathered against what a run received: under every rule, gather mode, partition
 * and panel width.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "mpi_case.h"

#include "attention_case.h"
#include "comm/gather_mode.h"

static lsp_context *ctx;

static lsp_attention_desc narrow(int64_t n, int64_t m)
{
    lsp_attention_desc d = plain(n, m, 3, 2);
    d.v_type = LSP_F64;
    return d;
}

static void check_one(const lsp_attention_desc *d, const char *what)
{
    result r = run_case(ctx, d, NULL);
    if (r.estimate.bytes_received != r.bytes_received ||
        r.estimate.bytes_received_max != r.bytes_received_max)
        fail_msg("%s, gather %s, partition %s, panel_rows %d, %d head groups: %.0f bytes estimated, %.0f "
                 "received; most by one rank %.0f, %.0f",
                 what, lsp_gather_mode_name(d->gather), lsp_partition_kind_name(d->partition),
                 (int)d->panel_rows, d->head_groups, r.estimate.bytes_received, r.bytes_received,
                 r.estimate.bytes_received_max, r.bytes_received_max);
    /* Also for those who ask without running. */
    lsp_estimate asked;
    assert_int_equal(lsp_attention_estimate(d, ranks, ranks, 1, &asked, NULL, 0), LSP_OK);
    assert_true(asked.bytes_received == r.bytes_received && asked.bytes_received_max == r.bytes_received_max);
    free_result(&r);
}

/* Every gather mode with every partition; panels of one tile, of two and of all tiles take turns. */
static void check(lsp_attention_desc d, const char *what)
{
    const int64_t widths[] = {1, 1024, 1000000, 0};
    for (int mode = LSP_GATHER_PANELS; mode <= LSP_GATHER_CHAIN; mode++)
        for (int kind = LSP_PARTITION_CONTIGUOUS; kind <= LSP_PARTITION_CYCLIC; kind++) {
            d.gather = (lsp_gather_mode)mode;
            d.partition = (lsp_partition_kind)kind;
            d.panel_rows = widths[(mode + kind) % 4];
            d.head_groups = (mode + kind) % 3 == 0 && ranks % 2 == 0 ? 2 : 1;
            check_one(&d, what);
        }
}

static void traffic_without_a_mask(void **state)
{
    (void)state;
    check(narrow(300, 4000), "no mask");
    check(narrow(3, 4000), "three rows"); /* ranks without rows receive nothing but in mode all */
    check(narrow(300, 100), "one tile");  /* ranks without keys */
    lsp_attention_desc d = narrow(300, 4000);
    d.key_begin = 700;
    d.key_end = 2500;
    d.row_begin = 100;
    d.row_end = 250;
    check(d, "a part");
}

static void traffic_of_causal_masks(void **state)
{
    (void)state;
    lsp_attention_desc d = narrow(3000, 3000);
    d.mask = LSP_MASK_CAUSAL;
    check(d, "causal");
    d.n = 5000; /* the first 2000 rows see no key */
    check(d, "causal, more rows than keys");
    d.n = 500;
    d.align = LSP_ALIGN_TOP_LEFT;
    d.key_begin = 100;
    check(d, "causal from the top left");
}

static void traffic_of_windows(void **state)
{
    (void)state;
    lsp_attention_desc d = narrow(4000, 4000);
    d.mask = LSP_MASK_WINDOW;
    d.window_left = 9;
    check(d, "a narrow window");
    d.window_right = 700;
    check(d, "a window");
    d.m = 2500;
    d.key_begin = 513;
    d.key_end = 2300;
    check(d, "a window over a part of fewer keys");
}

static void traffic_of_documents(void **state)
{
    (void)state;
    const int64_t of_rows[] = {0, 0, 700, 1500, 1500, 3000}, of_keys[] = {0, 512, 1024, 1024, 1700, 4000};
    lsp_attention_desc d = narrow(3000, 4000);
    d.documents = of_rows;
    d.documents_k = of_keys;
    d.document_count = 5;
    check(d, "documents");
    d.mask = LSP_MASK_CAUSAL;
    d.key_begin = 600;
    d.key_end = 1900;
    check(d, "documents, causal, a part");
}

static void traffic_of_heads_and_lengths(void **state)
{
    (void)state;
    const int64_t lengths[] = {1300, 0, 700}, heads_of[] = {1, 1, 0};
    lsp_attention_desc d = narrow(200, 1300);
    d.batch = 3;
    d.heads = 3;
    d.kv_heads = 2;
    d.kv_head_of = heads_of;
    check(d, "batches");
    d.key_lengths = lengths;
    check(d, "key lengths");
    d.mask = LSP_MASK_CAUSAL;
    check(d, "key lengths, causal");
    lsp_gather_node_set_ranks(2); /* several nodes, of two ranks each */
    check(d, "key lengths, causal, several nodes");
    lsp_gather_node_set_ranks(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(traffic_without_a_mask),       cmocka_unit_test(traffic_of_causal_masks),
        cmocka_unit_test(traffic_of_windows),           cmocka_unit_test(traffic_of_documents),
        cmocka_unit_test(traffic_of_heads_and_lengths),
    };
    const test_context contexts[] = {{&ctx, 1, false}};
    return RUN_OVER_RANKS("traffic", tests, contexts, NULL, NULL);
}
