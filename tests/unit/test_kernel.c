/* Kernels: results against the formula in double, and the promises about bits that kernel.h makes.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include "kernel_case.h"

/* By computing type; what bf16 loses is mostly lost in rounding the operands. */
static double choose(const lsp_kernel *kernel, double bf16, double f32, double f64)
{
    return kernel->compute == LSP_BF16 ? bf16 : kernel->compute == LSP_F32 ? f32 : f64;
}

static void describe(const lsp_kernel *kernel, const kernel_case *c)
{
    print_message("kernel %s %s, n %ld m %ld d_k %ld d_v %ld softcap %g slope %g\n",
                  lsp_isa_name(kernel->isa), lsp_dtype_name(kernel->compute), (long)c->n, (long)c->m,
                  (long)c->d_k, (long)c->d_v, c->softcap, c->slope);
}

/* Every row within `tolerance` of the oracle, relative to the row's norm; empty rows exactly. */
static void check_against_oracle(const lsp_kernel *kernel, const kernel_case *c, double tolerance)
{
    kernel_result r = case_run(kernel, c, c->n);
    double *expected = lsp_memory_alloc(c->d_v, sizeof *expected), worst = 0, worst_lse = 0;
    int64_t empty = 0;
    for (int64_t i = 0; i < c->n; i++) {
        double lse = 0, error = 0, norm = 0;
        oracle_row(c, i, expected, &lse);
        for (int64_t d = 0; d < c->d_v; d++) {
            double x = number_at(&r, r.out, i * c->d_v + d);
            error += (x - expected[d]) * (x - expected[d]);
            norm += expected[d] * expected[d];
        }
        if (c->sight[i].begin == c->sight[i].end) {
            empty++;
            assert_true(error == 0 && number_at(&r, r.lse, i) == -INFINITY);
            continue;
        }
        worst = fmax(worst, sqrt(error / norm));
        double lse_error = fabs(number_at(&r, r.lse, i) - lse) / fmax(1, fabs(lse));
        assert_false(isnan(error) || isnan(lse_error));
        worst_lse = fmax(worst_lse, lse_error);
    }
    if (worst > tolerance || worst_lse > tolerance) {
        describe(kernel, c);
        fail_msg("error of out %g, of lse %g, allowed %g", worst, worst_lse, tolerance);
    }
    assert_int_equal(empty, r.empty);
    lsp_memory_free(expected);
    result_free(&r);
}

static const int64_t shapes[][4] = {
    /* n, m, d_k, d_v */
    {1, 1, 1, 1},       {7, 513, 64, 64},   {13, 1100, 80, 31}, {5, 700, 17, 100},
    {6, 64, 128, 128},  {12, 65, 100, 80},  {3, 1537, 1, 129},  {11, 600, 200, 90},
    {9, 300, 300, 300}, {2, 130, 600, 700}, {13, 700, 32, 20},  {7, 600, 46, 16},
};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

static void matches_the_formula(void **state)
{
    (void)state;
    const lsp_kernel *list[KERNELS];
    int count = kernels(list);
    for (int s = 0; s < SHAPES; s++) {
        kernel_case c = case_make(shapes[s][0], shapes[s][1], shapes[s][2], shapes[s][3], (uint64_t)s);
        for (int variant = 0; variant < 4; variant++) {
            c.softcap = variant == 1 || variant == 3 ? 2.5 : 0;
            c.slope = variant >= 2 ? 0.03125 : 0;
            for (int i = 0; i < count; i++)
                check_against_oracle(list[i], &c, choose(list[i], 2e-2, 3e-6, 5e-15));
        }
        case_free(&c);
    }
}

static void matches_the_formula_where_tiles_are_cut(void **state)
{
    (void)state;
    const lsp_kernel *list[KERNELS];
    int count = kernels(list);
    for (int s = 0; s < SHAPES; s++) {
        kernel_case c = case_make(3 * shapes[s][0] + 2, shapes[s][1] + 3, shapes[s][2], shapes[s][3], 100);
        c.key_begin = c.m / 3, c.key_end = c.m - 1;
        for (uint64_t seed = 0; seed < 3; seed++) {
            case_random_sights(&c, seed);
            c.slope = seed == 2 ? 0.01 : 0;
            for (int i = 0; i < count; i++)
                check_against_oracle(list[i], &c, choose(list[i], 2e-2, 3e-6, 5e-15));
        }
        case_free(&c);
    }
}

