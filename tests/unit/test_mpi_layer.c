/* The layer: its bits do not depend on who computed what, and its values are those of the definition, written down here
 * once more. What cannot be is refused by all ranks.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "mpi_case.h"

#include "base/convert.h"
#include "base/random.h"
#include "comm/rows.h"

#include <longspan/layer.h>
#include <longspan/study.h>

static lsp_context *one_thread, *two_threads, *alone;

/* ---- operands that any rank can make ------------------------------------------------------------- */

enum { STREAM_X = 1, STREAM_CONTEXT, STREAM_QKV, STREAM_QKV_BIAS, STREAM_OUT, STREAM_OUT_BIAS, STREAM_NORM };

static void *make_values(lsp_dtype type, uint64_t stream, int64_t first, int64_t count, double size)
{
    double *values = calloc((size_t)count + 1, sizeof *values);
    void *array = calloc((size_t)count + 1, sizeof(double));
    assert_true(values && array);
    lsp_random_normals(7, stream, (uint64_t)first, count, values);
    for (int64_t i = 0; i < count; i++) values[i] *= size;
    lsp_convert_store(type, values, count, array, 0);
    free(values);
    return array;
}

typedef struct weights_case {
    lsp_layer_weights weights;
    void *arrays[6];
} weights_case;

static weights_case make_weights(const lsp_layer_desc *d, lsp_dtype type)
{
    const lsp_attention_desc *a = &d->attention;
    int64_t columns = (a->heads + 2 * a->kv_heads) * a->d_k, out = a->heads * a->d_k;
    weights_case w = {.weights = {.type = type}};
    w.arrays[0] = make_values(type, STREAM_QKV, 0, columns * d->d_model, 1 / sqrt((double)d->d_model));
    w.arrays[1] = make_values(type, STREAM_QKV_BIAS, 0, columns, 0.3);
    w.arrays[2] = make_values(type, STREAM_OUT, 0, d->d_model * out, 1 / sqrt((double)out));
    w.arrays[3] = make_values(type, STREAM_OUT_BIAS, 0, d->d_model, 0.3);
    w.arrays[4] = make_values(type, STREAM_NORM, 0, a->d_k, 1);
    w.arrays[5] = make_values(type, STREAM_NORM, 1000, a->d_k, 1);
    w.weights.qkv = w.arrays[0];
    w.weights.qkv_bias = w.arrays[1];
    w.weights.out = w.arrays[2];
    w.weights.out_bias = w.arrays[3];
    w.weights.q_norm = w.arrays[4];
    w.weights.k_norm = w.arrays[5];
    return w;
}

static void free_weights(weights_case *w)
{
    for (int i = 0; i < 6; i++) free(w->arrays[i]);
}

/* Rows of this rank's runs. */
static void *make_rows(const lsp_layer *layer, lsp_layer_operand operand, const lsp_layer_desc *d)
{
    const lsp_run *runs;
    int64_t run_count, rows, at = 0;
    bool context = operand == LSP_LAYER_CONTEXT;
    lsp_dtype type = context ? d->context_type : d->x_type;
    int64_t height = context ? d->attention.m : d->attention.n;
    lsp_layer_runs(layer, operand, &runs, &run_count, &rows);
    size_t bytes = (size_t)d->d_model * lsp_dtype_size(type);
    char *array = calloc((size_t)rows + 1, bytes);
    assert_non_null(array);
    for (int64_t r = 0; r < run_count; r++) {
        int64_t first = (runs[r].batch * height + runs[r].begin) * d->d_model;
        assert_true(runs[r].head == 0 && runs[r].count > 0);
        void *part =
            make_values(type, context ? STREAM_CONTEXT : STREAM_X, first, runs[r].count * d->d_model, 1);
        memcpy(array + (size_t)at * bytes, part, (size_t)runs[r].count * bytes);
        at += runs[r].count;
        free(part);
    }
    assert_int_equal(at, rows);
    return array;
}

/* ---- a run --------------------------------------------------------------------------------------- */

