/* For tests over ranks: operands that any rank can make, a plan run on them, its result put together by
 * row on every rank, and the definition as a plain loop in double precision (own visibility code).
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_TEST_ATTENTION_CASE_H
#define LSP_TEST_ATTENTION_CASE_H

#include "base/convert.h"
#include "base/random.h"
#include "mpi_case.h"

/* A whole result: out [batch, heads, n, d_v] and lse [batch, heads, n] in the computing type; rows that are
 * not computed hold zero bytes. */
typedef struct result {
    size_t out_bytes, lse_bytes;
    unsigned char *out, *lse;
    lsp_estimate estimate;
    double pairs, bytes_received; /* sums over ranks */
    double bytes_received_max;
    int64_t empty_rows;
} result;

/* What a run does besides. */
typedef struct run_options {
    int repeats;        /* execute that often (0: once) */
    bool without_lse;   /* pass NULL */
    int64_t spoilt_key; /* with spoil: this row of K is NaN, of V infinite, in all heads */
    bool spoil;
    lsp_progress_fn progress;
    void (*created)(void *user); /* called when the plan stands */
    void *user;
} run_options;

static inline int64_t end_of(int64_t end, int64_t whole)
{
    return end > 0 ? end : whole;
}

static inline int64_t kv_head(const lsp_attention_desc *d, int64_t head)
{
    return d->kv_head_of ? d->kv_head_of[head] : head / (d->heads / d->kv_heads);
}

/* ---- operands ------------------------------------------------------------------------------------ */

enum { ROLE_Q = 1, ROLE_K = 2, ROLE_V = 3 };

/* Rows of the runs, one after the other. */
static inline void *make_rows(const lsp_attention_desc *d, int role, const lsp_run *runs, int64_t run_count,
                              int64_t rows, const run_options *options)
{
    int64_t width = role == ROLE_V ? d->d_v : d->d_k, length = role == ROLE_Q ? d->n : d->m, at = 0;
    int64_t heads = role == ROLE_Q ? d->heads : d->kv_heads;
    lsp_dtype type = role == ROLE_Q ? d->q_type : role == ROLE_K ? d->k_type : d->v_type;
    void *array = case_alloc(rows * width, 8);
    double *row = case_alloc(width, sizeof *row);
    for (int64_t r = 0; r < run_count; r++)
        for (int64_t i = runs[r].begin; i < runs[r].begin + runs[r].count; i++) {
            int64_t index = (runs[r].batch * heads + runs[r].head) * length + i;
            lsp_random_normals(20, (uint64_t)role, (uint64_t)(index * width), width, row);
            bool spoilt = options && options->spoil && role != ROLE_Q && i == options->spoilt_key;
            for (int64_t c = 0; spoilt && c < width; c++) row[c] = role == ROLE_K ? NAN : INFINITY;
            lsp_convert_store(type, row, width, array, at);
            at += width;
        }
    assert_int_equal(at, rows * width);
    free(row);
    return array;
}

/* One whole matrix in double, rounded as the operand is. */
static inline double *make_matrix(const lsp_attention_desc *d, int role, int64_t batch, int64_t head)
{
    int64_t width = role == ROLE_V ? d->d_v : d->d_k, length = role == ROLE_Q ? d->n : d->m;
    lsp_run run = {batch, head, 0, length};
    void *array = make_rows(d, role, &run, 1, length, NULL);
    double *values = case_alloc(length * width, sizeof *values);
    lsp_convert_load(role == ROLE_Q   ? d->q_type
                     : role == ROLE_K ? d->k_type
                                      : d->v_type,
                     array, 0, length * width, values);
    free(array);
    return values;
}

/* ---- a run --------------------------------------------------------------------------------------- */

static inline void copy_runs(const lsp_attention_desc *d, const lsp_run *runs, int64_t run_count,
                             const void *rows, int64_t row_bytes, unsigned char *whole)
{
    const unsigned char *from = rows;
    for (int64_t r = 0; r < run_count; r++) {
        int64_t bytes = runs[r].count * row_bytes;
        int64_t to = ((runs[r].batch * d->heads + runs[r].head) * d->n + runs[r].begin) * row_bytes;
        for (int64_t i = 0; i < bytes; i++) whole[to + i] |= from[i];
        from += bytes;
    }
}

