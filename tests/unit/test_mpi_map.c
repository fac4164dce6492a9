/* Maps on several ranks: the bits of one rank, the definition, ties, checks that find faults, refusals.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "mpi_case.h"

#include "operator_case.h"

#include <longspan/longspan.h>

static lsp_context *ctx, *threaded, *alone; /* all ranks; with two threads each; this rank by itself */

/* Everything that a map says: rows of the whole, those that were not computed zero. */
typedef struct whole {
    lsp_map_shape shape;
    int64_t heads, pixels;
    double *sum, *max, *mass, *pooled, *mean, *figures, *lse;
    lsp_link *links;
    int64_t *counts; /* [heads][4]: links, weighed, empty, broken */
} whole;

static lsp_attention_desc desc_of(int64_t heads, int64_t kv_heads, int64_t n, int64_t m, int64_t d)
{
    return (lsp_attention_desc){.batch = 1,
                                .heads = heads,
                                .kv_heads = kv_heads,
                                .n = n,
                                .m = m,
                                .d_k = d,
                                .q_type = LSP_F32,
                                .k_type = LSP_F32,
                                .v_type = LSP_F32,
                                .compute = LSP_F32};
}

static whole make_whole(const lsp_attention_desc *d, lsp_map_shape shape, int64_t links)
{
    int64_t heads = d->batch * d->heads, pixels = shape.pixel_rows * shape.pixel_keys;
    return (whole){.shape = shape,
                   .heads = heads,
                   .pixels = pixels,
                   .sum = case_alloc(heads * pixels, 8),
                   .max = case_alloc(heads * pixels, 8),
                   .mass = case_alloc(heads * shape.keys, 8),
                   .pooled = case_alloc(heads * LSP_MAP_FIGURES * shape.pixel_rows, 8),
                   .mean = case_alloc(heads * LSP_MAP_FIGURES, 8),
                   .figures = case_alloc(heads * d->n * LSP_MAP_FIGURES, 8),
                   .lse = case_alloc(heads * d->n, 8),
                   .links = case_alloc(heads * links, sizeof(lsp_link)),
                   .counts = case_alloc(heads * 4, 8)};
}

static void free_whole(whole *w)
{
    void *const owned[] = {w->sum,     w->max, w->mass,  w->pooled, w->mean,
                           w->figures, w->lse, w->links, w->counts};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
}

static void take_heads(const lsp_attention_desc *d, const lsp_map *map, int64_t links, whole *w)
{
    const lsp_map_shape *s = &w->shape;
    for (int64_t i = 0; i < w->heads; i++) {
        lsp_map_head head;
        assert_int_equal(lsp_map_get_head(map, i / d->heads, i % d->heads, &head), LSP_OK);
        memcpy(w->sum + i * w->pixels, head.sum, (size_t)w->pixels * 8);
        memcpy(w->max + i * w->pixels, head.max, (size_t)w->pixels * 8);
        memcpy(w->mass + i * s->keys, head.column_mass, (size_t)s->keys * 8);
        for (int f = 0; f < LSP_MAP_FIGURES; f++)
            memcpy(w->pooled + (i * LSP_MAP_FIGURES + f) * s->pixel_rows, head.pooled[f],
                   (size_t)s->pixel_rows * 8);
        memcpy(w->mean + i * LSP_MAP_FIGURES, head.mean, sizeof head.mean);
        memcpy(w->links + i * links, head.links, (size_t)head.link_count * sizeof(lsp_link));
        const int64_t counts[] = {head.link_count, head.weighed, head.empty, head.broken};
        memcpy(w->counts + i * 4, counts, sizeof counts);
    }
}

/* This rank's rows of figures and lse, to their places. */
static void take_rows(const lsp_attention_desc *d, const lsp_map *map, const lsp_run *runs, int64_t run_count,
                      whole *w)
{
    const void *figures, *lse;
    int64_t at = 0;
    assert_int_equal(lsp_map_get_rows(map, &figures, &lse), LSP_OK);
    for (int64_t r = 0; r < run_count; r++)
        for (int64_t i = 0; i < runs[r].count; i++, at++) {
            int64_t to = (runs[r].batch * d->heads + runs[r].head) * d->n + runs[r].begin + i;
            lsp_convert_load(d->compute, figures, at * LSP_MAP_FIGURES, LSP_MAP_FIGURES,
                             w->figures + to * LSP_MAP_FIGURES);
            lsp_convert_load(d->compute, lse, at, 1, w->lse + to);
        }
}

