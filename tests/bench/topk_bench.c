/* Time of the method topk as a share of exact attention's, one core, both alternately in short turns by the time of
 * the thread. Usage: topk_bench ISA TYPE D K [ROWS [M [TURNS]]]. Packing is left out of both.
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

enum { TURNS_MOST = 1000 };

typedef struct bench {
    const lsp_kernel *kernel;
    lsp_tile_shape shape;
    lsp_score_rule rule;
    int64_t rows, m;
    size_t size, packed;
    float *v;
    char *tiles_k, *tiles_v, *q, *out, *max, *sum;
    double *sums, *kept, *norm, *k_norm, *v_max; /* norms of queries; of each tile */
    lsp_candidates candidates;
    lsp_sight *sight;
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

static void reset(bench *b)
{
    memset(b->sum, 0, (size_t)b->rows * b->size);
    memset(b->out, 0, (size_t)(b->rows * b->shape.d_v) * b->size);
    memset(b->sums, 0, (size_t)(b->rows * b->shape.d_v) * sizeof(double));
    for (int64_t r = 0; r < b->rows; r++) {
        b->candidates.counts[r] = 0;
        for (int which = 0; which < 2; which++) {
            char *values = which ? b->candidates.least : b->max;
            if (b->size == sizeof(double))
                ((double *)(void *)values)[r] = -INFINITY;
            else
                ((float *)(void *)values)[r] = -INFINITY;
        }
    }
}

static lsp_key_tile tile_at(const bench *b, int64_t first)
{
    const lsp_tile_shape *s = &b->shape;
    lsp_key_tile tile = {.k = b->tiles_k + (size_t)(first * s->k_depth) * b->packed,
                         .v = b->tiles_v + (size_t)(first * s->v_stride) * b->packed,
                         .first = first,
                         .k_norm = b->k_norm[first / s->tile_keys],
                         .v_max = b->v_max[first / s->tile_keys]};
    if (first + s->tile_keys < b->m) {
        tile.next_k = (const char *)tile.k + (size_t)(s->tile_keys * s->k_depth) * b->packed;
        tile.next_v = (const char *)tile.v + (size_t)(s->tile_keys * s->v_stride) * b->packed;
    }
    return tile;
}

static double run_exact(bench *b)
{
    reset(b);
    double begin = thread_seconds();
    lsp_query_rows rows = {b->rows, b->q, b->norm, b->sight, b->out, b->max, b->sum};
    for (int64_t first = 0; first < b->m; first += b->shape.tile_keys) {
        lsp_key_tile tile = tile_at(b, first);
        b->kernel->attend(&b->shape, &b->rule, &tile, &rows, b->scratch);
    }
    return thread_seconds() - begin;
}

/* Rows [row, row + rows) meet keys [first, end). */
static void select_near(bench *b, int64_t row, int64_t rows, int64_t first, int64_t end)
{
    const lsp_tile_shape *s = &b->shape;
    lsp_candidates c = b->candidates;
    c.scores = (char *)c.scores + (size_t)(row * c.stride) * b->size;
    c.keys += row * c.stride, c.counts += row;
    c.least = (char *)c.least + (size_t)row * b->size;
    lsp_query_rows state = {.rows = rows,
                            .q = b->q + (size_t)(row * s->k_depth) * b->packed,
                            .norm = b->norm + row,
                            .sight = b->sight + row,
                            .max = b->max + (size_t)row * b->size,
                            .sum = b->sum + (size_t)row * b->size};
    while (first < end) {
        lsp_key_tile tiles[LSP_SELECT_TILES];
        int count = 0;
        for (; first < end && count < LSP_SELECT_TILES; first += s->tile_keys) {
            tiles[count] = tile_at(b, first);
            tiles[count].v = tiles[count].next_v = NULL;
            if (row > 0) tiles[count].next_k = NULL;
            tiles[count++].v_max = 0;
        }
        b->kernel->select(s, &b->rule, tiles, count, &state, &c, first >= b->m, b->scratch);
    }
}

