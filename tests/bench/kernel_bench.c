/* Speed of one kernel on one core as a share of its FMA peak, both measured alternately in short bursts by the
 * time of the thread, so that other work on the machine disturbs little. Usage: kernel_bench ISA TYPE D_K D_V
 * [N [M [MASK [SECONDS [ROWS]]]]] with ISA portable, avx2, avx512; TYPE f32, f64, bf16; MASK none, causal, or a
 * window's width; ROWS of a chunk. Packing of K and V is left out: a panel is packed once for all rows.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include "base/checked.h"
#include "base/memory.h"
#include "base/random.h"
#include "kernel/entries.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FACTOR 1.4426950408889634

enum { ROUNDS = 1000 };

typedef struct bench {
    const lsp_kernel *kernel;
    lsp_tile_shape shape;
    int64_t n, m, chunk;
    size_t size, packed;
    char *q, *k, *v, *out, *max, *sum;
    lsp_sight *sight;
    double *norm;
    lsp_key_tile *bound;
    void *scratch;
} bench;

static double thread_seconds(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static float *normal(int64_t count, uint64_t stream)
{
    float *x = lsp_memory_alloc(count, sizeof *x);
    for (int64_t i = 0; i < count; i++) x[i] = (float)lsp_random_normal(1, stream, (uint64_t)i);
    return x;
}

static char *zeros(int64_t count, size_t size)
{
    return lsp_memory_zalloc(count, size);
}

static void pack(bench *b, const float *k, const float *v)
{
    const lsp_tile_shape *s = &b->shape;
    for (int64_t first = 0; first < b->m; first += s->tile_keys) {
        int64_t count = lsp_min(s->tile_keys, b->m - first);
        lsp_key_tile *tile = b->bound + first / s->tile_keys;
        tile->k_norm = b->kernel->pack_k(s, k + first * s->d_k, LSP_F32, 0, count,
                                         b->k + (size_t)(first * s->k_depth) * b->packed);
        tile->v_max = b->kernel->pack_v(s, v + first * s->d_v, LSP_F32, 0, count,
                                        b->v + (size_t)(first * s->v_stride) * b->packed);
    }
}

/* Rows [begin, begin + count) against all tiles, as the method does it. */
static void run_chunk(const bench *b, int64_t begin, int64_t count)
{
    const lsp_tile_shape *s = &b->shape;
    const lsp_score_rule rule = {0, 0, FACTOR / sqrt((double)s->d_k)};
    size_t at = (size_t)begin;
    lsp_query_rows rows = {count,
                           b->q + at * (size_t)s->k_depth * b->packed,
                           b->norm + begin,
                           b->sight + begin,
                           b->out + at * (size_t)s->d_v * b->size,
                           b->max + at * b->size,
                           b->sum + at * b->size};
    for (int64_t first = 0; first < b->m; first += s->tile_keys) {
        if (rows.sight[0].begin >= first + s->tile_keys || rows.sight[count - 1].end <= first) continue;
        lsp_key_tile tile = {.k = b->k + (size_t)(first * s->k_depth) * b->packed,
                             .v = b->v + (size_t)(first * s->v_stride) * b->packed,
                             .first = first,
                             .k_norm = b->bound[first / s->tile_keys].k_norm,
                             .v_max = b->bound[first / s->tile_keys].v_max};
        if (first + s->tile_keys < b->m && !getenv("NOAHEAD"))
            tile.next_k = (const char *)tile.k + (size_t)(s->tile_keys * s->k_depth) * b->packed,
            tile.next_v = (const char *)tile.v + (size_t)(s->tile_keys * s->v_stride) * b->packed;

        b->kernel->attend(s, &rule, &tile, &rows, b->scratch);
    }
}

static double pairs_of(const bench *b, int64_t begin, int64_t count)
{
    double pairs = 0;
    for (int64_t i = begin; i < begin + count; i++) pairs += (double)(b->sight[i].end - b->sight[i].begin);
    return pairs;
}