static whole run_map(lsp_context *on, const lsp_attention_desc *d, lsp_map_options options, bool check)
{
    lsp_map *map = NULL;
    if (lsp_map_create(on, d, &options, &map) != LSP_OK) fail_msg("%s", lsp_context_message(on));
    whole w = make_whole(d, lsp_map_get_shape(map), options.links);
    const lsp_run *query_runs, *key_runs;
    int64_t query_run_count, query_rows, key_run_count, key_rows;
    lsp_map_runs(map, LSP_QUERIES, &query_runs, &query_run_count, &query_rows);
    lsp_map_runs(map, LSP_KEYS, &key_runs, &key_run_count, &key_rows);
    void *q = make_rows(d, ROLE_Q, query_runs, query_run_count, query_rows, NULL);
    void *k = make_rows(d, ROLE_K, key_runs, key_run_count, key_rows, NULL);
    for (int times = check ? 2 : 1; times > 0; times--)
        if (lsp_map_execute(map, q, k, NULL) != LSP_OK) fail_msg("%s", lsp_context_message(on));
    take_heads(d, map, options.links, &w);
    take_rows(d, map, query_runs, query_run_count, &w);
    if (check) {
        lsp_map_check found;
        assert_int_equal(lsp_map_verify(map, q, k, 9, 1, 0, &found), LSP_OK);
        if (!found.passed)
            fail_msg("%s of row %lld is off by %g", lsp_map_figure_name(found.worst_figure),
                     (long long)found.worst[2], found.max_error);
    }
    free(q);
    free(k);
    assert_int_equal(lsp_map_destroy(&map), LSP_OK);
    assert_null(map);
    return w;
}

/* All but rows of other ranks, which are zero here. */
static void check_same(const lsp_attention_desc *d, const whole *a, const whole *b, int64_t links)
{
    assert_memory_equal(&a->shape, &b->shape, sizeof a->shape);
    assert_memory_equal(a->sum, b->sum, (size_t)(a->heads * a->pixels) * 8);
    assert_memory_equal(a->max, b->max, (size_t)(a->heads * a->pixels) * 8);
    assert_memory_equal(a->mass, b->mass, (size_t)(a->heads * a->shape.keys) * 8);
    assert_memory_equal(a->pooled, b->pooled, (size_t)(a->heads * LSP_MAP_FIGURES * a->shape.pixel_rows) * 8);
    assert_memory_equal(a->mean, b->mean, (size_t)(a->heads * LSP_MAP_FIGURES) * 8);
    assert_memory_equal(a->counts, b->counts, (size_t)(a->heads * 4) * 8);
    assert_memory_equal(a->links, b->links, (size_t)(a->heads * links) * sizeof(lsp_link));
    const uint64_t *lse = (const uint64_t *)(const void *)a->lse,
                   *other = (const uint64_t *)(const void *)b->lse;
    for (int64_t i = 0; i < a->heads * d->n; i++) {
        if (lse[i] == 0) continue; /* another rank's */
        assert_true(lse[i] == other[i]);
        assert_memory_equal(a->figures + i * LSP_MAP_FIGURES, b->figures + i * LSP_MAP_FIGURES,
                            LSP_MAP_FIGURES * 8);
    }
}

/* ---- bits ---------------------------------------------------------------------------------------- */

static void check_bits(lsp_attention_desc d, lsp_map_options options, int variants)
{
    static const lsp_gather_mode gathers[] = {LSP_GATHER_PANELS, LSP_GATHER_ALL, LSP_GATHER_NODE,
                                              LSP_GATHER_CHAIN, LSP_GATHER_AUTO};
    static const lsp_partition_kind kinds[] = {LSP_PARTITION_AUTO, LSP_PARTITION_CONTIGUOUS,
                                               LSP_PARTITION_BALANCED, LSP_PARTITION_CYCLIC,
                                               LSP_PARTITION_AUTO};
    whole right = run_map(alone, &d, options, true);
    for (int i = 0; i < variants; i++) {
        lsp_attention_desc own = d;
        own.gather = gathers[i];
        own.partition = kinds[i];
        own.panel_rows = i == 1 ? 0 : d.m > 1000 ? 4096 : 128;
        own.head_groups = i == 4 && d.heads % ctx->layout.ranks == 0 ? ctx->layout.ranks : 0;
        whole got = run_map(i == 1 ? threaded : ctx, &own, options, i == 0);
        check_same(&d, &got, &right, options.links);
        free_whole(&got);
    }
    free_whole(&right);
}

