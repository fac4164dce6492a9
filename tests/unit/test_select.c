/* The choice of the k largest scores in every kernel, against sorting; weights and sums of rows of V.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/checked.h"
#include "base/convert.h"
#include "base/random.h"
#include "kernel/kernel.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One column: q = 1, so that a row's scores are the keys' only element times log2 e. More rows than a
 * register tile has, most of which see the middle tiles whole. */
enum { KEYS = 2600, ROWS = 14, D = 1 };

typedef struct choice {
    const lsp_kernel *kernel;
    lsp_tile_shape shape;
    lsp_dtype type; /* of results */
    int64_t most;
    lsp_candidates candidates;
    void *max, *sum;
    double kept[ROWS];
} choice;

static void *room(int64_t count, size_t size)
{
    void *pointer = aligned_alloc(64, (size_t)lsp_round_up(count * (int64_t)size + 64, 64));
    assert_non_null(pointer);
    memset(pointer, 0, (size_t)lsp_round_up(count * (int64_t)size + 64, 64));
    return pointer;
}

static void fill(lsp_dtype type, void *values, int64_t count, double value)
{
    for (int64_t i = 0; i < count; i++) lsp_convert_store(type, &value, 1, values, i);
}

/* The first key that row r sees: the first six are a group that sees all of the first tile. */
static int32_t first_seen(int64_t r)
{
    return r < 6 ? 0 : (int32_t)r * 7;
}

/* Runs all tiles over keys whose scores are given in natural units; row r sees them to the end less r. */
static choice choose(const lsp_kernel *kernel, const double *scores, int64_t most, int at_once,
                     bool renormalize)
{
    choice c = {.kernel = kernel,
                .shape = kernel->shape(D, D),
                .type = lsp_dtype_result(kernel->compute),
                .most = most};
    size_t element = lsp_dtype_size(c.type);
    int64_t stride = kernel->candidate_stride(most), tiles = lsp_ceil_div(KEYS, c.shape.tile_keys);
    assert_true(stride > most);
    c.candidates = (lsp_candidates){most,
                                    stride,
                                    room(ROWS * stride, element),
                                    room(ROWS * stride, sizeof(int32_t)),
                                    room(ROWS, sizeof(int32_t)),
                                    room(ROWS, element)};
    c.max = room(ROWS, element), c.sum = room(ROWS, element);
    fill(c.type, c.max, ROWS, -INFINITY);
    fill(c.type, c.candidates.least, ROWS, -INFINITY);
    double ones[ROWS], norm[ROWS], factor = 1.4426950408889634;
    lsp_sight sight[ROWS];
    for (int64_t r = 0; r < ROWS; r++) ones[r] = 1, sight[r] = (lsp_sight){first_seen(r), KEYS - r, r};
    size_t tile_bytes = (size_t)(c.shape.tile_keys * c.shape.k_depth) * 8;
    void *q = room(ROWS * c.shape.k_depth, 8), *k = room(tiles, tile_bytes),
         *scratch = room((int64_t)kernel->select_bytes(&c.shape), 1);
    memset(scratch, 0xFF, kernel->select_bytes(&c.shape));
    uint64_t mode = lsp_fpmode_enter();
    kernel->pack_queries(D, ones, LSP_F64, ROWS, factor, q);
    kernel->query_norms(D, ROWS, q, norm);
    lsp_score_rule rule = {.factor = factor};
    lsp_query_rows rows = {ROWS, q, norm, sight, NULL, c.max, c.sum};
    for (int64_t t = 0; t < tiles;) {
        lsp_key_tile some[LSP_SELECT_TILES];
        int count = 0;
        for (; t < tiles && count < at_once; t++) {
            int64_t first = t * c.shape.tile_keys;
            char *to = (char *)k + (size_t)t * tile_bytes;
            double k_norm = kernel->pack_k(&c.shape, scores + first, LSP_F64, 0,
                                           lsp_min(c.shape.tile_keys, KEYS - first), to);
            some[count++] = (lsp_key_tile){.k = to, .first = first, .k_norm = k_norm};
        }
        kernel->select(&c.shape, &rule, some, count, &rows, &c.candidates, t == tiles, scratch);
    }
    kernel->weigh(&rule, ROWS, &c.candidates, c.max, c.sum, renormalize, c.kept);
    lsp_fpmode_leave(mode);
    free(q);
    free(k);
    free(scratch);
    return c;
}