/* The rows of all ranks, in their places. */
static inline void put_together(lsp_context *ctx, const lsp_attention_desc *d, const lsp_run *runs,
                                int64_t run_count, const void *out, const void *lse, result *whole)
{
    int64_t element = (int64_t)lsp_dtype_size(lsp_dtype_result(d->compute));
    memset(whole->out, 0, whole->out_bytes);
    memset(whole->lse, 0, whole->lse_bytes);
    copy_runs(d, runs, run_count, out, d->d_v * element, whole->out);
    copy_runs(d, runs, run_count, lse, element, whole->lse);
    MPI_Allreduce(MPI_IN_PLACE, whole->out, (int)whole->out_bytes, MPI_BYTE, MPI_BOR, ctx->comm);
    MPI_Allreduce(MPI_IN_PLACE, whole->lse, (int)whole->lse_bytes, MPI_BYTE, MPI_BOR, ctx->comm);
}

/* Every row and key that is to be computed belongs to one rank, the others to none. */
static inline void check_runs(lsp_context *ctx, const lsp_attention_desc *d, lsp_attention *plan,
                              lsp_operand operand)
{
    bool keys = operand == LSP_KEYS;
    int64_t heads = keys ? d->kv_heads : d->heads, length = keys ? d->m : d->n, run_count, rows, sum = 0;
    int64_t begin = keys ? d->key_begin : d->row_begin;
    int64_t end = keys ? end_of(d->key_end, d->m) : end_of(d->row_end, d->n);
    const lsp_run *runs;
    assert_int_equal(lsp_attention_runs(plan, operand, &runs, &run_count, &rows), LSP_OK);
    int *times = case_alloc(d->batch * heads * length, sizeof *times);
    for (int64_t r = 0; r < run_count; r++) {
        assert_true(runs[r].count > 0);
        for (int64_t i = 0; i < runs[r].count; i++)
            times[(runs[r].batch * heads + runs[r].head) * length + runs[r].begin + i]++;
        sum += runs[r].count;
    }
    assert_int_equal(sum, rows);
    MPI_Allreduce(MPI_IN_PLACE, times, (int)(d->batch * heads * length), MPI_INT, MPI_SUM, ctx->comm);
    for (int64_t i = 0; i < d->batch * heads * length; i++)
        assert_int_equal(times[i], i % length >= begin && i % length < end);
    free(times);
}

static inline void execute_plan(lsp_context *ctx, const lsp_attention_desc *d, lsp_attention *plan,
                                const run_options *options, result *whole)
{
    const lsp_run *query_runs, *key_runs;
    int64_t query_run_count, query_rows, key_run_count, key_rows;
    lsp_attention_runs(plan, LSP_QUERIES, &query_runs, &query_run_count, &query_rows);
    lsp_attention_runs(plan, LSP_KEYS, &key_runs, &key_run_count, &key_rows);
    int64_t element = (int64_t)lsp_dtype_size(lsp_dtype_result(d->compute));
    void *q = make_rows(d, ROLE_Q, query_runs, query_run_count, query_rows, options);
    void *k = make_rows(d, ROLE_K, key_runs, key_run_count, key_rows, options);
    void *v = make_rows(d, ROLE_V, key_runs, key_run_count, key_rows, options);
    unsigned char *out = case_alloc(query_rows * d->d_v, (size_t)element);
    unsigned char *lse = case_alloc(query_rows, (size_t)element);
    memset(out, 0x7F, (size_t)(query_rows * d->d_v * element)); /* nothing may depend on what was there */
    lsp_attention_stats stats = {0};
    lsp_status status =
        lsp_attention_execute(plan, q, k, v, out, options && options->without_lse ? NULL : lse, &stats);
    if (status != LSP_OK) fail_msg("%s", lsp_context_message(ctx));
    assert_true(stats.seconds_total >= stats.seconds_compute && stats.seconds_gather_exposed >= 0);
    whole->pairs = stats.pairs;
    whole->bytes_received = stats.bytes_received;
    whole->empty_rows = stats.empty_rows;
    whole->bytes_received_max = stats.bytes_received;
    lsp_context_max_f64(ctx, &whole->bytes_received_max, 1);
    lsp_context_sum_f64(ctx, &whole->pairs, 1);
    lsp_context_sum_f64(ctx, &whole->bytes_received, 1);
    lsp_context_sum_i64(ctx, &whole->empty_rows, 1);
    put_together(ctx, d, query_runs, query_run_count, out, lse, whole);
    free(q);
    free(k);
    free(v);
    free(out);
    free(lse);
}

