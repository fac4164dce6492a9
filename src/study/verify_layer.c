/* Verification of a layer: sampled rows against what they should be. SPDX-License-Identifier: BSD-3-Clause */
#include "study/layer_sample.h"

#include "base/checked.h"
#include "base/memory.h"
#include "base/random.h"
#include "study/check.h"

#include <inttypes.h>
#include <longspan/lowrank.h>
#include <math.h>

/* ---- sampled rows -------------------------------------------------------------------------------- */

/* One row from each of `count` nearly equal stretches of a line of rows; of three and more, the first and the last. */
static void choose_rows(lsp_row_place *places, int64_t count, int64_t batch, int64_t rows, uint64_t seed)
{
    const uint64_t stream = UINT64_C(0x6c61796572); /* apart from those of synthetic tensors */
    int64_t all = batch * rows, share = all / count, rest = all % count;
    for (int64_t i = 0; i < count; i++) {
        int64_t begin = i * share + lsp_min(i, rest), length = share + (i < rest);
        int64_t step = (int64_t)(lsp_random_uniform(seed, stream, (uint64_t)i) * (double)length);
        int64_t at = begin + lsp_min(step, length - 1);
        if (count >= 3 && i == 0) at = 0;
        if (count >= 3 && i == count - 1) at = all - 1;
        places[i] = (lsp_row_place){at / rows, 0, at % rows};
    }
}

static lsp_status make_sample(lsp_context *ctx, const lsp_layer *layer, const lsp_layer_weights *weights,
                              const void *x, const void *context, const void *y, int64_t rows, uint64_t seed,
                              lsp_layer_sample *s)
{
    *s = (lsp_layer_sample){.ctx = ctx, .desc = lsp_layer_get_inside(layer).desc, .weights = weights};
    const lsp_attention_desc *a = &s->desc.attention;
    int64_t d_model = s->desc.d_model, unused;
    s->x = (lsp_held_rows){.array = x, .type = s->desc.x_type, .columns = d_model};
    lsp_layer_runs(layer, LSP_LAYER_X, &s->x.runs, &s->x.run_count, &unused);
    s->y = s->keys = s->x;
    s->y.array = y;
    s->y.type = lsp_dtype_result(a->compute);
    if (s->desc.cross) {
        lsp_layer_runs(layer, LSP_LAYER_CONTEXT, &s->keys.runs, &s->keys.run_count, &unused);
        s->keys.array = context;
        s->keys.type = s->desc.context_type;
    }
    s->count = lsp_min(rows, a->batch * a->n);
    size_t row = (size_t)d_model * sizeof(double);
    s->rows = lsp_memory_alloc(s->count, sizeof *s->rows);
    s->x_rows = lsp_memory_alloc(s->count, row);
    s->y_rows = lsp_memory_alloc(s->count, row);
    s->y_reference = lsp_memory_zalloc(s->count, row);
    s->y_terms = lsp_memory_zalloc(s->count, sizeof *s->y_terms);
    s->size = lsp_memory_zalloc(s->count, sizeof *s->size);
    s->broken = lsp_memory_zalloc(s->count, sizeof *s->broken);
    lsp_status status = LSP_OK;
    if (!s->rows || !s->x_rows || !s->y_rows || !s->y_reference || !s->y_terms || !s->size || !s->broken)
        status = lsp_context_fail(ctx, LSP_ERR_LIMIT,
                                  "verify: no memory for %" PRId64 " sampled rows of a layer; sample fewer",
                                  s->count);
    status = lsp_context_agree(ctx, status);
    if (status != LSP_OK) return status;
    choose_rows(s->rows, s->count, a->batch, a->n, seed);
    status = lsp_fetch_rows(ctx, &s->x, "x", s->rows, s->count, s->x_rows);
    return status == LSP_OK ? lsp_fetch_rows(ctx, &s->y, "y", s->rows, s->count, s->y_rows) : status;
}

static void free_sample(lsp_layer_sample *s)
{
    void *const owned[] = {s->rows, s->x_rows, s->y_rows, s->y_reference, s->y_terms, s->size, s->broken};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) lsp_memory_free(owned[i]);
}

/* ---- comparing ----------------------------------------------------------------------------------- */

/* ||got - wanted|| over ||wanted||, or an eighth of the root of its squared terms where they cancel out. A row into which
 * something not finite went must show it. */
static double compare_rows(const double *got, const double *wanted, int64_t count, double terms, bool broken)
{
    double difference = 0, norm = 0;
    bool finite = true;
    for (int64_t c = 0; c < count; c++) {
        finite = finite && isfinite(got[c]);
        broken = broken || !isfinite(wanted[c]);
        difference += (got[c] - wanted[c]) * (got[c] - wanted[c]);
        norm += wanted[c] * wanted[c];
    }
    if (broken || !finite) return broken && !finite ? 0 : INFINITY;
    double divisor = fmax(sqrt(norm), terms / 8);
    return divisor > 0 ? sqrt(difference) / divisor : difference > 0 ? INFINITY : 0;
}

