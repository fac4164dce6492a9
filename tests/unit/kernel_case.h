/* A small attention problem for kernel tests: operands, a run through a kernel, and a plain oracle in double.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_TEST_KERNEL_CASE_H
#define LSP_TEST_KERNEL_CASE_H

#include "base/checked.h"
#include "base/convert.h"
#include "base/memory.h"
#include "base/random.h"
#include "kernel/entries.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define LOG2_E 1.4426950408889634074

enum { KERNELS = 11 };

/* The table entries of this machine; portable ones are always there. */
static inline int kernels(const lsp_kernel *list[KERNELS])
{
    int count = 0;
    for (int isa = LSP_ISA_PORTABLE; isa <= LSP_ISA_AVX512; isa++) {
        for (int type = LSP_BF16; type <= LSP_F64; type++) {
            const lsp_kernel *kernel = lsp_kernel_get((lsp_isa)isa, (lsp_dtype)type);
            if (kernel) list[count++] = kernel;
        }
    }
    assert_true(count >= 3);
    /* For bf16 on AVX-512 there are two, of which the table gives the faster one: here both. */
    if (lsp_kernel_pairs()) {
        list[count++] = lsp_kernel_pairs();
        list[count++] = lsp_kernel_widened();
    }
    return count;
}

/* Natural units; operands hold numbers that f32 can hold, so that both computing types see the same. */
typedef struct kernel_case {
    int64_t n, m, d_k, d_v;
    int64_t key_begin, key_end; /* keys present */
    double scale, softcap, slope;
    float *q, *k, *v;
    lsp_sight *sight;
    bool stored; /* calls of at most row_tile rows meet tiles as they are stored */
} kernel_case;

/* State after all tiles, and the result. Arrays hold numbers of the computing type. */
typedef struct kernel_result {
    size_t size; /* of a number */
    int64_t empty;
    char *state, *out, *lse, *max, *sum; /* state: out before finish */
} kernel_result;

static inline kernel_case case_make(int64_t n, int64_t m, int64_t d_k, int64_t d_v, uint64_t seed)
{
    kernel_case c = {n, m, d_k, d_v, 0, m, 1 / sqrt((double)d_k), 0, 0, NULL, NULL, NULL, NULL, false};
    c.q = lsp_memory_alloc(n * d_k, sizeof *c.q);
    c.k = lsp_memory_alloc(m * d_k, sizeof *c.k);
    c.v = lsp_memory_alloc(m * d_v, sizeof *c.v);
    c.sight = lsp_memory_alloc(n, sizeof *c.sight);
    for (int64_t i = 0; i < n * d_k; i++) c.q[i] = (float)lsp_random_normal(seed, 1, (uint64_t)i);
    for (int64_t i = 0; i < m * d_k; i++) c.k[i] = (float)lsp_random_normal(seed, 2, (uint64_t)i);
    for (int64_t i = 0; i < m * d_v; i++) c.v[i] = (float)lsp_random_normal(seed, 3, (uint64_t)i);
    for (int64_t i = 0; i < n; i++) c.sight[i] = (lsp_sight){0, m, i + m - n};
    return c;
}

/* Random sights within the keys present; every fifth row sees nothing. */
static inline void case_random_sights(kernel_case *c, uint64_t seed)
{
    for (int64_t i = 0; i < c->n; i++) {
        double a = lsp_random_uniform(seed, 4, (uint64_t)(2 * i)),
               b = lsp_random_uniform(seed, 4, (uint64_t)(2 * i + 1));
        int64_t keys = c->key_end - c->key_begin;
        int64_t x = c->key_begin + (int64_t)(a * (double)(keys + 1));
        int64_t y = c->key_begin + (int64_t)(b * (double)(keys + 1));
        c->sight[i].begin = lsp_min(x, y);
        c->sight[i].end = i % 5 == 4 ? lsp_min(x, y) : lsp_max(x, y);
    }
}

static inline void case_free(kernel_case *c)
{
    lsp_memory_free(c->q);
    lsp_memory_free(c->k);
    lsp_memory_free(c->v);
    lsp_memory_free(c->sight);
}

