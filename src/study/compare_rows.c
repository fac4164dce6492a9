/* SPDX-License-Identifier: BSD-3-Clause */
#include "study/compare_rows.h"

#include "base/checked.h"
#include "base/convert.h"
#include "base/memory.h"
#include "comm/exchange.h"

#include <math.h>

enum { PIECE = 64 }; /* columns converted at a time */

/* What is known of a block. Others than its owner have zeros, so that a sum over ranks is the owner's value. */
enum {
    BLOCK_ERROR,     /* sum of ||o - o^||^2 */
    BLOCK_SIZE,      /* sum of ||o||^2 */
    BLOCK_ROWS,      /* compared */
    BLOCK_LEFT,      /* not compared */
    BLOCK_MASS,      /* sum of retained masses */
    BLOCK_MASS_ROWS, /* rows with keys */
    BLOCK_LEAST,     /* least retained mass */
    BLOCK_DROPPED,   /* largest dropped mass, rounding allowed for */
    BLOCK_ROW_ERROR, /* largest ||o - o^|| / ||o|| */
    BLOCK_WORST,     /* the row of it */
    BLOCK_VALUES
};

/* ---- blocks -------------------------------------------------------------------------------------- */

static int64_t height_of(const lsp_attention_desc *d)
{
    return d->row_end - d->row_begin;
}

static int64_t share_begin(int64_t blocks, int rank, int ranks)
{
    return blocks / ranks * rank + lsp_min(rank, blocks % ranks);
}

int64_t lsp_compare_rows_bytes(const lsp_attention_desc *d, int ranks)
{
    int64_t blocks = d->batch * d->heads * lsp_ceil_div(height_of(d), LSP_COMPARE_BLOCK);
    int64_t rows =
        lsp_min(lsp_ceil_div(blocks, ranks) * LSP_COMPARE_BLOCK, d->batch * d->heads * height_of(d));
    return rows * (d->d_v + 1) * (int64_t)lsp_dtype_size(lsp_dtype_result(d->compute));
}

/* Rows of all blocks before this one. */
static int64_t rows_before(const lsp_compare_rows *r, int64_t block)
{
    return block / r->matrix_blocks * height_of(r->desc) + block % r->matrix_blocks * LSP_COMPARE_BLOCK;
}

/* Rows [*begin, *end) of a block of matrix block / matrix_blocks. */
static void block_rows(const lsp_compare_rows *r, int64_t block, int64_t *begin, int64_t *end)
{
    *begin = r->desc->row_begin + block % r->matrix_blocks * LSP_COMPARE_BLOCK;
    *end = lsp_min(*begin + LSP_COMPARE_BLOCK, r->desc->row_end);
}

lsp_status lsp_compare_rows_make(lsp_context *ctx, const lsp_attention_desc *d, lsp_compare_rows *r)
{
    int ranks = ctx->layout.ranks, rank = ctx->layout.rank;
    *r = (lsp_compare_rows){.ctx = ctx, .desc = d, .type = lsp_dtype_result(d->compute)};
    r->matrix_blocks = lsp_ceil_div(height_of(d), LSP_COMPARE_BLOCK);
    r->blocks = d->batch * d->heads * r->matrix_blocks;
    r->block_begin = share_begin(r->blocks, rank, ranks);
    int64_t end = share_begin(r->blocks, rank + 1, ranks);
    int64_t most = lsp_min(end - r->block_begin, d->batch * d->heads);
    r->runs = lsp_memory_alloc(most, sizeof *r->runs);
    r->lengths = lsp_memory_zalloc(d->batch * d->kv_heads, sizeof *r->lengths);
    for (int64_t block = r->block_begin; r->runs && block < end; block++) {
        int64_t matrix = block / r->matrix_blocks, first = 0, stop = 0;
        block_rows(r, block, &first, &stop);
        if (block == r->block_begin || first == d->row_begin)
            r->runs[r->run_count++] = (lsp_run){matrix / d->heads, matrix % d->heads, first, 0};
        r->runs[r->run_count - 1].count += stop - first;
        r->rows += stop - first;
    }
    if (r->runs && r->lengths) return LSP_OK;
    return lsp_context_fail(ctx, LSP_ERR_LIMIT, "compare: no memory for the list of rows");
}

