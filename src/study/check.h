/* Comparing one computed row with its reference. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_STUDY_CHECK_H
#define LSP_STUDY_CHECK_H

#include <longspan/tensor.h>
#include <stdint.h>

/* What a reference row is, after the sums over all ranks. */
typedef enum lsp_reference_kind {
    LSP_REFERENCE_ORDINARY,
    LSP_REFERENCE_EMPTY,    /* sees no key: zeros and -inf */
    LSP_REFERENCE_BROKEN,   /* a NaN or +Inf among its scores: all NaN */
    LSP_REFERENCE_UNDEFINED /* every score -Inf: 0/0, or taken for empty; either will do */
} lsp_reference_kind;

typedef struct lsp_row_check {
    int64_t d_v;
    lsp_dtype compute;
    lsp_reference_kind kind;
    const double *out, *reference; /* [d_v] */
    double spread;                 /* sqrt(sum w^2 ||v||^2): what ||reference|| is for unrelated V rows */
    bool has_lse;
    double lse, lse_reference;
} lsp_row_check;

/* Local. *error = ||out - reference|| / ||reference||, *lse_error = |lse - lse_reference|. Elements that
 * are non-finite in both agree; those that are in one only, and anything but zeros and -inf in a row
 * without keys, give INFINITY. */
void lsp_check_row(const lsp_row_check *check, double *error, double *lse_error);

/* Local. Tolerance for a row whose scores were added up from terms of size `size` (natural units). */
double lsp_check_tolerance(lsp_dtype compute, int64_t d_k, double size);

/* Local. What the check of an lse may be off beyond the tolerance: the rounding of the number itself. */
double lsp_check_lse_rounding(lsp_dtype compute, double lse_reference);

#endif
