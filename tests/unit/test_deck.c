/* Deck keys, decks and their values: what is taken, what is refused and in which words.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "app/deck.h"
#include "app/runs.h"
#include "app/value.h"
#include "base/memory.h"

#include <longspan/attention.h>
#include <longspan/study.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int make_options(void **state)
{
    *state = lsp_options_create();
    return *state ? 0 : -1;
}

static int drop_options(void **state)
{
    lsp_options_destroy(*state);
    return 0;
}

static void accept(lsp_options *options, const char *text)
{
    lsp_error error = {LSP_OK, ""};
    lsp_status status = lsp_deck_parse(text, "a.ini", options, &error);
    if (status != LSP_OK) fail_msg("refused: %s", error.text);
}

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

/* ---- the registry -------------------------------------------------------------------------------- */

static void registry_is_complete(void **state)
{
    lsp_options *options = *state;
    for (int key = 0; key < LSP_KEY_COUNT; key++) {
        const lsp_option *option = lsp_option_get((lsp_key)key);
        assert_non_null(option->section);
        assert_non_null(option->name);
        assert_true(option->help && option->help[0] && option->commands != 0);
        assert_int_equal(lsp_option_find(option->section, option->name), key);
        if (option->fallback[0] == '\0') continue;
        /* A default is a value that a user could have given. */
        lsp_error error = {LSP_OK, ""};
        if (lsp_options_set(options, option->section, option->name, option->fallback, "default", &error) !=
            LSP_OK)
            fail_msg("default of %s.%s: %s", option->section, option->name, error.text);
    }
}

/* A choice is cast to the library's constant. */
static void registry_choices_are_the_library_constants(void **state)
{
    (void)state;
    const char *isas = lsp_option_get(LSP_KEY_COMPUTE_ISA)->words;
    for (int isa = LSP_ISA_AUTO; isa <= LSP_ISA_AVX512; isa++)
        assert_int_equal(lsp_value_word(lsp_isa_name((lsp_isa)isa), isas), isa);
    const char *gathers = lsp_option_get(LSP_KEY_COMPUTE_GATHER)->words;
    for (int mode = LSP_GATHER_AUTO; mode <= LSP_GATHER_CHAIN; mode++)
        assert_int_equal(lsp_value_word(lsp_gather_mode_name((lsp_gather_mode)mode), gathers), mode);
    const char *partitions = lsp_option_get(LSP_KEY_COMPUTE_PARTITION)->words;
    for (int kind = LSP_PARTITION_AUTO; kind <= LSP_PARTITION_CYCLIC; kind++)
        assert_int_equal(lsp_value_word(lsp_partition_kind_name((lsp_partition_kind)kind), partitions), kind);
    const char *types = lsp_option_get(LSP_KEY_SHAPE_TYPE)->words;
    for (int type = LSP_F16; type <= LSP_F64; type++)
        assert_int_equal(lsp_value_word(lsp_dtype_name((lsp_dtype)type), types), type);
    assert_int_equal(lsp_value_word("causal", lsp_option_get(LSP_KEY_ATTENTION_MASK)->words),
                     LSP_MASK_CAUSAL);
    assert_int_equal(lsp_value_word("window", lsp_option_get(LSP_KEY_ATTENTION_MASK)->words),
                     LSP_MASK_WINDOW);
    assert_int_equal(lsp_value_word("top-left", lsp_option_get(LSP_KEY_ATTENTION_CAUSAL_ALIGN)->words),
                     LSP_ALIGN_TOP_LEFT);
    assert_int_equal(lsp_value_word("bnhd", lsp_option_get(LSP_KEY_INPUT_LAYOUT)->words), LSP_BNHD);
    assert_int_equal(lsp_value_word("peaked", lsp_option_get(LSP_KEY_SHAPE_DISTRIBUTION)->words), LSP_PEAKED);
    assert_int_equal(lsp_value_word("walk", lsp_option_get(LSP_KEY_SHAPE_DISTRIBUTION)->words), LSP_WALK);
}

