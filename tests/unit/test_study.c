/* Merge, synthetic tensors, and the comparison of a row with its reference.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/convert.h"
#include "base/random.h"
#include "study/check.h"

#include <longspan/study.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { LSP_TEST_SEED = 7 };

/* ---- merge --------------------------------------------------------------------------------------- */

enum { ROWS = 5, KEYS = 90, PARTS = 3, WIDTH = 130 }; /* wider than what merge joins at once */

/* Softmax over keys [begin, end) of scores s[j] with values v[j][c], in long double. */
static void plain_row(const double *s, const double *v, int begin, int end, double *out, double *lse)
{
    long double sum = 0;
    for (int j = begin; j < end; j++) sum += expl((long double)s[j]);
    *lse = begin < end ? (double)logl(sum) : -INFINITY;
    for (int c = 0; c < WIDTH; c++) {
        long double total = 0;
        for (int j = begin; j < end; j++) total += expl((long double)s[j]) * (long double)v[j * WIDTH + c];
        out[c] = begin < end ? (double)(total / sum) : 0;
    }
}

typedef struct merge_case {
    double out[PARTS][ROWS * WIDTH], lse[PARTS][ROWS], whole[ROWS * WIDTH], whole_lse[ROWS];
    float out32[PARTS][ROWS * WIDTH], lse32[PARTS][ROWS];
} merge_case;

/* Row 0: all parts; row 1: part 0 without keys; row 2: part 2 alone; row 3: nothing at all; row 4: the
 * scores of part 1 far above the rest. */
static merge_case *make_merge_case(void)
{
    const int cuts[ROWS][PARTS + 1] = {
        {0, 20, 70, 90}, {10, 10, 50, 90}, {60, 60, 60, 90}, {7, 7, 7, 7}, {0, 30, 60, 90}};
    static double scores[KEYS], values[KEYS * WIDTH];
    merge_case *m = calloc(1, sizeof *m);
    assert_non_null(m);
    for (int row = 0; row < ROWS; row++) {
        lsp_random_normals(LSP_TEST_SEED, 1, (uint64_t)row * KEYS, KEYS, scores);
        lsp_random_normals(LSP_TEST_SEED, 2, (uint64_t)row * KEYS * WIDTH, KEYS * WIDTH, values);
        for (int j = 30; row == 4 && j < 60; j++) scores[j] += 800;
        for (int p = 0; p < PARTS; p++)
            plain_row(scores, values, cuts[row][p], cuts[row][p + 1], m->out[p] + row * WIDTH,
                      &m->lse[p][row]);
        plain_row(scores, values, cuts[row][0], cuts[row][PARTS], m->whole + row * WIDTH, &m->whole_lse[row]);
    }
    for (int p = 0; p < PARTS; p++) {
        lsp_convert_store(LSP_F32, m->out[p], ROWS * WIDTH, m->out32[p], 0);
        lsp_convert_store(LSP_F32, m->lse[p], ROWS, m->lse32[p], 0);
    }
    return m;
}

static void expect_near(const double *found, const double *expected, int64_t count, double tolerance)
{
    for (int64_t i = 0; i < count; i++)
        if (!(found[i] == expected[i] || fabs(found[i] - expected[i]) <= tolerance * (1 + fabs(expected[i]))))
            fail_msg("element %d: %.17g, not %.17g", (int)i, found[i], expected[i]);
}

static void merge_gives_the_whole(void **state)
{
    (void)state;
    merge_case *m = make_merge_case();
    double out[ROWS * WIDTH], lse[ROWS];
    const void *parts[PARTS] = {m->out[0], m->out[1], m->out[2]};
    const void *lses[PARTS] = {m->lse[0], m->lse[1], m->lse[2]};
    lsp_merge_rows(LSP_F64, ROWS, WIDTH, PARTS, parts, lses, out, lse);
    expect_near(out, m->whole, ROWS * WIDTH, 1e-14);
    expect_near(lse, m->whole_lse, ROWS, 1e-14);
    assert_true(lse[3] == -INFINITY && out[3 * WIDTH] == 0);
    free(m);
}

