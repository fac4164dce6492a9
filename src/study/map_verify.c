/* Figures of sampled rows once more, by plain loops in double precision. SPDX-License-Identifier: BSD-3-Clause */
#include "base/checked.h"
#include "base/memory.h"
#include "study/map.h"
#include "study/sample.h"

#include <math.h>
#include <omp.h>
#include <string.h>

/* Sums over w = exp(score - top), by figure, and of w itself. In the place of the entropy: sum w (score - top). */
enum { SUM_WEIGHT = LSP_MAP_FIGURES, SUMS = LSP_MAP_FIGURES + 1 };

/* What a thread lists the keys of a row in. */
typedef struct list {
    double *scores;
    int64_t *keys;
} list;

static void sum_row(const lsp_sample *s, int64_t i, const list *l, double *scratch, double *sums)
{
    const lsp_reference_row *row = &s->rows[i];
    double top = s->peaks[i * LSP_PEAK_VALUES + LSP_PEAK_TOP];
    lsp_reference_list(&s->keys, row, l->scores, l->keys, scratch);
    for (int64_t j = 0; j < s->held[i]; j++) {
        double below = l->scores[j] - top, w = exp(below);
        int64_t away = l->keys[j] < row->position ? row->position - l->keys[j] : l->keys[j] - row->position;
        if (w == 0) continue;
        sums[SUM_WEIGHT] += w;
        sums[LSP_MAP_ENTROPY] += w * below;
        sums[LSP_MAP_DISTANCE] += w * (double)away;
        if (away == 0) sums[LSP_MAP_SELF] += w;
        if (l->keys[j] == row->first) sums[LSP_MAP_FIRST] += w;
        if (away < LSP_MAP_WINDOW) sums[LSP_MAP_NEAR] += w;
    }
}

/* Collective. */
static lsp_status sum_rows(lsp_sample *s, double *sums)
{
    int64_t most = 1;
    int threads = s->ctx->layout.threads;
    for (int64_t i = 0; i < s->count; i++) most = lsp_max(most, s->held[i]);
    double *scores = lsp_memory_alloc(threads * most, sizeof *scores);
    int64_t *keys = lsp_memory_alloc(threads * most, sizeof *keys);
    lsp_status status = scores && keys ? LSP_OK
                                       : lsp_context_fail(s->ctx, LSP_ERR_LIMIT,
                                                          "verify: not enough memory for a row's %lld scores",
                                                          (long long)most);
    status = lsp_context_agree(s->ctx, status);
    if (status == LSP_OK) {
#pragma omp parallel for schedule(dynamic) num_threads(threads)
        for (int64_t i = 0; i < s->count; i++) {
            int thread = omp_get_thread_num();
            list l = {scores + thread * most, keys + thread * most};
            if (lsp_sample_kind(s, i) == LSP_REFERENCE_ORDINARY)
                sum_row(s, i, &l, s->scratch + thread * s->scratch_count, sums + i * SUMS);
        }
        const int64_t piece = 512, all = s->count * SUMS;
        for (int64_t i = 0; status == LSP_OK && i < all; i += piece)
            status = lsp_context_sum_f64(s->ctx, sums + i, (int)lsp_min(piece, all - i));
    }
    lsp_memory_free(scores);
    lsp_memory_free(keys);
    return status;
}

/* The figures' errors for a row. */
static void row_errors(const lsp_sample *s, int64_t i, const double *sums, double errors[LSP_MAP_FIGURES])
{
    double got[LSP_MAP_FIGURES];
    lsp_sample_out(s, i, got);
    for (int f = 0; f < LSP_MAP_FIGURES; f++) {
        errors[f] = isnan(got[f]) ? 0 : INFINITY; /* rows without weights have no figures */
        if (lsp_sample_kind(s, i) != LSP_REFERENCE_ORDINARY) continue;
        double weight = sums[SUM_WEIGHT], right = sums[f] / weight;
        if (f == LSP_MAP_ENTROPY) right = log(weight) - right;
        double size = f == LSP_MAP_DISTANCE ? 1 + right : 1;
        errors[f] = isfinite(got[f]) ? fabs(got[f] - right) / size : INFINITY;
    }
}

/* Local; every rank has the same numbers and comes to the same result. An error e of a score changes its weight by e of
 * it, and w ln w by e (1 + |ln w|) w: a few times the tolerance of an output. */