/* ---- decks --------------------------------------------------------------------------------------- */

static void deck_gives_values(void **state)
{
    lsp_options *options = *state;
    accept(options, "; a comment\n"
                    "[input]\n"
                    "file = in.h5\n"
                    "  rows = 5:9\n" /* indented: a key of its own, not more of the file's name */
                    "# another\n"
                    "[attention]\r\n"
                    "mask=causal ; after a blank\r\n"
                    "\n"
                    "scale : 0.25\n"
                    "[shape]\n"
                    "n = 1e6");
    assert_string_equal(lsp_options_text(options, LSP_KEY_INPUT_FILE), "in.h5");
    assert_string_equal(lsp_options_text(options, LSP_KEY_INPUT_ROWS), "5:9");
    assert_int_equal(lsp_options_choice(options, LSP_KEY_ATTENTION_MASK), LSP_MASK_CAUSAL);
    assert_true(lsp_options_real(options, LSP_KEY_ATTENTION_SCALE) == 0.25);
    assert_int_equal(lsp_options_int(options, LSP_KEY_SHAPE_N), 1000000);
    assert_string_equal(lsp_options_origin(options, LSP_KEY_ATTENTION_SCALE), "a.ini:9");
}

static void deck_defaults_hold(void **state)
{
    lsp_options *options = *state;
    accept(options, "");
    assert_string_equal(lsp_options_text(options, LSP_KEY_INPUT_Q), "/q");
    assert_int_equal(lsp_options_int(options, LSP_KEY_VERIFY_ROWS), 16);
    assert_int_equal(lsp_options_int(options, LSP_KEY_COMPUTE_THREADS), 0);
    assert_true(lsp_options_real(options, LSP_KEY_ATTENTION_SCALE) == 0);
    assert_true(lsp_options_yes(options, LSP_KEY_OUTPUT_LSE));
    assert_false(lsp_options_yes(options, LSP_KEY_OUTPUT_OVERWRITE));
    assert_false(lsp_options_is_set(options, LSP_KEY_INPUT_FILE));
}

static void deck_may_begin_with_a_byte_order_mark(void **state)
{
    accept(*state, "\xEF\xBB\xBF[input]\nfile = in.h5\n");
    assert_string_equal(lsp_options_text(*state, LSP_KEY_INPUT_FILE), "in.h5");
}

static void deck_errors_name_line_and_nearest(void **state)
{
    (void)state;
    refuse("[input]\n\nfil = a.h5\n", "a.ini:3: unknown key 'input.fil'; the nearest is 'input.file'");
    refuse("[inptu]\nfile = a.h5\n", "a.ini:2: unknown section 'inptu'; the nearest is 'input'");
    refuse("[attention]\nwindow = 3\n", "'attention.window_left'");
    refuse("[attention]\nmask = cusal\n", "a.ini:2: bad value 'cusal'");
    refuse("[attention]\nmask = cusal\n", "none, causal, window");
    refuse("[attention]\nmethod = tpok\n", "this version allows: exact, block, topk");
    refuse("[verify]\nrows = many\n", "a whole number from 0 to 1000000");
    refuse("[verify]\nrows = -1\n", "bad value '-1'");
    refuse("[verify]\nrows = 1.5\n", "bad value '1.5'");
    refuse("[compute]\nthreads = 0\n", "from 1 to 4096, or auto");
    refuse("[attention]\nscale = 0\n", "a number above 0, or auto");
    refuse("[attention]\nscale = nan\n", "bad value 'nan'");
    refuse("[output]\noverwrite = true\n", "yes or no");
    refuse("[input]\nheads = 3-1\n", "as 0,3-5");
    refuse("[input]\nfile =\n", "bad value ''");
    refuse("file = a.h5\n", "before any [section]");
    refuse("[input]\nfile\n", "a.ini:2: neither [section] nor key = value");
    refuse("[input\nfile = a.h5\n", "a.ini:1: neither [section] nor key = value");
    refuse("[input\n", "a.ini:1: neither [section] nor key = value");
    refuse("[input\n\n  [output]\nfil = a.h5\n", "a.ini:1: neither [section] nor key = value");
    refuse("[shape]\nn = 4\n[input\nfile = a.h5\n", "a.ini:3: neither [section] nor key = value");
    refuse("[input]\nfile = a\n[input]\nfile = b\n", "a.ini:4: input.file was given before, in line 2");
}