/* In the order of src/method/topk.c: all rows meet some tiles, then the next tiles. */
static double run_select(bench *b)
{
    reset(b);
    double begin = thread_seconds();
    int64_t tile = b->shape.tile_keys * b->shape.k_depth * (int64_t)b->packed;
    int64_t near = lsp_max(1, (1 << 20) / tile) * b->shape.tile_keys;
    for (int64_t first = 0; first < b->m; first += near)
        for (int64_t row = 0; row < b->rows; row += LSP_SELECT_ROWS)
            select_near(b, row, lsp_min(LSP_SELECT_ROWS, b->rows - row), first, lsp_min(first + near, b->m));
    return thread_seconds() - begin;
}

static double run_weigh(bench *b)
{
    double begin = thread_seconds();
    b->kernel->weigh(&b->rule, b->rows, &b->candidates, b->max, b->sum, false, b->kept);
    return thread_seconds() - begin;
}

static double run_values(bench *b)
{
    const lsp_candidates *c = &b->candidates;
    int64_t d = b->shape.d_v, most = 1056;
    int32_t *next = lsp_memory_zalloc(b->rows, sizeof *next);
    double begin = thread_seconds();
    for (int64_t row = 0; row < b->rows; row += most) {
        lsp_value_rows rows = {lsp_min(most, b->rows - row),
                               c->stride,
                               c->keys + row * c->stride,
                               c->counts + row,
                               (const char *)c->scores + (size_t)(row * c->stride) * b->size,
                               next + row,
                               b->sums + row * d};
        const int64_t step = 8 * b->shape.tile_keys;
        for (int64_t first = 0; first < b->m; first += step) {
            lsp_value_tile tile = {b->v + first * d,  LSP_F32, d, first, lsp_min(first + step, b->m),
                                   b->shape.tile_keys};
            b->kernel->add_values(&tile, &rows, b->scratch);
        }
    }
    double seconds = thread_seconds() - begin;
    lsp_memory_free(next);
    return seconds;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void allocate(bench *b, int64_t d)
{
    int64_t keys = lsp_round_up(b->m, b->shape.tile_keys),
            stride = b->kernel->candidate_stride(b->candidates.most);
    float *q = normal(b->rows * d, 1), *k = normal(b->m * d, 2);
    b->v = normal(b->m * d, 3);
    b->tiles_k = lsp_memory_zalloc(keys * b->shape.k_depth, b->packed);
    b->tiles_v = lsp_memory_zalloc(keys * b->shape.v_stride, b->packed);
    b->q = lsp_memory_zalloc(b->rows * b->shape.k_depth, b->packed);
    b->out = lsp_memory_zalloc(b->rows * d, b->size);
    b->max = lsp_memory_zalloc(b->rows, b->size);
    b->sum = lsp_memory_zalloc(b->rows, b->size);
    b->sums = lsp_memory_zalloc(b->rows * d, sizeof(double));
    b->norm = lsp_memory_zalloc(b->rows, sizeof(double));
    b->k_norm = lsp_memory_zalloc(keys / b->shape.tile_keys, sizeof(double));
    b->v_max = lsp_memory_zalloc(keys / b->shape.tile_keys, sizeof(double));
    b->kept = lsp_memory_zalloc(b->rows, sizeof(double));
    b->sight = lsp_memory_zalloc(b->rows, sizeof *b->sight);
    b->scratch = lsp_memory_zalloc(1, b->kernel->select_bytes(&b->shape));
    b->candidates.stride = stride;
    b->candidates.scores = lsp_memory_zalloc(b->rows * stride, b->size);
    b->candidates.keys = lsp_memory_zalloc(b->rows * stride, sizeof(int32_t));
    b->candidates.counts = lsp_memory_zalloc(b->rows, sizeof(int32_t));
    b->candidates.least = lsp_memory_zalloc(b->rows, b->size);
    for (int64_t i = 0; i < b->rows; i++) b->sight[i] = (lsp_sight){0, b->m, i};
    for (int64_t first = 0; first < b->m; first += b->shape.tile_keys) {
        int64_t count = lsp_min(b->shape.tile_keys, b->m - first);
        b->k_norm[first / b->shape.tile_keys] =
            b->kernel->pack_k(&b->shape, k + first * d, LSP_F32, 0, count,
                              b->tiles_k + (size_t)(first * b->shape.k_depth) * b->packed);
        b->v_max[first / b->shape.tile_keys] =
            b->kernel->pack_v(&b->shape, b->v + first * d, LSP_F32, 0, count,
                              b->tiles_v + (size_t)(first * b->shape.v_stride) * b->packed);
    }
    b->rule.factor = FACTOR / sqrt((double)d);
    b->kernel->pack_queries(d, q, LSP_F32, b->rows, b->rule.factor, b->q);
    b->kernel->query_norms(d, b->rows, b->q, b->norm);
}

int main(int argc, char **argv)
{
    enum { EXACT, SELECT, WEIGH, VALUES, PHASES };
    bench b = {0};
    lsp_isa isa = LSP_ISA_AUTO;
    lsp_dtype type = LSP_F16;
    for (int i = LSP_ISA_PORTABLE; argc > 4 && i <= LSP_ISA_AVX512; i++)
        if (strcmp(argv[1], lsp_isa_name((lsp_isa)i)) == 0) isa = (lsp_isa)i;
    for (int t = LSP_F16; argc > 4 && t <= LSP_F64; t++)
        if (strcmp(argv[2], lsp_dtype_name((lsp_dtype)t)) == 0) type = (lsp_dtype)t;
    b.kernel = isa == LSP_ISA_AUTO ? NULL : lsp_kernel_get(isa, type);
    if (!b.kernel) {
        (void)fputs("usage: topk_bench ISA TYPE D K [ROWS [M [TURNS]]]\n", stderr);
        return 1;
    }
    int64_t d = atoll(argv[3]);
    b.candidates.most = atoll(argv[4]);
    b.rows = argc > 5 ? atoll(argv[5]) : 1056;
    b.m = argc > 6 ? atoll(argv[6]) : 65536;
    int turns = argc > 7 ? atoi(argv[7]) : 9;
    if (turns < 1 || turns > TURNS_MOST) turns = 1;
    b.shape = b.kernel->shape(d, d);
    b.packed = (size_t)b.kernel->packed_bytes;
    b.size = b.kernel->compute == LSP_F64 ? sizeof(double) : sizeof(float);
    allocate(&b, d);
    (void)lsp_fpmode_enter();
    static double ratio[TURNS_MOST], phase[PHASES][TURNS_MOST];
    for (int t = 0; t < turns; t++) {
        double before = run_exact(&b);
        phase[SELECT][t] = run_select(&b);
        phase[WEIGH][t] = run_weigh(&b);
        phase[VALUES][t] = run_values(&b);
        phase[EXACT][t] = (before + run_exact(&b)) / 2;
        ratio[t] = (phase[SELECT][t] + phase[WEIGH][t] + phase[VALUES][t]) / phase[EXACT][t];
    }
    qsort(ratio, (size_t)turns, sizeof *ratio, ascending);
    for (int p = 0; p < PHASES; p++) qsort(phase[p], (size_t)turns, sizeof *phase[p], ascending);
    double us = 1e6 / (double)b.rows;
    (void)printf(
        "%s %s d %lld m %lld top %lld: %.3f of exact's time; microseconds a row: exact %.1f, select %.1f, "
        "weigh %.1f, values %.1f\n",
        lsp_isa_name(isa), lsp_dtype_name(type), (long long)d, (long long)b.m, (long long)b.candidates.most,
        ratio[turns / 2], us * phase[EXACT][turns / 2], us * phase[SELECT][turns / 2],
        us * phase[WEIGH][turns / 2], us * phase[VALUES][turns / 2]);
    return 0;
}