static void drop(choice *c)
{
    void *const owned[] = {
        c->candidates.scores, c->candidates.keys, c->candidates.counts, c->candidates.least, c->max, c->sum};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
}

typedef struct entry {
    double score;
    int32_t key;
} entry;

static int by_score(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? 1 : -1;
    return x->key < y->key ? -1 : 1;
}

static int by_key(const void *a, const void *b)
{
    return ((const entry *)a)->key < ((const entry *)b)->key ? -1 : 1;
}

/* What a row should keep: entries by key, and the largest score and the sum of weights below it of all keys. */
typedef struct expectation {
    entry *entries;
    int64_t count;
    double top, sum;
} expectation;

static expectation expect(const double *scores, int64_t r, int64_t most)
{
    expectation e = {.entries = room(KEYS, sizeof *e.entries), .top = -INFINITY};
    int64_t seen = 0;
    for (int32_t key = first_seen(r); key < KEYS - r; key++) {
        if (isnan(scores[key]) || scores[key] == -INFINITY) continue;
        e.entries[seen++] = (entry){scores[key], key};
        e.top = fmax(e.top, scores[key]);
    }
    for (int64_t i = 0; i < seen; i++) e.sum += exp(e.entries[i].score - e.top);
    e.count = lsp_min(seen, most);
    qsort(e.entries, (size_t)seen, sizeof *e.entries, by_score);
    qsort(e.entries, (size_t)e.count, sizeof *e.entries, by_key);
    return e;
}

static void check_row(const choice *c, int64_t r, const expectation *wanted, const char *what)
{
    const lsp_kernel *kernel = c->kernel;
    double kept = 0;
    if (c->candidates.counts[r] != wanted->count)
        fail_msg("%s %s %s top %d row %d: keeps %d of %d", what, lsp_isa_name(kernel->isa),
                 lsp_dtype_name(kernel->compute), (int)c->most, (int)r, c->candidates.counts[r],
                 (int)wanted->count);
    for (int64_t i = 0; i < wanted->count; i++) {
        double weight, expected = exp(wanted->entries[i].score - wanted->top) / wanted->sum;
        if (c->candidates.keys[r * c->candidates.stride + i] != wanted->entries[i].key)
            fail_msg("%s %s %s top %d row %d: entry %d is key %d, not %d", what, lsp_isa_name(kernel->isa),
                     lsp_dtype_name(kernel->compute), (int)c->most, (int)r, (int)i,
                     c->candidates.keys[r * c->candidates.stride + i], wanted->entries[i].key);
        lsp_convert_load(c->type, c->candidates.scores, r * c->candidates.stride + i, 1, &weight);
        double limit = kernel->compute == LSP_F64 ? 1e-13 : kernel->compute == LSP_F32 ? 1e-5 : 2e-2;
        assert_true(fabs(weight - expected) <= limit * expected + 1e-37);
        kept += expected;
    }
    assert_true(fabs(c->kept[r] - kept) < (kernel->compute == LSP_BF16 ? 1e-2 : 1e-5));
}

/* Scores must be told apart in the computing type, or be equal. */
static void check(const lsp_kernel *kernel, const double *scores, int64_t most, const char *what)
{
    const int at_once[] = {1, 3, LSP_SELECT_TILES};
    expectation wanted[ROWS];
    for (int64_t r = 0; r < ROWS; r++) wanted[r] = expect(scores, r, most);
    for (int i = 0; i < 3; i++) {
        choice c = choose(kernel, scores, most, at_once[i], false);
        for (int64_t r = 0; r < ROWS; r++) check_row(&c, r, &wanted[r], what);
        drop(&c);
    }
    for (int64_t r = 0; r < ROWS; r++) free(wanted[r].entries);
}

static void each_kernel(void (*test)(const lsp_kernel *kernel))
{
    for (int isa = LSP_ISA_PORTABLE; isa <= (int)lsp_isa_best(); isa++) {
        test(lsp_kernel_get((lsp_isa)isa, LSP_F32));
        test(lsp_kernel_get((lsp_isa)isa, LSP_F64));
        test(lsp_kernel_get((lsp_isa)isa, LSP_BF16));
    }
}

