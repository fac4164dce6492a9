/* Kernels: scores half-way between integers, and running maxima that move by odd and by even steps from tile to tile.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include "kernel_case.h"

enum { ROWS = 13, TILES = 6, LAST_KEYS = 77, COLUMNS = 17 };

/* Row i's base-2 score with key j is q_i k_j, without rounding: keys are multiples of one half, and the largest of a tile
 * moves by 1, 1.5, 0, -5, 8 times `size`. */
static kernel_case ties_case(const lsp_kernel *kernel, double size)
{
    const double largest[TILES] = {0.5, 1.5, 3, 3, -2, 6}, factor[] = {1, -1, 2, 0.5, 3, -0.5};
    int64_t tile_keys = kernel->shape(1, COLUMNS).tile_keys;
    kernel_case c = case_make(ROWS, (TILES - 1) * tile_keys + LAST_KEYS, 1, COLUMNS, 1);
    c.scale = 1 / LOG2_E;
    for (int64_t i = 0; i < ROWS; i++) c.q[i] = (float)factor[i % 6];
    for (int64_t j = 0; j < c.m; j++)
        c.k[j] = (float)(size * largest[j / tile_keys] - 0.5 * (double)(j * 7 % 31));
    for (int64_t i = 0; i < c.m * COLUMNS; i++) c.v[i] = 1 + fabsf(c.v[i]); /* sums that do not cancel */
    return c;
}

/* As the formula says it, with powers of two of numbers that are exact. */
static void check_row(const lsp_kernel *kernel, const kernel_case *c, const kernel_result *r, int64_t i)
{
    double out[COLUMNS] = {0}, max = -INFINITY, sum = 0, worst = 0;
    for (int64_t j = 0; j < c->m; j++) max = fmax(max, (double)c->q[i] * (double)c->k[j]);
    for (int64_t j = 0; j < c->m; j++) {
        double p = exp2((double)c->q[i] * (double)c->k[j] - max);
        sum += p;
        for (int64_t d = 0; d < COLUMNS; d++) out[d] += p * (double)c->v[j * COLUMNS + d];
    }
    for (int64_t d = 0; d < COLUMNS; d++)
        worst = fmax(worst, fabs(number_at(r, r->out, i * COLUMNS + d) / (out[d] / sum) - 1));
    double lse = (max + log2(sum)) / LOG2_E,
           lse_error = fabs(number_at(r, r->lse, i) - lse) / fmax(1, fabs(lse));
    /* Sums of 512 numbers of one sign: 4e-7 mostly, and 1e-6 the largest of so many, with weights rounded rightly as well. */
    double allowed = kernel->compute == LSP_F32 ? 2e-6 : 1e-14;
    if (!(worst <= allowed) || !(lse_error <= allowed))
        fail_msg("%s %s: row %ld off by %g, its log-sum-exp by %g", lsp_isa_name(kernel->isa),
                 lsp_dtype_name(kernel->compute), (long)i, worst, lse_error);
}

static const double sizes[] = {0, 1, 5, 11, 33, 63.5, 200, 1001};
enum { SIZES = sizeof sizes / sizeof sizes[0] };

/* In groups, which may keep their maxima, and alone, where a maximum follows the scores: the same bits. */
static void check_ties(const lsp_kernel *kernel)
{
    if (kernel->compute == LSP_BF16) return; /* its maxima are not rounded up */
    for (int s = 0; s < SIZES; s++) {
        kernel_case c = ties_case(kernel, sizes[s]);
        kernel_result together = case_run(kernel, &c, c.n), alone = case_run(kernel, &c, 1);
        assert_memory_equal(together.out, alone.out, (size_t)(c.n * COLUMNS) * together.size);
        assert_memory_equal(together.lse, alone.lse, (size_t)c.n * together.size);
        for (int64_t i = 0; i < c.n; i++) {
            double max = number_at(&alone, alone.max, i);
            assert_true(max == 2 * floor(max / 2)); /* even */
            check_row(kernel, &c, &together, i);
        }
        result_free(&together);
        result_free(&alone);
        case_free(&c);
    }
}