void lsp_compare_rows_free(lsp_compare_rows *r)
{
    lsp_memory_free(r->runs);
    lsp_memory_free(r->lengths);
    lsp_memory_free(r->out);
    lsp_memory_free(r->lse);
    r->runs = NULL;
    r->lengths = NULL;
    r->out = r->lse = NULL;
}

lsp_status lsp_compare_rows_bring(const lsp_compare_rows *r, const lsp_run *runs, int64_t run_count,
                                  const void *from, bool lse, void **array)
{
    lsp_exchange *exchange = NULL;
    int64_t row_bytes = (lse ? 1 : r->desc->d_v) * (int64_t)lsp_dtype_size(r->type);
    lsp_status status = LSP_OK;
    *array = lsp_memory_alloc(r->rows, (size_t)row_bytes);
    if (!*array) status = lsp_context_fail(r->ctx, LSP_ERR_LIMIT, "compare: no memory to keep an output");
    status = lsp_context_agree(r->ctx, status);
    if (status == LSP_OK)
        status = lsp_exchange_create(r->ctx, runs, run_count, r->runs, r->run_count, &exchange);
    if (status == LSP_OK) status = lsp_exchange_rows(exchange, row_bytes, from, *array);
    lsp_exchange_destroy(&exchange);
    return status;
}

static lsp_status reduce(lsp_context *ctx, lsp_status (*over_ranks)(lsp_context *, double *, int),
                         double *values, int64_t count)
{
    const int64_t piece = 512;
    lsp_status status = LSP_OK;
    for (int64_t i = 0; status == LSP_OK && i < count; i += piece)
        status = over_ranks(ctx, values + i, (int)lsp_min(piece, count - i));
    return status;
}

/* ---- rows of V ------------------------------------------------------------------------------------ */

static double length_of(lsp_dtype type, const void *v, int64_t row, int64_t d_v)
{
    double values[PIECE], square = 0;
    for (int64_t c = 0; c < d_v; c += PIECE) {
        int64_t count = lsp_min(PIECE, d_v - c);
        lsp_convert_load(type, v, row * d_v + c, count, values);
        for (int64_t i = 0; i < count; i++) square += values[i] * values[i];
    }
    return isfinite(square) ? sqrt(square) : INFINITY;
}

lsp_status lsp_compare_rows_measure(lsp_compare_rows *r, const lsp_run *key_runs, int64_t key_run_count,
                                    const void *v)
{
    const lsp_attention_desc *d = r->desc;
    int64_t before = 0;
    for (int64_t i = 0; i < key_run_count; before += key_runs[i++].count) {
        lsp_run run = key_runs[i];
        int64_t limit = d->key_lengths ? d->key_lengths[run.batch] : d->m;
        int64_t count = lsp_min(run.count, limit - run.begin);
        double longest = r->lengths[run.batch * d->kv_heads + run.head];
#pragma omp parallel for schedule(static) num_threads(r->ctx->layout.threads) reduction(max : longest)
        for (int64_t row = 0; row < count; row++) {
            double length = length_of(d->v_type, v, before + row, d->d_v);
            if (length > longest) longest = length;
        }
        r->lengths[run.batch * d->kv_heads + run.head] = longest;
    }
    return reduce(r->ctx, lsp_context_max_f64, r->lengths, d->batch * d->kv_heads);
}

/* ---- errors -------------------------------------------------------------------------------------- */