static void merge_works_in_place_and_in_f32(void **state)
{
    (void)state;
    merge_case *m = make_merge_case();
    double out[ROWS * WIDTH], lse[ROWS];
    const void *parts[PARTS] = {m->out32[0], m->out32[1], m->out32[2]};
    const void *lses[PARTS] = {m->lse32[0], m->lse32[1], m->lse32[2]};
    lsp_merge_rows(LSP_F32, ROWS, WIDTH, PARTS, parts, lses, m->out32[1], m->lse32[1]);
    lsp_convert_load(LSP_F32, m->out32[1], 0, ROWS * WIDTH, out);
    lsp_convert_load(LSP_F32, m->lse32[1], 0, ROWS, lse);
    /* Row 4's lse is 800: an error of 800 * 2^-24 is one of that relative size in the weights, but these
     * weights are alone. */
    expect_near(out, m->whole, ROWS * WIDTH, 1e-6);
    expect_near(lse, m->whole_lse, ROWS, 1e-7);
    free(m);
}

/* What a part without keys holds as output is nobody's business; a NaN of a part with keys is. */
static void merge_skips_empty_parts_and_passes_nan_on(void **state)
{
    (void)state;
    const double a[4] = {1, 2, 3, 4}, b[4] = {NAN, INFINITY, 5, NAN}, a_lse[2] = {0, 0},
                 b_lse[2] = {-INFINITY, NAN};
    const void *parts[2] = {a, b}, *lses[2] = {a_lse, b_lse};
    double out[4], lse[2];
    lsp_merge_rows(LSP_F64, 2, 2, 2, parts, lses, out, lse);
    assert_true(out[0] == 1 && out[1] == 2 && lse[0] == 0);
    assert_true(isnan(out[2]) && isnan(out[3]) && isnan(lse[1]));
}

/* ---- synthetic tensors ---------------------------------------------------------------------------- */

enum { BATCHES = 2, HEADS = 3, HEIGHT = 700, COLUMNS = 9 };

static const lsp_distribution distributions[] = {LSP_NORMAL, LSP_PEAKED, LSP_WALK};
static const lsp_tensor_role roles[] = {LSP_ROLE_Q, LSP_ROLE_K, LSP_ROLE_V, LSP_ROLE_X};

static double *generate(lsp_distribution distribution, lsp_tensor_role role, uint64_t seed, int64_t heads,
                        int64_t n, int64_t d, const lsp_run *runs, int64_t run_count)
{
    int64_t rows = 0;
    for (int64_t r = 0; r < run_count; r++) rows += runs[r].count;
    double *values = malloc((size_t)(rows * d) * sizeof *values);
    assert_non_null(values);
    assert_int_equal(
        lsp_generate_rows(distribution, role, seed, LSP_F64, heads, n, d, runs, run_count, values), LSP_OK);
    return values;
}

static double *generate_whole(lsp_distribution distribution, lsp_tensor_role role, uint64_t seed)
{
    lsp_run runs[BATCHES * HEADS];
    for (int i = 0; i < BATCHES * HEADS; i++) runs[i] = (lsp_run){i / HEADS, i % HEADS, 0, HEIGHT};
    return generate(distribution, role, seed, HEADS, HEIGHT, COLUMNS, runs, BATCHES * HEADS);
}

