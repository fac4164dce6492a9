/* Speed of W^T Y beside that of W X, one core, both as shares of the FMA peak, measured alternately in short bursts by
 * the time of the thread. Usage: mirror_bench ISA TYPE D_K COLUMNS [N [SECONDS [ROWS]]] with ISA portable, avx2, avx512;
 * TYPE f32, f64; N rows and keys; ROWS of a chunk. Packing is left out of both. Built by `make mirror_bench`.
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

/* Both products: packed tiles of one side, rows of the other, and what is gathered. */
typedef struct side {
    char *tiles_k, *tiles_v, *rows, *out;
    double *v_max, *k_norm; /* of each tile */
} side;

typedef struct bench {
    const lsp_kernel *kernel;
    lsp_tile_shape shape;
    int64_t n, chunk;
    size_t size;
    side forward, mirror;
    char *max, *sum, *base, *weight, *squares;
    double *norm;
    lsp_sight *sight;
    void *scratch;
} bench;

static double thread_seconds(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* N(0, 1) in the computing type. */
static char *normal(const bench *b, int64_t count, uint64_t stream)
{
    char *x = lsp_memory_alloc(count, b->size);
    for (int64_t i = 0; i < count; i++) {
        double value = lsp_random_normal(1, stream, (uint64_t)i);
        if (b->size == sizeof(double))
            ((double *)(void *)x)[i] = value;
        else
            ((float *)(void *)x)[i] = (float)value;
    }
    return x;
}

/* tiles: rows of `k`, which are packed queries on the mirror's side, and of `v`. */
static side make_side(const bench *b, const char *k, const char *v, const char *rows, double factor)
{
    const lsp_tile_shape *s = &b->shape;
    int64_t all = lsp_round_up(b->n, s->tile_keys), tiles = all / s->tile_keys;
    side x = {lsp_memory_zalloc(all * s->k_depth, b->size),  lsp_memory_zalloc(all * s->v_stride, b->size),
              lsp_memory_zalloc(b->n * s->k_depth, b->size), lsp_memory_zalloc(b->n * s->d_v, b->size),
              lsp_memory_zalloc(tiles, sizeof(double)),      lsp_memory_zalloc(tiles, sizeof(double))};
    for (int64_t t = 0; t < tiles; t++) {
        int64_t first = t * s->tile_keys, count = lsp_min(s->tile_keys, b->n - first);
        x.k_norm[t] = b->kernel->pack_k(s, k + (size_t)(first * s->d_k) * b->size, b->kernel->compute, 0,
                                        count, x.tiles_k + (size_t)(first * s->k_depth) * b->size);
        x.v_max[t] = b->kernel->pack_v(s, v + (size_t)(first * s->d_v) * b->size, b->kernel->compute, 0,
                                       count, x.tiles_v + (size_t)(first * s->v_stride) * b->size);
    }
    b->kernel->pack_queries(s->d_k, rows, b->kernel->compute, b->n, factor, x.rows);
    return x;
}

static lsp_key_tile tile_of(const bench *b, const side *x, int64_t first)
{
    const lsp_tile_shape *s = &b->shape;
    lsp_key_tile tile = {.k = x->tiles_k + (size_t)(first * s->k_depth) * b->size,
                         .v = x->tiles_v + (size_t)(first * s->v_stride) * b->size,
                         .first = first,
                         .k_norm = x->k_norm[first / s->tile_keys],
                         .v_max = x->v_max[first / s->tile_keys]};
    if (first + s->tile_keys < b->n) {
        tile.next_k = (const char *)tile.k + (size_t)(s->tile_keys * s->k_depth) * b->size;
        tile.next_v = (const char *)tile.v + (size_t)(s->tile_keys * s->v_stride) * b->size;
    }
    return tile;
}

static double run_forward(const bench *b, int64_t begin, int64_t count)
{
    const lsp_tile_shape *s = &b->shape;
    const lsp_score_rule rule = {0, 0, FACTOR / sqrt((double)s->d_k)};
    size_t at = (size_t)begin;
    lsp_query_rows rows = {count,
                           b->forward.rows + at * (size_t)s->k_depth * b->size,
                           b->norm + begin,
                           b->sight + begin,
                           b->forward.out + at * (size_t)s->d_v * b->size,
                           b->max + at * b->size,
                           b->sum + at * b->size};
    double started = thread_seconds();
    for (int64_t first = 0; first < b->n; first += s->tile_keys) {
        lsp_key_tile tile = tile_of(b, &b->forward, first);
        b->kernel->attend(s, &rule, &tile, &rows, b->scratch);
    }
    return thread_seconds() - started;
}

static double run_mirror(const bench *b, int64_t begin, int64_t count)
{
    const lsp_tile_shape *s = &b->shape;
    const lsp_score_rule rule = {0, 0, FACTOR / sqrt((double)s->d_k)};
    size_t at = (size_t)begin;
    lsp_key_rows keys = {count, b->mirror.rows + at * (size_t)s->k_depth * b->size, b->sight + begin,
                         b->mirror.out + at * (size_t)s->d_v * b->size, b->squares + at * b->size};
    double started = thread_seconds();
    for (int64_t first = 0; first < b->n; first += s->tile_keys) {
        lsp_row_tile tile = {tile_of(b, &b->mirror, first), b->base + (size_t)first * b->size,
                             b->weight + (size_t)first * b->size};
        b->kernel->attend_transposed(s, &rule, &tile, &keys, b->scratch);
    }
    return thread_seconds() - started;
}

/* The rows' maxima and sums, as the mirror takes them. */
static void keep_rows(bench *b)
{
    for (int64_t i = 0; i < b->n; i++) {
        if (b->size == sizeof(double))
            ((double *)(void *)b->max)[i] = -INFINITY;
        else
            ((float *)(void *)b->max)[i] = -INFINITY;
    }
    for (int64_t c = 0; c < b->n; c += b->chunk) (void)run_forward(b, c, lsp_min(b->chunk, b->n - c));
    for (int64_t i = 0; i < b->n; i++) {
        if (b->size == sizeof(double)) {
            ((double *)(void *)b->base)[i] = ((double *)(void *)b->max)[i];
            ((double *)(void *)b->weight)[i] = 1 / ((double *)(void *)b->sum)[i];
        } else {
            ((float *)(void *)b->base)[i] = ((float *)(void *)b->max)[i];
            ((float *)(void *)b->weight)[i] = 1 / ((float *)(void *)b->sum)[i];
        }
    }
}

static double burst(const lsp_kernel *kernel)
{
    double best = 0;
    for (int i = 0; i < 2; i++) {
        double t = thread_seconds(), flops = kernel->fma_burst(10000);
        best = fmax(best, flops / (thread_seconds() - t));
    }
    return best;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Medians over rounds of what each chunk costs in flops at the peak of the bursts beside it: sums over chunks. */
static void measure(const bench *b, double seconds, double ideal[2])
{
    double (*const run[2])(const bench *, int64_t, int64_t) = {run_forward, run_mirror};
    int64_t chunks = lsp_ceil_div(b->n, b->chunk), rounds = 0;
    double *cost = lsp_memory_zalloc(2 * chunks * ROUNDS, sizeof *cost), before = burst(b->kernel);
    double started = thread_seconds();
    for (; rounds < ROUNDS && (rounds < 3 || thread_seconds() - started < seconds); rounds++)
        for (int64_t c = 0; c < 2 * chunks; c++) {
            int64_t begin = c / 2 * b->chunk;
            double t = run[c % 2](b, begin, lsp_min(b->chunk, b->n - begin)), after = burst(b->kernel);
            cost[c * ROUNDS + rounds] = t * fmax(before, after);
            before = after;
        }
    for (int64_t c = 0; c < 2 * chunks; c++) {
        qsort(cost + c * ROUNDS, (size_t)rounds, sizeof *cost, ascending);
        ideal[c % 2] += cost[c * ROUNDS + rounds / 2];
    }
    lsp_memory_free(cost);
}

static bool parse(int argc, char **argv, bench *b, int64_t d[2], double *seconds)
{
    lsp_isa isa = LSP_ISA_AUTO;
    for (int i = LSP_ISA_PORTABLE; argc > 4 && i <= LSP_ISA_AVX512; i++)
        if (strcmp(argv[1], lsp_isa_name((lsp_isa)i)) == 0) isa = (lsp_isa)i;
    bool wide = argc > 4 && strcmp(argv[2], "f64") == 0;
    if (isa == LSP_ISA_AUTO || (!wide && strcmp(argv[2], "f32") != 0)) return false;
    b->kernel = lsp_kernel_get(isa, wide ? LSP_F64 : LSP_F32);
    if (!b->kernel) return false;
    d[0] = atoll(argv[3]), d[1] = atoll(argv[4]);
    b->n = argc > 5 ? atoll(argv[5]) : 8192;
    *seconds = argc > 6 ? atof(argv[6]) : 2;
    b->chunk = argc > 7 ? atoll(argv[7]) : 1024;
    return d[0] > 0 && d[1] > 0 && b->n > 0 && b->chunk > 0;
}

int main(int argc, char **argv)
{
    bench b = {0};
    int64_t d[2];
    double seconds = 0, ideal[2] = {0};
    if (!parse(argc, argv, &b, d, &seconds)) {
        (void)fputs("usage: mirror_bench ISA TYPE D_K COLUMNS [N [SECONDS [ROWS]]]\n", stderr);
        return 1;
    }
    b.shape = b.kernel->shape(d[0], d[1]);
    b.size = b.kernel->compute == LSP_F64 ? sizeof(double) : sizeof(float);
    double factor = FACTOR / sqrt((double)d[0]);
    char *q = normal(&b, b.n * d[0], 1), *k = normal(&b, b.n * d[0], 2), *x = normal(&b, b.n * d[1], 3);
    char *scaled = lsp_memory_zalloc(b.n * b.shape.k_depth, b.size);
    int64_t all = lsp_round_up(b.n, b.shape.tile_keys);
    (void)lsp_fpmode_enter();
    b.kernel->pack_queries(d[0], q, b.kernel->compute, b.n, factor, scaled);
    b.forward = make_side(&b, k, x, q, factor);
    b.mirror = make_side(&b, scaled, x, k, 1);
    b.max = lsp_memory_alloc(b.n, b.size), b.sum = lsp_memory_zalloc(b.n, b.size);
    b.base = lsp_memory_zalloc(all, b.size), b.weight = lsp_memory_zalloc(all, b.size);
    b.squares = lsp_memory_zalloc(b.n, b.size), b.norm = lsp_memory_zalloc(b.n, sizeof *b.norm);
    b.sight = lsp_memory_zalloc(b.n, sizeof *b.sight);
    b.scratch = lsp_memory_zalloc(1, b.kernel->scratch_bytes(&b.shape));
    lsp_mask whole = {.n = b.n, .m = b.n, .key_end = b.n};
    for (int64_t i = 0; i < b.n; i++) b.sight[i] = lsp_mask_sight(&whole, 0, i);
    b.kernel->query_norms(d[0], b.n, b.forward.rows, b.norm);
    keep_rows(&b);
    measure(&b, seconds, ideal);
    double flops = 2 * (double)b.n * (double)b.n * (double)(d[0] + d[1]);
    (void)printf(
        "%-8s %-4s d_k %lld, %lld columns, n = m = %lld: share of the FMA peak: W X %.3f, W^T Y %.3f, ratio "
        "%.3f\n",
        lsp_isa_name(b.kernel->isa), lsp_dtype_name(b.kernel->compute), (long long)d[0], (long long)d[1],
        (long long)b.n, flops / ideal[0], flops / ideal[1], ideal[0] / ideal[1]);
    return 0;
}
