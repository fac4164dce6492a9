/* Attention through the public header alone: with V = 1 every row of O is 1, and with K = 0 every
 * log-sum-exp is the logarithm of the number of keys. SPDX-License-Identifier: BSD-3-Clause */
#include <longspan/longspan.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const char *what, const char *message)
{
    fprintf(stderr, "outside: %s: %s\n", what, message);
    MPI_Abort(MPI_COMM_WORLD, 1);
    return 1;
}

/* This rank's rows of an operand. */
static int64_t count_rows(const lsp_attention *plan, lsp_operand operand)
{
    const lsp_run *runs;
    int64_t run_count, rows;
    if (lsp_attention_runs(plan, operand, &runs, &run_count, &rows)) fail("runs", "failed");
    return rows;
}

static void fill(float *values, int64_t count, float value)
{
    for (int64_t i = 0; i < count; i++) values[i] = value;
}

int main(int argc, char **argv)
{
    int provided;
    char message[512];
    lsp_context *ctx = NULL;
    lsp_attention *plan = NULL;
    MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
    if (lsp_context_create(MPI_COMM_WORLD, NULL, &ctx, message, sizeof message))
        return fail("context", message);

    lsp_attention_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.batch = 1, desc.heads = 2, desc.kv_heads = 1;
    desc.n = 37, desc.m = 1300, desc.d_k = 16, desc.d_v = 8;
    desc.q_type = desc.k_type = desc.v_type = desc.compute = LSP_F32;
    if (lsp_attention_create(ctx, &desc, &plan)) return fail("plan", lsp_context_message(ctx));

    int64_t rows = count_rows(plan, LSP_QUERIES), keys = count_rows(plan, LSP_KEYS);
    float *q = malloc((size_t)(rows * desc.d_k + 1) * sizeof *q);
    float *k = malloc((size_t)(keys * desc.d_k + 1) * sizeof *k);
    float *v = malloc((size_t)(keys * desc.d_v + 1) * sizeof *v);
    float *out = malloc((size_t)(rows * desc.d_v + 1) * sizeof *out);
    float *lse = malloc((size_t)(rows + 1) * sizeof *lse);
    if (!q || !k || !v || !out || !lse) return fail("memory", "none left");
    for (int64_t i = 0; i < rows * desc.d_k; i++) q[i] = (float)(i % 7) - 3;
    fill(k, keys * desc.d_k, 0);
    fill(v, keys * desc.d_v, 1);
    fill(out, rows * desc.d_v, -1);
    if (lsp_attention_execute(plan, q, k, v, out, lse, NULL))
        return fail("execute", lsp_context_message(ctx));

    double worst = 0;
    for (int64_t i = 0; i < rows * desc.d_v; i++) worst = fmax(worst, fabs((double)out[i] - 1));
    for (int64_t i = 0; i < rows; i++) worst = fmax(worst, fabs((double)lse[i] - log((double)desc.m)));

    long long total = rows;
    MPI_Allreduce(MPI_IN_PLACE, &total, 1, MPI_LONG_LONG, MPI_SUM, MPI_COMM_WORLD);
    MPI_Allreduce(MPI_IN_PLACE, &worst, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    lsp_context_layout layout = lsp_context_get_layout(ctx);
    if (layout.rank == 0)
        printf("outside: longspan %s, %d ranks, %lld rows, error %.1e\n", lsp_version(), layout.ranks, total,
               worst);
    if (total != desc.heads * desc.n || !(worst < 1e-5)) return fail("result", "is wrong");

    free(q), free(k), free(v), free(out), free(lse);
    lsp_attention_destroy(&plan);
    lsp_context_destroy(&ctx);
    MPI_Finalize();
    return 0;
}
