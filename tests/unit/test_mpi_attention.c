/* Plans over ranks against the definition, at awkward shapes and under every rule.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "mpi_case.h"

#include "attention_case.h"

static lsp_context *ctx;

/* Gathered in as many panels as there can be. */
static lsp_attention_desc narrow(int64_t n, int64_t m, int64_t d_k, int64_t d_v)
{
    lsp_attention_desc d = plain(n, m, d_k, d_v);
    d.gather = LSP_GATHER_PANELS;
    d.panel_rows = 1;
    return d;
}

/* ---- against the definition ---------------------------------------------------------------------- */

/* Squares of error and of reference over the rows that this rank checks (every ranks-th). */
typedef struct error_sum {
    double error, reference, lse;
    double pairs, empty; /* of all rows */
} error_sum;

static void compare_head(const lsp_attention_desc *d, int64_t batch, int64_t head, const result *r,
                         error_sum *sum)
{
    double *q = make_matrix(d, ROLE_Q, batch, head), *k = make_matrix(d, ROLE_K, batch, kv_head(d, head));
    double *v = make_matrix(d, ROLE_V, batch, kv_head(d, head)), lse, got_lse;
    double *out = case_alloc(d->d_v, sizeof *out), *got = case_alloc(d->d_v, sizeof *got);
    for (int64_t i = d->row_begin + rank; i < end_of(d->row_end, d->n); i += ranks) {
        int64_t row = (batch * d->heads + head) * d->n + i;
        int64_t seen = define_row(d, batch, head, i, q, k, v, out, &lse);
        lsp_convert_load(d->compute, r->out, row * d->d_v, d->d_v, got);
        lsp_convert_load(d->compute, r->lse, row, 1, &got_lse);
        for (int64_t c = 0; c < d->d_v; c++) {
            sum->error += (got[c] - out[c]) * (got[c] - out[c]);
            sum->reference += out[c] * out[c];
        }
        if (seen == 0)
            assert_true(got_lse == -INFINITY);
        else if (!(fabs(got_lse - lse) <= sum->lse)) /* also NaN */
            sum->lse = isnan(got_lse) ? INFINITY : fabs(got_lse - lse);
        sum->pairs += (double)seen;
        sum->empty += seen == 0;
    }
    free(q);
    free(k);
    free(v);
    free(out);
    free(got);
}

static void check_case(lsp_attention_desc d, const char *what)
{
    for (int type = LSP_F32; type <= LSP_F64; type++) {
        d.compute = (lsp_dtype)type;
        result r = run_case(ctx, &d, NULL);
        error_sum sum = {0};
        for (int64_t b = 0; b < d.batch; b++)
            for (int64_t h = 0; h < d.heads; h++) compare_head(&d, b, h, &r, &sum);
        lsp_context_sum_f64(ctx, &sum.error, 1);
        lsp_context_sum_f64(ctx, &sum.reference, 1);
        lsp_context_max_f64(ctx, &sum.lse, 1);
        lsp_context_sum_f64(ctx, &sum.pairs, 1);
        lsp_context_sum_f64(ctx, &sum.empty, 1);
        double relative = sqrt(sum.error) / (sum.reference > 0 ? sqrt(sum.reference) : 1);
        double bound = d.compute == LSP_F64 ? 1e-14 : 1e-6;
        if (!(relative <= bound) || !(sum.lse <= 2 * bound))
            fail_msg("%s, %s: error %.3g, lse error %.3g", what, lsp_dtype_name(d.compute), relative,
                     sum.lse);
        assert_true(r.pairs == sum.pairs && r.estimate.pairs == sum.pairs);
        assert_true((double)r.empty_rows == sum.empty);
        free_result(&r);
    }
}

static void shapes_of_every_kind(void **state)
{
    (void)state;
    check_case(narrow(1, 1, 1, 1), "one of each");
    check_case(narrow(1, 2000, 3, 2), "one row");
    check_case(narrow(3, 1031, 5, 7), "three rows");
    check_case(narrow(211, 1, 2, 9), "one key");
    check_case(narrow(97, 1013, 17, 31), "primes");
    check_case(narrow(50, 513, 130, 3), "a wide d_k and one key past a tile");
    check_case(narrow(50, 600, 3, 131), "a wide d_v");
}

