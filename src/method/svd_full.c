/* The full decomposition of W: formed in double, row by row, dealt to a process grid, and given to pdgesvd. The
 * reference for the others, for matrices that fit. SPDX-License-Identifier: BSD-3-Clause */
#include "base/checked.h"
#include "base/clock.h"
#include "base/convert.h"
#include "base/memory.h"
#include "comm/rows.h"
#include "linalg/full_svd.h"
#include "method/operator.h"
#include "method/svd.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { STRIPE_VALUES = 1 << 22, SUMMED_AT_ONCE = 256, REDUCED_AT_ONCE = 512 };

typedef struct job {
    lsp_context *ctx;
    const lsp_operator *op;
    const lsp_attention_desc *desc;
    const lsp_svd_options *options;
    int64_t n, m, rows, keys, first_row; /* of W; of this rank */
    int64_t most;                        /* singular values to keep at most */
    int64_t rows_most;                   /* of any rank */
    int64_t stripe;                      /* rows formed and dealt at a time, the same on every rank */
    double *k, *q, *w;                   /* [m][d_k], [stripe][d_k], [stripe][m] */
    lsp_full_svd *full;
} job;

/* ---- W ------------------------------------------------------------------------------------------- */

static double score(const lsp_attention_desc *d, const double *q, const double *k, int64_t distance)
{
    double dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t c = 0; c < d->d_k; c++) dot += q[c] * k[c];
    double s = d->scale * dot;
    if (d->softcap != 0) s = d->softcap * tanh(s / d->softcap);
    return d->alibi_slopes ? s - d->alibi_slopes[0] * fabs((double)distance) : s;
}

/* Row `row` of the whole: w [m]. */
static void form_row(const job *j, int64_t row, const double *q, double *w)
{
    const lsp_attention_desc *d = j->desc;
    lsp_sight sight = lsp_mask_sight(&j->op->plan->problem.mask, 0, row);
    double top = -INFINITY, total = 0;
    memset(w, 0, (size_t)j->m * sizeof *w);
    for (int64_t key = sight.begin; key < sight.end; key++) {
        int64_t c = key - d->key_begin;
        w[c] = score(d, q, j->k + c * d->d_k, sight.position - key);
        if (w[c] > top) top = w[c];
    }
    for (int64_t begin = sight.begin; begin < sight.end; begin += SUMMED_AT_ONCE) {
        double sum = 0; /* apart, so that the error does not grow with m */
        for (int64_t key = begin; key < lsp_min(sight.end, begin + SUMMED_AT_ONCE); key++) {
            int64_t c = key - d->key_begin;
            w[c] = exp(w[c] - top);
            sum += w[c];
        }
        total += sum;
    }
    for (int64_t key = sight.begin; key < sight.end; key++) w[key - d->key_begin] /= total;
}

/* Collective. All keys, in double, on every rank. */
static lsp_status gather_keys(job *j)
{
    int ranks = j->ctx->layout.ranks, rank = j->ctx->layout.rank;
    int64_t *counts = lsp_memory_zalloc(3 * (int64_t)ranks, sizeof *counts), *first = counts + ranks;
    int *room = (int *)(void *)(counts + 2 * (int64_t)ranks);
    lsp_status status = LSP_OK;
    if (!counts)
        status = lsp_context_fail(j->ctx, LSP_ERR_LIMIT, "not enough memory for the keys of %d ranks", ranks);
    status = lsp_context_agree(j->ctx, status);
    if (status == LSP_OK) counts[rank] = j->keys;
    for (int r = 0; status == LSP_OK && r < ranks; r += REDUCED_AT_ONCE)
        status = lsp_context_sum_i64(j->ctx, counts + r, (int)lsp_min(REDUCED_AT_ONCE, ranks - r));
    for (int r = 1; status == LSP_OK && r < ranks; r++) first[r] = first[r - 1] + counts[r - 1];
    if (status == LSP_OK) {
        double *mine = j->k + first[rank] * j->desc->d_k;
        lsp_convert_load(j->desc->k_type, j->op->k, 0, j->keys * j->desc->d_k, mine);
        status = lsp_context_mpi(j->ctx,
                                 lsp_rows_allgather(mine, j->k, counts, first,
                                                    j->desc->d_k * (int64_t)sizeof *mine, room, j->ctx->comm),
                                 "gathering the keys of the full SVD");
    }
    lsp_memory_free(counts);
    return status;
}