static double burst(const lsp_kernel *kernel)
{
    double best = 0;
    for (int i = 0; i < 2; i++) {
        double t = thread_seconds(), flops = kernel->fma_burst(50000);
        best = fmax(best, flops / (thread_seconds() - t));
    }
    return best;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static bool parse(int argc, char **argv, bench *b, int64_t d[2], const char **mask, double *seconds)
{
    lsp_isa isa = LSP_ISA_AUTO;
    lsp_dtype type = LSP_F16;
    for (int i = LSP_ISA_PORTABLE; argc > 4 && i <= LSP_ISA_AVX512; i++)
        if (strcmp(argv[1], lsp_isa_name((lsp_isa)i)) == 0) isa = (lsp_isa)i;
    for (int t = LSP_F16; argc > 4 && t <= LSP_F64; t++)
        if (strcmp(argv[2], lsp_dtype_name((lsp_dtype)t)) == 0) type = (lsp_dtype)t;
    b->kernel = isa == LSP_ISA_AUTO ? NULL : lsp_kernel_get(isa, type);
    if (b->kernel && argc > 4 && strcmp(argv[2], "bf16") == 0 && getenv("PAIRS"))
        b->kernel = lsp_kernel_pairs();
    if (!b->kernel) return false;
    d[0] = atoll(argv[3]), d[1] = atoll(argv[4]);
    b->n = argc > 5 ? atoll(argv[5]) : 8192;
    b->m = argc > 6 ? atoll(argv[6]) : b->n;
    *mask = argc > 7 ? argv[7] : "none";
    *seconds = argc > 8 ? atof(argv[8]) : 1;
    b->chunk = argc > 9 ? atoll(argv[9]) : 1536;
    return d[0] > 0 && d[1] > 0 && b->n > 0 && b->m > 0 && b->chunk > 0;
}

int main(int argc, char **argv)
{
    bench b = {0};
    int64_t d[2];
    const char *mask = NULL;
    double seconds = 0;
    if (!parse(argc, argv, &b, d, &mask, &seconds)) {
        (void)fputs("usage: kernel_bench ISA TYPE D_K D_V [N [M [MASK [SECONDS [ROWS]]]]]\n", stderr);
        return 1;
    }
    b.shape = b.kernel->shape(d[0], d[1]);
    b.packed = (size_t)b.kernel->packed_bytes;
    b.size = b.kernel->compute == LSP_F64 ? sizeof(double) : sizeof(float);
    int64_t keys = lsp_round_up(b.m, b.shape.tile_keys);
    float *q = normal(b.n * d[0], 1), *k = normal(b.m * d[0], 2), *v = normal(b.m * d[1], 3);
    b.q = zeros(b.n * b.shape.k_depth, b.packed), b.k = zeros(keys * b.shape.k_depth, b.packed);
    b.v = zeros(keys * b.shape.v_stride, b.packed), b.out = zeros(b.n * d[1], b.size);
    b.max = zeros(b.n, b.size), b.sum = zeros(b.n, b.size);
    b.norm = lsp_memory_zalloc(b.n, sizeof *b.norm);
    b.bound = lsp_memory_zalloc(keys / b.shape.tile_keys, sizeof *b.bound);
    b.sight = lsp_memory_zalloc(b.n, sizeof *b.sight);
    b.scratch = lsp_memory_zalloc(1, b.kernel->scratch_bytes(&b.shape));
    lsp_mask whole = {.n = b.n, .m = b.m, .key_end = b.m};
    if (strcmp(mask, "causal") == 0) whole.kind = LSP_MASK_CAUSAL;
    if (atoll(mask) > 0) whole.kind = LSP_MASK_WINDOW, whole.window_left = atoll(mask) - 1;
    for (int64_t i = 0; i < b.n; i++) b.sight[i] = lsp_mask_sight(&whole, 0, i);
    (void)lsp_fpmode_enter();
    double started = thread_seconds();
    pack(&b, k, v);
    double packing = thread_seconds() - started, peak = 0;
    b.kernel->pack_queries(d[0], q, LSP_F32, b.n, FACTOR / sqrt((double)d[0]), b.q);
    b.kernel->query_norms(d[0], b.n, b.q, b.norm);

    /* A chunk takes milliseconds, in which the clock hardly changes: its time counts in flops at the peak of the
     * bursts before and after it. */
    int64_t chunks = lsp_ceil_div(b.n, b.chunk);
    double *best = lsp_memory_zalloc(chunks, sizeof *best),
           *cost = lsp_memory_zalloc(chunks * ROUNDS, sizeof *cost);
    double total = 0, ideal = 0, pairs = 0, before = burst(b.kernel);
    int64_t rounds = 0;
    started = thread_seconds();
    for (; rounds < ROUNDS && (rounds == 0 || thread_seconds() - started < seconds); rounds++) {
        for (int64_t c = 0; c < chunks; c++) {
            int64_t begin = c * b.chunk, count = lsp_min(b.chunk, b.n - begin);
            double t = thread_seconds();
            run_chunk(&b, begin, count);
            t = thread_seconds() - t;
            double after = burst(b.kernel);
            cost[c * ROUNDS + rounds] = t * fmax(before, after);
            if (best[c] == 0 || t < best[c]) best[c] = t;
            peak = fmax(peak, after), before = after;
        }
    }
    for (int64_t c = 0; c < chunks; c++) {
        qsort(cost + c * ROUNDS, (size_t)rounds, sizeof *cost, ascending);
        ideal += cost[c * ROUNDS + rounds / 2];
        total += best[c];
        pairs += pairs_of(&b, c * b.chunk, lsp_min(b.chunk, b.n - c * b.chunk));
    }
    double rate = 2 * pairs * (double)(d[0] + d[1]) / total;
    (void)printf("%-8s %-4s d %lld/%lld n %lld m %lld %s: %.1f GFLOP/s, peak %.1f, share %.3f (best times "
                 "%.3f); packing %.2f ms\n",
                 lsp_isa_name(b.kernel->isa), lsp_dtype_name(b.kernel->compute), (long long)d[0],
                 (long long)d[1], (long long)b.n, (long long)b.m, mask, rate * 1e-9, peak * 1e-9,
                 2 * pairs * (double)(d[0] + d[1]) / ideal, rate / peak, packing * 1e3);
    return 0;
}
