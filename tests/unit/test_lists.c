/* Lists in deck keys: what is taken, what is refused. SPDX-License-Identifier: BSD-3-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "app/deck.h"
#include "app/value.h"

#include <longspan/attention.h>
#include <string.h>

/* The deck is refused as a usage error whose text holds `wanted`. */
static void refuse(const char *text, const char *wanted)
{
    lsp_options *options = lsp_options_create();
    assert_non_null(options);
    lsp_error error = {LSP_OK, ""};
    lsp_status status = lsp_deck_parse(text, "a.ini", options, &error);
    lsp_options_destroy(options);
    if (status != LSP_ERR_USAGE) fail_msg("status %d for: %s", status, text);
    if (!strstr(error.text, wanted)) fail_msg("'%s' lacks '%s'", error.text, wanted);
}

static void values_are_lists_of_numbers_and_words(void **state)
{
    (void)state;
    int64_t items[4] = {0};
    assert_int_equal(lsp_value_items("64,128", NULL, items, 4), 2);
    assert_true(items[0] == 64 && items[1] == 128);
    assert_int_equal(lsp_value_items(" 4e6 ,\t7 ", NULL, items, 4), 2);
    assert_true(items[0] == 4000000 && items[1] == 7);
    assert_int_equal(lsp_value_items("9,8,7,6", NULL, items, 4), 4);
    assert_int_equal(lsp_value_items("9,8,7,6,5", NULL, items, 4), -1);
    assert_int_equal(lsp_value_items("c,a", "a|b|c", items, 4), 2);
    assert_true(items[0] == 2 && items[1] == 0);
    const char *const bad_numbers[] = {"", ",", "1,", ",1", "1,,2", "1 2", "1-3", "1.5", "1,1", "1,01", "a"};
    for (size_t i = 0; i < sizeof bad_numbers / sizeof *bad_numbers; i++)
        assert_int_equal(lsp_value_items(bad_numbers[i], NULL, items, 4), -1);
    const char *const bad_words[] = {"", "d", "a,", "a,d", "a,b,a", "a|b", "ab"};
    for (size_t i = 0; i < sizeof bad_words / sizeof *bad_words; i++)
        assert_int_equal(lsp_value_items(bad_words[i], "a|b|c", items, 4), -1);
}

static void deck_keys_take_lists(void **state)
{
    (void)state;
    lsp_options *options = lsp_options_create();
    assert_non_null(options);
    int64_t items[LSP_ITEMS_MOST];
    assert_int_equal(lsp_options_items(options, LSP_KEY_BENCH_N, items), 0); /* auto */
    assert_int_equal(lsp_options_items(options, LSP_KEY_BENCH_D, items), 2);
    lsp_error error = {LSP_OK, ""};
    assert_int_equal(lsp_deck_parse("[bench]\nn = 100, 200,300\nmasks = window,none\nthreads = auto\n",
                                    "a.ini", options, &error),
                     LSP_OK);
    assert_int_equal(lsp_options_items(options, LSP_KEY_BENCH_N, items), 3);
    assert_true(items[0] == 100 && items[1] == 200 && items[2] == 300);
    assert_int_equal(lsp_options_items(options, LSP_KEY_BENCH_MASKS, items), 2);
    assert_true(items[0] == LSP_MASK_WINDOW && items[1] == LSP_MASK_NONE);
    assert_int_equal(lsp_options_items(options, LSP_KEY_BENCH_THREADS, items), 0);
    refuse("[bench]\nd = 64,99999\n", "different whole numbers from 1 to 65536");
    refuse("[bench]\nthreads = 1,auto\n", "or auto");
    refuse("[bench]\nmasks = all\n", "some of none, causal, window");
    lsp_options_destroy(options);
}

/* Lists for `compare`, one number for the others. */
static void several_choices_are_for_compare(void **state)
{
    (void)state;
    lsp_options *options = lsp_options_create();
    assert_non_null(options);
    int64_t items[LSP_ITEMS_MOST], one = -1;
    lsp_error error = {LSP_OK, ""};
    assert_int_equal(lsp_deck_parse("[attention]\ntopk = 16, 64,256\nrank = 1e3\n", "a.ini", options, &error),
                     LSP_OK);
    assert_int_equal(lsp_options_items(options, LSP_KEY_ATTENTION_TOPK, items), 3);
    assert_true(items[0] == 16 && items[1] == 64 && items[2] == 256);
    assert_int_equal(lsp_options_one(options, LSP_KEY_ATTENTION_RANK, "attend", &one, &error), LSP_OK);
    assert_int_equal(one, 1000);
    assert_int_equal(lsp_options_one(options, LSP_KEY_ATTENTION_TOPK, "attend", &one, &error), LSP_ERR_USAGE);
    assert_non_null(strstr(error.text, "a.ini:2: attention.topk = 16, 64,256"));
    assert_non_null(strstr(error.text, "attend takes one"));
    assert_int_equal(one, 1000);
    assert_int_equal(lsp_options_items(options, LSP_KEY_ATTENTION_BLOCK_SIZE, items), 0);
    refuse("[attention]\ntopk = 0\n", "a whole number from 1");
    refuse("[attention]\ntopk = 8,\n", "with `compare` also different ones as 16,64");
    refuse("[attention]\nblock_size = 3-5\n", "block_size");
    lsp_options_destroy(options);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_lists_of_numbers_and_words),
        cmocka_unit_test(deck_keys_take_lists),
        cmocka_unit_test(several_choices_are_for_compare),
    };
    return cmocka_run_group_tests_name("lists", tests, NULL, NULL);
}
