/* The comparison's library calls on several ranks: errors and retained mass against what the methods' own outputs say,
 * row by row in double; the same bits on one rank. SPDX-License-Identifier: BSD-3-Clause */
#include "compare_case.h"

/* ---- running ------------------------------------------------------------------------------------- */

/* A comparison of exact with the method of `d`, on the ranks of a context. */
static outcome compare_on(lsp_context *on, const lsp_attention_desc *d)
{
    outcome o;
    memset(&o, 0, sizeof o);
    lsp_compare *compare = NULL;
    const lsp_compare_options options = {.repeats = 2, .verify_rows = 4};
    if (lsp_compare_create(on, d, &options, &compare) != LSP_OK) fail_msg("%s", lsp_context_message(on));
    const lsp_run *query_runs, *key_runs;
    int64_t query_run_count, query_rows, key_run_count, key_rows;
    lsp_compare_runs(compare, LSP_QUERIES, &query_runs, &query_run_count, &query_rows);
    lsp_compare_runs(compare, LSP_KEYS, &key_runs, &key_run_count, &key_rows);
    void *q = make_rows(d, ROLE_Q, query_runs, query_run_count, query_rows, NULL);
    void *k = make_rows(d, ROLE_K, key_runs, key_run_count, key_rows, NULL);
    void *v = make_rows(d, ROLE_V, key_runs, key_run_count, key_rows, NULL);
    lsp_status status = lsp_compare_exact(compare, q, k, v, &o.exact, o.exact_heads);
    if (status == LSP_OK) status = lsp_compare_method(compare, d, &o.other, o.heads);
    if (status != LSP_OK) fail_msg("%s", lsp_context_message(on));
    if (d->n < 50) { /* again, with nothing of the first time left over */
        lsp_compare_result again;
        assert_int_equal(lsp_compare_method(compare, d, &again, NULL), LSP_OK);
        assert_true(again.out_error == o.other.out_error && again.row_error == o.other.row_error);
    }
    assert_int_equal(lsp_compare_destroy(&compare), LSP_OK);
    free(q);
    free(k);
    free(v);
    return o;
}

/* ---- what it should be --------------------------------------------------------------------------- */

typedef struct expected {
    double error, size, row_error, mass, least;
    int64_t rows, mass_rows, worst[3];
    double head_error[HEADS_MOST], head_row[HEADS_MOST], head_mass[HEADS_MOST];
} expected;

static expected expect(const lsp_attention_desc *d, const result *exact, const result *other)
{
    expected e = {.least = 1};
    int64_t end = end_of(d->row_end, d->n);
    lsp_dtype type = lsp_dtype_result(d->compute);
    for (int64_t matrix = 0; matrix < d->batch * d->heads; matrix++) {
        double error = 0, size = 0, mass = 0, rows = 0;
        for (int64_t i = d->row_begin; i < end; i++, e.rows++) {
            int64_t row = matrix * d->n + i;
            double a[64], b[64], one = 0, own = 0, exact_lse, lse;
            lsp_convert_load(type, exact->out, row * d->d_v, d->d_v, a);
            lsp_convert_load(type, other->out, row * d->d_v, d->d_v, b);
            lsp_convert_load(type, exact->lse, row, 1, &exact_lse);
            lsp_convert_load(type, other->lse, row, 1, &lse);
            for (int64_t c = 0; c < d->d_v; c++) {
                one += (a[c] - b[c]) * (a[c] - b[c]);
                own += a[c] * a[c];
            }
            error += one;
            size += own;
            if (own > 0 && sqrt(one / own) > e.head_row[matrix]) e.head_row[matrix] = sqrt(one / own);
            if (own > 0 && sqrt(one / own) > e.row_error) {
                e.row_error = sqrt(one / own);
                e.worst[0] = matrix / d->heads;
                e.worst[1] = matrix % d->heads;
                e.worst[2] = i;
            }
            if (exact_lse == -INFINITY) continue;
            double kept = fmin(1, exp(lse - exact_lse));
            mass += kept;
            rows++;
            e.least = fmin(e.least, kept);
        }
        e.head_error[matrix] = size > 0 ? sqrt(error / size) : 0;
        e.head_mass[matrix] = rows > 0 ? mass / rows : 1;
        e.error += error;
        e.size += size;
        e.mass += mass;
        e.mass_rows += (int64_t)rows;
    }
    return e;
}