/* Scores as large as |s| = 150 cost accuracy, as the sums of products do, and nothing else. */
static void large_scores_keep_their_accuracy(void **state)
{
    (void)state;
    const lsp_kernel *list[KERNELS];
    int count = kernels(list);
    kernel_case c = case_make(24, 1000, 64, 64, 5);
    c.scale = 4;
    for (int i = 0; i < count; i++) check_against_oracle(list[i], &c, choose(list[i], 0.3, 4e-5, 1e-13));
    case_free(&c);
}

static void assert_same_result(const kernel_case *c, const kernel_result *a, const kernel_result *b)
{
    assert_memory_equal(a->out, b->out, (size_t)(c->n * c->d_v) * a->size);
    assert_memory_equal(a->lse, b->lse, (size_t)c->n * a->size);
    assert_int_equal(a->empty, b->empty);
}

static void bits_do_not_depend_on_neighbours(void **state)
{
    (void)state;
    const lsp_kernel *list[KERNELS];
    int count = kernels(list);
    for (int variant = 0; variant < 14; variant++) {
        kernel_case c = case_make(29, 1090, variant % 2 ? 64 : 37, variant % 2 ? 80 : 23, (uint64_t)variant);
        c.key_begin = 5;
        case_random_sights(&c, (uint64_t)variant);
        if (variant % 3 == 1) c.softcap = 3, c.slope = 0.125;
        if (variant % 4 == 3) { /* not finite, and seen by some */
            c.v[300 * c.d_v + 3] = NAN;
            c.v[900 * c.d_v] = INFINITY;
            c.k[600 * c.d_k] = -INFINITY;
        }
        /* Whether weights below the normal numbers are lost depends on the maximum taken, and that on V. */
        const float scale = variant == 12 ? 0x1p-124F : variant == 13 ? 0x1p100F : 1;
        for (int64_t i = 0; i < c.m * c.d_v; i++) c.v[i] *= i / c.d_v == 37 || variant == 12 ? scale : 1;
        for (int i = 0; i < count; i++) {
            kernel_result together = case_run(list[i], &c, c.n);
            for (int64_t way = 0; way < 26; way++) {
                c.stored = way % 2;
                kernel_result apart = case_run(list[i], &c, 1 + way / 2);
                assert_same_result(&c, &together, &apart);
                result_free(&apart);
            }
            c.stored = false;
            result_free(&together);
        }
        case_free(&c);
    }
}

/* What an unseen key holds changes no bit; here also the absence of the keys outside the tile's cut. */
static void unseen_keys_never_contribute(void **state)
{
    (void)state;
    const lsp_kernel *list[KERNELS];
    int count = kernels(list);
    const float poison[] = {NAN, INFINITY, -INFINITY, 3e38F};
    for (int p = 0; p < 4; p++) {
        kernel_case c = case_make(17, 1030, 64, 37, 7);
        for (int64_t i = 0; i < c.n; i++) c.sight[i].begin = 100 + 3 * i, c.sight[i].end = 560 + 20 * i;
        if (p % 2) c.slope = 0.5;
        for (int i = 0; i < count; i++) {
            kernel_result clean = case_run(list[i], &c, c.n);
            kernel_case dirty = case_make(17, 1030, 64, 37, 7);
            memcpy(dirty.sight, c.sight, (size_t)c.n * sizeof *c.sight);
            dirty.slope = c.slope;
            /* Key 120 is seen by rows 0 to 6, key 800 by rows 13 and above: those may change. */
            for (int64_t j = 0; j < c.m; j++) {
                if (j >= 100 && j < 880 && j != 120 && j != 800) continue;
                for (int64_t d = 0; d < c.d_k; d++) dirty.k[j * c.d_k + d] = poison[p];
                for (int64_t d = 0; d < c.d_v; d++) dirty.v[j * c.d_v + d] = poison[p];
            }
            kernel_result touched = case_run(list[i], &dirty, c.n);
            for (int64_t r = 0; r < c.n; r++) {
                bool sees = (c.sight[r].begin <= 120 && 120 < c.sight[r].end) ||
                            (c.sight[r].begin <= 800 && 800 < c.sight[r].end);
                if (sees) continue;
                size_t bytes = (size_t)c.d_v * clean.size, at = (size_t)r;
                assert_memory_equal(clean.out + at * bytes, touched.out + at * bytes, bytes);
                assert_memory_equal(clean.lse + at * clean.size, touched.lse + at * clean.size, clean.size);
            }
            result_free(&clean);
            result_free(&touched);
            case_free(&dirty);
        }
        case_free(&c);
    }
}