static inline result run_case(lsp_context *ctx, const lsp_attention_desc *d, const run_options *options)
{
    size_t element = lsp_dtype_size(lsp_dtype_result(d->compute)),
           rows = (size_t)(d->batch * d->heads * d->n);
    result whole = {.out_bytes = rows * (size_t)d->d_v * element, .lse_bytes = rows * element};
    whole.out = case_alloc((int64_t)whole.out_bytes, 1);
    whole.lse = case_alloc((int64_t)whole.lse_bytes, 1);
    lsp_attention *plan = NULL;
    if (lsp_attention_create(ctx, d, &plan) != LSP_OK) fail_msg("%s", lsp_context_message(ctx));
    whole.estimate = lsp_attention_get_estimate(plan);
    if (options && options->created) options->created(options->user);
    check_runs(ctx, d, plan, LSP_QUERIES);
    check_runs(ctx, d, plan, LSP_KEYS);
    if (options && options->progress) lsp_attention_set_progress(plan, options->progress, options->user);
    int repeats = options && options->repeats > 1 ? options->repeats : 1;
    for (int i = 0; i < repeats; i++) execute_plan(ctx, d, plan, options, &whole);
    assert_int_equal(lsp_attention_destroy(&plan), LSP_OK);
    assert_null(plan);
    return whole;
}

static inline void free_result(result *r)
{
    free(r->out);
    free(r->lse);
}

/* ---- the definition ------------------------------------------------------------------------------ */

/* Whether row i sees key j of a batch; *distance is |p - j|. A document is a sequence of its own. */
static inline bool sees(const lsp_attention_desc *d, int64_t batch, int64_t i, int64_t j, int64_t *distance)
{
    int64_t keys = d->key_lengths ? d->key_lengths[batch] : d->m, rows = d->n, key = j;
    if (j >= keys || j < d->key_begin || j >= end_of(d->key_end, d->m)) return false;
    if (d->documents) {
        const int64_t *of_rows = d->documents, *of_keys = d->documents_k ? d->documents_k : d->documents;
        int64_t own = 0;
        while (i >= of_rows[own + 1]) own++;
        if (j < of_keys[own] || j >= of_keys[own + 1]) return false;
        key -= of_keys[own];
        keys = (of_keys[own + 1] < keys ? of_keys[own + 1] : keys) - of_keys[own];
        i -= of_rows[own];
        rows = of_rows[own + 1] - of_rows[own];
    }
    int64_t p = d->align == LSP_ALIGN_TOP_LEFT ? i : i + keys - rows;
    *distance = p > key ? p - key : key - p;
    if (d->mask == LSP_MASK_CAUSAL) return key <= p;
    if (d->mask == LSP_MASK_WINDOW)
        return (key > p || p - key <= d->window_left) && (key < p || key - p <= d->window_right);
    return true;
}

/* One row: out [d_v] and lse; returns how many keys it sees. */
static inline int64_t define_row(const lsp_attention_desc *d, int64_t batch, int64_t head, int64_t row,
                                 const double *q, const double *k, const double *v, double *out, double *lse)
{
    double scale = d->scale != 0 ? d->scale : 1 / sqrt((double)d->d_k), most = -INFINITY, sum = 0;
    double *scores = case_alloc(d->m, sizeof *scores);
    int64_t seen = 0, distance = 0;
    for (int64_t j = 0; j < d->m; j++) {
        scores[j] = -INFINITY;
        if (!sees(d, batch, row, j, &distance)) continue;
        double s = 0;
        for (int64_t c = 0; c < d->d_k; c++) s += q[row * d->d_k + c] * k[j * d->d_k + c];
        s *= scale;
        if (d->softcap > 0) s = d->softcap * tanh(s / d->softcap);
        if (d->alibi_slopes) s -= d->alibi_slopes[head] * (double)distance;
        scores[j] = s;
        most = fmax(most, s);
        seen++;
    }
    for (int64_t c = 0; c < d->d_v; c++) out[c] = 0;
    for (int64_t j = 0; seen > 0 && j < d->m; j++) {
        double p = exp(scores[j] - most);
        sum += p;
        for (int64_t c = 0; p > 0 && c < d->d_v; c++) out[c] += p * v[j * d->d_v + c];
    }
    for (int64_t c = 0; seen > 0 && c < d->d_v; c++) out[c] /= sum;
    *lse = seen > 0 ? most + log(sum) : -INFINITY;
    free(scores);
    return seen;
}

#endif
