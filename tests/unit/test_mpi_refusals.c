/* What a plan refuses: the same code and text on every rank, and nothing left behind.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "mpi_case.h"

static lsp_context *ctx;

static const int64_t halves[] = {0, 20, 40}, other_halves[] = {0, 21, 40}, halves_k[] = {0, 30, 60},
                     falling[] = {0, 30, 20, 40}, short_end[] = {0, 20, 39}, late_start[] = {1, 20, 40},
                     long_key[] = {61, 0}, below_key[] = {60, -1}, lengths[] = {60, 7},
                     heads_of[] = {0, 1, 1, 0}, outside[] = {0, 1, 2, 0}, below[] = {0, -1, 1, 0};
static const double slopes[] = {1, 0.5, 0.25, 0.125}, endless[] = {1, INFINITY, 1, 1};

static lsp_status create(const lsp_attention_desc *d)
{
    int64_t before = lsp_memory_now();
    lsp_attention *plan = NULL;
    lsp_status status = lsp_attention_create(ctx, d, &plan);
    if (status == LSP_OK) {
        assert_non_null(plan);
        assert_int_equal(lsp_attention_destroy(&plan), LSP_OK);
    }
    assert_null(plan);
    assert_true(lsp_memory_now() == before);
    return status;
}

/* The verdict is `code`, with the same text, which names `word`, on every rank, told by rank `teller`. */
static void expect_refused(const lsp_attention_desc *d, lsp_status code, const char *word, int teller)
{
    assert_int_equal(create(d), code);
    const char *text = lsp_context_message(ctx);
    if (!strstr(text, word)) fail_msg("the message \"%s\" does not name \"%s\"", text, word);
    assert_int_equal(lsp_context_failed_rank(ctx), teller);
    char first[LSP_ERROR_TEXT] = "";
    if (rank == 0) (void)snprintf(first, sizeof first, "%s", text);
    MPI_Bcast(first, sizeof first, MPI_CHAR, 0, ctx->comm);
    assert_string_equal(text, first);
    assert_int_equal(create(&(lsp_attention_desc){0}), LSP_ERR_USAGE); /* the context goes on */
    lsp_attention_desc fine = grouped(40, 60, 8, 6);
    assert_int_equal(create(&fine), LSP_OK);
}

/* Every rank passes a good description with one member changed. */
#define REFUSE(code, word, member, value)                                                                    \
    do {                                                                                                     \
        lsp_attention_desc d = grouped(40, 60, 8, 6);                                                        \
        d.member = (value);                                                                                  \
        expect_refused(&d, code, word, 0);                                                                   \
    } while (0)

static void shapes_that_cannot_be(void **state)
{
    (void)state;
    REFUSE(LSP_ERR_USAGE, "batch", batch, 0);
    REFUSE(LSP_ERR_USAGE, "heads", heads, -4);
    REFUSE(LSP_ERR_USAGE, "kv_heads", kv_heads, 0);
    REFUSE(LSP_ERR_USAGE, "multiple", kv_heads, 3);
    REFUSE(LSP_ERR_USAGE, "n is 0", n, 0);
    REFUSE(LSP_ERR_USAGE, "m is", m, -1);
    REFUSE(LSP_ERR_USAGE, "d_k", d_k, 0);
    REFUSE(LSP_ERR_USAGE, "d_v", d_v, INT64_MAX);
    REFUSE(LSP_ERR_USAGE, "K/V head 2", kv_head_of, outside);
    REFUSE(LSP_ERR_USAGE, "K/V head -1", kv_head_of, below);
    lsp_attention_desc d = grouped(40, 60, 8, 6);
    d.n = (int64_t)1 << 40;
    d.d_k = (int64_t)1 << 20;
    expect_refused(&d, LSP_ERR_LIMIT, "63 bits", 0);
}

static void parts_that_cannot_be(void **state)
{
    (void)state;
    REFUSE(LSP_ERR_USAGE, "rows", row_begin, -1);
    REFUSE(LSP_ERR_USAGE, "rows", row_begin, 40);
    REFUSE(LSP_ERR_USAGE, "rows", row_end, 41);
    REFUSE(LSP_ERR_USAGE, "keys", key_begin, 60);
    REFUSE(LSP_ERR_USAGE, "keys", key_end, 61);
    REFUSE(LSP_ERR_USAGE, "keys", key_end, -2);
}

