/* The matrix W of one head by definition, whole on every rank. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_TEST_OPERATOR_CASE_H
#define LSP_TEST_OPERATOR_CASE_H

#include "attention_case.h"

/* [n][m] in double, from the operands as make_matrix rounds them; what is no row or key of the part is 0. */
static inline double *dense_from(const lsp_attention_desc *d, const double *q, const double *k)
{
    double *w = case_alloc(d->n * d->m, sizeof *w), *identity = case_alloc(d->m, sizeof *identity), lse,
           weight;
    lsp_attention_desc one = *d;
    one.d_v = 1;
    for (int64_t i = d->row_begin; i < end_of(d->row_end, d->n); i++) {
        /* The row's log-sum-exp by definition; a weight is then the power of its score. */
        if (define_row(&one, 0, 0, i, q, k, identity, &weight, &lse) == 0) continue;
        for (int64_t j = d->key_begin; j < end_of(d->key_end, d->m); j++) {
            double scale = d->scale != 0 ? d->scale : 1 / sqrt((double)d->d_k), s = 0;
            int64_t distance = 0;
            if (!sees(d, 0, i, j, &distance)) continue;
            for (int64_t c = 0; c < d->d_k; c++) s += q[i * d->d_k + c] * k[j * d->d_k + c];
            s *= scale;
            if (d->softcap > 0) s = d->softcap * tanh(s / d->softcap);
            if (d->alibi_slopes) s -= d->alibi_slopes[0] * (double)distance;
            w[i * d->m + j] = exp(s - lse);
        }
    }
    free(identity);
    return w;
}

static inline double *dense_matrix(const lsp_attention_desc *d)
{
    double *q = make_matrix(d, ROLE_Q, 0, 0), *k = make_matrix(d, ROLE_K, 0, 0), *w = dense_from(d, q, k);
    free(q), free(k);
    return w;
}

#endif
