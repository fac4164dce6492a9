/* States of comparisons: what is found after going on from one is what is found without stopping.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "compare_case.h"

#include <unistd.h>

typedef struct rows_of {
    void *q, *k, *v;
} rows_of;

/* A new comparison of the description's exact attention, and its operands. */
static rows_of begin(const lsp_attention_desc *d, int64_t repeats, lsp_compare **compare)
{
    const lsp_compare_options options = {.repeats = repeats, .verify_rows = 4};
    const lsp_run *runs = NULL;
    int64_t count = 0, rows = 0;
    rows_of r;
    assert_int_equal(lsp_compare_create(ctx, d, &options, compare), LSP_OK);
    lsp_compare_runs(*compare, LSP_QUERIES, &runs, &count, &rows);
    r.q = make_rows(d, ROLE_Q, runs, count, rows, NULL);
    lsp_compare_runs(*compare, LSP_KEYS, &runs, &count, &rows);
    r.k = make_rows(d, ROLE_K, runs, count, rows, NULL);
    r.v = make_rows(d, ROLE_V, runs, count, rows, NULL);
    return r;
}

static void end(rows_of *r, lsp_compare **compare)
{
    free(r->q);
    free(r->k);
    free(r->v);
    assert_int_equal(lsp_compare_destroy(compare), LSP_OK);
}

static void it_goes_on_from_a_state(void **state)
{
    (void)state;
    char file[64];
    int number = (int)getpid();
    MPI_Bcast(&number, 1, MPI_INT, 0, MPI_COMM_WORLD);
    (void)snprintf(file, sizeof file, "%s/longspan-test-%d.checkpoint",
                   access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", number);
    lsp_attention_desc d = grouped(701, 503, 12, 5);
    d.method = LSP_METHOD_BLOCK;
    d.block_size = 90;
    outcome whole, half, got;
    memset(&whole, 0, sizeof whole);
    memset(&half, 0, sizeof half);
    memset(&got, 0, sizeof got);
    lsp_compare *compare = NULL;
    lsp_compare_finished done = {&half.exact, half.exact_heads, 1, 0.5};
    lsp_checkpoint_info info;
    int64_t bytes = 0;
    rows_of r = begin(&d, 2, &compare);
    assert_int_equal(lsp_compare_exact(compare, r.q, r.k, r.v, &whole.exact, whole.exact_heads), LSP_OK);
    assert_int_equal(lsp_compare_method(compare, &d, &whole.other, whole.heads), LSP_OK);
    end(&r, &compare);
    r = begin(&d, 2, &compare);
    assert_int_equal(lsp_compare_exact(compare, r.q, r.k, r.v, &half.exact, half.exact_heads), LSP_OK);
    assert_int_equal(lsp_compare_save(compare, file, "a mark = 1\n", &done, &bytes), LSP_OK);
    end(&r, &compare);
    for (int64_t repeats = 3; repeats > 1; repeats--) {
        done = (lsp_compare_finished){&got.exact, got.exact_heads, 0, 0};
        r = begin(&d, repeats, &compare);
        assert_int_equal(lsp_checkpoint_look(ctx, file, &info), LSP_OK);
        assert_true(info.found && info.done == 0.5);
        assert_int_equal(lsp_compare_load(compare, file, "a mark = 2\n", r.q, r.k, r.v, 2, &done, &info),
                         LSP_ERR_CONTENT);
        assert_non_null(
            strstr(lsp_context_message(ctx), repeats == 2 ? "a mark was 1" : "compare.repeats was 2"));
        lsp_status status = lsp_compare_load(compare, file, "a mark = 1\n", r.q, r.k, r.v, 2, &done, &info);
        assert_int_equal(status, repeats == 2 ? LSP_OK : LSP_ERR_CONTENT);
        if (repeats == 2) assert_int_equal(lsp_compare_method(compare, &d, &got.other, got.heads), LSP_OK);
        end(&r, &compare);
    }
    assert_int_equal(done.count, 1);
    assert_true(got.exact.seconds == half.exact.seconds &&
                got.exact.seconds_median == half.exact.seconds_median);
    assert_true(got.exact.verify.max_rel_err == whole.exact.verify.max_rel_err);
    assert_true(got.other.out_error == whole.other.out_error && got.other.row_error == whole.other.row_error);
    assert_true(got.other.retained_mean == whole.other.retained_mean);
    assert_true(got.other.out_error_bound == whole.other.out_error_bound);
    assert_int_equal(lsp_checkpoint_remove(ctx, file), LSP_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(it_goes_on_from_a_state)};
    const test_context contexts[] = {{&ctx, 1, false}};
    return RUN_OVER_RANKS("compare_state", tests, contexts, NULL, NULL);
}