static inline kernel_result result_make(const lsp_kernel *kernel, const kernel_case *c)
{
    kernel_result r = {lsp_dtype_size(lsp_dtype_result(kernel->compute)), 0, NULL, NULL, NULL, NULL, NULL};
    r.state = lsp_memory_zalloc(c->n * c->d_v, r.size);
    r.out = lsp_memory_zalloc(c->n * c->d_v, r.size);
    r.lse = lsp_memory_zalloc(c->n, r.size);
    r.max = lsp_memory_zalloc(c->n, r.size);
    r.sum = lsp_memory_zalloc(c->n, r.size);
    return r;
}

static inline void result_free(kernel_result *r)
{
    lsp_memory_free(r->state);
    lsp_memory_free(r->out);
    lsp_memory_free(r->lse);
    lsp_memory_free(r->max);
    lsp_memory_free(r->sum);
}

static inline double number_at(const kernel_result *r, const char *array, int64_t index)
{
    if (r->size == sizeof(double)) return ((const double *)(const void *)array)[index];
    return (double)((const float *)(const void *)array)[index];
}

static inline void number_set(const kernel_result *r, char *array, int64_t index, double value)
{
    if (r->size == sizeof(double))
        ((double *)(void *)array)[index] = value;
    else
        ((float *)(void *)array)[index] = (float)value;
}

/* State of rows that have met no key. Of groups of rows all are without output, one of two, none: then it is 0. */
static inline void case_start(const kernel_case *c, const kernel_result *r)
{
    for (int64_t i = 0; i < c->n; i++) {
        const int64_t group = i / 6 % 3;
        const bool none = group == 0 || (group == 1 && i % 2);
        number_set(r, r->max, i, -INFINITY);
        number_set(r, r->sum, i, none ? -0.0 : 0.0);
        for (int64_t j = 0; j < c->d_v; j++)
            number_set(r, r->state, i * c->d_v + j, none ? (double)NAN : 0.0);
    }
}

/* Folds all rows of `recent` into `total`. */
static inline void case_fold(const lsp_kernel *kernel, const kernel_case *c, const kernel_result *recent,
                             const kernel_result *total)
{
    lsp_row_state from = {recent->state, recent->max, recent->sum},
                  to = {total->state, total->max, total->sum};
    kernel->fold(c->d_v, c->n, &from, &to);
}

/* Runs the whole case, `rows_a_call` rows in a call; sums over fold_tiles tiles are folded, none if it is 0. */
static inline kernel_result case_run_folding(const lsp_kernel *kernel, const kernel_case *c,
                                             int64_t rows_a_call, int64_t fold_tiles)
{
    kernel_result r = result_make(kernel, c), total = result_make(kernel, c);
    lsp_tile_shape shape = kernel->shape(c->d_k, c->d_v);
    size_t packed = (size_t)kernel->packed_bytes, depth = (size_t)shape.k_depth;
    char *q = lsp_memory_alloc(c->n * shape.k_depth, packed);
    char *k = lsp_memory_alloc(shape.tile_keys * shape.k_depth, packed);
    char *v = lsp_memory_alloc(shape.tile_keys * shape.v_stride, packed);
    void *scratch = lsp_memory_alloc(1, kernel->scratch_bytes(&shape));
    memset(k, 0xFF, (size_t)(shape.tile_keys * shape.k_depth) * packed);
    memset(v, 0xFF, (size_t)(shape.tile_keys * shape.v_stride) * packed);
    memset(scratch, 0xFF, kernel->scratch_bytes(&shape));
    lsp_score_rule rule = {c->softcap * LOG2_E, c->slope * LOG2_E, c->scale * LOG2_E};
    uint64_t mode = lsp_fpmode_enter();
    case_start(c, &r);
    case_start(c, &total);
    kernel->pack_queries(c->d_k, c->q, LSP_F32, c->n, c->scale * LOG2_E, q);
    double *norm = lsp_memory_alloc(c->n, sizeof *norm);
    kernel->query_norms(c->d_k, c->n, q, norm);
    for (int64_t first = 0; first < c->m; first += shape.tile_keys) {
        int64_t begin = lsp_max(first, c->key_begin), end = lsp_min(first + shape.tile_keys, c->key_end);
        if (begin >= end) continue;
        if (fold_tiles && first % (fold_tiles * shape.tile_keys) == 0) case_fold(kernel, c, &r, &total);
        lsp_key_tile tile = {.k = k, .v = v, .first = first};
        tile.k_norm = kernel->pack_k(&shape, c->k + begin * c->d_k, LSP_F32, begin - first, end - begin, k);
        tile.v_max = kernel->pack_v(&shape, c->v + begin * c->d_v, LSP_F32, begin - first, end - begin, v);
        if (c->stored && rows_a_call <= kernel->row_tile)
            tile = (lsp_key_tile){.first = first,
                                  .stored_k = {c->k + begin * c->d_k, LSP_F32, begin - first, end - begin},
                                  .stored_v = {c->v + begin * c->d_v, LSP_F32, begin - first, end - begin}};
        for (int64_t i = 0; i < c->n; i += rows_a_call) {
            size_t s = r.size, at = (size_t)i;
            lsp_query_rows rows = {
                lsp_min(rows_a_call, c->n - i),    q + at * depth * packed, norm + i,      c->sight + i,
                r.state + at * (size_t)c->d_v * s, r.max + at * s,          r.sum + at * s};
            kernel->attend(&shape, &rule, &tile, &rows, scratch);
        }
    }
    if (fold_tiles) {
        case_fold(kernel, c, &r, &total);
        kernel_result folded = total;
        total = r, r = folded;
    }
    result_free(&total);
    memcpy(r.out, r.state, (size_t)(c->n * c->d_v) * r.size);
    r.empty = kernel->finish(c->d_v, c->n, r.out, r.max, r.sum, r.lse);
    lsp_fpmode_leave(mode);
    lsp_memory_free(q);
    lsp_memory_free(norm);
    lsp_memory_free(k);
    lsp_memory_free(v);
    lsp_memory_free(scratch);
    return r;
}