static void near(double got, double wanted)
{
    if (!(fabs(got - wanted) <= 1e-12 * (fabs(wanted) + 1e-3))) fail_msg("%.17g is not %.17g", got, wanted);
}

static bool same_bits(double a, double b)
{
    return memcmp(&a, &b, sizeof a) == 0;
}

/* On one rank alone, or with other threads, the same comparison. */
static void check_bits(const lsp_attention_desc *d, const outcome *o)
{
    lsp_context *alone = NULL;
    char message[512];
    const lsp_context_options options = {.threads = ctx->layout.ranks == 1 ? 2 : 1};
    if (ctx->layout.rank != 0) return;
    assert_int_equal(lsp_context_create(MPI_COMM_SELF, &options, &alone, message, sizeof message), LSP_OK);
    outcome one = compare_on(alone, d);
    if (d->method == LSP_METHOD_LOWRANK) { /* its output has bits of its own on every number of ranks */
        assert_true(fabs(one.other.out_error - o->other.out_error) <= 1e-4 * o->other.out_error);
        assert_true(fabs(one.other.retained_mean - o->other.retained_mean) <= 1e-4);
        lsp_context_destroy(&alone);
        return;
    }
    assert_true(same_bits(one.other.out_error, o->other.out_error));
    assert_true(same_bits(one.other.row_error, o->other.row_error));
    assert_memory_equal(one.other.worst, o->other.worst, sizeof one.other.worst);
    bool own_certificate = d->method == LSP_METHOD_TOPK; /* adds up over ranks: agrees to rounding */
    if (own_certificate) {
        near(one.other.retained_mean, o->other.retained_mean);
    } else {
        assert_true(same_bits(one.other.retained_mean, o->other.retained_mean));
        assert_true(same_bits(one.other.out_error_bound, o->other.out_error_bound));
    }
    for (int64_t h = 0; h < d->batch * d->heads; h++)
        assert_true(same_bits(one.heads[h].out_error, o->heads[h].out_error));
    lsp_context_destroy(&alone);
}

static void check(const lsp_attention_desc *d)
{
    lsp_attention_desc exact_desc = *d;
    exact_desc.method = LSP_METHOD_EXACT;
    result exact = run_case(ctx, &exact_desc, NULL), other = run_case(ctx, d, NULL);
    expected e = expect(d, &exact, &other);
    outcome o = compare_on(ctx, d);
    assert_int_equal(o.other.method, d->method);
    assert_int_equal(o.other.rows, e.rows);
    assert_int_equal(o.other.left_out, 0);
    near(o.other.out_error, e.size > 0 ? sqrt(e.error / e.size) : 0);
    near(o.other.row_error, e.row_error);
    if (e.row_error > 0) assert_memory_equal(o.other.worst, e.worst, sizeof e.worst);
    if (d->method == LSP_METHOD_BLOCK) {
        assert_int_equal(o.other.retained, LSP_RETAINED_LSE);
        near(o.other.retained_mean, e.mass_rows > 0 ? e.mass / (double)e.mass_rows : 1);
        near(o.other.retained_least, e.least);
    }
    assert_true(o.other.retained_least <= o.other.retained_mean * (1 + 1e-12) && o.other.retained_mean <= 1);
    for (int64_t h = 0; h < d->batch * d->heads; h++) {
        near(o.heads[h].out_error, e.head_error[h]);
        near(o.heads[h].row_error, e.head_row[h]);
        if (d->method == LSP_METHOD_BLOCK) near(o.heads[h].retained, e.head_mass[h]);
        assert_true(o.exact_heads[h].out_error == 0 && o.exact_heads[h].retained == 1);
    }
    assert_true(o.exact.out_error == 0 && o.exact.row_error == 0 && o.exact.retained_mean == 1);
    assert_true(o.exact.verified && o.other.verified);
    if (!o.exact.verify.passed || !o.other.verify.passed)
        fail_msg("method %d, mask %d: exact's row %d is off by %g and %g, the other's row %d by %g and %g "
                 "(tolerance %g)",
                 (int)d->method, (int)d->mask, (int)o.exact.verify.worst[2], o.exact.verify.max_rel_err,
                 o.exact.verify.max_lse_err, (int)o.other.verify.worst[2], o.other.verify.max_rel_err,
                 o.other.verify.max_lse_err, o.other.verify.tolerance);
    assert_true(o.exact.seconds > 0 && o.exact.seconds <= o.exact.seconds_median && o.exact.repeats == 2);
    assert_true(o.exact.empty_rows == exact.empty_rows && o.other.empty_rows == other.empty_rows);
    assert_true(o.other.estimate.footprint.total > 0);
    check_bits(d, &o);
    free_result(&exact);
    free_result(&other);
}