static void ties_match_the_formula(void **state)
{
    (void)state;
    for_each_kernel(check_ties);
}

/* One tile from a state that has met nothing, but has this maximum: it is only a power of two. */
static kernel_result run_from(const lsp_kernel *kernel, kernel_case *c, double max)
{
    kernel_result r = result_make(kernel, c);
    lsp_tile_shape shape = kernel->shape(c->d_k, c->d_v);
    size_t packed = (size_t)kernel->packed_bytes;
    char *q = lsp_memory_alloc(c->n * shape.k_depth, packed),
         *k = lsp_memory_alloc(shape.tile_keys * shape.k_depth, packed),
         *v = lsp_memory_alloc(shape.tile_keys * shape.v_stride, packed);
    void *scratch = lsp_memory_alloc(1, kernel->scratch_bytes(&shape));
    double *norm = lsp_memory_alloc(c->n, sizeof *norm);
    lsp_score_rule rule = {0, 0, 1};
    uint64_t mode = lsp_fpmode_enter();
    lsp_key_tile tile = {.k = k, .v = v};
    tile.k_norm = kernel->pack_k(&shape, c->k, LSP_F32, 0, shape.tile_keys, k);
    tile.v_max = kernel->pack_v(&shape, c->v, LSP_F32, 0, shape.tile_keys, v);
    kernel->pack_queries(c->d_k, c->q, LSP_F32, c->n, 1, q);
    kernel->query_norms(c->d_k, c->n, q, norm);
    for (int64_t i = 0; i < c->n; i++) number_set(&r, r.max, i, max);
    lsp_query_rows rows = {c->n, q, norm, c->sight, r.state, r.max, r.sum};
    kernel->attend(&shape, &rule, &tile, &rows, scratch);
    lsp_fpmode_leave(mode);
    void *const all[] = {q, k, v, scratch, norm};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) lsp_memory_free(all[i]);
    return r;
}

static void check_any_maximum(const lsp_kernel *kernel)
{
    if (kernel->compute == LSP_BF16) return;
    kernel_case c = ties_case(kernel, 1);
    kernel_result free_one = run_from(kernel, &c, -INFINITY);
    for (int max = -8; max <= 72; max += 2) {
        kernel_result r = run_from(kernel, &c, max);
        for (int64_t i = 0; i < c.n; i++) {
            double power = exp2(number_at(&r, r.max, i) - number_at(&free_one, free_one.max, i));
            assert_true(number_at(&r, r.sum, i) * power == number_at(&free_one, free_one.sum, i));
            for (int64_t d = i * COLUMNS; d < (i + 1) * COLUMNS; d++)
                assert_true(number_at(&r, r.state, d) * power == number_at(&free_one, free_one.state, d));
        }
        result_free(&r);
    }
    result_free(&free_one);
    case_free(&c);
}

static void any_even_maximum_gives_the_same_bits(void **state)
{
    (void)state;
    for_each_kernel(check_any_maximum);
}

static void ties_have_the_same_bits_on_all_vectors(void **state)
{
    (void)state;
    for (int type = LSP_F32; type <= LSP_F64; type++) {
        const lsp_kernel *avx2 = lsp_kernel_get(LSP_ISA_AVX2, (lsp_dtype)type),
                         *avx512 = lsp_kernel_get(LSP_ISA_AVX512, (lsp_dtype)type);
        for (int s = 0; s < SIZES && avx2 && avx512; s++) {
            kernel_case c = ties_case(avx2, sizes[s]);
            kernel_result a = case_run(avx2, &c, c.n), b = case_run(avx512, &c, c.n);
            assert_memory_equal(a.out, b.out, (size_t)(c.n * COLUMNS) * a.size);
            assert_memory_equal(a.lse, b.lse, (size_t)c.n * a.size);
            result_free(&a);
            result_free(&b);
            case_free(&c);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ties_match_the_formula),
        cmocka_unit_test(any_even_maximum_gives_the_same_bits),
        cmocka_unit_test(ties_have_the_same_bits_on_all_vectors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