static void choices_that_cannot_be(void **state)
{
    (void)state;
    REFUSE(LSP_ERR_USAGE, "f16, bf16, f32 or f64", k_type, LSP_I64);
    REFUSE(LSP_ERR_USAGE, "bf16, f32 or f64", compute, LSP_F16);
    REFUSE(LSP_ERR_USAGE, "mask", mask, (lsp_mask_kind)3);
    REFUSE(LSP_ERR_USAGE, "alignment", align, (lsp_causal_align)2);
    REFUSE(LSP_ERR_USAGE, "instruction set", isa, (lsp_isa)9);
    REFUSE(LSP_ERR_USAGE, "gather", gather, (lsp_gather_mode)5);
    REFUSE(LSP_ERR_USAGE, "partition", partition, (lsp_partition_kind)4);
    REFUSE(LSP_ERR_USAGE, "scale", scale, NAN);
    REFUSE(LSP_ERR_USAGE, "scale", scale, INFINITY);
    REFUSE(LSP_ERR_USAGE, "softcap", softcap, -1);
    REFUSE(LSP_ERR_USAGE, "ALiBi slope of head 1", alibi_slopes, endless);
    REFUSE(LSP_ERR_USAGE, "panel_rows", panel_rows, -1);
    REFUSE(LSP_ERR_USAGE, "head_groups", head_groups, -1);
    lsp_attention_desc d = grouped(40, 60, 8, 6);
    d.mask = LSP_MASK_WINDOW;
    d.window_right = -1;
    expect_refused(&d, LSP_ERR_USAGE, "window_right", 0);
}

static void refuse_documents(const int64_t *of_rows, const int64_t *of_keys, int64_t count, lsp_status code,
                             const char *word)
{
    lsp_attention_desc d = grouped(40, 60, 8, 6);
    d.documents = of_rows;
    d.documents_k = of_keys;
    d.document_count = count;
    expect_refused(&d, code, word, 0);
}

static void documents_that_cannot_be(void **state)
{
    (void)state;
    refuse_documents(halves, NULL, 2, LSP_ERR_USAGE, "documents_k");
    refuse_documents(NULL, halves_k, 2, LSP_ERR_USAGE, "documents_k");
    refuse_documents(halves, halves, 2, LSP_ERR_CONTENT, "documents_k");
    refuse_documents(falling, falling, 3, LSP_ERR_CONTENT, "entry 1");
    refuse_documents(short_end, halves_k, 2, LSP_ERR_CONTENT, "39");
    refuse_documents(late_start, halves_k, 2, LSP_ERR_CONTENT, "from 1");
    refuse_documents(halves, halves_k, 0, LSP_ERR_CONTENT, "at least two");
    REFUSE(LSP_ERR_CONTENT, "key length 61 of batch 0", key_lengths, long_key);
    REFUSE(LSP_ERR_CONTENT, "key length -1 of batch 1", key_lengths, below_key);
}

static void head_groups_that_do_not_divide(void **state)
{
    (void)state;
    REFUSE(LSP_ERR_USAGE, "does not divide", head_groups, ranks + 1);
    if (ranks > 2) REFUSE(LSP_ERR_USAGE, "does not divide", head_groups, ranks - 1);
}

/* ---- ranks that differ --------------------------------------------------------------------------- */

static void one_bad_rank_is_told_to_all(void **state)
{
    (void)state;
    lsp_attention_desc d = grouped(40, 60, 8, 6);
    if (rank == ranks - 1) d.n = 0;
    expect_refused(&d, LSP_ERR_USAGE, "n is 0", ranks - 1);
}

/* The last rank passes something else that would be good in itself. */
#define DIFFER(member, value)                                                                                \
    do {                                                                                                     \
        lsp_attention_desc d = grouped(40, 60, 8, 6);                                                        \
        if (rank == ranks - 1) d.member = (value);                                                           \
        if (ranks > 1) expect_refused(&d, LSP_ERR_USAGE, "different", 0);                                    \
        if (ranks == 1) assert_int_equal(create(&d), LSP_OK);                                                \
    } while (0)