/* Y [batch, n, d_model] put together on every rank of ctx, in the result type. */
static unsigned char *run_layer(lsp_context *ctx, const lsp_layer_desc *d, lsp_dtype weight_type, bool verify)
{
    weights_case w = make_weights(d, weight_type);
    lsp_layer *layer = NULL;
    lsp_status status = lsp_layer_create(ctx, d, &w.weights, &layer);
    if (status != LSP_OK) fail_msg("create: %s", lsp_context_message(ctx));
    void *x = make_rows(layer, LSP_LAYER_X, d),
         *context = d->cross ? make_rows(layer, LSP_LAYER_CONTEXT, d) : NULL;
    const lsp_run *runs;
    int64_t run_count, rows, at = 0;
    lsp_layer_runs(layer, LSP_LAYER_X, &runs, &run_count, &rows);
    size_t bytes = (size_t)d->d_model * lsp_dtype_size(lsp_dtype_result(d->attention.compute));
    size_t all = (size_t)(d->attention.batch * d->attention.n) * bytes;
    unsigned char *y = malloc((size_t)rows * bytes + 1), *whole = calloc(all + 1, 1);
    assert_true(y && whole);
    lsp_layer_stats stats;
    for (int repeat = 0; repeat < 2; repeat++) { /* the second time everything was used before */
        memset(y, 0x7F, (size_t)rows * bytes);
        status = lsp_layer_execute(layer, x, context, y, &stats);
        if (status != LSP_OK) fail_msg("execute: %s", lsp_context_message(ctx));
    }
    if (verify) {
        lsp_verify_result result;
        bool end_to_end = false;
        status = lsp_verify_layer(ctx, layer, &w.weights, x, context, y, 8, 3, 0, &end_to_end, &result);
        if (status != LSP_OK) fail_msg("verify: %s", lsp_context_message(ctx));
        if (!result.passed)
            fail_msg("row %d of batch %d: %g, allowed %g", (int)result.worst[2], (int)result.worst[0],
                     result.max_rel_err, result.tolerance);
        assert_true(result.max_rel_err > 0); /* a comparison of something */
    }
    for (int64_t r = 0; r < run_count; r++) {
        size_t to = (size_t)(runs[r].batch * d->attention.n + runs[r].begin) * bytes;
        memcpy(whole + to, y + (size_t)at * bytes, (size_t)runs[r].count * bytes);
        at += runs[r].count;
    }
    assert_int_equal(MPI_Allreduce(MPI_IN_PLACE, whole, (int)all, MPI_BYTE, MPI_BOR, ctx->comm), MPI_SUCCESS);
    lsp_layer_destroy(&layer);
    assert_null(layer);
    free_weights(&w);
    free(x);
    free(context);
    free(y);
    return whole;
}

static size_t result_bytes(const lsp_layer_desc *d)
{
    return (size_t)(d->attention.batch * d->attention.n * d->d_model) *
           lsp_dtype_size(lsp_dtype_result(d->attention.compute));
}

static void expect_same(lsp_context *ctx, const lsp_layer_desc *d, lsp_dtype type,
                        const unsigned char *expected, bool verify, const char *what)
{
    unsigned char *got = run_layer(ctx, d, type, verify);
    size_t row = result_bytes(d) / (size_t)(d->attention.batch * d->attention.n);
    for (size_t i = 0; i < result_bytes(d); i++)
        if (got[i] != expected[i]) fail_msg("%s: row %d of Y differs", what, (int)(i / row));
    free(got);
}

/* On all ranks with one and two threads, gathered and dealt out in every way, as on one rank. */
static void check_bits(lsp_layer_desc d, lsp_dtype type, const char *what)
{
    unsigned char *expected = run_layer(alone, &d, type, rank == 0);
    expect_same(one_thread, &d, type, expected, true, what);
    expect_same(two_threads, &d, type, expected, false, what);
    /* Many ranks on few cores take their time: they are dealt rows in one way. */
    for (int kind = ranks > 3 ? LSP_PARTITION_CYCLIC : LSP_PARTITION_CONTIGUOUS; kind <= LSP_PARTITION_CYCLIC;
         kind++) {
        d.attention.partition = (lsp_partition_kind)kind;
        d.attention.head_groups = kind == LSP_PARTITION_BALANCED ? ranks : 1;
        d.attention.gather = kind == LSP_PARTITION_CYCLIC ? LSP_GATHER_ALL : LSP_GATHER_PANELS;
        expect_same(one_thread, &d, type, expected, false, what);
    }
    free(expected);
}

static lsp_layer_desc plain_desc(int64_t batch, int64_t n, int64_t heads, int64_t d_model, int64_t head_dim)
{
    return (lsp_layer_desc){.attention = {.batch = batch,
                                          .heads = heads,
                                          .kv_heads = heads,
                                          .n = n,
                                          .m = n,
                                          .d_k = head_dim,
                                          .d_v = head_dim,
                                          .compute = LSP_F32},
                            .d_model = d_model,
                            .x_type = LSP_F32,
                            .context_type = LSP_F32};
}

/* ---- bits ---------------------------------------------------------------------------------------- */

static void test_plain(void **state)
{
    (void)state;
    check_bits(plain_desc(1, 1029, 3, 40, 16), LSP_F32, "plain");
    check_bits(plain_desc(3, 201, 2, 23, 7), LSP_F64, "batch, weights in f64");
    check_bits(plain_desc(1, 3, 1, 5, 3), LSP_F32, "fewer rows than ranks");
    check_bits(plain_desc(1, 1, 2, 1, 1), LSP_F32, "one row");
}