static void bits_do_not_depend_on_ranks(void **state)
{
    (void)state;
    check_bits(desc_of(2, 2, 130, 97, 16), (lsp_map_options){16, 10}, 5);
    check_bits(desc_of(1, 1, 5, 300, 7), (lsp_map_options){512, 3}, 5);
    check_bits(desc_of(1, 1, 1, 1, 1), (lsp_map_options){1, 5}, 5);
    lsp_attention_desc d = desc_of(4, 2, 211, 211, 24);
    const int64_t lengths[] = {211, 77}, offsets[] = {0, 40, 40, 97, 211},
                  offsets_k[] = {0, 90, 101, 101, 211};
    const double slopes[] = {0.5, 0.25, 0.0625, 0};
    d.batch = 2;
    d.mask = LSP_MASK_CAUSAL;
    d.key_lengths = lengths;
    check_bits(d, (lsp_map_options){9, 40}, 5);
    d = desc_of(4, 4, 211, 211, 24);
    d.mask = LSP_MASK_WINDOW;
    d.window_left = 20, d.window_right = 3;
    d.documents = offsets, d.documents_k = offsets_k, d.document_count = 4;
    check_bits(d, (lsp_map_options){40, 0}, 5);
    d = desc_of(4, 4, 211, 180, 24);
    d.compute = LSP_F64;
    d.softcap = 2;
    d.alibi_slopes = slopes;
    d.row_begin = 20, d.row_end = 190, d.key_begin = 33, d.key_end = 170;
    check_bits(d, (lsp_map_options){33, 17}, 5);
}

/* Several chunks, grains in a line of pixels, tiles, folds of the first pass. */
static void long_sequences_too(void **state)
{
    (void)state;
    lsp_attention_desc d = desc_of(1, 1, 1100, 1500, 8);
    check_bits(d, (lsp_map_options){6, 100}, 2);
    d.mask = LSP_MASK_CAUSAL;
    check_bits(d, (lsp_map_options){50, 100}, 2);
    d = desc_of(1, 1, 60, 17000, 4);
    check_bits(d, (lsp_map_options){30, 10}, 2);
}

/* ---- the definition ------------------------------------------------------------------------------ */

static int64_t distance_of(const lsp_attention_desc *d, int64_t i, int64_t j)
{
    int64_t distance = 0;
    (void)sees(d, 0, i, j, &distance);
    return distance;
}

static void check_row(const lsp_attention_desc *d, const double *w, int64_t i, const double *got)
{
    double right[LSP_MAP_FIGURES] = {0}, total = 0;
    for (int64_t j = 0; j < d->m; j++) {
        double weight = w[i * d->m + j];
        int64_t away = distance_of(d, i, j);
        if (weight == 0) continue;
        total += weight;
        right[LSP_MAP_ENTROPY] -= weight * log(weight);
        right[LSP_MAP_DISTANCE] += weight * (double)away;
        if (away == 0) right[LSP_MAP_SELF] += weight;
        if (j == 0) right[LSP_MAP_FIRST] += weight;
        if (away < LSP_MAP_WINDOW) right[LSP_MAP_NEAR] += weight;
    }
    for (int f = 0; f < LSP_MAP_FIGURES; f++)
        assert_true(total == 0 ? isnan(got[f]) : fabs(got[f] - right[f]) <= 1e-11 * (1 + right[f]));
}

