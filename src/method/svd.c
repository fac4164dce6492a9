/* What every decomposition shares: options, certificate, signs, spectrum. SPDX-License-Identifier: BSD-3-Clause */
#include "method/svd.h"

#include "base/checked.h"
#include "base/memory.h"

#include <math.h>

/* Both terms of the difference are right to about eps of ||W||^2, the difference to two. Where it is this many, that is 2 %
 * of it, and 1 % of its root, the error. */
enum { ROUNDINGS = 100 };
enum { SIGNS_AT_ONCE = 256, LONGEST_ITERATION = 100 };

lsp_svd_options lsp_svd_defaults(void)
{
    return (lsp_svd_options){.oversample = 16, .steps = 2};
}

lsp_status lsp_svd_check(lsp_context *ctx, const lsp_svd_options *o, int64_t n, int64_t m, int64_t *rank)
{
    if (!(o->tolerance >= 0) || !isfinite(o->tolerance))
        return lsp_context_fail(ctx, LSP_ERR_USAGE,
                                "tolerance is %g: it must be above 0, or 0 for a rank that is fixed",
                                o->tolerance);
    if (o->rank < 0 || (o->rank == 0 && o->tolerance == 0))
        return lsp_context_fail(ctx, LSP_ERR_USAGE,
                                "rank is %lld: it must be 1 or more, or 0 with a tolerance that chooses it",
                                (long long)o->rank);
    if (o->oversample < 0 || o->steps < 0 || o->steps > LONGEST_ITERATION)
        return lsp_context_fail(ctx, LSP_ERR_USAGE,
                                "oversample (%lld) must be 0 or more, steps (%lld) from 0 to %d",
                                (long long)o->oversample, (long long)o->steps, LONGEST_ITERATION);
    int64_t most = lsp_min(n, m);
    *rank = o->rank == 0 ? most : lsp_min(o->rank, most);
    return LSP_OK;
}

/* What is left of the square after the first `rank` values. */
static double rest_of(double square, const double *sigma, int64_t rank)
{
    double sum = 0; /* from the smallest on: it rounds least */
    for (int64_t i = rank - 1; i >= 0; i--) sum += sigma[i] * sigma[i];
    return square - sum;
}

lsp_svd_certificate lsp_svd_certify(double square, const double *sigma, int64_t rank, double eps)
{
    double rest = rest_of(square, sigma, rank);
    double relative = square > 0 && rest > 0 ? sqrt(rest / square) : 0;
    double floor = sqrt(ROUNDINGS * eps);
    return (lsp_svd_certificate){.norm = sqrt(square),
                                 .frobenius_error = rest > 0 ? sqrt(rest) : 0,
                                 .frobenius_relative = relative,
                                 .floor = floor,
                                 .meaningful = square == 0 || relative > floor};
}

int64_t lsp_svd_choose(const lsp_svd_options *options, double square, const double *sigma, int64_t count,
                       bool *met)
{
    *met = true;
    if (options->tolerance == 0) return count;
    double allowed = options->tolerance * options->tolerance * square, rest = square;
    for (int64_t r = 0; r < count; r++) {
        rest -= sigma[r] * sigma[r];
        if (rest <= allowed) return r + 1;
    }
    *met = false;
    return count;
}

/* Columns [first, first + count) of V. */
static lsp_status fix_some_signs(lsp_context *ctx, lsp_svd *svd, int64_t first, int64_t count)
{
    double most[SIGNS_AT_ONCE] = {0}, value[SIGNS_AT_ONCE];
    for (int64_t j = 0; j < svd->keys; j++)
        for (int64_t c = 0; c < count; c++) most[c] = fmax(most[c], fabs(svd->v[j * svd->rank + first + c]));
    lsp_status status = lsp_context_max_f64(ctx, most, (int)count);
    if (status != LSP_OK) return status;
    for (int64_t c = 0; c < count; c++) value[c] = -most[c];
    for (int64_t j = 0; j < svd->keys; j++)
        for (int64_t c = 0; c < count; c++)
            if (svd->v[j * svd->rank + first + c] == most[c]) value[c] = most[c];
    status = lsp_context_max_f64(ctx, value, (int)count);
    for (int64_t c = 0; status == LSP_OK && c < count; c++) {
        if (!(value[c] < 0)) continue;
        for (int64_t j = 0; j < svd->keys; j++) svd->v[j * svd->rank + first + c] *= -1;
        for (int64_t i = 0; i < svd->rows; i++) svd->u[i * svd->rank + first + c] *= -1;
    }
    return status;
}

lsp_status lsp_svd_fix_signs(lsp_context *ctx, lsp_svd *svd)
{
    lsp_status status = LSP_OK;
    for (int64_t c = 0; status == LSP_OK && c < svd->rank; c += SIGNS_AT_ONCE)
        status = fix_some_signs(ctx, svd, c, lsp_min(SIGNS_AT_ONCE, svd->rank - c));
    return status;
}

static int64_t rank_for(const lsp_svd *svd, double share)
{
    double square = svd->certificate.norm * svd->certificate.norm, sum = 0;
    for (int64_t r = 0; r < svd->rank; r++) {
        sum += svd->sigma[r] * svd->sigma[r];
        if (sum >= share * square) return r + 1;
    }
    return -1;
}

lsp_spectrum lsp_svd_spectrum(const lsp_svd *svd)
{
    double sum = 0, entropy = 0;
    for (int64_t r = 0; r < svd->rank; r++) sum += svd->sigma[r];
    for (int64_t r = 0; r < svd->rank; r++) {
        double p = sum > 0 ? svd->sigma[r] / sum : 0;
        if (p > 0) entropy -= p * log(p);
    }
    return (lsp_spectrum){sum > 0 ? exp(entropy) : 0, rank_for(svd, 0.9), rank_for(svd, 0.99),
                          rank_for(svd, 0.999)};
}

void lsp_svd_destroy(lsp_svd **out)
{
    lsp_svd *svd = out ? *out : NULL;
    if (!svd) return;
    lsp_memory_free(svd->sigma);
    lsp_memory_free(svd->u);
    lsp_memory_free(svd->v);
    lsp_memory_free(svd);
    *out = NULL;
}