static void generate_does_not_depend_on_the_cut(void **state)
{
    (void)state;
    const lsp_run runs[] = {{1, 2, 699, 1}, {0, 1, 255, 2}, {1, 0, 3, 600},
                            {0, 0, 0, 0},   {1, 2, 0, 256}, {0, 2, 511, 189}};
    const int64_t count = sizeof runs / sizeof *runs;
    for (int t = 0; t < 12; t++) {
        double *whole = generate_whole(distributions[t / 4], roles[t % 4], LSP_TEST_SEED);
        double *part =
            generate(distributions[t / 4], roles[t % 4], LSP_TEST_SEED, HEADS, HEIGHT, COLUMNS, runs, count);
        int64_t slot = 0;
        for (int64_t r = 0; r < count; slot += runs[r++].count) {
            int64_t row = (runs[r].batch * HEADS + runs[r].head) * HEIGHT + runs[r].begin;
            assert_memory_equal(part + slot * COLUMNS, whole + row * COLUMNS,
                                (size_t)(runs[r].count * COLUMNS) * sizeof *whole);
        }
        free(whole);
        free(part);
    }
}

static void generate_does_not_depend_on_threads(void **state)
{
    (void)state;
    int before = omp_get_max_threads();
    for (int t = 0; t < 3; t++) {
        omp_set_num_threads(1);
        double *one = generate_whole(distributions[t], LSP_ROLE_K, LSP_TEST_SEED);
        omp_set_num_threads(5);
        double *five = generate_whole(distributions[t], LSP_ROLE_K, LSP_TEST_SEED);
        assert_memory_equal(one, five, BATCHES * HEADS * HEIGHT * COLUMNS * sizeof *one);
        free(one);
        free(five);
    }
    omp_set_num_threads(before);
}

static void generate_rounds_the_same_numbers_to_each_type(void **state)
{
    (void)state;
    const lsp_dtype types[] = {LSP_F16, LSP_BF16, LSP_F32};
    const lsp_run run = {1, 1, 100, 50};
    double *wide = generate(LSP_WALK, LSP_ROLE_Q, LSP_TEST_SEED, HEADS, HEIGHT, COLUMNS, &run, 1);
    for (int t = 0; t < 3; t++) {
        char found[50 * COLUMNS * 4] = {0}, expected[50 * COLUMNS * 4] = {0};
        assert_int_equal(lsp_generate_rows(LSP_WALK, LSP_ROLE_Q, LSP_TEST_SEED, types[t], HEADS, HEIGHT,
                                           COLUMNS, &run, 1, found),
                         LSP_OK);
        lsp_convert_store(types[t], wide, 50 * COLUMNS, expected, 0);
        assert_memory_equal(found, expected, sizeof found);
    }
    free(wide);
}

static void expect_standard_normal(const double *values, int64_t count, double tolerance)
{
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < count; i++) {
        sum += values[i];
        squares += values[i] * values[i];
    }
    assert_true(fabs(sum / (double)count) < tolerance);
    assert_true(fabs(squares / (double)count - 1) < tolerance);
}

static void generate_seeds_roles_and_heads_differ(void **state)
{
    (void)state;
    const size_t head_bytes = HEIGHT * COLUMNS * sizeof(double);
    for (int t = 0; t < 3; t++) {
        double *q = generate_whole(distributions[t], LSP_ROLE_Q, 1);
        double *other = generate_whole(distributions[t], LSP_ROLE_Q, 2);
        double *v = generate_whole(distributions[t], LSP_ROLE_V, 1);
        expect_standard_normal(v, BATCHES * HEADS * HEIGHT * COLUMNS, 0.03); /* 6 sigma of 37800 numbers */
        for (int i = 1; i < BATCHES * HEADS; i++)
            assert_memory_not_equal(q, q + i * HEIGHT * COLUMNS, head_bytes);
        assert_memory_not_equal(q, other, head_bytes);
        assert_memory_not_equal(q, v, head_bytes);
        free(q);
        free(other);
        free(v);
    }
}

enum { SPAN = 2048, DEPTH = 64 };