static inline kernel_result case_run(const lsp_kernel *kernel, const kernel_case *c, int64_t rows_a_call)
{
    return case_run_folding(kernel, c, rows_a_call, 0);
}

/* Calls `check` for every table entry of this machine. */
static inline void for_each_kernel(void (*check)(const lsp_kernel *kernel))
{
    int count = 0;
    for (int isa = LSP_ISA_PORTABLE; isa <= LSP_ISA_AVX512; isa++) {
        for (int type = LSP_BF16; type <= LSP_F64; type++) {
            const lsp_kernel *kernel = lsp_kernel_get((lsp_isa)isa, (lsp_dtype)type);
            if (!kernel) continue;
            check(kernel);
            count++;
        }
    }
    assert_true(count >= 3);
    if (lsp_kernel_pairs()) {
        check(lsp_kernel_pairs());
        check(lsp_kernel_widened());
    }
}

/* x as the computing type must hold it: rounded once. */
static inline double rounded(const lsp_kernel *kernel, double x)
{
    if (kernel->compute == LSP_F64) return x;
    return kernel->compute == LSP_F32 ? (double)(float)x : lsp_convert_from_bf16(lsp_convert_to_bf16(x));
}

/* The score of row i and key j in double, natural units. */
static inline double oracle_score(const kernel_case *c, int64_t i, int64_t j)
{
    double dot = 0;
    for (int64_t d = 0; d < c->d_k; d++) dot += (double)c->q[i * c->d_k + d] * (double)c->k[j * c->d_k + d];
    double s = c->scale * dot;
    if (c->softcap != 0) s = c->softcap * tanh(s / c->softcap);
    return s - c->slope * fabs((double)(c->sight[i].position - j));
}

/* Row i of the result, as the formula says it. */
static inline void oracle_row(const kernel_case *c, int64_t i, double *out, double *lse)
{
    double max = -INFINITY, sum = 0;
    for (int64_t d = 0; d < c->d_v; d++) out[d] = 0;
    for (int64_t j = c->sight[i].begin; j < c->sight[i].end; j++) max = fmax(max, oracle_score(c, i, j));
    for (int64_t j = c->sight[i].begin; j < c->sight[i].end; j++) {
        double p = exp(oracle_score(c, i, j) - max);
        sum += p;
        for (int64_t d = 0; d < c->d_v; d++) out[d] += p * (double)c->v[j * c->d_v + d];
    }
    for (int64_t d = 0; d < c->d_v && sum > 0; d++) out[d] /= sum;
    *lse = sum > 0 ? max + log(sum) : -INFINITY;
}

#endif