/* Later tiles whose scores or values are far larger than those of the first: maxima may stay only while nothing can
 * overflow or vanish. Rows are in groups of all sizes. */
static void large_numbers_after_small_ones(void **state)
{
    (void)state;
    const lsp_kernel *list[KERNELS];
    int count = kernels(list);
    for (int i = 0; i < count; i++) {
        int64_t keys = list[i]->shape(16, 20).tile_keys;
        for (int what = 0; what < 4; what++) {
            kernel_case c = case_make(15, 4 * keys, 16, 20, 19);
            const double k_factor[] = {6, 0.01, 1, 40}, v_factor[] = {1, 1, 0x1p100, 0x1p-40};
            for (int64_t j = keys; j < 3 * keys; j++) {
                for (int64_t d = 0; d < c.d_k; d++) c.k[j * c.d_k + d] *= (float)k_factor[what];
                for (int64_t d = 0; d < c.d_v; d++) c.v[j * c.d_v + d] *= (float)v_factor[what];
            }
            check_against_oracle(list[i], &c, choose(list[i], 1, 1e-5, 1e-12));
            kernel_result together = case_run(list[i], &c, c.n), apart = case_run(list[i], &c, 1);
            assert_memory_equal(together.out, apart.out, (size_t)(c.n * c.d_v) * together.size);
            assert_memory_equal(together.max, apart.max, (size_t)c.n * together.size);
            result_free(&together);
            result_free(&apart);
            case_free(&c);
        }
    }
}

static void visible_nan_and_infinity_show(void **state)
{
    (void)state;
    const lsp_kernel *list[KERNELS];
    int count = kernels(list);
    for (int i = 0; i < count; i++) {
        for (int what = 0; what < 4; what++) {
            kernel_case c = case_make(8, 700, 16, 20, 9);
            c.sight[3].end = 650;                           /* does not see key 650 */
            if (what == 0) c.k[650 * c.d_k + 2] = NAN;      /* all NaN */
            if (what == 1) c.v[650 * c.d_v + 2] = NAN;      /* column 2 NaN */
            if (what == 2) c.v[650 * c.d_v + 2] = INFINITY; /* column 2 Inf */
            if (what == 3)
                for (int64_t r = 0; r < c.n; r++) c.q[r * c.d_k] = 1;
            if (what == 3) c.k[650 * c.d_k] = INFINITY; /* score +Inf: NaN, as Inf - Inf */
            kernel_result r = case_run(list[i], &c, c.n);
            for (int64_t row = 0; row < c.n; row++) {
                for (int64_t d = 0; d < c.d_v; d++) {
                    double x = number_at(&r, r.out, row * c.d_v + d);
                    bool touched = row != 3 && (what == 0 || what == 3 || d == 2);
                    if (!touched)
                        assert_true(isfinite(x));
                    else if (what == 2)
                        assert_true(x == INFINITY);
                    else
                        assert_true(isnan(x));
                }
                assert_int_equal(isnan(number_at(&r, r.lse, row)), row != 3 && (what == 0 || what == 3));
            }
            result_free(&r);
            case_free(&c);
        }
    }
}

/* Keys whose scores are -inf though seen, a whole tile of them first: no NaN from -inf minus -inf. */
static void scores_of_minus_infinity_weigh_nothing(void **state)
{
    (void)state;
    const lsp_kernel *list[KERNELS];
    int count = kernels(list);
    for (int i = 0; i < count; i++) {
        kernel_case c = case_make(7, 1100, 8, 9, 13), rest = case_make(7, 1100, 8, 9, 13);
        for (int64_t r = 0; r < c.n; r++) {
            c.q[r * c.d_k] = rest.q[r * c.d_k] = 1;
            rest.sight[r].begin = 700;
        }
        for (int64_t j = 0; j < 700; j++) c.k[j * c.d_k] = -INFINITY;
        kernel_result a = case_run(list[i], &c, c.n), b = case_run(list[i], &rest, rest.n);
        assert_same_result(&c, &a, &b);
        assert_true(isfinite(number_at(&a, a.lse, 0)));
        result_free(&a);
        result_free(&b);
        case_free(&c);
        case_free(&rest);
    }
}