static void figures_follow_the_definition(void **state)
{
    (void)state;
    for (int mask = LSP_MASK_NONE; mask <= LSP_MASK_CAUSAL; mask++) {
        lsp_attention_desc d = desc_of(1, 1, 303, 290, 9);
        d.q_type = d.k_type = d.compute = LSP_F64;
        d.mask = (lsp_mask_kind)mask;
        d.row_end = d.n, d.key_end = d.m;
        double *w = dense_matrix(&d);
        whole got = run_map(alone, &d, (lsp_map_options){30, 50}, true);
        const lsp_map_shape *s = &got.shape;
        assert_int_equal(s->rows_per_pixel, 11);
        assert_int_equal(s->keys_per_pixel, 10);
        double *sum = case_alloc(got.pixels, 8), *max = case_alloc(got.pixels, 8), *mass = case_alloc(d.m, 8);
        for (int64_t i = 0; i < d.n; i++) {
            check_row(&d, w, i, got.figures + i * LSP_MAP_FIGURES);
            for (int64_t j = 0; j < d.m; j++) {
                int64_t pixel = i / 11 * s->pixel_keys + j / 10;
                sum[pixel] += w[i * d.m + j];
                max[pixel] = fmax(max[pixel], w[i * d.m + j]);
                mass[j] += w[i * d.m + j];
            }
        }
        for (int64_t p = 0; p < got.pixels; p++)
            assert_true(fabs(sum[p] - got.sum[p]) < 1e-9 && fabs(max[p] - got.max[p]) < 1e-12);
        for (int64_t j = 0; j < d.m; j++) assert_true(fabs(mass[j] - got.mass[j]) < 1e-9);
        assert_int_equal(got.counts[0], 50);
        assert_int_equal(got.counts[1], mask == LSP_MASK_CAUSAL ? 290 : 303);
        assert_int_equal(got.counts[2], mask == LSP_MASK_CAUSAL ? 13 : 0);
        double least = 1;
        for (int64_t l = 0; l < 50; l++) {
            double *weight = &w[got.links[l].row * d.m + got.links[l].key];
            assert_true(fabs(got.links[l].weight - *weight) < 1e-12 && got.links[l].weight <= least);
            least = got.links[l].weight;
            *weight = 0;
        }
        for (int64_t e = 0; e < d.n * d.m; e++) assert_true(w[e] <= least + 1e-12);
        free(sum), free(max), free(mass), free(w);
        free_whole(&got);
    }
}

/* ---- ties ---------------------------------------------------------------------------------------- */

/* Equal weights everywhere: the first rows' first keys are the strongest links. */
static void ties_go_to_the_lower_row_and_key(void **state)
{
    (void)state;
    enum { N = 150, M = 128, LINKS = 300 };
    lsp_attention_desc d = desc_of(1, 1, N, M, 4);
    lsp_map_options options = {10, LINKS};
    lsp_map *map = NULL;
    lsp_map_head head;
    assert_int_equal(lsp_map_create(ctx, &d, &options, &map), LSP_OK);
    float *zeros = case_alloc(N * 4, sizeof *zeros);
    assert_int_equal(lsp_map_execute(map, zeros, zeros, NULL), LSP_OK);
    assert_int_equal(lsp_map_get_head(map, 0, 0, &head), LSP_OK);
    assert_int_equal(head.link_count, LINKS);
    for (int64_t i = 0; i < LINKS; i++) {
        assert_true(head.links[i].weight == 1.0 / M);
        assert_int_equal(head.links[i].row, i / M);
        assert_int_equal(head.links[i].key, i % M);
    }
    for (int64_t j = 0; j < M; j++) assert_true(head.column_mass[j] == (double)N / M);
    assert_true(fabs(head.mean[LSP_MAP_ENTROPY] - log(M)) < 1e-6);
    free(zeros);
    lsp_map_destroy(&map);
}

/* ---- checks and refusals --------------------------------------------------------------------------- */

static void verification_finds_a_fault(void **state)
{
    (void)state;
    lsp_attention_desc d = desc_of(1, 1, 90, 90, 8);
    lsp_map_options options = lsp_map_defaults();
    assert_int_equal(options.pixels, 512);
    assert_int_equal(options.links, 100);
    lsp_map *map = NULL;
    lsp_map_head head;
    lsp_map_check check;
    const void *figures, *lse;
    assert_int_equal(lsp_map_create(ctx, &d, &options, &map), LSP_OK);
    assert_int_equal(lsp_map_get_head(map, 0, 0, &head), LSP_ERR_USAGE);
    assert_int_equal(lsp_map_get_rows(map, &figures, &lse), LSP_ERR_USAGE);
    const lsp_run *runs, *key_runs;
    int64_t run_count, rows, key_run_count, key_rows;
    lsp_map_runs(map, LSP_QUERIES, &runs, &run_count, &rows);
    lsp_map_runs(map, LSP_KEYS, &key_runs, &key_run_count, &key_rows);
    void *q = make_rows(&d, ROLE_Q, runs, run_count, rows, NULL);
    void *k = make_rows(&d, ROLE_K, key_runs, key_run_count, key_rows, NULL);
    assert_int_equal(lsp_map_verify(map, q, k, 5, 0, 0, &check), LSP_ERR_USAGE);
    assert_int_equal(lsp_map_execute(map, q, k, NULL), LSP_OK);
    assert_int_equal(lsp_map_verify(map, q, k, 5, 0, -1, &check), LSP_ERR_USAGE);
    assert_int_equal(lsp_map_verify(map, q, k, 500, 0, 0, &check), LSP_OK);
    assert_true(check.passed && check.rows == 90);
    assert_int_equal(lsp_map_get_head(map, 0, 1, &head), LSP_ERR_USAGE);
    for (int64_t i = 0; i < key_rows * d.d_k; i++) ((float *)k)[i] *= 1.01F;
    assert_int_equal(lsp_map_verify(map, q, k, 90, 0, 0, &check), LSP_OK);
    assert_false(check.passed);
    free(q), free(k);
    lsp_map_destroy(&map);
}