/* Largest |score| at scale 1/sqrt(d), over all pairs; *near: mean score of pairs with i == j. */
static double largest_score(lsp_distribution distribution, double *near)
{
    const lsp_run run = {0, 0, 0, SPAN}, run_k = {0, 0, 0, SPAN};
    double *q = generate(distribution, LSP_ROLE_Q, LSP_TEST_SEED, 4, SPAN, DEPTH, &run, 1);
    double *k = generate(distribution, LSP_ROLE_K, LSP_TEST_SEED, 2, SPAN, DEPTH, &run_k, 1);
    double largest = 0;
    *near = 0;
    for (int i = 0; i < SPAN; i++)
        for (int j = 0; j < SPAN; j++) {
            double score = 0;
            for (int c = 0; c < DEPTH; c++) score += q[i * DEPTH + c] * k[j * DEPTH + c];
            score /= sqrt(DEPTH);
            if (fabs(score) > largest) largest = fabs(score);
            if (i == j) *near += score / SPAN;
        }
    free(q);
    free(k);
    return largest;
}

static void generate_scores_reach_what_is_told(void **state)
{
    (void)state;
    double near = 0, largest = largest_score(LSP_NORMAL, &near);
    assert_true(largest > 4 && largest < 8);
    largest = largest_score(LSP_PEAKED, &near);
    assert_true(largest > 12 && largest < 17);
    largest = largest_score(LSP_WALK, &near);
    assert_true(largest > 10 && largest < 17);
    assert_true(near > 5 && near < 9);
}

static void generate_walk_goes_in_small_steps(void **state)
{
    (void)state;
    const lsp_run run = {0, 0, 0, SPAN};
    double *q = generate(LSP_WALK, LSP_ROLE_Q, LSP_TEST_SEED, 1, SPAN, DEPTH, &run, 1), squares = 0;
    for (int i = 0; i < (SPAN - 1) * DEPTH; i++) {
        double step = q[i + DEPTH] - q[i];
        assert_true(fabs(step) < 0.6); /* sigma 0.09 */
        squares += step * step;
    }
    assert_true(fabs(squares / ((SPAN - 1) * DEPTH) * 128 - 1) < 0.05);
    expect_standard_normal(q, SPAN * DEPTH, 0.2); /* few independent rows */
    free(q);
}

static void generate_refuses_what_is_not_there(void **state)
{
    (void)state;
    double buffer[64];
    const lsp_run good = {0, 1, 2, 3}, head = {0, 2, 0, 1}, rows = {0, 0, 6, 3}, negative = {-1, 0, 0, 1};
    assert_int_equal(lsp_generate_rows(LSP_NORMAL, LSP_ROLE_Q, 1, LSP_F64, 2, 8, 4, &good, 1, buffer),
                     LSP_OK);
    assert_int_equal(lsp_generate_rows(LSP_NORMAL, LSP_ROLE_Q, 1, LSP_I64, 2, 8, 4, &good, 1, buffer),
                     LSP_ERR_USAGE);
    assert_int_equal(lsp_generate_rows(LSP_NORMAL, LSP_ROLE_Q, 1, LSP_F64, 2, 8, 0, &good, 1, buffer),
                     LSP_ERR_USAGE);
    assert_int_equal(lsp_generate_rows(LSP_NORMAL, LSP_ROLE_Q, 1, LSP_F64, 2, 8, 4, &head, 1, buffer),
                     LSP_ERR_USAGE);
    assert_int_equal(lsp_generate_rows(LSP_NORMAL, LSP_ROLE_Q, 1, LSP_F64, 2, 8, 4, &rows, 1, buffer),
                     LSP_ERR_USAGE);
    assert_int_equal(lsp_generate_rows(LSP_NORMAL, LSP_ROLE_Q, 1, LSP_F64, 2, 8, 4, &negative, 1, buffer),
                     LSP_ERR_USAGE);
    assert_int_equal(
        lsp_generate_rows((lsp_distribution)9, LSP_ROLE_Q, 1, LSP_F64, 2, 8, 4, &good, 1, buffer),
        LSP_ERR_USAGE);
}

/* ---- comparing rows ------------------------------------------------------------------------------- */