static void test_types(void **state)
{
    (void)state;
    lsp_layer_desc d = plain_desc(1, 530, 3, 24, 8);
    d.attention.compute = LSP_F64;
    check_bits(d, LSP_F32, "f64 of f32");
    d.x_type = LSP_F64;
    check_bits(d, LSP_F64, "f64");
    d.attention.compute = LSP_F32;
    check_bits(d, LSP_F64, "f32 of f64");
    d.attention.compute = LSP_BF16;
    check_bits(d, LSP_F32, "bf16");
}

static void test_positions(void **state)
{
    (void)state;
    lsp_layer_desc d = plain_desc(1, 777, 6, 48, 8);
    d.attention.kv_heads = 2;
    d.attention.mask = LSP_MASK_CAUSAL;
    d.rope_base = 10000;
    d.qk_norm = true;
    check_bits(d, LSP_F32, "grouped, causal, rotary half, norm");
    d.rope_pairing = LSP_ROPE_INTERLEAVED;
    d.attention.mask = LSP_MASK_WINDOW;
    d.attention.window_left = 50;
    check_bits(d, LSP_F32, "grouped, window, rotary interleaved, norm");
}

static void test_cross(void **state)
{
    (void)state;
    lsp_layer_desc d = plain_desc(2, 100, 4, 32, 8);
    const int64_t lengths[] = {613, 0};
    d.attention.kv_heads = 2;
    d.attention.m = 613;
    d.cross = true;
    d.rope_base = 100;
    check_bits(d, LSP_F32, "cross");
    d.context_type = LSP_F64;
    d.attention.key_lengths = lengths;
    check_bits(d, LSP_F32, "cross with key lengths, context in f64");
    d.attention.n = 613;
    d.attention.m = 1;
    d.attention.key_lengths = NULL;
    d.attention.mask = LSP_MASK_CAUSAL;
    check_bits(d, LSP_F32, "cross with one key, rows without any");
}

static void test_methods(void **state)
{
    (void)state;
    lsp_layer_desc d = plain_desc(1, 700, 4, 32, 8);
    d.attention.method = LSP_METHOD_BLOCK;
    d.attention.block_size = 90;
    check_bits(d, LSP_F32, "block");
    d.attention.method = LSP_METHOD_TOPK;
    d.attention.topk = 11;
    check_bits(d, LSP_F32, "topk");
}

/* Messages cut into many pieces. */
static void test_counts(void **state)
{
    (void)state;
    lsp_layer_desc d = plain_desc(1, 600, 2, 16, 8);
    unsigned char *expected = run_layer(alone, &d, LSP_F32, false);
    int64_t before = lsp_rows_set_limit(1000);
    expect_same(one_thread, &d, LSP_F32, expected, false, "messages of 1000 bytes");
    lsp_rows_set_limit(before);
    free(expected);
}

/* A row's bits are its own: not those of other rows of its block. */
static void test_other_rows(void **state)
{
    (void)state;
    lsp_layer_desc d = plain_desc(1, 300, 2, 24, 12);
    d.attention.method = LSP_METHOD_BLOCK;
    d.attention.block_size = 100;
    unsigned char *expected = run_layer(alone, &d, LSP_F32, false);
    weights_case w = make_weights(&d, LSP_F32);
    lsp_layer *layer = NULL;
    assert_int_equal(lsp_layer_create(alone, &d, &w.weights, &layer), LSP_OK);
    float *x = make_rows(layer, LSP_LAYER_X, &d);
    float *y = calloc((size_t)(d.attention.n * d.d_model), sizeof *y);
    assert_non_null(y);
    for (int64_t i = 100 * d.d_model; i < 300 * d.d_model; i++) x[i] = i % 7 == 0 ? NAN : 1e30f;
    assert_int_equal(lsp_layer_execute(layer, x, NULL, y, NULL), LSP_OK);
    assert_memory_equal(y, expected, (size_t)(100 * d.d_model) * sizeof *y);
    lsp_layer_destroy(&layer);
    free_weights(&w);
    free(x);
    free(y);
    free(expected);
}

/* ---- verification -------------------------------------------------------------------------------- */

