/* Attention by truncated matrices (source document, section 3.3): for each query head the truncated SVD of W, then
 * O = U_r S_r (V_r^T V). Heads come one after the other, each over all ranks, whose rows and keys of it are those of
 * an operator. SPDX-License-Identifier: BSD-3-Clause */
#include "method/lowrank.h"

#include "base/checked.h"
#include "base/clock.h"
#include "base/convert.h"
#include "base/memory.h"
#include "linalg/tall_product.h"
#include "method/method.h"
#include "method/operator.h"

#include <math.h>
#include <string.h>

enum { MOST_STEPS = 100 };

/* ---- what is asked for --------------------------------------------------------------------------- */

static lsp_status check(const lsp_attention_desc *d, lsp_error *error)
{
    if (!(d->tolerance >= 0) || !isfinite(d->tolerance))
        return lsp_error_set(error, LSP_ERR_USAGE,
                             "tolerance is %g: it must be above 0, or 0 for a rank that is fixed "
                             "(attention.tolerance)",
                             d->tolerance);
    if (d->rank < 0 || (d->rank == 0 && d->tolerance == 0))
        return lsp_error_set(
            error, LSP_ERR_USAGE,
            "rank is %lld: method lowrank keeps 1 singular value or more, or takes a tolerance "
            "that chooses their number (attention.rank, attention.tolerance)",
            (long long)d->rank);
    if ((int)d->svd < 0 || d->svd > LSP_SVD_FULL || d->oversample < -1 || d->steps < -1 ||
        d->steps > MOST_STEPS)
        return lsp_error_set(
            error, LSP_ERR_USAGE,
            "svd %d does not exist, or oversample (%lld) is not -1 (none), 0 (chosen) or more, or "
            "steps (%lld) not from -1 (none) to %d",
            (int)d->svd, (long long)d->oversample, (long long)d->steps, MOST_STEPS);
    if (d->compute == LSP_BF16)
        return lsp_error_set(error, LSP_ERR_USAGE,
                             "method lowrank computes in f32 or f64, not in bf16: set compute.dtype");
    if (d->head_groups > 1)
        return lsp_error_set(
            error, LSP_ERR_USAGE,
            "method lowrank takes all ranks for each head: compute.head_groups = %d cannot be "
            "had, leave it at auto",
            d->head_groups);
    if (lsp_attention_hides_later(d) && !d->allow_leak)
        return lsp_error_set(
            error, LSP_ERR_USAGE,
            "the mask hides later keys (causal, or a window with window_right = 0), and rows of "
            "the truncated matrix see later keys a little: set attention.allow_leak = yes if "
            "that is acceptable");
    return LSP_OK;
}

lsp_svd_options lsp_lowrank_options(const lsp_attention_desc *d)
{
    lsp_svd_options options = lsp_svd_defaults();
    options.rank = d->rank;
    options.tolerance = d->tolerance;
    if (d->oversample != 0) options.oversample = lsp_max(0, d->oversample);
    if (d->steps != 0) options.steps = lsp_max(0, d->steps);
    options.seed = d->seed;
    return options;
}

lsp_attention_desc lsp_lowrank_operator(const lsp_attention_desc *desc, int64_t batch, int64_t head,
                                        lsp_partition_kind kind)
{
    lsp_attention_desc d = *desc;
    d.method = LSP_METHOD_EXACT;
    d.batch = d.heads = d.kv_heads = 1;
    d.kv_head_of = NULL;
    d.d_v = 0;
    d.v_type = d.compute;
    d.partition = kind;
    if (d.key_lengths) d.key_lengths += batch;
    if (d.alibi_slopes) d.alibi_slopes += head;
    return d;
}

/* ---- state ----------------------------------------------------------------------------------------- */

static size_t element_size(const lsp_attention *plan)
{
    return lsp_dtype_size(plan->problem.desc.compute);
}

static int64_t keys_of(const lsp_attention *plan)
{
    int64_t units = plan->unit_end - plan->unit_begin;
    return units > 0 ? plan->key_rows / units : 0;
}

static lsp_status prepare(lsp_attention *plan)
{
    lsp_lowrank *l = plan->own = lsp_memory_zalloc(1, sizeof *l);
    bool ok = l != NULL;
    if (ok) {
        const lsp_attention_desc *d = &plan->problem.desc;
        l->heads = lsp_memory_zalloc(plan->matrix_count, sizeof *l->heads);
        if (d->keep_values)
            l->values = lsp_memory_alloc(plan->matrix_count * keys_of(plan) * d->d_v, element_size(plan));
        ok = l->heads && (l->values || !d->keep_values);
    }
    lsp_status status = LSP_OK;
    if (!ok)
        status =
            lsp_context_fail(plan->ctx, LSP_ERR_LIMIT,
                             "not enough memory for the values of %lld heads: use more ranks, or fewer heads "
                             "at a time",
                             (long long)plan->matrix_count);
    return lsp_context_agree(plan->ctx, status);
}