static void unseen_tile_leaves_the_state(void **state)
{
    (void)state;
    const lsp_kernel *list[KERNELS];
    int count = kernels(list);
    for (int i = 0; i < count; i++) {
        kernel_case c = case_make(7, 1500, 24, 33, 11);
        for (int64_t r = 0; r < c.n; r++) c.sight[r].end = r % 2 ? 512 : 1500; /* one tile or three */
        kernel_result all = case_run(list[i], &c, c.n);
        c.key_end = 512;
        for (int64_t r = 0; r < c.n; r++) c.sight[r].end = 512;
        kernel_result one = case_run(list[i], &c, c.n);
        for (int64_t r = 0; r < c.n; r++) {
            size_t s = all.size, at = (size_t)r, bytes = (size_t)c.d_v * s;
            bool same = memcmp(all.state + at * bytes, one.state + at * bytes, bytes) == 0 &&
                        memcmp(all.max + at * s, one.max + at * s, s) == 0 &&
                        memcmp(all.sum + at * s, one.sum + at * s, s) == 0;
            assert_int_equal(same, r % 2);
        }
        result_free(&all);
        result_free(&one);
        case_free(&c);
    }
}

static void avx2_and_avx512_agree_in_every_bit(void **state)
{
    (void)state;
    if (lsp_isa_best() != LSP_ISA_AVX512) skip();
    const lsp_kernel *pairs[][2] = {
        {lsp_kernel_get(LSP_ISA_AVX2, LSP_F32), lsp_kernel_get(LSP_ISA_AVX512, LSP_F32)},
        {lsp_kernel_get(LSP_ISA_AVX2, LSP_F64), lsp_kernel_get(LSP_ISA_AVX512, LSP_F64)},
        {lsp_kernel_get(LSP_ISA_AVX2, LSP_BF16), lsp_kernel_widened()},
        {lsp_kernel_widened(), lsp_kernel_pairs()},
    };
    for (int pair = 0; pair < 4 && pairs[pair][1]; pair++) {
        const lsp_kernel *avx2 = pairs[pair][0], *avx512 = pairs[pair][1];
        for (int s = 0; s < 4 * SHAPES; s++) {
            const int64_t *d = shapes[s % SHAPES];
            kernel_case c = case_make(d[0] + 4, d[1] + 1, d[2], d[3], (uint64_t)s);
            c.softcap = s % 3 == 1 ? 4 : 0, c.slope = s % 4 == 1 ? 0.7 : 0;
            c.scale *= s % 5 == 1 ? 30 : 1; /* far below the maximum: probabilities that are flushed */
            if (s % 2) case_random_sights(&c, (uint64_t)s);
            if (s % 7 == 3) c.v[c.m / 2 * c.d_v] = INFINITY; /* rows walk their own keys */
            kernel_result a = case_run(avx2, &c, c.n), b = case_run(avx512, &c, c.n);
            assert_same_result(&c, &a, &b);
            assert_memory_equal(a.state, b.state, (size_t)(c.n * c.d_v) * a.size);
            assert_memory_equal(a.max, b.max, (size_t)c.n * a.size);
            assert_memory_equal(a.sum, b.sum, (size_t)c.n * a.size);
            result_free(&a);
            result_free(&b);
            case_free(&c);
        }
    }
}