/* What libinih would cut or drop without a word. */
static void deck_cuts_nothing_silently(void **state)
{
    char deck[600] = "[input]\nfile = ", wanted[64];
    size_t head = strlen(deck);
    const size_t most = 196 - strlen("file = ");
    memset(deck + head, 'a', most);
    memcpy(deck + head + most, "\n", 2);
    accept(*state, deck);
    assert_int_equal(strlen(lsp_options_text(*state, LSP_KEY_INPUT_FILE)), most);
    memcpy(deck + head + most, "b\n", 3);
    (void)snprintf(wanted, sizeof wanted, "a.ini:2: the line has 197 characters");
    refuse(deck, wanted);
    refuse("[input]\nfile = a.h5 ; mine\n", "a.ini:2: ' ;' after a name (input.file)");
    refuse("[input]\nq = FILE ;x:/q\n", "(input.q)");
    lsp_options *options = lsp_options_create();
    accept(options, "[input]\nfile = a;b.h5\n");
    assert_string_equal(lsp_options_text(options, LSP_KEY_INPUT_FILE), "a;b.h5");
    lsp_options_destroy(options);
}

static void deck_written_reads_the_same(void **state)
{
    lsp_options *options = *state, *again = lsp_options_create();
    lsp_error error = {LSP_OK, ""};
    accept(options, "[output]\nfile = o.h5\n[input]\nfile = in.h5\nheads = 0,3-5\n[compute]\nisa = avx2\n");
    assert_int_equal(lsp_options_set(options, "compute", "isa", "portable", "--compute.isa", &error), LSP_OK);
    char *text = lsp_deck_write(options);
    assert_non_null(text);
    assert_string_equal(text, "[input]\nfile = in.h5\nheads = 0,3-5\n[output]\nfile = o.h5\n[compute]\n"
                              "isa = portable\n");
    accept(again, text);
    for (int key = 0; key < LSP_KEY_COUNT; key++)
        assert_string_equal(lsp_options_peek(again, (lsp_key)key), lsp_options_peek(options, (lsp_key)key));
    lsp_memory_free(text);
    lsp_options_destroy(again);
}

static void deck_keys_that_nobody_reads_are_listed(void **state)
{
    lsp_options *options = *state;
    char unused[200];
    accept(options, "[input]\nfile = in.h5\n[attention]\nwindow_left = 3\n[shape]\nn = 4\n");
    (void)lsp_options_text(options, LSP_KEY_INPUT_FILE);
    (void)lsp_options_text(options, LSP_KEY_INPUT_Q);
    lsp_options_unused(options, unused, sizeof unused);
    assert_string_equal(unused, "attention.window_left, shape.n");
}

static void deck_missing_keys_are_named(void **state)
{
    lsp_error error = {LSP_OK, ""};
    assert_int_equal(lsp_options_require(*state, LSP_KEY_OUTPUT_FILE, "attend", &error), LSP_ERR_USAGE);
    assert_non_null(strstr(error.text, "section [output] is missing: attend needs its key file"));
    accept(*state, "[output]\nlse = no\n");
    assert_int_equal(lsp_options_require(*state, LSP_KEY_OUTPUT_FILE, "attend", &error), LSP_ERR_USAGE);
    assert_non_null(strstr(error.text, "output.file is missing"));
    accept(*state, "[output]\nfile = o.h5\n");
    assert_int_equal(lsp_options_require(*state, LSP_KEY_OUTPUT_FILE, "attend", &error), LSP_OK);
}

