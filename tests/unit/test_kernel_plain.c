/* Groups of rows that see all of a tile, with maxima of 0: what AVX-512 has a schedule of its own for (plain.h), and other
 * instruction sets a shorter way to their groups. The same rows one at a time go another way: every bit is compared.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include "kernel_case.h"

static void assert_same_bits(const kernel_case *c, const kernel_result *a, const kernel_result *b)
{
    const size_t rows = (size_t)c->n * a->size;
    assert_memory_equal(a->state, b->state, rows * (size_t)c->d_v);
    assert_memory_equal(a->out, b->out, rows * (size_t)c->d_v);
    assert_memory_equal(a->max, b->max, rows);
    assert_memory_equal(a->sum, b->sum, rows);
    assert_memory_equal(a->lse, b->lse, rows);
}

/* Rows together and each alone: the same bits; where `zero`, with maxima of 0. */
static void check_case(kernel_case *c, bool zero)
{
    const lsp_kernel *list[KERNELS];
    int count = kernels(list);
    for (int i = 0; i < count; i++) {
        kernel_result together = case_run(list[i], c, c->n), apart = case_run(list[i], c, 1);
        for (int64_t row = 0; zero && row < c->n; row++)
            assert_true(number_at(&together, together.max, row) == 0);
        assert_same_bits(c, &together, &apart);
        result_free(&together);
        result_free(&apart);
    }
}

/* Scores so small that maxima of 0 stay; all rows meet tiles together, and one at a time. */
static void check_rows_together(const int64_t *shape, uint64_t seed, bool causal)
{
    kernel_case c = case_make(shape[0], shape[1], shape[2], shape[3], seed);
    c.scale *= 0.4;
    for (int64_t i = 0; causal && i < c.n; i++) c.sight[i].end = c.m - c.n + i + 1;
    check_case(&c, true);
    case_free(&c);
}

/* One group, two, an odd number and some rows more; rows that have met no key, and others (case_start). */
static void any_number_of_rows(void **state)
{
    (void)state;
    const int64_t rows[] = {6, 11, 12, 18, 24, 41, 65};
    for (int i = 0; i < 7; i++) {
        check_rows_together((int64_t[]){rows[i], 1024, 32, 32}, (uint64_t)i, false);
        check_rows_together((int64_t[]){rows[i], 1024, 64, 72}, (uint64_t)i, false);
    }
}

/* One piece of a sum over d to five, of any length; too short for a step to each power. */
static void any_depth(void **state)
{
    (void)state;
    const int64_t depths[] = {1,  11, 12, 13,  23,  24,  25,  31,  32,  33,  47,
                              64, 65, 72, 100, 127, 128, 129, 150, 193, 257, 300};
    for (int i = 0; i < 22; i++) check_rows_together((int64_t[]){18, 600, depths[i], 24}, (uint64_t)i, false);
}

/* Blocks of one to four vectors of columns, the last one in part; none, as a map's first pass has it. */
static void any_width(void **state)
{
    (void)state;
    const int64_t widths[] = {0,  1,  7,  8,  9,  15, 16,  17,  31,  32,  33, 40,
                              48, 63, 64, 65, 80, 96, 112, 128, 129, 200, 260};
    for (int i = 0; i < 23; i++) check_rows_together((int64_t[]){18, 600, 33, widths[i]}, (uint64_t)i, false);
}

/* Tiles of 512, 256 and 128 keys. */
static void any_tile_height(void **state)
{
    (void)state;
    const int64_t widths[] = {60, 140, 520, 700};
    for (int i = 0; i < 4; i++)
        check_rows_together((int64_t[]){29, 1030, widths[i], widths[i] + 3}, (uint64_t)i, false);
}

/* A tile of which the first rows see a part: the others are groups of their own. */
static void some_rows_see_all_of_a_tile(void **state)
{
    (void)state;
    for (int64_t more = 0; more < 40; more += 3)
        check_rows_together((int64_t[]){40, 1024 + more, 48, 32}, (uint64_t)more, true);
}

/* Rows that see a window of keys, or one document after the other, or no key: parts of tiles that begin and end anywhere. */
static void check_cut_rows(int64_t window, int64_t document, const int64_t *d, uint64_t seed)
{
    kernel_case c = case_make(77, 1100, d[0], d[1], seed);
    c.scale *= 0.4;
    for (int64_t i = 0; i < c.n; i++) {
        const int64_t key = document ? i / document * 83 : i * 13 + i % 5;
        c.sight[i].begin = lsp_max(0, lsp_min(key - (document ? 0 : window), c.m));
        c.sight[i].end = lsp_max(c.sight[i].begin, lsp_min(document ? key + 83 : key + 1, c.m));
        if (seed % 3 == 2 && i % 31 == 30) c.sight[i].end = c.sight[i].begin;
    }
    check_case(&c, false);
    case_free(&c);
}

static void rows_see_parts_of_tiles(void **state)
{
    (void)state;
    const int64_t widths[][2] = {{24, 16}, {32, 32}, {64, 64}, {65, 72}, {100, 33}, {130, 129}};
    const int64_t windows[] = {0, 1, 7, 15, 31, 32, 33, 63, 64, 100, 255, 400, 511, 512, 600, 1000};
    for (int i = 0; i < 16; i++)
        for (int d = 0; d < 6; d++) check_cut_rows(windows[i], 0, widths[d], (uint64_t)(i + d));
    for (int document = 1; document < 20; document += 3)
        check_cut_rows(0, document, widths[2], (uint64_t)document);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_number_of_rows),
        cmocka_unit_test(any_depth),
        cmocka_unit_test(any_width),
        cmocka_unit_test(any_tile_height),
        cmocka_unit_test(some_rows_see_all_of_a_tile),
        cmocka_unit_test(rows_see_parts_of_tiles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
