/* The truncated SVD of W over ranks: orthonormal factors, the best error that there is, a certificate that tells the
 * truth; matrices without full rank, without gaps, and of awkward shapes.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "mpi_case.h"

#include "svd_case.h"

#include <float.h>

static lsp_context *one_thread, *two_threads, *alone;

/* One rank is enough, and the oracles are slow; a failure there ends all. */
static void check_first(const problem *p, const factors *f, double ratio, const char *what)
{
    if (rank == 0) check_factors(p, f, ratio, what);
}

static void check_case(problem *p, lsp_svd_options options, int64_t expected_rank, double ratio,
                       const char *what)
{
    for (int type = LSP_F32; type <= LSP_F64; type++) {
        p->desc.compute = (lsp_dtype)type;
        factors f = must_run(one_thread, p, &options);
        assert_int_equal(f.svd.rank, expected_rank);
        check_first(p, &f, ratio, what);
        free_svd(&f.svd);
    }
}

static lsp_svd_options of_rank(int64_t wanted)
{
    lsp_svd_options options = lsp_svd_defaults();
    options.rank = wanted;
    return options;
}

/* ---- ordinary matrices ---------------------------------------------------------------------------- */

static void error_near_the_best(void **state)
{
    (void)state;
    problem p = make_problem(130, 97, 16, 1);
    check_case(&p, of_rank(10), 10, 1.005, "more rows than keys");
    free_problem(&p);
    p = make_problem(90, 140, 8, 3);
    check_case(&p, of_rank(7), 7, 1.005, "more keys than rows, peaked");
    p.desc.mask = LSP_MASK_CAUSAL;
    check_case(&p, of_rank(7), 7, 1.005, "causal");
    p.desc.row_begin = 10;
    p.desc.row_end = 85;
    p.desc.mask = LSP_MASK_NONE;
    p.desc.key_begin = 30;
    p.desc.key_end = 140; /* outside of the part the dense matrix is 0, and so are the vectors */
    check_case(&p, of_rank(5), 5, 1.005, "a part");
    free_problem(&p);
}

static void steps_bring_the_error_down(void **state)
{
    (void)state;
    problem p = make_problem(140, 150, 24, 1);
    lsp_svd_options options = of_rank(8);
    double before = INFINITY;
    options.oversample = 0;
    for (options.steps = 0; options.steps < 4; options.steps++) {
        factors f = must_run(one_thread, &p, &options);
        assert_true(f.svd.certificate.frobenius_error < before);
        before = f.svd.certificate.frobenius_error;
        assert_int_equal(f.svd.basis, 8 * (options.steps + 1));
        free_svd(&f.svd);
    }
    free_problem(&p);
}

/* All of W: singular values as LAPACK would have them, nothing left. */
static void rank_of_the_smaller_side(void **state)
{
    (void)state;
    problem p = make_problem(23, 61, 8, 2);
    check_case(&p, of_rank(500), 23, 1, "all of a broad matrix");
    check_case(&p, of_rank(19), 19, 1 + 1e-6, "rank + oversampling beyond n");
    double *w = dense_from(&p.desc, p.q, p.k), *sigma = singular_values(w, 23, 61);
    lsp_svd_options options = of_rank(23);
    factors f = must_run(one_thread, &p, &options);
    for (int r = 0; r < 23; r++) assert_true(fabs(f.svd.sigma[r] - sigma[r]) <= 1e-10 * sigma[r]);
    assert_false(f.svd.certificate.meaningful);
    free_svd(&f.svd);
    free(w), free(sigma);
    free_problem(&p);
    p = make_problem(61, 5, 8, 2);
    check_case(&p, of_rank(5), 5, 1, "all of a high matrix");
    check_case(&p, of_rank(3), 3, 1 + 1e-6, "part of a high matrix");
    free_problem(&p);
    p = make_problem(1, 40, 4, 1);
    check_case(&p, of_rank(2), 1, 1, "one row");
    free_problem(&p);
    p = make_problem(1, 1, 1, 1);
    check_case(&p, of_rank(1), 1, 1, "one of each");
    free_problem(&p);
}

/* ---- matrices without full rank, or without gaps ---------------------------------------------------- */