static void take_error(lsp_verify_result *result, double error, double allowed, const lsp_row_place *place)
{
    if (!(error <= allowed)) result->passed = false;
    result->tolerance = fmax(result->tolerance, allowed);
    if (error <= result->max_rel_err) return;
    result->max_rel_err = error;
    result->worst[0] = place->batch;
    result->worst[1] = place->head;
    result->worst[2] = place->row;
}

static void compare_y(const lsp_layer_sample *s, double tolerance, lsp_verify_result *result)
{
    const lsp_attention_desc *a = &s->desc.attention;
    int64_t d_model = s->desc.d_model;
    for (int64_t i = 0; i < s->count; i++) {
        /* The scores' operands are sums of d_model products themselves. */
        double allowed =
            tolerance > 0 ? tolerance : lsp_check_tolerance(a->compute, a->d_k + d_model, s->size[i]);
        double error = compare_rows(s->y_rows + i * d_model, s->y_reference + i * d_model, d_model,
                                    s->y_terms[i], s->broken[i]);
        take_error(result, error, allowed, &s->rows[i]);
    }
    result->max_abs_score = s->largest;
}

/* ---- the steps apart ----------------------------------------------------------------------------- */

typedef struct steps {
    lsp_layer_sample *s;
    lsp_layer_inside inside;
    const lsp_run *query_runs, *key_runs;
    int64_t query_run_count, key_run_count;
    lsp_row_place *places, *keys; /* [count][heads] of sampled rows or keys; [count] sampled keys */
    double *got, *wanted;         /* [count][heads][head_dim]; [heads][head_dim] */
    double *key_rows;             /* [count][d_model] of x or the context */
} steps;

/* Rows of all heads as they are inside of the layer, into got. */
static lsp_status fetch_heads(steps *t, const lsp_row_place *rows, int64_t count, const void *array,
                              const char *what, bool keys)
{
    const lsp_attention_desc *a = &t->s->desc.attention;
    int64_t heads = keys ? a->kv_heads : a->heads;
    lsp_held_rows held = {keys ? t->key_runs : t->query_runs, keys ? t->key_run_count : t->query_run_count,
                          array, lsp_dtype_result(a->compute), a->d_k};
    for (int64_t i = 0; i < count * heads; i++)
        t->places[i] = (lsp_row_place){rows[i / heads].batch, i % heads, rows[i / heads].row};
    return lsp_fetch_rows(t->s->ctx, &held, what, t->places, count * heads, t->got);
}

static double projection_tolerance(const lsp_layer_sample *s, double tolerance)
{
    lsp_dtype result = lsp_dtype_result(s->desc.attention.compute);
    return tolerance > 0 ? tolerance : lsp_check_tolerance(result, s->desc.d_model, 1);
}

static lsp_status check_queries(steps *t, double tolerance, lsp_verify_result *result)
{
    lsp_layer_sample *s = t->s;
    int64_t columns = s->desc.attention.heads * s->desc.attention.d_k, d_model = s->desc.d_model;
    double allowed = projection_tolerance(s, tolerance);
    lsp_status status = fetch_heads(t, s->rows, s->count, t->inside.q, "q", false);
    for (int64_t i = 0; status == LSP_OK && i < s->count; i++) {
        lsp_layer_sample_query(s, i, t->wanted);
        take_error(result, compare_rows(t->got + i * columns, t->wanted, columns, 0, false), allowed,
                   &s->rows[i]);
    }
    /* The rows' outputs, from the heads that are there. */
    if (status == LSP_OK) status = fetch_heads(t, s->rows, s->count, t->inside.out, "out", false);
    for (int64_t i = 0; status == LSP_OK && i < s->count; i++) {
        lsp_layer_sample_out(s, i, t->got + i * columns);
        double error = compare_rows(s->y_rows + i * d_model, s->y_reference + i * d_model, d_model,
                                    s->y_terms[i], false);
        take_error(result, error, allowed, &s->rows[i]);
    }
    return status;
}