/* No row is further from exact than the bound says. */
static void check_bound(const lsp_attention_desc *d)
{
    lsp_attention_desc exact_desc = *d;
    exact_desc.method = LSP_METHOD_EXACT;
    result exact = run_case(ctx, &exact_desc, NULL), other = run_case(ctx, d, NULL);
    outcome o = compare_on(ctx, d);
    const float *a = (const float *)exact.out, *b = (const float *)other.out;
    double most = 0;
    for (int64_t row = 0; row < d->batch * d->heads * d->n; row++) {
        double square = 0;
        for (int64_t c = 0; c < d->d_v; c++)
            square += pow((double)a[row * d->d_v + c] - b[row * d->d_v + c], 2);
        most = fmax(most, sqrt(square));
    }
    assert_true(most > 0 && most <= o.other.out_error_bound);
    free_result(&exact);
    free_result(&other);
}

/* ---- the tests ----------------------------------------------------------------------------------- */

static void errors_are_those_of_all_rows(void **state)
{
    (void)state;
    static const int64_t shapes[][2] = {{37, 53}, {1, 1}, {3, 130}, {600, 5}, {1031, 257}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        lsp_attention_desc d = grouped(shapes[i][0], shapes[i][1], 12, 5);
        d.method = LSP_METHOD_BLOCK;
        d.block_size = 1 + d.n / 3;
        check(&d);
        d.method = LSP_METHOD_TOPK;
        d.topk = 3;
        d.renormalize = i % 2 == 1;
        check(&d);
    }
}

static void masks_documents_lengths_and_parts(void **state)
{
    (void)state;
    static const int64_t documents[] = {0, 4, 4, 60, 101}, documents_k[] = {0, 9, 12, 12, 83},
                         lengths[] = {83, 17};
    static const double slopes[] = {0.5, 0.25, 0.125, 0.0625};
    lsp_attention_desc d = grouped(101, 83, 12, 5);
    d.method = LSP_METHOD_BLOCK;
    d.block_size = 10;
    d.topk = 4;
    d.mask = LSP_MASK_CAUSAL; /* the first rows see nothing */
    check(&d);
    d.method = LSP_METHOD_TOPK;
    check(&d);
    d.mask = LSP_MASK_WINDOW;
    d.window_left = 20;
    d.key_lengths = lengths;
    check(&d);
    d.method = LSP_METHOD_BLOCK;
    d.documents = documents;
    d.documents_k = documents_k;
    d.document_count = 4;
    d.alibi_slopes = slopes;
    check(&d);
    d.mask = LSP_MASK_NONE;
    d.row_begin = 7;
    d.row_end = 90;
    d.key_begin = 3;
    d.key_end = 71;
    check(&d);
}

static void other_types_and_heads(void **state)
{
    (void)state;
    static const int64_t kv_head_of[] = {1, 0, 1, 1};
    lsp_attention_desc d = grouped(70, 90, 12, 5);
    d.kv_head_of = kv_head_of;
    d.compute = d.v_type = LSP_F64;
    d.q_type = LSP_F16;
    d.method = LSP_METHOD_BLOCK;
    d.block_size = 20;
    d.d_v = 64;
    check(&d);
    d.method = LSP_METHOD_TOPK;
    d.topk = 1000; /* all: the error is rounding */
    outcome o = compare_on(ctx, &d);
    assert_true(o.other.out_error < 1e-13);
    d.method = LSP_METHOD_BLOCK;
    d.block_size = 70; /* all: the same bits */
    o = compare_on(ctx, &d);
    assert_true(o.other.out_error == 0 && o.other.row_error == 0 && o.other.retained_mean == 1);
}

static void truncated_matrices(void **state)
{
    (void)state;
    lsp_attention_desc d = grouped(83, 61, 12, 5);
    d.method = LSP_METHOD_LOWRANK;
    d.rank = 5;
    check(&d);
    outcome o = compare_on(ctx, &d);
    assert_int_equal(o.other.retained, LSP_RETAINED_ENERGY);
    const lsp_svd_certificate *c = &o.other.lowrank.whole;
    near(o.other.retained_mean, 1 - c->frobenius_relative * c->frobenius_relative);
    for (int64_t h = 0; h < d.batch * d.heads; h++) {
        const lsp_lowrank_head *head = &o.heads[h].lowrank;
        assert_true(head->batch == h / d.heads && head->head == h % d.heads && head->rank == 5);
        assert_true(o.heads[h].retained >= o.other.retained_least && o.heads[h].retained < 1);
    }
}