static void rank_deficient(void **state)
{
    (void)state;
    problem p = make_problem(80, 90, 8, 2);
    for (int64_t i = 5 * 8; i < 80 * 8; i++) p.q[i] = p.q[i % (5 * 8)]; /* five different rows */
    check_case(&p, of_rank(3), 3, 1.005, "rank 5, of it 3");
    check_case(&p, of_rank(12), 12, 1, "rank 5, asked for 12");
    lsp_svd_options options = of_rank(12);
    factors f = must_run(one_thread, &p, &options);
    assert_true(f.svd.sigma[4] > 1e-3 && f.svd.sigma[5] < 1e-12);
    free_svd(&f.svd);
    memset(p.q, 0, 80 * 8 * sizeof *p.q); /* all scores equal */
    check_case(&p, of_rank(4), 4, 1, "all equal");
    f = must_run(one_thread, &p, &options);
    assert_true(fabs(f.svd.sigma[0] - sqrt(80.0 / 90.0)) < 1e-13 && f.svd.sigma[1] < 1e-13);
    free_svd(&f.svd);
    const int64_t none = 0; /* no key is there: W is 0 */
    p.desc.key_lengths = &none;
    check_case(&p, of_rank(4), 4, 1, "no keys");
    f = must_run(one_thread, &p, &options);
    assert_true(f.svd.sigma[0] == 0 && f.svd.certificate.frobenius_relative == 0);
    free_svd(&f.svd);
    free_problem(&p);
}

static void one_hot_rows(void **state)
{
    (void)state;
    problem p = make_problem(100, 100, 100, 1);
    for (int64_t i = 0; i < 100; i++)
        for (int64_t c = 0; c < 100; c++) { /* row i sees key i + 3 alone */
            p.q[i * 100 + c] = c == (i + 3) % 100 ? 50 : 0;
            p.k[i * 100 + c] = c == i ? 50 : 0;
        }
    check_case(&p, of_rank(6), 6, 1, "a permutation");
    lsp_svd_options options = of_rank(6);
    factors f = must_run(one_thread, &p, &options);
    assert_true(fabs(f.svd.sigma[5] - 1) < 1e-12 &&
                fabs(f.svd.certificate.frobenius_error - sqrt(94)) < 1e-10);
    free_svd(&f.svd);
    for (int64_t i = 0; i < 100; i++) /* every row the same one key */
        for (int64_t c = 0; c < 100; c++) p.q[i * 100 + c] = c == 7 ? 50 : 0;
    check_case(&p, of_rank(6), 6, 1, "one column");
    free_problem(&p);
}

/* Singular values that fall fast, and the most of them in f32 whose certificate still says something: check_factors wants
 * it right to a per cent there too. */
static void certificate_just_above_the_floor(void **state)
{
    (void)state;
    problem p = make_problem(400, 400, 2, 1);
    double largest = 0;
    for (int64_t i = 0; i < 400; i++)
        for (int64_t j = 0; j < 400; j++)
            largest = fmax(largest, fabs(p.q[2 * i] * p.k[2 * j] + p.q[2 * i + 1] * p.k[2 * j + 1]));
    p.desc.scale = 80 / largest;
    p.desc.compute = LSP_F64;
    lsp_svd_options options = of_rank(60);
    factors f = must_run(one_thread, &p, &options);
    const lsp_svd_certificate *c = &f.svd.certificate;
    double square = c->norm * c->norm, rest = square,
           least = c->floor * c->floor * FLT_EPSILON / DBL_EPSILON; /* of the square, in f32 */
    for (options.rank = 0; options.rank < f.svd.rank && rest > 1.02 * least * square; options.rank++)
        rest -= f.svd.sigma[options.rank] * f.svd.sigma[options.rank];
    assert_true(rest <= 1.02 * least * square);
    options.rank--;
    assert_true(options.rank > 0);
    free_svd(&f.svd);
    p.desc.compute = LSP_F32;
    f = must_run(one_thread, &p, &options);
    assert_true(f.svd.certificate.meaningful);
    assert_true(f.svd.certificate.frobenius_relative < 1.3 * f.svd.certificate.floor);
    check_first(&p, &f, 1.005, "just above the floor");
    free_svd(&f.svd);
    free_problem(&p);
}

/* ---- the rank from a tolerance ---------------------------------------------------------------------- */