static void release(lsp_attention *plan)
{
    lsp_lowrank *l = plan->own;
    if (!l) return;
    lsp_memory_free(l->heads);
    lsp_memory_free(l->values);
    lsp_memory_free(l);
    plan->own = NULL;
}

/* ---- one head --------------------------------------------------------------------------------------- */

/* One head of an execution: this rank's part. */
typedef struct job {
    lsp_attention *plan;
    int64_t index; /* of the matrix */
    const char *q, *k, *v;
    char *out, *lse; /* lse may be NULL */
    lsp_operator *op;
    lsp_svd *svd;
    lsp_lowrank_head *head;
    double *values; /* [keys][d_v] */
    int64_t empty_rows;
} job;

/* Rows of V in double. A key that no row sees never contributes, whatever its row of V. */
static void load_values(const job *j)
{
    const lsp_attention_desc *d = &j->plan->problem.desc;
#pragma omp parallel for schedule(static) num_threads(j->plan->ctx->layout.threads)
    for (int64_t key = 0; key < j->svd->keys; key++) {
        double *row = j->values + key * d->d_v;
        if (j->op->sight[key].begin < j->op->sight[key].end)
            lsp_convert_load(d->v_type, j->v, key * d->d_v, d->d_v, row);
        else
            memset(row, 0, (size_t)d->d_v * sizeof *row);
    }
}

/* Collective. z = V_r^T V; the values kept; what is left of V, and its bound. */
static lsp_status project_values(job *j, double *z)
{
    lsp_attention *plan = j->plan;
    const lsp_lowrank *l = plan->own;
    lsp_context *ctx = plan->ctx;
    int64_t d_v = plan->problem.desc.d_v, keys = j->svd->keys, rank = j->svd->rank;
    double *projected = lsp_memory_zalloc(keys * d_v, sizeof *projected);
    lsp_status status = LSP_OK;
    if (!projected)
        status = lsp_context_fail(ctx, LSP_ERR_LIMIT, "not enough memory for the values of a head");
    status = lsp_context_agree(ctx, status);
    if (status == LSP_OK) status = lsp_tall_inner(ctx, keys, j->svd->v, rank, j->values, d_v, z);
    if (status == LSP_OK)
        status = lsp_tall_add_product(ctx, keys, 1, j->svd->v, rank, z, d_v, d_v, projected, d_v);
    if (status == LSP_OK && l->values)
        lsp_convert_store(plan->problem.desc.compute, projected, keys * d_v, l->values,
                          j->index * keys * d_v);
    for (int64_t i = 0; status == LSP_OK && i < keys * d_v; i++) j->values[i] -= projected[i];
    lsp_memory_free(projected);
    status = lsp_context_agree(ctx, status);
    return status == LSP_OK ? lsp_lowrank_bound(ctx, keys, d_v, j->values, j->head) : status;
}

/* Local. O = U (S z); rows without keys are zero whatever z is. */
static lsp_status store_out(job *j, double *z)
{
    const lsp_attention *plan = j->plan;
    const lsp_attention_desc *d = &plan->problem.desc;
    const lsp_svd *svd = j->svd;
    int64_t range = 0, start = 0, d_v = d->d_v;
    double *out = lsp_memory_zalloc(svd->rows * d_v, sizeof *out);
    if (!out) return lsp_context_fail(plan->ctx, LSP_ERR_LIMIT, "not enough memory for the output of a head");
    for (int64_t r = 0; r < svd->rank; r++)
        for (int64_t c = 0; c < d_v; c++) z[r * d_v + c] *= svd->sigma[r];
    lsp_status status =
        lsp_tall_add_product(plan->ctx, svd->rows, 1, svd->u, svd->rank, z, d_v, d_v, out, d_v);
    for (int64_t i = 0; i < svd->rows; i++) {
        int64_t row = lsp_attention_global_row(plan, i, &range, &start);
        lsp_sight sight = lsp_mask_sight(&plan->problem.mask, plan->matrices[j->index].batch, row);
        if (sight.begin < sight.end) continue;
        memset(out + i * d_v, 0, (size_t)d_v * sizeof *out);
        j->empty_rows++;
    }
    if (status == LSP_OK) lsp_convert_store(d->compute, out, svd->rows * d_v, j->out, 0);
    lsp_memory_free(out);
    return status;
}

static lsp_status attend(job *j)
{
    lsp_attention *plan = j->plan;
    int64_t d_v = plan->problem.desc.d_v;
    double *z = lsp_memory_alloc(j->svd->rank * d_v, sizeof *z);
    j->values = lsp_memory_alloc(j->svd->keys * d_v, sizeof *j->values);
    lsp_status status = LSP_OK;
    if (!z || !j->values)
        status = lsp_context_fail(plan->ctx, LSP_ERR_LIMIT, "not enough memory for the values of a head");
    status = lsp_context_agree(plan->ctx, status);
    if (status == LSP_OK) {
        load_values(j);
        status = project_values(j, z);
    }
    if (status == LSP_OK) status = lsp_context_agree(plan->ctx, store_out(j, z));
    lsp_memory_free(j->values);
    lsp_memory_free(z);
    return status;
}