/* A wrong row of Y does not pass, with either way of checking. */
static void test_wrong_rows_are_found(void **state)
{
    (void)state;
    for (int method = LSP_METHOD_EXACT; method <= LSP_METHOD_TOPK; method += LSP_METHOD_TOPK) {
        lsp_layer_desc d = plain_desc(1, 40, 2, 24, 12);
        d.attention.method = (lsp_method)method;
        d.attention.topk = 5;
        weights_case w = make_weights(&d, LSP_F32);
        lsp_layer *layer = NULL;
        assert_int_equal(lsp_layer_create(one_thread, &d, &w.weights, &layer), LSP_OK);
        float *x = make_rows(layer, LSP_LAYER_X, &d);
        int64_t rows, run_count;
        const lsp_run *runs;
        lsp_layer_runs(layer, LSP_LAYER_X, &runs, &run_count, &rows);
        float *y = calloc((size_t)(rows * d.d_model) + 1, sizeof *y);
        assert_non_null(y);
        assert_int_equal(lsp_layer_execute(layer, x, NULL, y, NULL), LSP_OK);
        lsp_verify_result result;
        bool end_to_end;
        assert_int_equal(
            lsp_verify_layer(one_thread, layer, &w.weights, x, NULL, y, 40, 0, 0, &end_to_end, &result),
            LSP_OK);
        assert_true(result.passed && end_to_end == (method == LSP_METHOD_EXACT));
        assert_int_equal(result.rows, 40);
        for (int64_t r = 0, at = 0; r < run_count; at += runs[r++].count)
            if (runs[r].begin <= 17 && 17 < runs[r].begin + runs[r].count)
                y[(at + 17 - runs[r].begin) * d.d_model + 3] += 0.01f;
        assert_int_equal(
            lsp_verify_layer(one_thread, layer, &w.weights, x, NULL, y, 40, 0, 0, &end_to_end, &result),
            LSP_OK);
        assert_false(result.passed);
        assert_int_equal(result.worst[2], 17);
        lsp_layer_destroy(&layer);
        free_weights(&w);
        free(x);
        free(y);
    }
}

/* ---- refusals ------------------------------------------------------------------------------------ */

static void refuse(const lsp_layer_desc *d, lsp_status status, const char *word)
{
    lsp_layer_desc sound = plain_desc(1, 40, 2, 24, 12);
    weights_case w = make_weights(&sound, LSP_F32);
    lsp_layer *layer = NULL;
    assert_int_equal(lsp_layer_create(one_thread, d, &w.weights, &layer), status);
    assert_null(layer);
    if (!strstr(lsp_context_message(one_thread), word))
        fail_msg("'%s' is not in: %s", word, lsp_context_message(one_thread));
    free_weights(&w);
}

static void test_refusals(void **state)
{
    (void)state;
    lsp_layer_desc d = plain_desc(1, 40, 2, 24, 12);
    d.attention.kv_heads = 3;
    refuse(&d, LSP_ERR_USAGE, "multiple");
    d = plain_desc(1, 40, 2, 24, 12);
    d.attention.m = 41;
    refuse(&d, LSP_ERR_USAGE, "context");
    d = plain_desc(1, 40, 2, 24, 12);
    d.attention.d_v = 11;
    refuse(&d, LSP_ERR_USAGE, "head_dim");
    d = plain_desc(1, 40, 2, 24, 12);
    d.x_type = LSP_F16;
    refuse(&d, LSP_ERR_USAGE, "f16");
    d = plain_desc(1, 40, 2, 24, 11);
    d.rope_base = 10000;
    refuse(&d, LSP_ERR_USAGE, "even");
    d = plain_desc(1, 40, 2, 24, 12);
    d.rope_base = -1;
    refuse(&d, LSP_ERR_USAGE, "base");
    d = plain_desc(1, 0, 2, 24, 12);
    refuse(&d, LSP_ERR_USAGE, "n is 0");
    d = plain_desc(1, 40, 2, (int64_t)1 << 31, 12);
    refuse(&d, LSP_ERR_LIMIT, "2^31");
    d = plain_desc(1, 40, 2, 24, 12);
    d.attention.memory_limit = 1 << 16;
    refuse(&d, LSP_ERR_LIMIT, "not enough memory");
    d = plain_desc(1, 4, 2, 1 << 18, 12); /* 96 MiB of weights on every rank, little else */
    d.attention.memory_limit = (int64_t)ranks << 26;
    refuse(&d, LSP_ERR_LIMIT, "weights 96.0");
    d = plain_desc(1, 40, 2, 24, 12);
    d.attention.method = LSP_METHOD_BLOCK;
    refuse(&d, LSP_ERR_USAGE, "block");
    d = plain_desc(1, 40, 2, 24, 12);
    if (rank == ranks - 1) d.qk_norm_eps = -1; /* one rank alone: all are told */
    refuse(&d, LSP_ERR_USAGE, "qk_norm_eps");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),      cmocka_unit_test(test_types),
        cmocka_unit_test(test_positions),  cmocka_unit_test(test_cross),
        cmocka_unit_test(test_methods),    cmocka_unit_test(test_counts),
        cmocka_unit_test(test_other_rows), cmocka_unit_test(test_wrong_rows_are_found),
        cmocka_unit_test(test_refusals),
    };
    const test_context contexts[] = {{&one_thread, 1, false}, {&two_threads, 2, false}, {&alone, 1, true}};
    return RUN_OVER_RANKS("layer", tests, contexts, NULL, NULL);
}