/* ||o - o^||^2 and ||o||^2. */
static void row_squares(const lsp_compare_rows *r, const void *out, int64_t row, double *error, double *size)
{
    int64_t d_v = r->desc->d_v;
    double exact[PIECE], other[PIECE];
    *error = *size = 0;
    for (int64_t c = 0; c < d_v; c += PIECE) {
        int64_t count = lsp_min(PIECE, d_v - c);
        lsp_convert_load(r->type, r->out, row * d_v + c, count, exact);
        lsp_convert_load(r->type, out, row * d_v + c, count, other);
        for (int64_t i = 0; i < count; i++) {
            *error += (exact[i] - other[i]) * (exact[i] - other[i]);
            *size += exact[i] * exact[i];
        }
    }
}

/* What the dropped mass of a row may be off by: the two sums of weights (bf16 adds up rounded ones), and the rounding
 * of their logarithms. */
static double rounding_of(lsp_dtype compute, double lse)
{
    double sums = compute == LSP_F64 ? 0x1p-46 : compute == LSP_F32 ? 0x1p-19 : 0x1p-7;
    return sums + fabs(lse) * (compute == LSP_F64 ? 0x1p-51 : 0x1p-22);
}

static void judge_mass(const lsp_compare_rows *r, const void *lse, int64_t row, double *value)
{
    double exact = 0, own = 0;
    lsp_convert_load(r->type, r->lse, row, 1, &exact);
    if (exact == -INFINITY) return; /* sees no key */
    lsp_convert_load(r->type, lse, row, 1, &own);
    double mass = fmin(exp(own - exact), 1);
    value[BLOCK_MASS] += mass;
    value[BLOCK_MASS_ROWS]++;
    value[BLOCK_LEAST] = fmin(value[BLOCK_LEAST], mass);
    value[BLOCK_DROPPED] = fmax(value[BLOCK_DROPPED], 1 - mass + rounding_of(r->desc->compute, exact));
}

static void judge_block(const lsp_compare_rows *r, int64_t block, const void *out, const void *lse,
                        double *value)
{
    int64_t begin = 0, end = 0, at = rows_before(r, block) - rows_before(r, r->block_begin);
    block_rows(r, block, &begin, &end);
    value[BLOCK_LEAST] = 1;
    value[BLOCK_WORST] = (double)begin;
    for (int64_t row = begin; row < end; row++, at++) {
        double error = 0, size = 0;
        row_squares(r, out, at, &error, &size);
        if (!isfinite(size)) {
            value[BLOCK_LEFT]++;
            continue;
        }
        if (isnan(error)) error = INFINITY;
        value[BLOCK_ROWS]++;
        value[BLOCK_ERROR] += error;
        value[BLOCK_SIZE] += size;
        double relative = size > 0 ? sqrt(error / size) : 0;
        if (relative > value[BLOCK_ROW_ERROR]) {
            value[BLOCK_ROW_ERROR] = relative;
            value[BLOCK_WORST] = (double)row;
        }
        if (lse) judge_mass(r, lse, at, value);
    }
}

static double relative_error(double error, double size)
{
    if (error == 0) return 0;
    return size > 0 ? sqrt(error / size) : INFINITY;
}

static int64_t kv_unit(const lsp_attention_desc *d, int64_t matrix)
{
    int64_t head = matrix % d->heads;
    int64_t kv = d->kv_head_of ? d->kv_head_of[head] : head / (d->heads / d->kv_heads);
    return matrix / d->heads * d->kv_heads + kv;
}