/* Relative to the formula on operands that are not rounded. */
static void bf16_loses_what_rounding_operands_must(void **state)
{
    (void)state;
    const lsp_kernel *list[KERNELS];
    int count = kernels(list);
    for (int64_t d = 64; d <= 128; d *= 2) {
        kernel_case c = case_make(64, 8192, d, d, 21);
        double *expected = lsp_memory_alloc(d, sizeof *expected);
        for (int i = 0; i < count; i++) {
            if (list[i]->compute != LSP_BF16) continue;
            kernel_result r = case_run(list[i], &c, c.n);
            double error = 0, norm = 0;
            for (int64_t row = 0; row < c.n; row++) {
                double lse = 0;
                oracle_row(&c, row, expected, &lse);
                for (int64_t k = 0; k < d; k++) {
                    double e = number_at(&r, r.out, row * d + k) - expected[k];
                    error += e * e, norm += expected[k] * expected[k];
                }
            }
            if (!(sqrt(error / norm) <= 4e-3)) {
                describe(list[i], &c);
                fail_msg("error %g", sqrt(error / norm));
            }
            result_free(&r);
        }
        lsp_memory_free(expected);
        case_free(&c);
    }
}

/* Operands that bf16 can hold are not rounded again: a factor of the scores goes in later. */
static void bf16_keeps_what_it_can_hold(void **state)
{
    (void)state;
    const lsp_kernel *list[KERNELS];
    int count = kernels(list);
    for (int i = 0; i < count; i++) {
        if (list[i]->compute != LSP_BF16) continue;
        for (double scale = -0.3; scale < 1; scale += 0.3) {
            kernel_case c = case_make(3, 1, 5, 4, 3);
            c.scale = scale;
            double dot = 0;
            for (int64_t d = 0; d < c.d_k; d++) {
                c.q[d] = (float)(129 + d), c.k[d] = (float)(d - 1);
                dot += (double)c.q[d] * (double)c.k[d];
            }
            kernel_result r = case_run(list[i], &c, c.n);
            double weight = 0x1.1p-9; /* the rounding of the only one */
            assert_true(fabs(number_at(&r, r.lse, 0) - scale * dot) <= 1e-6 * fabs(scale * dot) + weight);
            result_free(&r);
            case_free(&c);
        }
    }
}

/* Distances beyond 32 bits, and keys far from zero. */
static void alibi_distance_is_exact(void **state)
{
    (void)state;
    const lsp_kernel *list[KERNELS];
    int count = kernels(list);
    const int64_t positions[] = {0,  5,     511, 512, 40000, 16777217, (int64_t)1 << 30, (int64_t)1 << 40,
                                 -3, -70000};
    for (int i = 0; i < count; i++) {
        for (int p = 0; p < 10; p++) {
            for (int64_t key = 0; key < 200; key += 39) {
                kernel_case c = case_make(1, 200, 1, 1, 1);
                c.q[0] = 0, c.slope = 0.5 / LOG2_E;
                c.sight[0] = (lsp_sight){key, key + 1, positions[p]};
                kernel_result r = case_run(list[i], &c, 1);
                double distance = fmin(0x1p30, fabs((double)(positions[p] - key)));
                double expected = -0.5 * (list[i]->compute == LSP_F64 ? distance : (double)(float)distance);
                double score = number_at(&r, r.lse, 0) * LOG2_E;                      /* of the only key */
                double weight = list[i]->compute == LSP_BF16 ? 0x1.1p-9 * LOG2_E : 0; /* rounded to 8 bits */
                assert_true(fabs(score - expected) <= 3e-7 * fmax(1, fabs(expected)) + weight);
                result_free(&r);
                case_free(&c);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_the_formula),
        cmocka_unit_test(matches_the_formula_where_tiles_are_cut),
        cmocka_unit_test(large_scores_keep_their_accuracy),
        cmocka_unit_test(bits_do_not_depend_on_neighbours),
        cmocka_unit_test(unseen_keys_never_contribute),
        cmocka_unit_test(large_numbers_after_small_ones),
        cmocka_unit_test(visible_nan_and_infinity_show),
        cmocka_unit_test(scores_of_minus_infinity_weigh_nothing),
        cmocka_unit_test(unseen_tile_leaves_the_state),
        cmocka_unit_test(avx2_and_avx512_agree_in_every_bit),
        cmocka_unit_test(bf16_loses_what_rounding_operands_must),
        cmocka_unit_test(bf16_keeps_what_it_can_hold),
        cmocka_unit_test(alibi_distance_is_exact),
    };
    return cmocka_run_group_tests_name("kernel", tests, NULL, NULL);
}