static void rank_from_a_tolerance(void **state)
{
    (void)state;
    problem p = make_problem(150, 150, 32, 3);
    p.desc.compute = LSP_F64;
    double *w = dense_from(&p.desc, p.q, p.k), *sigma = singular_values(w, 150, 150), square = 0, rest;
    for (int r = 0; r < 150; r++) square += sigma[r] * sigma[r];
    lsp_svd_options options = lsp_svd_defaults();
    for (double tolerance = 0.8; tolerance > 0.1; tolerance /= 2) {
        int64_t needed = 0;
        for (rest = square; rest > tolerance * tolerance * square; needed++)
            rest -= sigma[needed] * sigma[needed];
        options.tolerance = tolerance;
        options.rank = 0;
        factors f = must_run(one_thread, &p, &options);
        assert_true(f.svd.tolerance_met && f.svd.certificate.frobenius_relative <= tolerance);
        if (f.svd.rank < needed || f.svd.rank > needed + 1)
            fail_msg("rank %d for a tolerance of %g that needs %d", (int)f.svd.rank, tolerance, (int)needed);
        assert_int_equal(f.svd.attempts, needed <= 32 ? 1 : needed <= 64 ? 2 : needed <= 128 ? 3 : 4);
        check_first(&p, &f, 1.005, "a tolerance");
        free_svd(&f.svd);
        options.rank = needed / 2;
        f = must_run(one_thread, &p, &options);
        assert_true(!f.svd.tolerance_met && f.svd.rank == needed / 2);
        check_first(&p, &f, 1.005, "a tolerance that is not met");
        free_svd(&f.svd);
    }
    free(w), free(sigma);
    free_problem(&p);
}

/* 100 documents, each with a singular value of 1; with 100 steps a block has no more than 81 columns, which are rank 65. */
static void rank_from_a_tolerance_ends_with_the_basis(void **state)
{
    (void)state;
    enum { DOCUMENTS = 100, LENGTH = 83, MOST = 8192 / 101 - 16 };
    int64_t offsets[DOCUMENTS + 1];
    for (int i = 0; i <= DOCUMENTS; i++) offsets[i] = i * LENGTH;
    problem p = make_problem(DOCUMENTS * LENGTH, DOCUMENTS * LENGTH, 2, 0);
    p.desc.compute = LSP_F64;
    p.desc.documents = offsets;
    p.desc.document_count = DOCUMENTS;
    lsp_svd_options options = lsp_svd_defaults();
    options.steps = 100;
    options.tolerance = 0.5; /* needs 75 */
    factors f = must_run(one_thread, &p, &options);
    assert_int_equal(f.svd.rank, MOST);
    assert_false(f.svd.tolerance_met);
    assert_int_equal(f.svd.attempts, 3);
    assert_true(fabs(f.svd.certificate.frobenius_relative - sqrt((DOCUMENTS - MOST) / 100.0)) < 1e-9);
    free_svd(&f.svd);
    free_problem(&p);
}

static void spectrum_by_hand(void **state)
{
    (void)state;
    double equal[] = {2, 2, 2, 2}, two[] = {3, 1};
    lsp_svd svd = {.rank = 4, .sigma = equal, .certificate = {.norm = 4}};
    lsp_spectrum s = lsp_svd_spectrum(&svd);
    assert_true(fabs(s.effective_rank - 4) < 1e-14);
    assert_true(s.rank_90 == 4 && s.rank_99 == 4 && s.rank_999 == 4);
    svd = (lsp_svd){.rank = 2, .sigma = two, .certificate = {.norm = sqrt(10)}};
    s = lsp_svd_spectrum(&svd);
    assert_true(fabs(s.effective_rank - exp(-0.75 * log(0.75) - 0.25 * log(0.25))) < 1e-14);
    assert_true(s.rank_90 == 1 || s.rank_90 == 2); /* 9 of 10: on the edge */
    svd.certificate.norm = sqrt(10.05);
    s = lsp_svd_spectrum(&svd);
    assert_true(s.rank_90 == 2 && s.rank_99 == 2 && s.rank_999 == -1);
}

/* ---- the same again, and over ranks ----------------------------------------------------------------- */

static void results_repeat(void **state)
{
    (void)state;
    problem p = make_problem(700, 640, 16, 1);
    p.desc.compute = LSP_F64;
    lsp_svd_options options = of_rank(6);
    factors once = must_run(one_thread, &p, &options), again = must_run(one_thread, &p, &options);
    factors threads = must_run(two_threads, &p, &options), single = must_run(alone, &p, &options);
    size_t u = 700 * 6 * sizeof(double), v = 640 * 6 * sizeof(double);
    assert_memory_equal(once.svd.sigma, again.svd.sigma, 6 * sizeof(double));
    assert_memory_equal(once.svd.u, again.svd.u, u);
    assert_memory_equal(once.svd.v, again.svd.v, v);
    assert_memory_equal(once.svd.u, threads.svd.u, u);
    assert_memory_equal(once.svd.v, threads.svd.v, v);
    /* The start does not depend on the ranks: what differs is rounding. */
    for (int r = 0; r < 6; r++)
        assert_true(fabs(once.svd.sigma[r] - single.svd.sigma[r]) < 1e-11 * single.svd.sigma[r]);
    assert_true(once.svd.certificate.norm == single.svd.certificate.norm);
    options.seed = 1;
    factors other = must_run(one_thread, &p, &options);
    assert_memory_not_equal(once.svd.sigma, other.svd.sigma, 6 * sizeof(double));
    free_svd(&once.svd), free_svd(&again.svd), free_svd(&threads.svd), free_svd(&single.svd),
        free_svd(&other.svd);
    free_problem(&p);
}

