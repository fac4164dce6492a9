/* SPDX-License-Identifier: BSD-3-Clause */
#include "study/check.h"

#include <float.h>
#include <math.h>

static double unit_roundoff(lsp_dtype compute)
{
    return compute == LSP_F64 ? 0x1p-53 : 0x1p-24;
}

/* An output is right up to two things. The exponential, the sums over keys and the final division are
 * off by some units of roundoff whatever the scores are (measured: about 1e-6 in f32, 1e-14 in f64);
 * the first term is ten times that. And a score is a sum of d_k rounded products, so it is off by a
 * small multiple of u sqrt(d_k) sum|q_c k_c| (worst case d_k in place of the square root; it does not
 * happen), plus roundings of q itself, of the scaling and of the maximum: a few u times the same size.
 * An error e of a score is a relative error e of its weight. Sizes enter by their mean under the weights:
 * keys that count for nothing may be as wrong as they like. In bf16 it is operands and weights that are rounded
 * (measured: about 3e-3; 0x1p-9 of each product, of random sign), in the result and in the score. For ordinary data in f32 (size 5, d_k = 64) this
 * is 1.4e-5, where a lost key tile or a mask edge off by one changes rows by 1e-3 and more. */
double lsp_check_tolerance(lsp_dtype compute, int64_t d_k, double size)
{
    if (compute == LSP_BF16) return 1e-2 + 0x1p-9 * size;
    double least = compute == LSP_F64 ? 1e-12 : 1e-5;
    return least + (4 + sqrt((double)d_k)) * unit_roundoff(compute) * size;
}

double lsp_check_lse_rounding(lsp_dtype compute, double lse_reference)
{
    return isfinite(lse_reference) ? 4 * unit_roundoff(compute) * fabs(lse_reference) : 0;
}

static bool is_empty_row(const lsp_row_check *check)
{
    for (int64_t c = 0; c < check->d_v; c++)
        if (check->out[c] != 0) return false;
    return !check->has_lse || check->lse == -INFINITY;
}

static bool is_broken_row(const lsp_row_check *check)
{
    for (int64_t c = 0; c < check->d_v; c++)
        if (isfinite(check->out[c])) return false;
    return !check->has_lse || !isfinite(check->lse);
}

/* Where values of V cancel out, ||reference|| says nothing about the size of what was added, and even
 * a perfect row would seem wrong: the divisor is not taken below an eighth of `spread`, nor below what
 * flushed subnormal numbers may amount to. */
static double relative_error(const lsp_row_check *check)
{
    double largest = 0;
    for (int64_t c = 0; c < check->d_v; c++) {
        bool finite = isfinite(check->reference[c]) != 0;
        if (finite != (isfinite(check->out[c]) != 0)) return INFINITY;
        if (finite) largest = fmax(largest, fmax(fabs(check->reference[c]), fabs(check->out[c])));
    }
    if (largest == 0) return 0;
    double difference = 0, norm = 0;
    for (int64_t c = 0; c < check->d_v; c++) {
        if (!isfinite(check->reference[c])) continue;
        double r = check->reference[c] / largest, e = check->out[c] / largest - r;
        difference += e * e;
        norm += r * r;
    }
    double smallest = (check->compute == LSP_F64 ? DBL_MIN : (double)FLT_MIN) / unit_roundoff(check->compute);
    double least = fmax(check->spread / 8, smallest) / largest;
    return sqrt(difference) / fmax(sqrt(norm), least);
}

void lsp_check_row(const lsp_row_check *check, double *error, double *lse_error)
{
    *error = 0;
    *lse_error = 0;
    bool right = true;
    switch (check->kind) {
    case LSP_REFERENCE_EMPTY: right = is_empty_row(check); break;
    case LSP_REFERENCE_BROKEN: right = is_broken_row(check); break;
    case LSP_REFERENCE_UNDEFINED: right = is_empty_row(check) || is_broken_row(check); break;
    case LSP_REFERENCE_ORDINARY:
        *error = relative_error(check);
        if (!check->has_lse) return;
        *lse_error = isfinite(check->lse) ? fabs(check->lse - check->lse_reference) : INFINITY;
        return;
    }
    if (right) return;
    *error = INFINITY;
    if (check->has_lse) *lse_error = INFINITY;
}