static void ranks_with_different_descriptions(void **state)
{
    (void)state;
    DIFFER(batch, 3);
    DIFFER(heads, 8);
    DIFFER(n, 41);
    DIFFER(d_v, 7);
    DIFFER(kv_head_of, heads_of);
    DIFFER(row_end, 39);
    DIFFER(key_begin, 1);
    DIFFER(q_type, LSP_F16);
    DIFFER(compute, LSP_F64);
    DIFFER(mask, LSP_MASK_CAUSAL);
    DIFFER(align, LSP_ALIGN_TOP_LEFT);
    DIFFER(key_lengths, lengths);
    DIFFER(scale, 0.5);
    DIFFER(softcap, 2);
    DIFFER(alibi_slopes, slopes);
    DIFFER(isa, LSP_ISA_PORTABLE);
    DIFFER(gather, LSP_GATHER_CHAIN);
    DIFFER(partition, LSP_PARTITION_CYCLIC);
    DIFFER(panel_rows, 100);
    DIFFER(head_groups, 1);
    lsp_attention_desc d = grouped(40, 60, 8, 6);
    d.documents = rank == ranks - 1 ? other_halves : halves;
    d.documents_k = halves_k;
    d.document_count = 2;
    if (ranks > 1) expect_refused(&d, LSP_ERR_USAGE, "different", 0);
}

/* ---- the machine --------------------------------------------------------------------------------- */

static void memory_limits_are_kept(void **state)
{
    (void)state;
    lsp_attention_desc d = grouped(40, 60, 8, 6);
    d.n = 5000;
    d.m = 7000;
    lsp_attention *plan = NULL;
    assert_int_equal(lsp_attention_create(ctx, &d, &plan), LSP_OK);
    int64_t needed = lsp_attention_get_estimate(plan).footprint.total * ranks; /* all on this node */
    assert_int_equal(lsp_attention_destroy(&plan), LSP_OK);
    d.memory_limit = needed;
    assert_int_equal(create(&d), LSP_OK);
    d.memory_limit = needed - 1;
    char numbers[64];
    (void)snprintf(numbers, sizeof numbers, "a rank needs %.1f MiB", (double)needed / ranks / (1 << 20));
    expect_refused(&d, LSP_ERR_LIMIT, numbers, 0);
    (void)snprintf(numbers, sizeof numbers, "with %.1f MiB", (double)(needed - 1) / (1 << 20));
    expect_refused(&d, LSP_ERR_LIMIT, numbers, 0);
    d.memory_limit = rank == ranks - 1 ? 1000 : 0; /* nodes may differ */
    expect_refused(&d, LSP_ERR_LIMIT, "MiB", ranks - 1);
}

/* Far more than any machine has is refused before it is asked for. */
static void memory_is_checked_before_it_is_taken(void **state)
{
    (void)state;
    lsp_attention_desc d = grouped(40, 60, 8, 6);
    d.n = d.m = (int64_t)1 << 36;
    d.memory_limit = (int64_t)1 << 40;
    expect_refused(&d, LSP_ERR_LIMIT, "not enough memory", 0);
}

static void instruction_sets_that_are_lacking(void **state)
{
    (void)state;
    for (int isa = LSP_ISA_PORTABLE; isa <= LSP_ISA_AVX512; isa++) {
        lsp_attention_desc d = grouped(40, 60, 8, 6);
        d.isa = (lsp_isa)isa;
        if (isa > (int)lsp_isa_best()) {
            expect_refused(&d, LSP_ERR_USAGE, lsp_isa_name((lsp_isa)isa), 0);
            continue;
        }
        lsp_attention *plan = NULL;
        assert_int_equal(lsp_attention_create(ctx, &d, &plan), LSP_OK);
        assert_int_equal(lsp_attention_get_isa(plan), isa);
        assert_int_equal(lsp_attention_destroy(&plan), LSP_OK);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes_that_cannot_be),
        cmocka_unit_test(parts_that_cannot_be),
        cmocka_unit_test(choices_that_cannot_be),
        cmocka_unit_test(documents_that_cannot_be),
        cmocka_unit_test(head_groups_that_do_not_divide),
        cmocka_unit_test(one_bad_rank_is_told_to_all),
        cmocka_unit_test(ranks_with_different_descriptions),
        cmocka_unit_test(memory_limits_are_kept),
        cmocka_unit_test(memory_is_checked_before_it_is_taken),
        cmocka_unit_test(instruction_sets_that_are_lacking),
    };
    const test_context contexts[] = {{&ctx, 1, false}};
    return RUN_OVER_RANKS("refusals", tests, contexts, NULL, NULL);
}