static void heads_and_batches(void **state)
{
    (void)state;
    const int64_t heads_of[] = {1, 0, 2, 2, 0, 2};
    lsp_attention_desc d = narrow(53, 601, 8, 5);
    d.batch = 2;
    d.heads = 6;
    d.kv_heads = 3;
    check_case(d, "grouped heads");
    d.kv_head_of = heads_of;
    check_case(d, "grouped heads in another order");
    d.mask = LSP_MASK_CAUSAL;
    check_case(d, "grouped heads, causal");
    d.row_begin = 11;
    d.row_end = 40;
    d.key_begin = 100;
    d.key_end = 590;
    check_case(d, "a part of grouped heads");
}

static void masks(void **state)
{
    (void)state;
    for (int align = 0; align < 2; align++) {
        lsp_attention_desc d = narrow(700, 700, 6, 5);
        d.align = align ? LSP_ALIGN_TOP_LEFT : LSP_ALIGN_BOTTOM_RIGHT;
        d.mask = LSP_MASK_CAUSAL;
        check_case(d, "causal");
        d.m = 530;
        check_case(d, "causal, fewer keys"); /* bottom-right: rows without keys */
        d.m = 1100;
        check_case(d, "causal, more keys");
        d.mask = LSP_MASK_WINDOW;
        d.window_left = 0;
        check_case(d, "the diagonal");
        d.window_left = 40;
        d.window_right = 3;
        check_case(d, "window");
        d.window_left = INT64_MAX;
        check_case(d, "window without a left end");
    }
}

static void documents(void **state)
{
    (void)state;
    const int64_t of_rows[] = {0, 60, 60, 61, 400, 555, 555}, of_keys[] = {0, 20, 30, 600, 600, 1000, 1050};
    lsp_attention_desc d = narrow(555, 1050, 4, 6);
    d.documents = of_rows;
    d.documents_k = of_keys;
    d.document_count = 6;
    check_case(d, "documents"); /* rows 61 to 399 see no key */
    d.mask = LSP_MASK_CAUSAL;
    check_case(d, "causal documents");
    d.align = LSP_ALIGN_TOP_LEFT;
    check_case(d, "causal documents, top-left");
    d.m = d.n;
    d.documents_k = NULL;
    d.mask = LSP_MASK_WINDOW;
    d.window_left = 30;
    d.window_right = 2;
    check_case(d, "documents with a window");
}

static void key_lengths(void **state)
{
    (void)state;
    const int64_t lengths[] = {77, 800, 0, 513};
    const int64_t of_rows[] = {0, 30, 90}, of_keys[] = {0, 400, 800};
    lsp_attention_desc d = narrow(90, 800, 5, 4);
    d.batch = 4;
    d.heads = d.kv_heads = 2;
    d.key_lengths = lengths;
    d.head_groups = 1;
    check_case(d, "key lengths");
    d.mask = LSP_MASK_CAUSAL;
    check_case(d, "causal key lengths");
    d.documents = of_rows;
    d.documents_k = of_keys;
    d.document_count = 2;
    check_case(d, "key lengths in documents");
}

static void scores(void **state)
{
    (void)state;
    double slopes[6];
    for (int h = 0; h < 6; h++) slopes[h] = lsp_alibi_slope(h, 6);
    lsp_attention_desc d = narrow(120, 700, 9, 4);
    d.heads = 6;
    d.kv_heads = 2;
    d.scale = 0.11;
    check_case(d, "scale");
    d.softcap = 0.7;
    check_case(d, "softcap");
    d.alibi_slopes = slopes;
    check_case(d, "softcap and ALiBi");
    d.mask = LSP_MASK_CAUSAL;
    d.align = LSP_ALIGN_TOP_LEFT;
    check_case(d, "softcap and ALiBi, causal");
}

static void stored_types(void **state)
{
    (void)state;
    lsp_attention_desc d = narrow(60, 560, 21, 19);
    d.q_type = LSP_F16;
    d.k_type = LSP_BF16;
    d.v_type = LSP_F16;
    check_case(d, "f16, bf16, f16");
    d.q_type = LSP_BF16;
    d.k_type = LSP_F16;
    d.v_type = LSP_BF16;
    check_case(d, "bf16, f16, bf16");
}

/* ---- executing ----------------------------------------------------------------------------------- */

typedef struct progress_log {
    int calls;
    double last;
    bool forward;
} progress_log;

static void note_progress(void *user, double done)
{
    progress_log *log = user;
    log->forward = log->forward && done >= log->last && done <= 1;
    log->last = done;
    log->calls++;
}

