/* The bits of a result do not depend on who computed what, nor on how the keys came there: everything is
 * compared with one rank alone, per instruction set.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "mpi_case.h"

#include "attention_case.h"
#include "comm/gather_mode.h"
#include "comm/rows.h"

static lsp_context *one_thread, *two_threads, *alone;

static void expect_equal(const lsp_attention_desc *d, const result *got, const result *expected,
                         const char *what)
{
    for (size_t i = 0; i < got->out_bytes; i++)
        if (got->out[i] != expected->out[i])
            fail_msg("%s, %s, gather %s, partition %s, %d head groups, panel_rows %d: row %d of O differs",
                     what, lsp_isa_name(d->isa), lsp_gather_mode_name(d->gather),
                     lsp_partition_kind_name(d->partition), d->head_groups, (int)d->panel_rows,
                     (int)(i / (size_t)d->d_v / lsp_dtype_size(d->compute)));
    if (memcmp(got->lse, expected->lse, got->lse_bytes) != 0)
        fail_msg("%s, %s, gather %s, partition %s, %d head groups, panel_rows %d: LSE differs", what,
                 lsp_isa_name(d->isa), lsp_gather_mode_name(d->gather), lsp_partition_kind_name(d->partition),
                 d->head_groups, (int)d->panel_rows);
}

static void compare(lsp_context *ctx, const lsp_attention_desc *d, const result *expected, const char *what)
{
    result got = run_case(ctx, d, NULL);
    expect_equal(d, &got, expected, what);
    free_result(&got);
}

/* ---- one choice at a time, then all of them against each other ------------------------------------ */

/* The result of one rank, one thread, everything chosen. */
static result reference_of(const lsp_attention_desc *d)
{
    lsp_attention_desc plain = *d;
    plain.gather = LSP_GATHER_AUTO;
    plain.partition = LSP_PARTITION_AUTO;
    plain.panel_rows = 0;
    plain.head_groups = 0;
    return run_case(alone, &plain, NULL);
}

/* Of the ranks, above 1 if there is one. */
static int smallest_divisor(void)
{
    for (int groups = 2; groups < ranks; groups++)
        if (ranks % groups == 0) return groups;
    return ranks;
}

static void check_choices(lsp_attention_desc d, const char *what)
{
    result expected = reference_of(&d);
    compare(one_thread, &d, &expected, what);
    compare(two_threads, &d, &expected, what);
    for (int mode = LSP_GATHER_PANELS; mode <= LSP_GATHER_CHAIN; mode++)
        for (int kind = LSP_PARTITION_CONTIGUOUS; kind <= LSP_PARTITION_CYCLIC; kind++) {
            d.gather = (lsp_gather_mode)mode;
            d.partition = (lsp_partition_kind)kind;
            d.panel_rows = (mode + kind) % 2 ? 1 : 100000;
            d.head_groups = kind == LSP_PARTITION_BALANCED ? ranks
                            : kind == LSP_PARTITION_CYCLIC ? smallest_divisor()
                                                           : 1;
            compare(one_thread, &d, &expected, what);
        }
    d.gather = LSP_GATHER_PANELS;
    d.partition = LSP_PARTITION_CYCLIC;
    d.head_groups = 1;
    d.panel_rows = 1;
    compare(two_threads, &d, &expected, what);
    free_result(&expected);
}

static void bits_without_a_mask(void **state)
{
    (void)state;
    lsp_attention_desc d = plain(331, 4099, 16, 11);
    check_choices(d, "no mask");
    d.compute = LSP_F64;
    check_choices(d, "no mask, f64");
    d.compute = LSP_BF16;
    check_choices(d, "no mask, bf16");
    check_choices(plain(3, 1500, 5, 7), "three rows");
    check_choices(plain(1, 1, 1, 1), "one of each");
}

static void bits_of_a_causal_mask(void **state)
{
    (void)state;
    lsp_attention_desc d = plain(1531, 1409, 9, 8);
    d.mask = LSP_MASK_CAUSAL;
    check_choices(d, "causal");
    d.k_type = LSP_F16;
    d.v_type = LSP_BF16;
    d.compute = LSP_F64;
    check_choices(d, "causal, f16 and bf16 in f64");
}

static void bits_of_heads_and_batches(void **state)
{
    (void)state;
    const int64_t heads_of[] = {2, 0, 1, 1, 0}, lengths[] = {1203, 0, 600};
    double slopes[5];
    for (int h = 0; h < 5; h++) slopes[h] = lsp_alibi_slope(h, 5);
    lsp_attention_desc d = plain(101, 1203, 12, 10);
    d.batch = 3;
    d.heads = 5;
    d.kv_heads = 3;
    d.kv_head_of = heads_of;
    d.key_lengths = lengths;
    d.alibi_slopes = slopes;
    d.softcap = 3;
    check_choices(d, "heads and batches");
}