static void deck_files_are_read_whole(void **state)
{
    (void)state;
    char name[] = "/tmp/longspan-deck-XXXXXX", *text = NULL;
    lsp_error error = {LSP_OK, ""};
    int fd = mkstemp(name);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "[input]\nfile = x\n", 17), 17);
    assert_int_equal(lsp_deck_read(name, &text, &error), LSP_OK);
    assert_string_equal(text, "[input]\nfile = x\n");
    lsp_memory_free(text);
    text = NULL;
    assert_int_equal(write(fd, "\0", 1), 1);
    assert_int_equal(lsp_deck_read(name, &text, &error), LSP_ERR_USAGE);
    assert_null(text);
    (void)close(fd);
    (void)unlink(name);
    assert_int_equal(lsp_deck_read(name, &text, &error), LSP_ERR_FILE);
    assert_non_null(strstr(error.text, name));
}

/* ---- values -------------------------------------------------------------------------------------- */

static void values_are_numbers_to_the_last_character(void **state)
{
    (void)state;
    int64_t integer = 0;
    double real = 0;
    assert_true(lsp_value_int("9223372036854775807", &integer) && integer == INT64_MAX);
    assert_true(lsp_value_int("4e6", &integer) && integer == 4000000);
    assert_false(lsp_value_int("9223372036854775808", &integer));
    assert_false(lsp_value_int("1e20", &integer));
    assert_false(lsp_value_int("4.5", &integer));
    assert_false(lsp_value_int("", &integer));
    assert_false(lsp_value_int(" 4", &integer));
    assert_false(lsp_value_int("4x", &integer));
    assert_true(lsp_value_real("-2.5e-3", &real) && real == -2.5e-3);
    assert_false(lsp_value_real("inf", &real));
    assert_false(lsp_value_real("1e400", &real));
    assert_true(lsp_value_bytes("1.5G", &real) && real == 1610612736.0);
    assert_true(lsp_value_bytes("64k", &real) && real == 65536.0);
    assert_true(lsp_value_bytes("100", &real) && real == 100.0);
    assert_false(lsp_value_bytes("G", &real));
    assert_false(lsp_value_bytes("1X", &real));
}

static void values_are_ranges_and_lists(void **state)
{
    (void)state;
    int64_t begin = 0, end = 0, numbers[8] = {0};
    assert_true(lsp_value_range("3:7", &begin, &end) && begin == 3 && end == 7);
    assert_true(lsp_value_range("3:", &begin, &end) && begin == 3 && end == -1);
    assert_true(lsp_value_range(":7", &begin, &end) && begin == 0 && end == 7);
    assert_false(lsp_value_range(":", &begin, &end));
    assert_false(lsp_value_range("7:7", &begin, &end));
    assert_false(lsp_value_range("-1:7", &begin, &end));
    assert_false(lsp_value_range("3", &begin, &end));
    assert_false(lsp_value_range("3:7x", &begin, &end));
    assert_int_equal(lsp_value_list("5, 0-2,7", numbers, 8), 5);
    const int64_t wanted[] = {5, 0, 1, 2, 7};
    assert_memory_equal(numbers, wanted, sizeof wanted);
    assert_int_equal(lsp_value_list("0,1,0", numbers, 8), -1);
    assert_int_equal(lsp_value_list("0,", numbers, 8), -1);
    assert_int_equal(lsp_value_list("3-1", numbers, 8), -1);
    assert_int_equal(lsp_value_list("0-999999999999", NULL, 0), -1);
}

static void values_are_dataset_paths(void **state)
{
    (void)state;
    size_t length = 99;
    const char *path = NULL;
    assert_true(lsp_value_dataset("/a/q", &length, &path) && length == 0);
    assert_string_equal(path, "/a/q");
    assert_true(lsp_value_dataset("/data/x.h5:/q", &length, &path) && length == strlen("/data/x.h5"));
    assert_string_equal(path, "/q");
    assert_true(lsp_value_dataset("x.h5:/g/q", &length, &path) && length == 4);
    assert_string_equal(path, "/g/q");
    assert_false(lsp_value_dataset("q", &length, &path));
    assert_false(lsp_value_dataset("/", &length, &path));
    assert_false(lsp_value_dataset(":/q", &length, &path));
    assert_false(lsp_value_dataset("x.h5:/", &length, &path));
}