static void keep_progress(void *user, double done)
{
    double *last = user;
    assert_true(done > *last && done <= 1);
    *last = done;
}

static void progress_goes_to_the_end(void **state)
{
    (void)state;
    problem p = make_problem(50, 60, 4, 1);
    lsp_svd_options options = of_rank(2);
    double last = 0;
    options.progress = keep_progress;
    options.user = &last;
    options.oversample = 3;
    factors f = must_run(one_thread, &p, &options);
    assert_true(last == 1);
    free_svd(&f.svd);
    free_problem(&p);
}

/* ---- refusals --------------------------------------------------------------------------------------- */

static void expect_refusal(const problem *p, lsp_svd_options options, lsp_status code, const char *text)
{
    factors f;
    assert_int_equal(run_svd(one_thread, p, &options, &f), code);
    if (!strstr(lsp_context_message(one_thread), text))
        fail_msg("'%s' does not name '%s'", lsp_context_message(one_thread), text);
}

static void refusals(void **state)
{
    (void)state;
    problem p = make_problem(20, 30, 4, 1);
    lsp_svd_options options = lsp_svd_defaults();
    expect_refusal(&p, options, LSP_ERR_USAGE, "rank is 0");
    options.rank = -3;
    expect_refusal(&p, options, LSP_ERR_USAGE, "rank is -3");
    options = of_rank(2);
    options.tolerance = -0.5;
    expect_refusal(&p, options, LSP_ERR_USAGE, "tolerance is -0.5");
    options.tolerance = NAN;
    expect_refusal(&p, options, LSP_ERR_USAGE, "tolerance is");
    options = of_rank(2);
    options.steps = -1;
    expect_refusal(&p, options, LSP_ERR_USAGE, "steps (-1)");
    options = of_rank(2);
    options.oversample = -1;
    expect_refusal(&p, options, LSP_ERR_USAGE, "oversample (-1)");
    p.q[7] = INFINITY;
    expect_refusal(&p, of_rank(2), LSP_ERR_CONTENT, "W is not finite");
    free_problem(&p);
    p = make_problem(8300, 8300, 1, 1);
    options = of_rank(8200); /* 16 more are 24 columns too many */
    options.steps = 0;
    expect_refusal(&p, options, LSP_ERR_LIMIT, "8216 columns, more than the 8192");
    options.steps = 2;
    expect_refusal(&p, options, LSP_ERR_LIMIT, "8300 columns");
    options.rank = 2715;
    expect_refusal(&p, options, LSP_ERR_LIMIT, "this oversample 2714");
    options.tolerance = 0.1; /* what is asked for by name is not cut */
    expect_refusal(&p, options, LSP_ERR_LIMIT, "this oversample 2714");
    options.rank = 0;
    options.oversample = 2730;
    expect_refusal(&p, options, LSP_ERR_LIMIT, "attention.oversample");
    free_problem(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(error_near_the_best),
        cmocka_unit_test(steps_bring_the_error_down),
        cmocka_unit_test(rank_of_the_smaller_side),
        cmocka_unit_test(rank_deficient),
        cmocka_unit_test(one_hot_rows),
        cmocka_unit_test(certificate_just_above_the_floor),
        cmocka_unit_test(rank_from_a_tolerance),
        cmocka_unit_test(rank_from_a_tolerance_ends_with_the_basis),
        cmocka_unit_test(spectrum_by_hand),
        cmocka_unit_test(results_repeat),
        cmocka_unit_test(progress_goes_to_the_end),
        cmocka_unit_test(refusals),
    };
    const test_context contexts[] = {{&one_thread, 1, false}, {&two_threads, 2, false}, {&alone, 1, true}};
    return RUN_OVER_RANKS("svd", tests, contexts, NULL, NULL);
}