static const int64_t choices[] = {1, 2, 15, 16, 17, 64, 100, 511, 1000, 2599, 2600, 9000};
enum { CHOICES = sizeof choices / sizeof *choices };

/* Numbers that even bf16 holds, so that many are equal. */
static double coarse(double x)
{
    return lsp_convert_from_bf16(lsp_convert_to_bf16(x));
}

static void check_kinds(const lsp_kernel *kernel)
{
    static double scores[KEYS];
    for (int c = 0; c < CHOICES; c++) {
        lsp_random_normals(3, 1, 0, KEYS, scores);
        for (int i = 0; i < KEYS; i++) scores[i] = coarse(scores[i]);
        check(kernel, scores, choices[c], "random");
        for (int i = 0; i < KEYS; i++) scores[i] = 1.5;
        check(kernel, scores, choices[c], "equal");
        for (int i = 0; i < KEYS; i++) scores[i] = (i * 37) % 3 - 1;
        check(kernel, scores, choices[c], "three values, zero among them");
        for (int i = 0; i < KEYS; i++) scores[i] = coarse((i - KEYS / 2) / 300.0);
        check(kernel, scores, choices[c], "rising");
        for (int i = 0; i < KEYS; i++) scores[i] = coarse((KEYS / 2 - i) / 300.0);
        check(kernel, scores, choices[c], "falling");
    }
}

/* What the first keys tell of the others is wrong: limits that were guessed leave too few, or too many. */
static void check_parts(const lsp_kernel *kernel)
{
    static double scores[KEYS];
    const int parts[] = {256, 512, 1536};
    const double shifts[] = {-8, -1, 1, 8};
    for (int c = 0; c < CHOICES; c += 2) {
        for (int s = c / 2 % 2; s < 4; s += 2) {
            lsp_random_normals(7, 1, 0, KEYS, scores);
            for (int i = 0; i < KEYS; i++) scores[i] = coarse(scores[i] + (i < parts[c % 3] ? shifts[s] : 0));
            check(kernel, scores, choices[c], "the first keys apart from the others");
        }
        for (int i = 0; i < KEYS; i++) scores[i] = i < parts[c % 3] ? 0.5 : coarse((i % 100) / 64.0);
        check(kernel, scores, choices[c], "the first keys equal");
        for (int i = 0; i < KEYS; i++) scores[i] = i % 700 == 3 ? 20 : 0;
        check(kernel, scores, choices[c], "a few above equal ones");
    }
}

static void a_guess_changes_nothing(void **state)
{
    (void)state;
    each_kernel(check_parts);
}

static void choice_is_that_of_sorting(void **state)
{
    (void)state;
    each_kernel(check_kinds);
}

static void check_missing(const lsp_kernel *kernel)
{
    static double scores[KEYS];
    lsp_random_normals(4, 1, 0, KEYS, scores);
    for (int i = 0; i < KEYS; i++) scores[i] = i % 5 == 0 ? coarse(scores[i]) : -INFINITY;
    check(kernel, scores, 64, "one of five");
    check(kernel, scores, 2000, "one of five");
}

static void scores_of_minus_infinity_are_no_candidates(void **state)
{
    (void)state;
    each_kernel(check_missing);
}

static void check_renormalized(const lsp_kernel *kernel)
{
    static double scores[KEYS];
    lsp_random_normals(5, 1, 0, KEYS, scores);
    choice c = choose(kernel, scores, 100, 2, true);
    for (int64_t r = 0; r < ROWS; r++) {
        double sum = 0, weight;
        for (int64_t i = 0; i < c.candidates.counts[r]; i++) {
            lsp_convert_load(c.type, c.candidates.scores, r * c.candidates.stride + i, 1, &weight);
            sum += weight;
        }
        assert_true(fabs(sum - 1) < 1e-6);
        assert_true(c.kept[r] > 0 && c.kept[r] < 1);
    }
    drop(&c);
}

static void renormalized_weights_add_up_to_one(void **state)
{
    (void)state;
    each_kernel(check_renormalized);
}

/* Every stored type and width; the same to the bit in pieces that end with tiles, and whether a row has many entries in a
 * tile or few. */