static void values_know_their_distance(void **state)
{
    (void)state;
    assert_int_equal(lsp_value_distance("mask", "mask"), 0);
    assert_int_equal(lsp_value_distance("msk", "mask"), 1);
    assert_int_equal(lsp_value_distance("kitten", "sitting"), 3);
    assert_int_equal(lsp_value_distance("", "abc"), 3);
}

/* ---- runs ---------------------------------------------------------------------------------------- */

static void runs_share_every_row_once(void **state)
{
    (void)state;
    const lsp_extent extent = {2, 3, 5, 12};
    int64_t total = lsp_extent_rows(&extent);
    assert_int_equal(total, 42);
    for (int ranks = 1; ranks <= 50; ranks += 7) {
        int seen[42] = {0};
        for (int rank = 0; rank < ranks; rank++) {
            int64_t first = 0, last = 0, count = -1, rows = 0;
            lsp_runs_share(total, rank, ranks, &first, &last);
            lsp_run *runs = lsp_runs_make(&extent, first, last, &count);
            assert_non_null(runs);
            for (int64_t i = 0; i < count; i++) {
                assert_true(runs[i].count > 0 && runs[i].begin >= 5 && runs[i].begin + runs[i].count <= 12);
                int64_t at = (runs[i].batch * 3 + runs[i].head) * 7 + runs[i].begin - 5;
                for (int64_t r = 0; r < runs[i].count; r++) seen[at + r]++;
                rows += runs[i].count;
            }
            assert_int_equal(rows, last - first);
            lsp_memory_free(runs);
        }
        for (int i = 0; i < 42; i++) assert_int_equal(seen[i], 1);
    }
}

static void runs_are_mapped_to_the_file(void **state)
{
    (void)state;
    const lsp_run runs[] = {{0, 1, 5, 2}, {1, 0, 9, 3}};
    const int64_t heads[] = {4, 2};
    lsp_run *mapped = lsp_runs_map(runs, 2, heads, -5);
    const lsp_run wanted[] = {{0, 2, 0, 2}, {1, 4, 4, 3}};
    assert_memory_equal(mapped, wanted, sizeof wanted);
    lsp_memory_free(mapped);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(registry_is_complete, make_options, drop_options),
        cmocka_unit_test(registry_choices_are_the_library_constants),
        cmocka_unit_test_setup_teardown(deck_gives_values, make_options, drop_options),
        cmocka_unit_test_setup_teardown(deck_defaults_hold, make_options, drop_options),
        cmocka_unit_test_setup_teardown(deck_may_begin_with_a_byte_order_mark, make_options, drop_options),
        cmocka_unit_test(deck_errors_name_line_and_nearest),
        cmocka_unit_test_setup_teardown(deck_cuts_nothing_silently, make_options, drop_options),
        cmocka_unit_test_setup_teardown(deck_written_reads_the_same, make_options, drop_options),
        cmocka_unit_test_setup_teardown(deck_keys_that_nobody_reads_are_listed, make_options, drop_options),
        cmocka_unit_test_setup_teardown(deck_missing_keys_are_named, make_options, drop_options),
        cmocka_unit_test(deck_files_are_read_whole),
        cmocka_unit_test(values_are_numbers_to_the_last_character),
        cmocka_unit_test(values_are_ranges_and_lists),
        cmocka_unit_test(values_are_dataset_paths),
        cmocka_unit_test(values_know_their_distance),
        cmocka_unit_test(runs_share_every_row_once),
        cmocka_unit_test(runs_are_mapped_to_the_file),
    };
    return cmocka_run_group_tests_name("deck", tests, NULL, NULL);
}
