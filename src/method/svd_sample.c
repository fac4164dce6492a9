/* The true error of a truncated W in sampled rows: W^T E has the rows themselves, when E are columns of the identity.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "base/checked.h"
#include "base/memory.h"
#include "base/random.h"
#include "method/operator.h"
#include "method/svd.h"

#include <math.h>
#include <string.h>

enum { ROWS_MOST = 256, ROWS_AT_ONCE = 16, SAMPLE_STREAM = 0x5A, SUMMED_AT_ONCE = 512 };

typedef struct sample {
    lsp_operator *op;
    const lsp_svd *svd;
    int64_t n, rows, own_first; /* of W; sampled; first row of this rank */
    uint64_t seed;
    void *e, *w;          /* [rows of this rank][ROWS_AT_ONCE], [keys][ROWS_AT_ONCE] in the operator's type */
    double *left;         /* [ROWS_AT_ONCE][rank] rows of U diag(sigma) */
    double error, square; /* sums over sampled rows and keys of this rank */
} sample;

/* One row of each of `rows` equal parts of W. */
static int64_t row_of(const sample *s, int64_t i)
{
    double place = (double)i + lsp_random_uniform(s->seed, SAMPLE_STREAM, (uint64_t)i);
    return lsp_min(s->n - 1, (int64_t)(place * (double)s->n / (double)s->rows));
}

static void set(const sample *s, void *array, int64_t index, double value)
{
    if (s->op->plan->problem.desc.compute == LSP_F64)
        ((double *)array)[index] = value;
    else
        ((float *)array)[index] = (float)value;
}

static double get(const sample *s, const void *array, int64_t index)
{
    if (s->op->plan->problem.desc.compute == LSP_F64) return ((const double *)array)[index];
    return (double)((const float *)array)[index];
}

/* Columns of the identity, and the rows of U diag(sigma), of `count` sampled rows. */
static lsp_status take_rows(sample *s, int64_t first, int64_t count)
{
    const lsp_svd *svd = s->svd;
    size_t element = lsp_dtype_size(s->op->plan->problem.desc.compute);
    lsp_status status = LSP_OK;
    memset(s->e, 0, (size_t)(svd->rows * count) * element);
    memset(s->left, 0, (size_t)(count * svd->rank) * sizeof *s->left);
    for (int64_t c = 0; c < count; c++) {
        int64_t own = row_of(s, first + c) - s->own_first;
        if (own < 0 || own >= svd->rows) continue;
        set(s, s->e, own * count + c, 1);
        for (int64_t r = 0; r < svd->rank; r++)
            s->left[c * svd->rank + r] = svd->u[own * svd->rank + r] * svd->sigma[r];
    }
    for (int64_t i = 0; status == LSP_OK && i < count * svd->rank; i += SUMMED_AT_ONCE)
        status =
            lsp_context_sum_f64(s->op->ctx, s->left + i, (int)lsp_min(SUMMED_AT_ONCE, count * svd->rank - i));
    return status;
}

static lsp_status compare_rows(sample *s, int64_t first, int64_t count)
{
    const lsp_svd *svd = s->svd;
    lsp_status status = take_rows(s, first, count);
    if (status == LSP_OK) status = lsp_operator_apply_transposed(s->op, s->e, count, s->w);
    for (int64_t key = 0; status == LSP_OK && key < svd->keys; key++)
        for (int64_t c = 0; c < count; c++) {
            double w = get(s, s->w, key * count + c), difference = w;
            for (int64_t r = 0; r < svd->rank; r++)
                difference -= s->left[c * svd->rank + r] * svd->v[key * svd->rank + r];
            s->error += difference * difference;
            s->square += w * w;
        }
    return status;
}

lsp_status lsp_svd_sample(lsp_operator *op, const lsp_svd *svd, int64_t rows, uint64_t seed,
                          lsp_svd_sampled *out)
{
    const lsp_attention *plan = op->plan;
    const lsp_attention_desc *d = &plan->problem.desc;
    size_t element = lsp_dtype_size(d->compute);
    sample s = {.op = op, .svd = svd, .n = d->row_end - d->row_begin, .seed = seed};
    s.rows = lsp_min(lsp_min(rows, ROWS_MOST), s.n);
    s.own_first = plan->query_run_count > 0 ? plan->query_runs[0].begin - d->row_begin : 0;
    s.e = lsp_memory_alloc(svd->rows * ROWS_AT_ONCE, element);
    s.w = lsp_memory_alloc(svd->keys * ROWS_AT_ONCE, element);
    s.left = lsp_memory_alloc(ROWS_AT_ONCE * svd->rank, sizeof *s.left);
    lsp_status status = s.e && s.w && s.left ? LSP_OK
                                             : lsp_context_fail(op->ctx, LSP_ERR_LIMIT,
                                                                "not enough memory for sampled rows of W");
    status = lsp_context_agree(op->ctx, status);
    for (int64_t i = 0; status == LSP_OK && i < s.rows; i += ROWS_AT_ONCE)
        status = compare_rows(&s, i, lsp_min(ROWS_AT_ONCE, s.rows - i));
    double sums[2] = {s.error, s.square};
    if (status == LSP_OK) status = lsp_context_sum_f64(op->ctx, sums, 2);
    if (status == LSP_OK)
        *out = (lsp_svd_sampled){s.rows, sqrt(sums[0]), sums[1] > 0 ? sqrt(sums[0] / sums[1]) : 0};
    lsp_memory_free(s.e);
    lsp_memory_free(s.w);
    lsp_memory_free(s.left);
    return status;
}