static void check_values(const lsp_kernel *kernel)
{
    enum { COUNT = 400, MOST = 200, V_ROWS = 640, FIRST = 1000, TILE = 128, R = 3, STRIDE = COUNT + 32 };
    const lsp_dtype types[] = {LSP_F16, LSP_BF16, LSP_F32, LSP_F64};
    const int64_t widths[] = {1, 3, 8, 16, 33, 64, 100, 131};
    const lsp_dtype result = lsp_dtype_result(kernel->compute);
    static double values[V_ROWS * MOST], weights[R * STRIDE], out[R * MOST], pieces[R * MOST], alone[MOST];
    static int32_t keys[R * STRIDE];
    const int32_t counts[R] = {COUNT, 37, 0};
    lsp_random_normals(6, 1, 0, R * STRIDE, weights);
    for (int i = 0; i < STRIDE; i++) keys[i] = FIRST + i + i / 2, keys[STRIDE + i] = FIRST + 5 * i;
    void *given = room(R * STRIDE, 8),
         *scratch =
             room((int64_t)kernel->select_bytes(&(lsp_tile_shape){MOST, MOST, 128, 64, MOST, MOST + 16}), 1);
    lsp_convert_store(result, weights, R * STRIDE, given, 0);
    lsp_convert_load(result, given, 0, R * STRIDE, weights);
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
        for (int t = 0; t < 4; t++) {
            int64_t d = widths[w];
            lsp_random_normals(7, 1, 0, V_ROWS * d, values);
            void *v = room(V_ROWS * d, 8);
            lsp_convert_store(types[t], values, V_ROWS * d, v, 0);
            lsp_convert_load(types[t], v, 0, V_ROWS * d, values);
            int32_t next[R] = {0}, next_alone = 0;
            for (int64_t c = 0; c < R * d; c++) out[c] = pieces[c] = 0.25;
            for (int64_t c = 0; c < d; c++) alone[c] = 0.25;
            lsp_value_rows rows = {R, STRIDE, keys, counts, given, next, out};
            lsp_value_tile all = {v, types[t], d, FIRST, FIRST + V_ROWS, TILE};
            kernel->add_values(&all, &rows, scratch);
            for (int r = 0; r < R; r++) assert_int_equal(next[r], counts[r]);
            memset(next, 0, sizeof next);
            rows.out = pieces;
            for (int64_t first = FIRST, end; first < FIRST + V_ROWS; first = end) {
                end = lsp_min((first / TILE + 1) * TILE, FIRST + V_ROWS);
                const char *from = (const char *)v + (size_t)((first - FIRST) * d) * lsp_dtype_size(types[t]);
                lsp_value_tile one = {from, types[t], d, first, end, TILE};
                kernel->add_values(&one, &rows, scratch);
            }
            assert_memory_equal(out, pieces, (size_t)(R * d) * sizeof *out);
            /* The row of few entries by itself goes another way. */
            lsp_value_rows few = {1,
                                  STRIDE,
                                  keys + STRIDE,
                                  counts + 1,
                                  (const char *)given + STRIDE * lsp_dtype_size(result),
                                  &next_alone,
                                  alone};
            kernel->add_values(&all, &few, scratch);
            assert_memory_equal(out + d, alone, (size_t)d * sizeof *out);
            for (int r = 0; r < R; r++)
                for (int64_t c = 0; c < d; c++) {
                    double expected = 0.25, limit = kernel->compute == LSP_F64 ? 1e-12 : 1e-4;
                    for (int i = r * STRIDE; i < r * STRIDE + counts[r]; i++)
                        expected += weights[i] * values[(keys[i] - FIRST) * d + c];
                    assert_true(fabs(out[r * d + c] - expected) < limit);
                }
            free(v);
        }
    free(given);
    free(scratch);
}

static void rows_of_v_add_up(void **state)
{
    (void)state;
    each_kernel(check_values);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(choice_is_that_of_sorting),
        cmocka_unit_test(a_guess_changes_nothing),
        cmocka_unit_test(scores_of_minus_infinity_are_no_candidates),
        cmocka_unit_test(renormalized_weights_add_up_to_one),
        cmocka_unit_test(rows_of_v_add_up),
    };
    return cmocka_run_group_tests_name("select", tests, NULL, NULL);
}