/* NaN in a query spoils its row; in a key, all rows that see it. */
static void rows_that_are_not_finite_weigh_nothing(void **state)
{
    (void)state;
    lsp_attention_desc d = desc_of(1, 1, 70, 70, 8);
    d.mask = LSP_MASK_CAUSAL;
    lsp_map_options options = {7, 5};
    run_options spoilt = {.spoil = true, .spoilt_key = 40};
    lsp_map *map = NULL;
    lsp_map_head head;
    assert_int_equal(lsp_map_create(ctx, &d, &options, &map), LSP_OK);
    const lsp_run *runs, *key_runs;
    int64_t run_count, rows, key_run_count, key_rows;
    lsp_map_runs(map, LSP_QUERIES, &runs, &run_count, &rows);
    lsp_map_runs(map, LSP_KEYS, &key_runs, &key_run_count, &key_rows);
    void *q = make_rows(&d, ROLE_Q, runs, run_count, rows, NULL);
    void *k = make_rows(&d, ROLE_K, key_runs, key_run_count, key_rows, &spoilt);
    assert_int_equal(lsp_map_execute(map, q, k, NULL), LSP_OK);
    assert_int_equal(lsp_map_get_head(map, 0, 0, &head), LSP_OK);
    assert_int_equal(head.weighed, 40);
    assert_int_equal(head.broken, 30);
    double mass = 0;
    for (int64_t j = 0; j < 70; j++) mass += head.column_mass[j];
    assert_true(fabs(mass - 40) < 1e-4);
    assert_true(isnan(head.pooled[LSP_MAP_ENTROPY][6]) && head.pooled[LSP_MAP_ENTROPY][3] > 0);
    free(q), free(k);
    lsp_map_destroy(&map);
}

static void refuse(const lsp_attention_desc *d, lsp_map_options options, const char *wanted)
{
    lsp_map *map = NULL;
    assert_int_equal(lsp_map_create(ctx, d, &options, &map), LSP_ERR_USAGE);
    assert_null(map);
    if (!strstr(lsp_context_message(ctx), wanted)) fail_msg("%s: %s", wanted, lsp_context_message(ctx));
}

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    lsp_attention_desc d = desc_of(1, 1, 10, 10, 4);
    refuse(&d, (lsp_map_options){0, 1}, "map.pixels");
    refuse(&d, (lsp_map_options){8193, 1}, "map.pixels");
    refuse(&d, (lsp_map_options){5, -1}, "map.links");
    if (ctx->layout.ranks > 1) refuse(&d, (lsp_map_options){5, ctx->layout.rank}, "different options");
    d.compute = LSP_BF16;
    refuse(&d, (lsp_map_options){5, 1}, "compute.dtype");
    d.compute = LSP_F32;
    d.method = LSP_METHOD_TOPK, d.topk = 3;
    refuse(&d, (lsp_map_options){5, 1}, "attention.method");
    d.method = LSP_METHOD_EXACT;
    d.n = 0;
    refuse(&d, (lsp_map_options){5, 1}, "no rows");
    d.n = 10, d.memory_limit = 1000;
    lsp_map *map = NULL;
    lsp_map_options options = {5, 1};
    assert_int_equal(lsp_map_create(ctx, &d, &options, &map), LSP_ERR_LIMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bits_do_not_depend_on_ranks),
        cmocka_unit_test(long_sequences_too),
        cmocka_unit_test(figures_follow_the_definition),
        cmocka_unit_test(ties_go_to_the_lower_row_and_key),
        cmocka_unit_test(verification_finds_a_fault),
        cmocka_unit_test(rows_that_are_not_finite_weigh_nothing),
        cmocka_unit_test(what_cannot_be_is_refused),
    };
    const test_context contexts[] = {{&ctx, 1, false}, {&threaded, 2, false}, {&alone, 1, true}};
    return RUN_OVER_RANKS("map", tests, contexts, NULL, NULL);
}