static void executing_again_gives_the_same(void **state)
{
    (void)state;
    const lsp_gather_mode modes[] = {LSP_GATHER_PANELS, LSP_GATHER_ALL, LSP_GATHER_NODE, LSP_GATHER_CHAIN};
    for (int mode = 0; mode < 4; mode++) {
        progress_log log = {0, 0, true};
        lsp_attention_desc d = narrow(300, 1500, 8, 8);
        d.mask = LSP_MASK_CAUSAL;
        d.gather = modes[mode];
        result once = run_case(ctx, &d, &(run_options){.progress = note_progress, .user = &log});
        assert_true(log.calls > 0 && log.last == 1 && log.forward);
        result thrice = run_case(ctx, &d, &(run_options){.repeats = 3});
        result without = run_case(ctx, &d, &(run_options){.without_lse = true});
        assert_memory_equal(once.out, thrice.out, once.out_bytes);
        assert_memory_equal(once.lse, thrice.lse, once.lse_bytes);
        assert_memory_equal(once.out, without.out, once.out_bytes);
        free_result(&once);
        free_result(&thrice);
        free_result(&without);
    }
}

static void traffic_is_as_estimated(void **state)
{
    (void)state;
    lsp_attention_desc d = narrow(4 * 48 * ranks, 3000, 8, 8); /* every rank has rows, hence needs all keys */
    const lsp_gather_mode modes[] = {LSP_GATHER_PANELS, LSP_GATHER_ALL, LSP_GATHER_NODE, LSP_GATHER_CHAIN};
    for (int mode = 0; mode < 4; mode++) {
        d.gather = modes[mode];
        result r = run_case(ctx, &d, NULL);
        assert_int_equal(r.estimate.gather, modes[mode]);
        assert_true(r.bytes_received == 3000.0 * 64 * (ranks - 1));
        assert_true(r.estimate.bytes_received == r.bytes_received);
        free_result(&r);
    }
}

/* A key that is NaN in K and infinite in V changes the rows that see it, and no bit of the others. */
static void check_spoilt(lsp_attention_desc d, int64_t key)
{
    result clean = run_case(ctx, &d, NULL);
    result spoilt = run_case(ctx, &d, &(run_options){.spoil = true, .spoilt_key = key});
    size_t row_bytes = (size_t)d.d_v * sizeof(float);
    int64_t hit = 0;
    for (int64_t i = 0; i < d.n; i++) {
        int64_t distance;
        size_t at = (size_t)i * row_bytes;
        if (!sees(&d, 0, i, key, &distance)) {
            assert_memory_equal(clean.out + at, spoilt.out + at, row_bytes);
            assert_memory_equal(clean.lse + (size_t)i * sizeof(float), spoilt.lse + (size_t)i * sizeof(float),
                                sizeof(float));
            continue;
        }
        for (int64_t c = 0; c < d.d_v; c++) assert_true(isnan(((float *)(void *)spoilt.out)[i * d.d_v + c]));
        hit++;
    }
    assert_true(hit < d.n);
    free_result(&clean);
    free_result(&spoilt);
}

static void hidden_keys_do_not_contribute(void **state)
{
    (void)state;
    const int64_t lengths[] = {555}, of_rows[] = {0, 301, 600};
    for (int mode = LSP_GATHER_PANELS; mode <= LSP_GATHER_CHAIN; mode++) {
        lsp_attention_desc d = narrow(600, 600, 7, 5);
        d.gather = (lsp_gather_mode)mode;
        d.mask = LSP_MASK_CAUSAL;
        check_spoilt(d, 599);
        check_spoilt(d, 301);
        d.mask = LSP_MASK_WINDOW;
        d.window_left = d.window_right = 4;
        check_spoilt(d, 511);
        d.mask = LSP_MASK_NONE;
        d.documents = of_rows;
        d.document_count = 2;
        check_spoilt(d, 300);
        d.documents = NULL;
        d.key_lengths = lengths;
        check_spoilt(d, 555);
        d.key_lengths = NULL;
        d.key_begin = 20;
        d.key_end = 530;
        check_spoilt(d, 19);
        check_spoilt(d, 530);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes_of_every_kind),
        cmocka_unit_test(heads_and_batches),
        cmocka_unit_test(masks),
        cmocka_unit_test(documents),
        cmocka_unit_test(key_lengths),
        cmocka_unit_test(scores),
        cmocka_unit_test(stored_types),
        cmocka_unit_test(executing_again_gives_the_same),
        cmocka_unit_test(traffic_is_as_estimated),
        cmocka_unit_test(hidden_keys_do_not_contribute),
    };
    const test_context contexts[] = {{&ctx, 1, false}};
    return RUN_OVER_RANKS("attention", tests, contexts, NULL, NULL);
}