/* Where one head's progress stands in that of all. */
typedef struct head_progress {
    const lsp_attention *plan;
    double before;
} head_progress;

static void tell(void *user, double done)
{
    const head_progress *p = user;
    if (p->plan->progress)
        p->plan->progress(p->plan->progress_user, (p->before + done) / (double)p->plan->matrix_count);
}

static lsp_status decompose(job *j)
{
    lsp_attention *plan = j->plan;
    const lsp_attention_desc *d = &plan->problem.desc;
    const lsp_query_matrix *matrix = &plan->matrices[j->index];
    lsp_attention_desc desc = lsp_lowrank_operator(d, matrix->batch, matrix->head, plan->partition.kind);
    head_progress progress = {plan, (double)j->index};
    lsp_svd_options options = lsp_lowrank_options(d);
    desc.isa = plan->kernel->isa;
    options.progress = tell;
    options.user = &progress;
    lsp_status status = lsp_operator_create(plan->ctx, &desc, &j->op);
    if (status == LSP_OK) status = lsp_operator_bind(j->op, j->q, j->k);
    if (status == LSP_OK)
        status = d->svd == LSP_SVD_FULL ? lsp_svd_full(j->op, &options, &j->svd)
                                        : lsp_svd_krylov(j->op, &options, &j->svd);
    if (status == LSP_OK && j->lse) status = lsp_operator_lse(j->op, j->lse);
    if (status != LSP_OK) return status;
    *j->head = (lsp_lowrank_head){.batch = matrix->batch,
                                  .head = matrix->head,
                                  .rank = j->svd->rank,
                                  .certificate = j->svd->certificate,
                                  .tolerance_met = j->svd->tolerance_met};
    return LSP_OK;
}

static lsp_status run_head(job *j, lsp_attention_stats *stats)
{
    double begin = lsp_clock();
    lsp_status status = decompose(j);
    if (status == LSP_OK) status = attend(j);
    if (status == LSP_OK) {
        lsp_operator_stats op = lsp_operator_get_stats(j->op);
        stats->seconds_gather_exposed += op.seconds_gather_exposed;
        stats->bytes_received += op.bytes_received;
        stats->empty_rows += j->empty_rows;
        j->head->seconds = lsp_clock() - begin;
        tell(&(head_progress){j->plan, (double)j->index},
             1); /* the basis may be complete before its last step */
    }
    lsp_svd_destroy(&j->svd);
    lsp_operator_destroy(&j->op);
    return status;
}

/* ---- the whole --------------------------------------------------------------------------------------- */

static job describe(lsp_attention *plan, const lsp_method_arrays *arrays, int64_t index)
{
    const lsp_attention_desc *d = &plan->problem.desc;
    const lsp_query_matrix *m = &plan->matrices[index];
    size_t element = element_size(plan);
    int64_t key = m->unit * keys_of(plan);
    lsp_lowrank *l = plan->own;
    return (job){.plan = plan,
                 .index = index,
                 .q = (const char *)arrays->q + (size_t)(m->first * d->d_k) * lsp_dtype_size(d->q_type),
                 .k = (const char *)arrays->k + (size_t)(key * d->d_k) * lsp_dtype_size(d->k_type),
                 .v = (const char *)arrays->v + (size_t)(key * d->d_v) * lsp_dtype_size(d->v_type),
                 .out = (char *)arrays->out + (size_t)(m->first * d->d_v) * element,
                 .lse = arrays->lse ? (char *)arrays->lse + (size_t)m->first * element : NULL,
                 .head = &l->heads[index]};
}

static lsp_status execute(lsp_attention *plan, const lsp_method_arrays *arrays, lsp_attention_stats *stats)
{
    double begin = lsp_clock();
    lsp_lowrank *l = plan->own;
    lsp_status status = LSP_OK;
    lsp_attention_stats sums = {.pairs = plan->pairs};
    l->done = false;
    for (int64_t i = 0; status == LSP_OK && i < plan->matrix_count; i++) {
        job j = describe(plan, arrays, i);
        status = run_head(&j, &sums);
    }
    if (status == LSP_OK) {
        l->certificate = lsp_lowrank_together(l->heads, plan->matrix_count);
        l->done = true;
    }
    sums.seconds_total = lsp_clock() - begin;
    sums.seconds_compute = sums.seconds_total - sums.seconds_gather_exposed;
    *stats = sums;
    return status;
}

const lsp_method_ops lsp_method_lowrank = {.name = "lowrank",
                                           .check = check,
                                           .whole_heads = true,
                                           .columns = lsp_operator_columns,
                                           .prepare = prepare,
                                           .release = release,
                                           .estimate = lsp_lowrank_estimate,
                                           .execute = execute};