static void compare(const lsp_sample *s, const double *sums, double tolerance, lsp_map_check *result)
{
    result->rows = s->count;
    result->max_error = -1;
    for (int64_t i = 0; i < s->count; i++) {
        double errors[LSP_MAP_FIGURES], size = s->peaks[i * LSP_PEAK_VALUES + LSP_PEAK_SIZE];
        double allowed = lsp_check_tolerance(s->desc.compute, s->desc.d_k, size);
        allowed = tolerance > 0 ? tolerance : 4 * allowed;
        row_errors(s, i, sums + i * SUMS, errors);
        result->tolerance = fmax(result->tolerance, allowed);
        result->max_abs_score =
            fmax(result->max_abs_score, s->peaks[i * LSP_PEAK_VALUES + LSP_PEAK_MAGNITUDE]);
        for (int f = 0; f < LSP_MAP_FIGURES; f++) {
            if (!(errors[f] <= allowed)) result->passed = false;
            if (errors[f] <= result->max_error) continue;
            result->max_error = errors[f];
            result->worst_figure = (lsp_map_figure)f;
            result->worst[0] = s->rows[i].batch;
            result->worst[1] = s->rows[i].head;
            result->worst[2] = s->rows[i].row;
        }
    }
}

/* Pixels add up to the rows that are weighed, and so does the mass of the keys. */
static void check_sums(const lsp_map *map, lsp_map_check *result)
{
    const lsp_attention_desc *d = &map->plan->problem.desc;
    const lsp_map_shape *shape = &map->layout.shape;
    for (int64_t i = 0; i < d->batch * d->heads; i++) {
        const lsp_map_head *head = &map->wholes[i].head;
        double pixels = 0, mass = 0, rows = (double)lsp_max(1, head->weighed);
        for (int64_t p = 0; p < shape->pixel_rows * shape->pixel_keys; p++) pixels += head->sum[p];
        for (int64_t j = 0; j < shape->keys; j++) mass += head->column_mass[j];
        double off = fmax(fabs(pixels - (double)head->weighed), fabs(mass - (double)head->weighed)) / rows;
        result->map_sum_error = fmax(result->map_sum_error, off);
    }
    double allowed = d->compute == LSP_F64 ? 1e-8 : 1e-5;
    if (!(result->map_sum_error <= allowed)) result->passed = false;
}

lsp_status lsp_map_verify(lsp_map *map, const void *q, const void *k, int64_t rows, uint64_t seed,
                          double tolerance, lsp_map_check *result)
{
    lsp_context *ctx = map->ctx;
    const lsp_attention *plan = map->plan;
    lsp_attention_desc desc = plan->problem.desc;
    lsp_sample s = {.count = 0};
    lsp_status status = LSP_OK;
    *result = (lsp_map_check){.passed = true};
    if (!map->done)
        status = lsp_context_fail(ctx, LSP_ERR_USAGE, "verify: the map was not executed");
    else if (!(tolerance >= 0))
        status =
            lsp_context_fail(ctx, LSP_ERR_USAGE, "verify: the tolerance %g must not be negative", tolerance);
    status = lsp_context_agree(ctx, status);
    if (status != LSP_OK) return status;
    const lsp_map_state *state = plan->own;
    /* A row's figures stand for its output. */
    desc.d_v = LSP_MAP_FIGURES;
    lsp_sample_source source = {
        plan->query_runs, plan->key_runs, plan->query_run_count, plan->key_run_count, q, k, k,
        state->figures,   state->lse};
    status = lsp_sample_make(ctx, &desc, &source, rows, seed, &s);
    if (status == LSP_OK) status = lsp_sample_scan(&s);
    double *sums = status == LSP_OK ? lsp_memory_zalloc(s.count * SUMS, sizeof *sums) : NULL;
    if (status == LSP_OK && !sums)
        status = lsp_context_fail(ctx, LSP_ERR_LIMIT, "verify: not enough memory for the sums of rows");
    status = lsp_context_agree(ctx, status);
    if (status == LSP_OK) status = sum_rows(&s, sums);
    if (status == LSP_OK) {
        compare(&s, sums, tolerance, result);
        check_sums(map, result);
    }
    lsp_memory_free(sums);
    lsp_sample_free(&s);
    return lsp_context_agree(ctx, status);
}