/* Rows [begin, end) of this rank. */
static void form_rows(const job *j, int64_t begin, int64_t end)
{
    int64_t d_k = j->desc->d_k;
#pragma omp parallel num_threads(j->ctx->layout.threads)
    {
        uint64_t mode = lsp_fpmode_enter();
#pragma omp for schedule(dynamic, 8)
        for (int64_t i = begin; i < end; i++) {
            double *q = j->q + (i - begin) * d_k;
            lsp_convert_load(j->desc->q_type, j->op->q, i * d_k, d_k, q);
            form_row(j, j->first_row + i, q, j->w + (i - begin) * j->m);
        }
        lsp_fpmode_leave(mode);
    }
}

/* Collective. Fills the block-cyclic matrix, a stripe of every rank's rows at a time. */
static lsp_status form(job *j)
{
    lsp_status status = gather_keys(j);
    for (int64_t at = 0; status == LSP_OK && at < j->rows_most; at += j->stripe) {
        int64_t begin = lsp_min(at, j->rows), end = lsp_min(at + j->stripe, j->rows);
        form_rows(j, begin, end);
        int64_t above = j->rows > 0 ? j->first_row - j->desc->row_begin : 0;
        lsp_block mine = {above + begin, above + end, 0, j->m};
        status = lsp_cyclic_deal(&j->full->matrix, &mine, j->w, j->full->w);
    }
    return status;
}

/* ---- the decomposition ----------------------------------------------------------------------------- */

static lsp_status no_memory(const job *j, const char *what)
{
    return lsp_context_fail(j->ctx, LSP_ERR_LIMIT,
                            "not enough memory for %s of a %lld x %lld matrix W: use attention.svd = krylov",
                            what, (long long)j->n, (long long)j->m);
}

/* Keys, a stripe, and two times it while it moves; and the operator stays. */
static int64_t other_bytes(const job *j)
{
    int64_t forming = j->m * j->desc->d_k + j->stripe * (3 * j->m + j->desc->d_k);
    return forming * (int64_t)sizeof(double) + j->op->plan->estimate.footprint.total;
}

int64_t lsp_svd_full_stripe(int64_t rows, int64_t m)
{
    return lsp_max(1, lsp_min(rows, STRIPE_VALUES / m));
}

/* Collective. */
static lsp_status make_matrix(job *j)
{
    j->rows_most = j->rows;
    lsp_status status = lsp_context_max_i64(j->ctx, &j->rows_most, 1);
    if (status != LSP_OK) return status;
    j->stripe = lsp_svd_full_stripe(j->rows_most, j->m);
    status = lsp_full_svd_create(j->ctx, j->n, j->m, true, other_bytes(j), j->desc->memory_limit, &j->full);
    if (status != LSP_OK) return status;
    j->k = lsp_memory_alloc(j->m * j->desc->d_k, sizeof *j->k);
    j->q = lsp_memory_alloc(j->stripe * j->desc->d_k, sizeof *j->q);
    j->w = lsp_memory_alloc(j->stripe * j->m, sizeof *j->w);
    status = lsp_context_agree(j->ctx, j->k && j->q && j->w ? LSP_OK : no_memory(j, "the rows"));
    return status == LSP_OK ? form(j) : status;
}

static void forget_rows(job *j)
{
    lsp_memory_free(j->k);
    lsp_memory_free(j->q);
    lsp_memory_free(j->w);
    j->k = j->q = j->w = NULL;
}

/* What rank r leaves out is the sum of the squares that come after: unlike a difference of norms it does not
 * cancel. The rank is the least that meets the tolerance. */
static void truncate(const job *j, lsp_svd *svd)
{
    const lsp_full_svd *full = j->full;
    double square = full->frobenius_squared, rest = 0,
           allowed = j->options->tolerance * j->options->tolerance;
    int64_t rank = full->count;
    for (; rank > j->most; rank--) rest += full->sigma[rank - 1] * full->sigma[rank - 1];
    svd->tolerance_met = j->options->tolerance == 0 || rest <= allowed * square;
    while (j->options->tolerance > 0 && rank > 1) {
        double more = rest + full->sigma[rank - 1] * full->sigma[rank - 1];
        if (more > allowed * square) break;
        rest = more;
        rank--;
    }
    svd->rank = rank;
    double relative = square > 0 ? sqrt(rest / square) : 0;
    double floor =
        100 * DBL_EPSILON * sqrt((double)full->count); /* a hundred roundings: right to a per cent */
    svd->certificate = (lsp_svd_certificate){.norm = sqrt(square),
                                             .frobenius_error = sqrt(rest),
                                             .frobenius_relative = relative,
                                             .floor = floor,
                                             .meaningful = square == 0 || relative > floor};
}