static void bits_of_windows_and_documents(void **state)
{
    (void)state;
    const int64_t of_rows[] = {0, 13, 13, 700, 1400};
    lsp_attention_desc d = plain(1400, 1400, 7, 6);
    d.mask = LSP_MASK_WINDOW;
    d.window_left = 150;
    d.window_right = 9;
    check_choices(d, "window");
    d.documents = of_rows;
    d.document_count = 4;
    check_choices(d, "window and documents");
    d.row_begin = 400;
    d.row_end = 1300;
    d.key_begin = 350;
    d.key_end = 1251;
    check_choices(d, "a part");
}

static void bits_on_every_instruction_set(void **state)
{
    (void)state;
    lsp_attention_desc d = plain(200, 1300, 33, 20);
    d.mask = LSP_MASK_CAUSAL;
    for (int isa = LSP_ISA_PORTABLE; isa <= (int)lsp_isa_best(); isa++)
        for (int type = LSP_BF16; type <= LSP_F64; type++) {
            d.isa = (lsp_isa)isa;
            d.compute = (lsp_dtype)type;
            result expected = reference_of(&d);
            for (int mode = LSP_GATHER_PANELS; mode <= LSP_GATHER_CHAIN; mode++) {
                d.gather = (lsp_gather_mode)mode;
                compare(mode % 2 ? one_thread : two_threads, &d, &expected, "instruction sets");
            }
            d.gather = LSP_GATHER_AUTO;
            free_result(&expected);
        }
}

/* Messages cut into pieces, and panels that pass between nodes. */
static void bits_over_limits_and_nodes(void **state)
{
    (void)state;
    lsp_attention_desc d = plain(331, 1611, 4, 3);
    result expected = reference_of(&d);
    lsp_rows_set_limit(1000);
    for (int mode = LSP_GATHER_PANELS; mode <= LSP_GATHER_CHAIN; mode++)
        for (int node_ranks = 0; node_ranks < 3; node_ranks++) {
            lsp_gather_node_set_ranks(node_ranks);
            d.gather = (lsp_gather_mode)mode;
            compare(one_thread, &d, &expected, "counts above the limit");
        }
    lsp_gather_node_set_ranks(0);
    lsp_rows_set_limit(0);
    free_result(&expected);
}

/* ---- whose arrays -------------------------------------------------------------------------------- */

typedef struct lent_arrays {
    int64_t heads_of[4], lengths[2], of_rows[4], of_keys[4];
    double slopes[4];
} lent_arrays;

static void overwrite(void *user)
{
    memset(user, 0xA5, sizeof(lent_arrays)); /* negative heads and lengths, offsets that go nowhere */
}

/* The description's arrays are the caller's again when lsp_attention_create returns. */
static void bits_when_the_arrays_are_overwritten(void **state)
{
    (void)state;
    const lent_arrays whole = {.heads_of = {1, 0, 0, 1},
                               .lengths = {1100, 600},
                               .of_rows = {0, 150, 200, 400},
                               .of_keys = {0, 513, 700, 1100},
                               .slopes = {0.25, 0.0625, 0.5, 0.125}};
    for (int mode = LSP_GATHER_PANELS; mode <= LSP_GATHER_CHAIN; mode++) {
        lent_arrays arrays = whole;
        lsp_attention_desc d = plain(400, 1100, 6, 5);
        d.batch = 2;
        d.heads = 4;
        d.kv_heads = 2;
        d.kv_head_of = arrays.heads_of;
        d.key_lengths = arrays.lengths;
        d.documents = arrays.of_rows;
        d.documents_k = arrays.of_keys;
        d.document_count = 3;
        d.alibi_slopes = arrays.slopes;
        d.mask = LSP_MASK_CAUSAL;
        d.gather = (lsp_gather_mode)mode;
        result expected = run_case(one_thread, &d, NULL);
        result got =
            run_case(one_thread, &d, &(run_options){.created = overwrite, .user = &arrays, .repeats = 2});
        assert_true(memcmp(&arrays, &whole, sizeof whole) != 0);
        expect_equal(&d, &got, &expected, "overwritten arrays");
        free_result(&got);
        free_result(&expected);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bits_without_a_mask),
        cmocka_unit_test(bits_of_a_causal_mask),
        cmocka_unit_test(bits_of_heads_and_batches),
        cmocka_unit_test(bits_of_windows_and_documents),
        cmocka_unit_test(bits_on_every_instruction_set),
        cmocka_unit_test(bits_over_limits_and_nodes),
        cmocka_unit_test(bits_when_the_arrays_are_overwritten),
    };
    const test_context contexts[] = {{&one_thread, 1, false}, {&two_threads, 2, false}, {&alone, 1, true}};
    return RUN_OVER_RANKS("bits", tests, contexts, NULL, NULL);
}
