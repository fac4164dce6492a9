/* Relative error of every kernel of this machine against the formula in double: norm of the difference over norm of
 * the result, over all rows. Scores: normal (N(0,1) operands), peaked (within about +-15), wide (within +-150).
 * Usage: kernel_accuracy [M [D [ROWS]]].
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include "../unit/kernel_case.h"

#include <stdio.h>
#include <stdlib.h>

/* Sums of doubles lose 1e-16 a key at worst; in pieces of 64 keys they do not show beside f64 kernels. */
static void oracle_pieces(const kernel_case *c, int64_t i, double *out)
{
    enum { PIECE = 64 };
    double max = -INFINITY, sum = 0, *piece = lsp_memory_alloc(c->d_v, sizeof *piece);
    double *scores = lsp_memory_alloc(c->m, sizeof *scores);
    for (int64_t j = 0; j < c->m; j++) scores[j] = oracle_score(c, i, j), max = fmax(max, scores[j]);
    for (int64_t d = 0; d < c->d_v; d++) out[d] = 0;
    for (int64_t first = 0; first < c->m; first += PIECE) {
        double part = 0;
        for (int64_t d = 0; d < c->d_v; d++) piece[d] = 0;
        for (int64_t j = first; j < lsp_min(first + PIECE, c->m); j++) {
            double p = exp(scores[j] - max);
            part += p;
            for (int64_t d = 0; d < c->d_v; d++) piece[d] += p * (double)c->v[j * c->d_v + d];
        }
        sum += part;
        for (int64_t d = 0; d < c->d_v; d++) out[d] += piece[d];
    }
    for (int64_t d = 0; d < c->d_v; d++) out[d] /= sum;
    lsp_memory_free(piece);
    lsp_memory_free(scores);
}

static kernel_case *now;
static double *expected;
static const char *title;

static void report_error(const lsp_kernel *kernel)
{
    kernel_result r = case_run_folding(kernel, now, now->n, kernel->compute == LSP_F32 ? LSP_FOLD_TILES : 0);
    double error = 0, norm = 0;
    for (int64_t i = 0; i < now->n * now->d_v; i++) {
        double e = number_at(&r, r.out, i) - expected[i];
        error += e * e, norm += expected[i] * expected[i];
    }
    (void)printf("%-8s m %lld d %lld %-8s %-4s %.2e\n", title, (long long)now->m, (long long)now->d_k,
                 lsp_isa_name(kernel->isa), lsp_dtype_name(kernel->compute), sqrt(error / norm));
    result_free(&r);
}

int main(int argc, char **argv)
{
    int64_t m = argc > 1 ? atoll(argv[1]) : 8192, d = argc > 2 ? atoll(argv[2]) : 64,
            n = argc > 3 ? atoll(argv[3]) : 48;
    const struct {
        const char *title;
        double factor;
    } kinds[] = {{"normal", 1}, {"peaked", 3}, {"wide", 30}};
    for (int kind = 0; kind < 3; kind++) {
        kernel_case c = case_make(n, m, d, d, 77);
        c.scale *= kinds[kind].factor;
        now = &c, title = kinds[kind].title;
        expected = lsp_memory_alloc(n * d, sizeof *expected);
        for (int64_t i = 0; i < n; i++) oracle_pieces(&c, i, expected + i * d);
        for_each_kernel(report_error);
        lsp_memory_free(expected);
        case_free(&c);
    }
    return 0;
}
