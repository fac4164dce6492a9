/* W as an operator, and its singular values. SPDX-License-Identifier: BSD-3-Clause */
#include "outside.h"

#include <stdlib.h>

typedef struct bound {
    lsp_operator *op;
    part rows, keys;
    double *q, *k;
} bound;

static bound bind(lsp_context *ctx)
{
    lsp_attention_desc desc = describe(1, LSP_F64);
    bound b = {.op = NULL};
    check(ctx, "operator", lsp_operator_create(ctx, &desc, &b.op));
    lsp_operator_runs(b.op, LSP_QUERIES, &b.rows.runs, &b.rows.run_count, &b.rows.rows);
    lsp_operator_runs(b.op, LSP_KEYS, &b.keys.runs, &b.keys.run_count, &b.keys.rows);
    b.q = make_rows(b.rows, DEPTH, LSP_F64, query_entry);
    b.k = make_rows(b.keys, DEPTH, LSP_F64, key_entry);
    check(ctx, "bind", lsp_operator_bind(b.op, b.q, b.k));
    return b;
}

static void unbind(bound *b)
{
    lsp_operator_destroy(&b->op);
    free(b->q), free(b->k);
}

static double row_entry(int64_t row, int64_t column)
{
    return column == 0 ? 1 : (double)row / ROWS;
}

/* Of W^T times the above. */
static double transposed_entry(int64_t key, int64_t column)
{
    double sum = 0;
    for (int64_t i = 0; i < ROWS; i++) sum += weight(i, key) * row_entry(i, column);
    return sum;
}

static double norm_square(void)
{
    double sum = 0;
    for (int64_t i = 0; i < ROWS; i++)
        for (int64_t j = 0; j < KEYS; j++) sum += weight(i, j) * weight(i, j);
    return sum;
}

void try_operator(lsp_context *ctx)
{
    bound b = bind(ctx);
    double *x = make_rows(b.keys, WIDTH, LSP_F64, value_entry), *wx = make_rows(b.rows, WIDTH, LSP_F64, NULL),
           *y = make_rows(b.rows, WIDTH, LSP_F64, row_entry), *wty = make_rows(b.keys, WIDTH, LSP_F64, NULL),
           square = 0;
    check(ctx, "W X", lsp_operator_apply(b.op, x, WIDTH, wx));
    expect_rows("W X", b.rows, WIDTH, LSP_F64, wx, out_entry, 1e-12);
    check(ctx, "W^T Y", lsp_operator_apply_transposed(b.op, y, WIDTH, wty));
    expect_rows("W^T Y", b.keys, WIDTH, LSP_F64, wty, transposed_entry, 1e-14);
    check(ctx, "norm", lsp_operator_norm(b.op, &square));
    expect("norm", square, norm_square(), 1e-12);
    free(x), free(wx), free(y), free(wty);
    unbind(&b);
}

/* Rows are of two kinds, so W W^T has the eigenvalues of [[a, c], [c, b]]: a row's square is 1 / KEYS or 5 / 4 of that,
 * and the product of two different ones is 1 / KEYS. */
static void singular_values(double sigma[2])
{
    double odd = ROWS / 2, even = ROWS - ROWS / 2, a = even / KEYS, b = 1.25 * odd / KEYS,
           c = sqrt(even * odd) / KEYS, middle = (a + b) / 2, radius = sqrt((a - b) * (a - b) / 4 + c * c);
    sigma[0] = sqrt(middle + radius), sigma[1] = sqrt(middle - radius);
}

void try_svd(lsp_context *ctx)
{
    bound b = bind(ctx);
    lsp_svd_options options = lsp_svd_defaults();
    lsp_svd *svd = NULL;
    double sigma[2], length = 0, *wv = make_rows(b.rows, 1, LSP_F64, NULL);
    options.rank = 1;
    check(ctx, "svd", lsp_svd_krylov(b.op, &options, &svd));
    singular_values(sigma);
    expect("singular values", (double)svd->rank, 1, 0);
    expect("largest singular value", svd->sigma[0], sigma[0], 1e-10);
    expect("certificate", svd->certificate.frobenius_error, sigma[1], 1e-6);
    expect("certificate has a meaning", svd->certificate.meaningful, 1, 0);
    check(ctx, "W v", lsp_operator_apply(b.op, svd->v, 1, wv));
    for (int64_t i = 0; i < b.rows.rows; i++) {
        expect("W v = sigma u", wv[i], svd->sigma[0] * svd->u[i], 1e-10);
        length += svd->u[i] * svd->u[i];
    }
    MPI_Allreduce(MPI_IN_PLACE, &length, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    expect("length of u", length, 1, 1e-10);
    free(wv);
    lsp_svd_destroy(&svd);
    unbind(&b);
}
