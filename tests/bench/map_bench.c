/* Time of a map as a share of exact attention's: whole executions on one rank and one thread, alternately, by the time
 * of the thread. Usage: map_bench [N [D [HEADS [TURNS [MASK [ISA [PIXELS]]]]]]], MASK 0 none, 1 causal.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include "base/memory.h"
#include "base/random.h"

#include <longspan/longspan.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double thread_seconds(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static float *normal(int64_t count, uint64_t stream)
{
    float *x = lsp_memory_alloc(count, sizeof *x);
    for (int64_t i = 0; x && i < count; i++) x[i] = (float)lsp_random_normal(1, stream, (uint64_t)i);
    return x;
}

static int64_t argument(int count, char **arguments, int index, int64_t fallback)
{
    return count > index ? strtoll(arguments[index], NULL, 10) : fallback;
}

int main(int count, char **arguments)
{
    int given = 0;
    MPI_Init_thread(&count, &arguments, MPI_THREAD_FUNNELED, &given);
    int64_t n = argument(count, arguments, 1, 8192), d = argument(count, arguments, 2, 64),
            heads = argument(count, arguments, 3, 1), turns = argument(count, arguments, 4, 5);
    lsp_attention_desc desc = {.batch = 1,
                               .heads = heads,
                               .kv_heads = heads,
                               .n = n,
                               .m = n,
                               .d_k = d,
                               .d_v = d,
                               .q_type = LSP_F32,
                               .k_type = LSP_F32,
                               .v_type = LSP_F32,
                               .compute = LSP_F32,
                               .mask = (lsp_mask_kind)argument(count, arguments, 5, 0),
                               .isa = (lsp_isa)argument(count, arguments, 6, 0)};
    lsp_map_options options = lsp_map_defaults();
    options.pixels = argument(count, arguments, 7, options.pixels);
    lsp_context_options one = {.threads = 1};
    lsp_context *ctx = NULL;
    lsp_attention *plan = NULL;
    lsp_map *map = NULL;
    char text[512] = "";
    float *q = normal(heads * n * d, 1), *k = normal(heads * n * d, 2), *v = normal(heads * n * d, 3),
          *out = lsp_memory_alloc(heads * n * d, sizeof *out),
          *lse = lsp_memory_alloc(heads * n, sizeof *lse);
    int code = 1;
    double exact = 1e30, looked = 1e30;
    if (q && k && v && out && lse &&
        lsp_context_create(MPI_COMM_WORLD, &one, &ctx, text, sizeof text) == LSP_OK &&
        lsp_attention_create(ctx, &desc, &plan) == LSP_OK &&
        lsp_map_create(ctx, &desc, &options, &map) == LSP_OK) {
        code = 0;
        for (int64_t turn = 0; turn < turns && code == 0; turn++) {
            double begin = thread_seconds();
            code = lsp_attention_execute(plan, q, k, v, out, lse, NULL);
            double middle = thread_seconds();
            if (code == 0) code = lsp_map_execute(map, q, k, NULL);
            double end = thread_seconds();
            if (middle - begin < exact) exact = middle - begin;
            if (end - middle < looked) looked = end - middle;
        }
        lsp_map_check check = {0};
        if (code == 0) code = lsp_map_verify(map, q, k, 16, 0, 0, &check);
        (void)printf(
            "n %lld d %lld heads %lld: exact %.4f s, map %.4f s, ratio %.3f; error %.1e (%.1e), sum %.1e%s\n",
            (long long)n, (long long)d, (long long)heads, exact, looked, looked / exact, check.max_error,
            check.tolerance, check.map_sum_error, check.passed ? "" : " FAILED");
        if (!check.passed) code = 4;
    }
    if (code != 0) (void)fprintf(stderr, "map_bench: %s%s\n", text, ctx ? lsp_context_message(ctx) : "");
    (void)lsp_map_destroy(&map);
    (void)lsp_attention_destroy(&plan);
    (void)lsp_context_destroy(&ctx);
    MPI_Finalize();
    return code;
}