/* Adds up the blocks of one matrix, and that sum to `all`. */
static void conclude_matrix(const lsp_compare_rows *r, const double *values, int64_t matrix, bool lse,
                            double all[BLOCK_VALUES], lsp_compare_result *result, lsp_compare_head *head)
{
    double sum[BLOCK_VALUES] = {[BLOCK_LEAST] = 1};
    for (int64_t block = 0; block < r->matrix_blocks; block++) {
        const double *value = values + (matrix * r->matrix_blocks + block) * BLOCK_VALUES;
        for (int i = BLOCK_ERROR; i <= BLOCK_MASS_ROWS; i++) sum[i] += value[i];
        sum[BLOCK_LEAST] = fmin(sum[BLOCK_LEAST], value[BLOCK_LEAST]);
        sum[BLOCK_DROPPED] = fmax(sum[BLOCK_DROPPED], value[BLOCK_DROPPED]);
        if (value[BLOCK_ROW_ERROR] > sum[BLOCK_ROW_ERROR]) {
            sum[BLOCK_ROW_ERROR] = value[BLOCK_ROW_ERROR];
            sum[BLOCK_WORST] = value[BLOCK_WORST];
        }
    }
    for (int i = BLOCK_ERROR; i <= BLOCK_MASS_ROWS; i++) all[i] += sum[i];
    all[BLOCK_LEAST] = fmin(all[BLOCK_LEAST], sum[BLOCK_LEAST]);
    if (sum[BLOCK_ROW_ERROR] > result->row_error) {
        result->row_error = sum[BLOCK_ROW_ERROR];
        result->worst[0] = matrix / r->desc->heads;
        result->worst[1] = matrix % r->desc->heads;
        result->worst[2] = (int64_t)sum[BLOCK_WORST];
    }
    if (lse && sum[BLOCK_DROPPED] > 0)
        result->out_error_bound =
            fmax(result->out_error_bound, 2 * sum[BLOCK_DROPPED] * r->lengths[kv_unit(r->desc, matrix)]);
    if (!head) return;
    double rows = sum[BLOCK_MASS_ROWS];
    *head = (lsp_compare_head){.out_error = relative_error(sum[BLOCK_ERROR], sum[BLOCK_SIZE]),
                               .row_error = sum[BLOCK_ROW_ERROR],
                               .retained = !lse       ? NAN
                                           : rows > 0 ? sum[BLOCK_MASS] / rows
                                                      : 1};
}

lsp_status lsp_compare_rows_judge(const lsp_compare_rows *r, const void *out, const void *lse,
                                  lsp_compare_result *result, lsp_compare_head *heads)
{
    lsp_context *ctx = r->ctx;
    double *values = lsp_memory_zalloc(r->blocks, BLOCK_VALUES * sizeof *values);
    lsp_status status = LSP_OK;
    if (!values)
        status = lsp_context_fail(ctx, LSP_ERR_LIMIT, "compare: no memory for the errors of blocks of rows");
    status = lsp_context_agree(ctx, status);
    if (status == LSP_OK) {
        int64_t end = share_begin(r->blocks, ctx->layout.rank + 1, ctx->layout.ranks);
#pragma omp parallel for schedule(dynamic) num_threads(ctx->layout.threads)
        for (int64_t block = r->block_begin; block < end; block++)
            judge_block(r, block, out, lse, values + block * BLOCK_VALUES);
        status = reduce(ctx, lsp_context_sum_f64, values, r->blocks * BLOCK_VALUES);
    }
    if (status == LSP_OK) {
        double all[BLOCK_VALUES] = {[BLOCK_LEAST] = 1};
        int64_t matrices = r->desc->batch * r->desc->heads;
        for (int64_t matrix = 0; matrix < matrices; matrix++)
            conclude_matrix(r, values, matrix, lse != NULL, all, result, heads ? &heads[matrix] : NULL);
        result->rows = (int64_t)all[BLOCK_ROWS];
        result->left_out = (int64_t)all[BLOCK_LEFT];
        result->out_error = relative_error(all[BLOCK_ERROR], all[BLOCK_SIZE]);
        if (lse) {
            double rows = all[BLOCK_MASS_ROWS];
            result->retained_mean = rows > 0 ? all[BLOCK_MASS] / rows : 1;
            result->retained_least = all[BLOCK_LEAST];
        }
    }
    lsp_memory_free(values);
    return lsp_context_agree(ctx, status);
}