static lsp_status check_keys(steps *t, double tolerance, lsp_verify_result *result)
{
    lsp_layer_sample *s = t->s;
    const lsp_attention_desc *a = &s->desc.attention;
    int64_t columns = a->kv_heads * a->d_k, count = lsp_min(s->count, a->batch * a->m);
    choose_rows(t->keys, count, a->batch, a->m, 1);
    lsp_status status = lsp_fetch_rows(s->ctx, &s->keys, "x", t->keys, count, t->key_rows);
    for (int part = 0; status == LSP_OK && part < 2; part++) {
        const void *array = part == 0 ? t->inside.k : t->inside.v;
        status = fetch_heads(t, t->keys, count, array, part == 0 ? "k" : "v", true);
        for (int64_t i = 0; status == LSP_OK && i < count; i++) {
            lsp_layer_multiply(s->weights->type, s->weights->qkv, s->weights->qkv_bias,
                               a->heads * a->d_k + part * columns, columns, s->desc.d_model,
                               t->key_rows + i * s->desc.d_model, t->wanted, NULL);
            for (int64_t h = 0; part == 0 && h < a->kv_heads; h++)
                lsp_layer_shape(s, true, t->keys[i].row, t->wanted + h * a->d_k);
            take_error(result, compare_rows(t->got + i * columns, t->wanted, columns, 0, false),
                       projection_tolerance(s, tolerance), &t->keys[i]);
        }
    }
    return status;
}

static lsp_status check_steps(lsp_layer_sample *s, const lsp_layer *layer, int64_t rows, uint64_t seed,
                              double tolerance, lsp_verify_result *result)
{
    const lsp_attention_desc *a = &s->desc.attention;
    const lsp_attention *plan = lsp_layer_attention(layer);
    steps t = {.s = s, .inside = lsp_layer_get_inside(layer)};
    int64_t unused;
    lsp_status status = lsp_attention_runs(plan, LSP_QUERIES, &t.query_runs, &t.query_run_count, &unused);
    if (status == LSP_OK) status = lsp_attention_runs(plan, LSP_KEYS, &t.key_runs, &t.key_run_count, &unused);
    t.places = lsp_memory_alloc(s->count, (size_t)a->heads * sizeof *t.places);
    t.keys = lsp_memory_alloc(s->count, sizeof *t.keys);
    t.got = lsp_memory_alloc(s->count, (size_t)(a->heads * a->d_k) * sizeof *t.got);
    t.wanted = lsp_memory_alloc(a->heads, (size_t)a->d_k * sizeof *t.wanted);
    t.key_rows = lsp_memory_alloc(s->count, (size_t)s->desc.d_model * sizeof *t.key_rows);
    if (status == LSP_OK && !(t.places && t.keys && t.got && t.wanted && t.key_rows))
        status = lsp_context_fail(s->ctx, LSP_ERR_LIMIT, "verify: no memory for the sampled rows of a layer");
    status = lsp_context_agree(s->ctx, status);
    lsp_verify_result inner = {.rows = 0};
    /* lowrank is checked with the values that it had in place of v. */
    const void *values = t.inside.v;
    if (status == LSP_OK && a->method == LSP_METHOD_LOWRANK)
        status = lsp_context_agree(s->ctx, lsp_lowrank_get_values(plan, &values));
    if (status == LSP_OK)
        status = lsp_verify_attention(s->ctx, a, t.query_runs, t.query_run_count, t.key_runs, t.key_run_count,
                                      t.inside.q, t.inside.k, values, t.inside.out, NULL, rows, seed,
                                      tolerance, &inner);
    if (status == LSP_OK) {
        *result = inner;
        result->rows = s->count;
    }
    if (status == LSP_OK) status = check_queries(&t, tolerance, result);
    if (status == LSP_OK) status = check_keys(&t, tolerance, result);
    void *const owned[] = {t.places, t.keys, t.got, t.wanted, t.key_rows};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) lsp_memory_free(owned[i]);
    return status;
}

/* ---- both ---------------------------------------------------------------------------------------- */

lsp_status lsp_verify_layer(lsp_context *ctx, const lsp_layer *layer, const lsp_layer_weights *weights,
                            const void *x, const void *context, const void *y, int64_t rows, uint64_t seed,
                            double tolerance, bool *end_to_end, lsp_verify_result *result)
{
    lsp_layer_sample s = {.count = 0};
    lsp_status status = LSP_OK;
    if (rows < 1 || !(tolerance >= 0))
        status = lsp_context_fail(ctx, LSP_ERR_USAGE,
                                  "verify: %" PRId64
                                  " rows and tolerance %g asked for; at least 1 and 0 are needed",
                                  rows, tolerance);
    status = lsp_context_agree(ctx, status);
    if (status == LSP_OK) status = make_sample(ctx, layer, weights, x, context, y, rows, seed, &s);
    lsp_method method = s.desc.attention.method;
    *end_to_end = method == LSP_METHOD_EXACT || method == LSP_METHOD_BLOCK;
    if (status == LSP_OK && *end_to_end) {
        status = lsp_layer_sample_compute(&s);
        *result = (lsp_verify_result){.rows = s.count, .max_rel_err = -1, .passed = true};
        if (status == LSP_OK) compare_y(&s, tolerance, result);
    } else if (status == LSP_OK) {
        status = check_steps(&s, layer, rows, seed, tolerance, result);
    }
    free_sample(&s);
    return lsp_context_agree(ctx, status);
}