static bool row_is_right(lsp_reference_kind kind, const double out[3], double lse)
{
    const double reference[3] = {3, 0, 4};
    lsp_row_check check = {.d_v = 3,
                           .compute = LSP_F32,
                           .kind = kind,
                           .out = out,
                           .reference = reference,
                           .spread = 5,
                           .has_lse = true,
                           .lse = lse,
                           .lse_reference = 2};
    double error = -1, lse_error = -1;
    lsp_check_row(&check, &error, &lse_error);
    assert_true(error >= 0 && lse_error >= 0);
    return error <= 1e-5 && lse_error <= 1e-5;
}

static void check_tells_kinds_of_rows_apart(void **state)
{
    (void)state;
    const double right[3] = {3, 0, 4}, off[3] = {3, 0.001, 4}, zero[3] = {0, -0.0, 0},
                 nan[3] = {NAN, NAN, INFINITY}, partly[3] = {3, NAN, 4};
    assert_true(row_is_right(LSP_REFERENCE_ORDINARY, right, 2));
    assert_false(row_is_right(LSP_REFERENCE_ORDINARY, right, 2.001));
    assert_false(row_is_right(LSP_REFERENCE_ORDINARY, right, (double)NAN));
    assert_false(row_is_right(LSP_REFERENCE_ORDINARY, right, -INFINITY));
    assert_false(row_is_right(LSP_REFERENCE_ORDINARY, off, 2));
    assert_false(row_is_right(LSP_REFERENCE_ORDINARY, partly, 2));
    assert_false(row_is_right(LSP_REFERENCE_ORDINARY, zero, 2));
    assert_true(row_is_right(LSP_REFERENCE_EMPTY, zero, -INFINITY));
    assert_false(row_is_right(LSP_REFERENCE_EMPTY, zero, 0));
    assert_false(row_is_right(LSP_REFERENCE_EMPTY, right, -INFINITY));
    assert_false(row_is_right(LSP_REFERENCE_EMPTY, nan, -INFINITY));
    assert_true(row_is_right(LSP_REFERENCE_BROKEN, nan, (double)NAN));
    assert_false(row_is_right(LSP_REFERENCE_BROKEN, partly, (double)NAN));
    assert_false(row_is_right(LSP_REFERENCE_BROKEN, nan, 2));
    assert_true(row_is_right(LSP_REFERENCE_UNDEFINED, zero, -INFINITY));
    assert_true(row_is_right(LSP_REFERENCE_UNDEFINED, nan, (double)NAN));
    assert_false(row_is_right(LSP_REFERENCE_UNDEFINED, right, 2));
}

static void check_measures_relative_to_the_reference(void **state)
{
    (void)state;
    const double reference[2] = {3e200, 4e200}, out[2] = {3e200, 4.005e200};
    lsp_row_check check = {.d_v = 2, .compute = LSP_F64, .out = out, .reference = reference};
    double error = 0, lse_error = 0;
    lsp_check_row(&check, &error, &lse_error);
    assert_true(fabs(error - 1e-3) < 1e-12 && lse_error == 0);
    check.spread = 400e200; /* values that cancel: relative to an eighth of what they are */
    lsp_check_row(&check, &error, &lse_error);
    assert_true(fabs(error - 1e-4) < 1e-12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merge_gives_the_whole),
        cmocka_unit_test(merge_works_in_place_and_in_f32),
        cmocka_unit_test(merge_skips_empty_parts_and_passes_nan_on),
        cmocka_unit_test(generate_does_not_depend_on_the_cut),
        cmocka_unit_test(generate_does_not_depend_on_threads),
        cmocka_unit_test(generate_rounds_the_same_numbers_to_each_type),
        cmocka_unit_test(generate_seeds_roles_and_heads_differ),
        cmocka_unit_test(generate_scores_reach_what_is_told),
        cmocka_unit_test(generate_walk_goes_in_small_steps),
        cmocka_unit_test(generate_refuses_what_is_not_there),
        cmocka_unit_test(check_tells_kinds_of_rows_apart),
        cmocka_unit_test(check_measures_relative_to_the_reference),
    };
    return cmocka_run_group_tests_name("study", tests, NULL, NULL);
}