/* Collective. This rank's rows of U and V. */
static lsp_status take_vectors(const job *j, lsp_svd *svd)
{
    int64_t rank = svd->rank, row = j->rows > 0 ? j->first_row - j->desc->row_begin : 0;
    int64_t key = j->keys > 0 ? j->op->plan->key_runs[0].begin - j->desc->key_begin : 0;
    double *vt = lsp_memory_alloc(rank * j->keys, sizeof *vt);
    svd->sigma = lsp_memory_alloc(rank, sizeof *svd->sigma);
    svd->u = lsp_memory_alloc(j->rows * rank, sizeof *svd->u);
    svd->v = lsp_memory_alloc(j->keys * rank, sizeof *svd->v);
    bool ok = vt && svd->sigma && svd->u && svd->v;
    lsp_status status = lsp_context_agree(j->ctx, ok ? LSP_OK : no_memory(j, "the singular vectors"));
    if (status == LSP_OK) status = lsp_full_svd_u_rows(j->full, row, row + j->rows, rank, svd->u);
    if (status == LSP_OK) status = lsp_full_svd_vt_cols(j->full, key, key + j->keys, rank, vt);
    for (int64_t r = 0; status == LSP_OK && r < rank; r++) {
        svd->sigma[r] = j->full->sigma[r];
        for (int64_t i = 0; i < j->keys; i++) svd->v[i * rank + r] = vt[r * j->keys + i];
    }
    lsp_memory_free(vt);
    return status;
}

static void tell(const job *j, double done)
{
    if (j->options->progress) j->options->progress(j->options->user, done);
}

static lsp_status decompose(job *j, lsp_svd *svd)
{
    lsp_status status = make_matrix(j);
    forget_rows(j);
    if (status == LSP_OK) tell(j, 0.01); /* nearly all time is pdgesvd's, which does not tell how far it is */
    if (status == LSP_OK) status = lsp_full_svd_execute(j->full);
    if (status == LSP_OK) {
        truncate(j, svd);
        svd->rows = j->rows;
        svd->keys = j->keys;
        svd->basis = j->full->count;
        svd->attempts = 1;
        status = take_vectors(j, svd);
    }
    lsp_full_svd_destroy(&j->full);
    if (status == LSP_OK) tell(j, 1);
    return status;
}

static lsp_status check(job *j, const lsp_svd *svd)
{
    if (!svd) return no_memory(j, "a decomposition");
    if (!j->op->bound)
        return lsp_context_fail(j->ctx, LSP_ERR_USAGE,
                                "the operator has no operands: call lsp_operator_bind first");
    return lsp_svd_check(j->ctx, j->options, j->n, j->m, &j->most);
}

lsp_status lsp_svd_full(lsp_operator *op, const lsp_svd_options *options, lsp_svd **out)
{
    double begin = lsp_clock();
    const lsp_attention *plan = op->plan;
    const lsp_attention_desc *d = &plan->problem.desc;
    job j = {.ctx = op->ctx,
             .op = op,
             .desc = d,
             .options = options,
             .n = d->row_end - d->row_begin,
             .m = d->key_end - d->key_begin,
             .rows = plan->query_rows,
             .keys = plan->key_rows,
             .first_row = plan->query_rows > 0 ? plan->query_runs[0].begin : 0};
    *out = NULL;
    lsp_svd *svd = lsp_memory_zalloc(1, sizeof *svd);
    lsp_status status = lsp_context_agree(j.ctx, check(&j, svd));
    if (status == LSP_OK) status = decompose(&j, svd);
    if (status == LSP_OK) {
        svd->seconds = lsp_clock() - begin;
        *out = svd;
    } else {
        lsp_svd_destroy(&svd);
    }
    return status;
}