static void bounds_hold(void **state)
{
    (void)state;
    lsp_attention_desc d = grouped(64, 640, 12, 5);
    d.method = LSP_METHOD_BLOCK;
    d.block_size = 16;
    check_bound(&d);
    d.method = LSP_METHOD_TOPK;
    d.topk = 20;
    check_bound(&d);
}

static void the_front(void **state)
{
    (void)state;
    const struct {
        double error, seconds;
        bool front;
    } cases[] = {{0, 10, true},  {0.5, 1, true}, {0.5, 2, false},  {0.6, 1, false},       {0.1, 11, false},
                 {0.1, 5, true}, {0.1, 5, true}, {NAN, 0.5, true}, {INFINITY, 0.6, false}};
    enum { COUNT = sizeof cases / sizeof *cases };
    lsp_compare_result results[COUNT] = {{.rows = 0}};
    bool front[COUNT];
    for (int i = 0; i < COUNT; i++) {
        results[i].out_error = cases[i].error;
        results[i].seconds = cases[i].seconds;
    }
    lsp_compare_front(results, COUNT, front);
    for (int i = 0; i < COUNT; i++) assert_true(front[i] == cases[i].front);
}

static void refused(lsp_compare *compare, const lsp_attention_desc *d, const char *word)
{
    lsp_compare_result unused;
    assert_int_equal(lsp_compare_check(compare, d, NULL), LSP_ERR_USAGE);
    if (!strstr(lsp_context_message(ctx), word)) fail_msg("%s", lsp_context_message(ctx));
    assert_int_equal(lsp_compare_method(compare, d, &unused, NULL), LSP_ERR_USAGE);
}

static void bad_methods_are_refused(void **state)
{
    (void)state;
    lsp_attention_desc d = grouped(50, 60, 12, 5);
    lsp_compare_options options = lsp_compare_defaults();
    lsp_compare *compare = NULL;
    options.repeats = 0;
    assert_int_equal(lsp_compare_create(ctx, &d, &options, &compare), LSP_ERR_USAGE);
    assert_null(compare);
    options.repeats = 1;
    d.method = LSP_METHOD_BLOCK; /* does not count here */
    assert_int_equal(lsp_compare_create(ctx, &d, &options, &compare), LSP_OK);
    d.block_size = 20;
    lsp_compare_result unused;
    assert_int_equal(lsp_compare_check(compare, &d, NULL), LSP_OK);
    assert_int_equal(lsp_compare_method(compare, &d, &unused, NULL), LSP_ERR_USAGE);
    assert_non_null(strstr(lsp_context_message(ctx), "nothing to compare with"));
    d.block_size = 51;
    refused(compare, &d, "block_size");
    d.block_size = 0;
    refused(compare, &d, "block_size");
    d.method = LSP_METHOD_TOPK;
    refused(compare, &d, "topk");
    d.method = LSP_METHOD_EXACT;
    refused(compare, &d, "exact");
    lsp_compare_destroy(&compare);
    d.memory_limit = 1000;
    assert_int_equal(lsp_compare_create(ctx, &d, &options, &compare), LSP_ERR_LIMIT);
    assert_null(compare);
    /* Room for exact, and not for so many candidates. */
    d = grouped(5000, 6000, 12, 5);
    d.memory_limit = (int64_t)64 << 20;
    assert_int_equal(lsp_compare_create(ctx, &d, NULL, &compare), LSP_OK);
    d.method = LSP_METHOD_TOPK;
    d.topk = 3000;
    assert_int_equal(lsp_compare_check(compare, &d, NULL), LSP_ERR_LIMIT);
    assert_non_null(strstr(lsp_context_message(ctx), "MiB"));
    lsp_compare_destroy(&compare);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_are_those_of_all_rows),
        cmocka_unit_test(masks_documents_lengths_and_parts),
        cmocka_unit_test(other_types_and_heads),
        cmocka_unit_test(truncated_matrices),
        cmocka_unit_test(bounds_hold),
        cmocka_unit_test(the_front),
        cmocka_unit_test(bad_methods_are_refused),
    };
    const test_context contexts[] = {{&ctx, 1, false}};
    return RUN_OVER_RANKS("compare", tests, contexts, NULL, NULL);
}
