/* A layer: made, executed, destroyed. SPDX-License-Identifier: BSD-3-Clause */
#include "layer/layer.h"

#include "base/checked.h"
#include "base/clock.h"
#include "base/convert.h"
#include "base/memory.h"
#include "linalg/blas.h"

#include <string.h>

/* ---- rows ---------------------------------------------------------------------------------------- */

static bool make_line(const lsp_context *ctx, int64_t batch, int64_t rows, lsp_layer_line *line)
{
    int ranks = ctx->layout.ranks, rank = ctx->layout.rank;
    int64_t all = batch * rows, blocks = lsp_ceil_div(all, LSP_LAYER_ROWS);
    line->rows = rows;
    line->first = lsp_memory_alloc((int64_t)ranks + 1, sizeof *line->first);
    if (!line->first) return false;
    for (int r = 0; r <= ranks; r++)
        line->first[r] = lsp_min(all, (blocks / ranks * r + blocks % ranks * r / ranks) * LSP_LAYER_ROWS);
    line->begin = line->first[rank];
    line->end = line->first[rank + 1];
    int64_t most = line->begin < line->end ? (line->end - 1) / rows - line->begin / rows + 1 : 0;
    line->runs = lsp_memory_alloc(most, sizeof *line->runs);
    if (!line->runs) return false;
    for (int64_t at = line->begin; at < line->end;) {
        int64_t count = lsp_min(line->end, (at / rows + 1) * rows) - at;
        line->runs[line->run_count++] = (lsp_run){at / rows, 0, at % rows, count};
        at += count;
    }
    return true;
}

static lsp_status make_lines(lsp_layer *layer)
{
    const lsp_attention_desc *a = &layer->desc.attention;
    bool ok = make_line(layer->ctx, a->batch, a->n, &layer->x);
    if (layer->desc.cross) ok = ok && make_line(layer->ctx, a->batch, a->m, &layer->context);
    return ok ? LSP_OK
              : lsp_context_fail(layer->ctx, LSP_ERR_LIMIT,
                                 "not enough memory for the layer's lists of rows");
}

static const lsp_layer_line *keys_of(const lsp_layer *layer)
{
    return layer->desc.cross ? &layer->context : &layer->x;
}

/* ---- weights ------------------------------------------------------------------------------------- */

static lsp_status convert(lsp_layer *layer, const void *from, lsp_dtype type, int64_t count, void **to)
{
    if (!from) return LSP_OK;
    *to = lsp_memory_alloc(count, lsp_dtype_size(layer->type));
    if (!*to) return lsp_context_fail(layer->ctx, LSP_ERR_LIMIT, "not enough memory to convert the weights");
    layer->bytes += count * (int64_t)lsp_dtype_size(layer->type);
    if (layer->type == LSP_F64) {
        lsp_convert_load(type, from, 0, count, *to);
    } else {
        const double *values = from;
        float *narrow = *to;
        for (int64_t i = 0; i < count; i++) narrow[i] = (float)values[i];
    }
    return LSP_OK;
}

static lsp_status take_weights(lsp_layer *layer, const lsp_layer_weights *w)
{
    const lsp_attention_desc *a = &layer->desc.attention;
    int64_t columns = lsp_layer_heads(&layer->desc) * a->d_k, d_model = layer->desc.d_model;
    layer->owned = w->type != layer->type;
    union {
        const void *read;
        void *held;
    } borrowed[] = {{w->qkv}, {w->qkv_bias}, {w->out}, {w->out_bias}};
    void **held[] = {&layer->qkv, &layer->qkv_bias, &layer->out, &layer->out_bias};
    const int64_t counts[] = {columns * d_model, columns, d_model * a->heads * a->d_k, d_model};
    lsp_status status = LSP_OK;
    for (int i = 0; status == LSP_OK && i < 4; i++) {
        if (layer->owned)
            status = convert(layer, borrowed[i].read, w->type, counts[i], held[i]);
        else
            *held[i] = borrowed[i].held;
    }
    const void *norms[] = {w->q_norm, w->k_norm};
    for (int i = 0; status == LSP_OK && layer->desc.qk_norm && i < 2; i++) {
        layer->norm[i] = lsp_memory_alloc(a->d_k, sizeof *layer->norm[i]);
        if (!layer->norm[i])
            return lsp_context_fail(layer->ctx, LSP_ERR_LIMIT, "not enough memory for the norms' weights");
        for (int64_t c = 0; c < a->d_k; c++) layer->norm[i][c] = 1;
        if (norms[i]) lsp_convert_load(w->type, norms[i], 0, a->d_k, layer->norm[i]);
    }
    return status;
}

/* ---- memory -------------------------------------------------------------------------------------- */

static void *take(lsp_layer *layer, int64_t count, size_t size, bool *ok)
{
    int64_t bytes = 0;
    void *array = lsp_checked_mul(count, (int64_t)size, &bytes) ? lsp_memory_alloc(count, size) : NULL;
    if (!array) *ok = false;
    layer->bytes += bytes;
    return array;
}

static bool take_rooms(lsp_layer *layer)
{
    const lsp_attention_desc *a = &layer->desc.attention;
    int threads = layer->ctx->layout.threads;
    size_t element = lsp_dtype_size(layer->type);
    int64_t d_model = layer->desc.d_model, heads = lsp_layer_heads(&layer->desc), columns = heads * a->d_k;
    int64_t depth = lsp_max(d_model, a->heads * a->d_k);
    int64_t group = lsp_max(lsp_project_group(d_model, 1), lsp_project_group(columns, a->d_k));
    if (layer->desc.cross) {
        group = lsp_max(group, lsp_project_group(a->heads * a->d_k, a->d_k));
        group = lsp_max(group, lsp_project_group(2 * a->kv_heads * a->d_k, a->d_k));
    }
    layer->rooms = lsp_memory_zalloc(threads, sizeof *layer->rooms);
    layer->head_rooms = lsp_memory_zalloc(threads, sizeof *layer->head_rooms);
    bool ok = layer->rooms && layer->head_rooms;
    for (int t = 0; ok && t < threads; t++) {
        layer->rooms[t].block = take(layer, LSP_LAYER_ROWS * depth, element, &ok);
        layer->rooms[t].columns = take(layer, LSP_LAYER_ROWS * group, element, &ok);
        /* Rounded up so that no cache line is two threads'. */
        layer->head_rooms[t].head = take(layer, lsp_round_up(a->d_k, 8), sizeof(double), &ok);
        if (layer->desc.rope_base <= 0) continue;
        layer->head_rooms[t].angles = take(layer, lsp_round_up(a->d_k, 8), sizeof(double), &ok);
        layer->head_rooms[t].rotary.turn = take(layer, lsp_round_up(a->d_k, 8), sizeof(double), &ok);
    }
    return ok;
}

static bool take_arrays(lsp_layer *layer)
{
    const lsp_attention *plan = layer->plan;
    size_t row = (size_t)layer->desc.attention.d_k * lsp_dtype_size(layer->type);
    int64_t queries = lsp_layer_home_rows(&layer->x, layer->desc.attention.heads);
    int64_t keys = lsp_layer_home_rows(keys_of(layer), layer->desc.attention.kv_heads);
    bool ok = true;
    for (int role = LSP_LAYER_Q; role < LSP_LAYER_ROLES; role++)
        layer->at_home[role] = take(layer, role == LSP_LAYER_Q ? queries : keys, row, &ok);
    /* The plan's footprint counts its operands and output. */
    int64_t counted = layer->bytes;
    for (int role = LSP_LAYER_Q; role < LSP_LAYER_ROLES; role++) {
        bool query = role == LSP_LAYER_Q, same = query ? layer->query_same : layer->key_same;
        layer->planned[role] =
            same ? layer->at_home[role] : take(layer, query ? plan->query_rows : plan->key_rows, row, &ok);
    }
    layer->planned_out = take(layer, plan->query_rows, row, &ok);
    layer->bytes = counted;
    return ok;
}

/* Of the caller's weights, which every rank has whole, and of what they are converted to. */
static int64_t weight_bytes(const lsp_layer *layer, const lsp_layer_weights *w)
{
    const lsp_attention_desc *a = &layer->desc.attention;
    int64_t elements = (lsp_layer_heads(&layer->desc) + a->heads) * a->d_k * layer->desc.d_model;
    size_t each = lsp_dtype_size(w->type) + (w->type != layer->type ? lsp_dtype_size(layer->type) : 0);
    return elements * (int64_t)each;
}

/* Before anything large is taken. */
static lsp_status check_memory(lsp_layer *layer, const lsp_layer_weights *weights)
{
    const lsp_attention_desc *a = &layer->desc.attention;
    lsp_context_layout at = layer->ctx->layout;
    int64_t element = (int64_t)lsp_dtype_size(layer->type), row = a->d_k * element;
    int64_t queries = lsp_layer_home_rows(&layer->x, a->heads),
            keys = lsp_layer_home_rows(keys_of(layer), a->kv_heads);
    int64_t homes = row * (queries + 2 * keys);
    /* What is sent and what is got, at most. */
    int64_t moving = layer->query_same ? 0 : row * (queries + layer->plan->query_rows);
    if (!layer->key_same) moving = lsp_max(moving, row * (keys + layer->plan->key_rows));
    int64_t line = (layer->x.end - layer->x.begin) * layer->desc.d_model;
    int64_t own = line * ((int64_t)lsp_dtype_size(layer->desc.x_type) + element);
    if (layer->desc.cross)
        own += (layer->context.end - layer->context.begin) * layer->desc.d_model *
               (int64_t)lsp_dtype_size(layer->desc.context_type);
    int64_t attention = lsp_attention_get_estimate(layer->plan).footprint.total, limit = a->memory_limit;
    int64_t held = weight_bytes(layer, weights), total = homes + moving + own + held + attention;
    layer->bytes += moving;
    if (limit <= 0 || total <= limit / at.node_ranks) return LSP_OK;
    const double mib = 1 << 20;
    return lsp_context_fail(
        layer->ctx, LSP_ERR_LIMIT,
        "not enough memory: rank %d needs %.1f MiB (weights %.1f, X and Y %.1f, projected rows "
        "%.1f, on their way %.1f, attention %.1f) and %d ranks share a node with %.1f "
        "MiB: use more nodes%s",
        at.rank, (double)total / mib, (double)held / mib, (double)own / mib, (double)homes / mib,
        (double)moving / mib, (double)attention / mib, at.node_ranks, (double)limit / mib,
        at.node_ranks > 1 ? ", or fewer ranks a node with more threads each" : "");
}

/* ---- life ---------------------------------------------------------------------------------------- */

/* Between home, as runs of all heads, and other runs; back: the other way. */
static lsp_status make_exchange(lsp_layer *layer, const lsp_layer_line *line, int64_t heads,
                                const lsp_run *runs, int64_t run_count, bool back, lsp_exchange **out)
{
    int64_t count = line->run_count * heads;
    lsp_run *home = lsp_memory_alloc(count, sizeof *home);
    lsp_status status = LSP_OK;
    for (int64_t i = 0; home && i < count; i++) {
        home[i] = line->runs[i / heads];
        home[i].head = i % heads;
    }
    if (!home)
        status =
            lsp_context_fail(layer->ctx, LSP_ERR_LIMIT, "not enough memory for the layer's lists of rows");
    status = lsp_context_agree(layer->ctx, status);
    if (status == LSP_OK)
        status = back ? lsp_exchange_create(layer->ctx, runs, run_count, home, count, out)
                      : lsp_exchange_create(layer->ctx, home, count, runs, run_count, out);
    lsp_memory_free(home);
    return status;
}

static lsp_status plan_attention(lsp_layer *layer)
{
    lsp_context *ctx = layer->ctx;
    lsp_attention_desc *a = &layer->desc.attention;
    a->q_type = a->k_type = a->v_type = layer->type;
    lsp_status status = lsp_attention_create(ctx, a, &layer->plan);
    if (status != LSP_OK) return status;
    const lsp_run *queries = NULL, *keys = NULL;
    int64_t query_count = 0, key_count = 0, rows = 0;
    status = lsp_attention_runs(layer->plan, LSP_QUERIES, &queries, &query_count, &rows);
    if (status == LSP_OK) status = lsp_attention_runs(layer->plan, LSP_KEYS, &keys, &key_count, &rows);
    if (status == LSP_OK)
        status =
            make_exchange(layer, &layer->x, a->heads, queries, query_count, false, &layer->query_exchange);
    if (status == LSP_OK)
        status = make_exchange(layer, &layer->x, a->heads, queries, query_count, true, &layer->out_exchange);
    if (status == LSP_OK)
        status =
            make_exchange(layer, keys_of(layer), a->kv_heads, keys, key_count, false, &layer->key_exchange);
    if (status != LSP_OK) return status;
    layer->query_same = lsp_exchange_is_none(layer->query_exchange);
    layer->key_same = lsp_exchange_is_none(layer->key_exchange);
    /* The plan has copies of what the description points to. */
    *a = layer->plan->problem.desc;
    return status;
}

static lsp_status allocate(lsp_layer *layer, const lsp_layer_weights *weights)
{
    const lsp_layer_desc *desc = &layer->desc;
    lsp_status status = take_weights(layer, weights);
    bool ok = desc->rope_base <= 0 ||
              lsp_rotary_make(&layer->rotary, desc->rope_base, desc->attention.d_k, desc->rope_pairing);
    if (status == LSP_OK && !(ok && take_rooms(layer) && take_arrays(layer)))
        status = lsp_context_fail(layer->ctx, LSP_ERR_LIMIT, "not enough memory for the layer's work space");
    return status;
}

lsp_status lsp_layer_create(lsp_context *ctx, const lsp_layer_desc *desc, const lsp_layer_weights *weights,
                            lsp_layer **out)
{
    *out = NULL;
    lsp_layer *layer = lsp_memory_zalloc(1, sizeof *layer);
    lsp_status status = LSP_OK;
    if (layer) {
        layer->ctx = ctx;
        layer->desc = *desc;
        layer->type = lsp_dtype_result(desc->attention.compute);
        status = lsp_layer_check(ctx, &layer->desc, weights);
        if (status == LSP_OK) status = make_lines(layer);
    } else {
        status = lsp_context_fail(ctx, LSP_ERR_LIMIT, "not enough memory for a layer");
    }
    status = lsp_context_agree(ctx, status);
    if (status == LSP_OK) status = plan_attention(layer);
    if (status == LSP_OK) status = lsp_context_agree(ctx, check_memory(layer, weights));
    if (status == LSP_OK) status = lsp_context_agree(ctx, allocate(layer, weights));
    *out = layer;
    if (status != LSP_OK) lsp_layer_destroy(out);
    return status;
}

lsp_status lsp_layer_destroy(lsp_layer **out)
{
    lsp_layer *layer = out ? *out : NULL;
    if (!layer) return LSP_OK;
    for (int role = 0; role < LSP_LAYER_ROLES; role++) {
        if (layer->planned[role] != layer->at_home[role]) lsp_memory_free(layer->planned[role]);
        lsp_memory_free(layer->at_home[role]);
    }
    lsp_memory_free(layer->planned_out);
    for (int t = 0; t < layer->ctx->layout.threads; t++) {
        if (layer->rooms) lsp_memory_free(layer->rooms[t].block);
        if (layer->rooms) lsp_memory_free(layer->rooms[t].columns);
        if (layer->head_rooms) lsp_memory_free(layer->head_rooms[t].head);
        if (layer->head_rooms) lsp_memory_free(layer->head_rooms[t].angles);
        if (layer->head_rooms) lsp_memory_free(layer->head_rooms[t].rotary.turn);
    }
    void *const weights[] = {layer->qkv, layer->qkv_bias, layer->out, layer->out_bias};
    for (int i = 0; layer->owned && i < 4; i++) lsp_memory_free(weights[i]);
    void *const owned[] = {layer->rooms,   layer->head_rooms, layer->norm[0],       layer->norm[1],
                           layer->x.first, layer->x.runs,     layer->context.first, layer->context.runs};
    lsp_rotary_free(&layer->rotary);
    lsp_exchange_destroy(&layer->query_exchange);
    lsp_exchange_destroy(&layer->key_exchange);
    lsp_exchange_destroy(&layer->out_exchange);
    lsp_status status = lsp_attention_destroy(&layer->plan);
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) lsp_memory_free(owned[i]);
    lsp_memory_free(layer);
    *out = NULL;
    return status;
}

/* ---- execution ----------------------------------------------------------------------------------- */

static void project_in(lsp_layer *layer, const void *x, const void *context, lsp_layer_stats *stats)
{
    double begin = lsp_clock();
    int threads = lsp_blas_single();
    lsp_layer_project_heads(layer, LSP_LAYER_X, x);
    if (layer->desc.cross) lsp_layer_project_heads(layer, LSP_LAYER_CONTEXT, context);
    lsp_blas_restore(threads);
    stats->seconds_project += lsp_clock() - begin;
}

static void project_out(lsp_layer *layer, void *y, lsp_layer_stats *stats)
{
    double begin = lsp_clock();
    int threads = lsp_blas_single();
    lsp_layer_project_out(layer, layer->query_same ? layer->planned_out : layer->at_home[LSP_LAYER_Q], y);
    lsp_blas_restore(threads);
    stats->seconds_project += lsp_clock() - begin;
}

static lsp_status deliver(lsp_layer *layer, lsp_layer_stats *stats)
{
    int64_t row = layer->desc.attention.d_k * (int64_t)lsp_dtype_size(layer->type);
    double begin = lsp_clock();
    lsp_status status = LSP_OK;
    for (int role = LSP_LAYER_Q; status == LSP_OK && role < LSP_LAYER_ROLES; role++) {
        bool query = role == LSP_LAYER_Q;
        if (query ? layer->query_same : layer->key_same) continue;
        status = lsp_exchange_rows(query ? layer->query_exchange : layer->key_exchange, row,
                                   layer->at_home[role], layer->planned[role]);
    }
    stats->seconds_exchange += lsp_clock() - begin;
    return status;
}

/* The queries at home are not needed any more: the output takes their place. */
static lsp_status collect(lsp_layer *layer, lsp_layer_stats *stats)
{
    int64_t row = layer->desc.attention.d_k * (int64_t)lsp_dtype_size(layer->type);
    double begin = lsp_clock();
    lsp_status status = LSP_OK;
    if (!layer->query_same)
        status = lsp_exchange_rows(layer->out_exchange, row, layer->planned_out, layer->at_home[LSP_LAYER_Q]);
    stats->seconds_exchange += lsp_clock() - begin;
    return status;
}

static double count_flops(const lsp_layer *layer)
{
    const lsp_attention_desc *a = &layer->desc.attention;
    double weights = (double)(a->d_k * layer->desc.d_model), x = (double)(layer->x.end - layer->x.begin);
    double keys = layer->desc.cross ? (double)(layer->context.end - layer->context.begin) : x;
    return 2 * weights * (2 * x * (double)a->heads + 2 * keys * (double)a->kv_heads);
}

lsp_status lsp_layer_execute(lsp_layer *layer, const void *x, const void *context, void *y,
                             lsp_layer_stats *stats)
{
    double begin = lsp_clock();
    lsp_layer_stats own = {.project_flops = count_flops(layer)};
    project_in(layer, x, context, &own);
    lsp_status status = deliver(layer, &own);
    if (status == LSP_OK)
        status = lsp_attention_execute(layer->plan, layer->planned[LSP_LAYER_Q], layer->planned[LSP_LAYER_K],
                                       layer->planned[LSP_LAYER_V], layer->planned_out, NULL, &own.attention);
    if (status == LSP_OK) status = collect(layer, &own);
    if (status == LSP_OK) project_out(layer, y, &own);
    own.seconds_total = lsp_clock() - begin;
    if (stats) *stats = own;
    return status;
}

/* One role's rows from home to where they are wanted. */
static lsp_status bring(lsp_layer *layer, lsp_layer_role role, const lsp_layer_target *to)
{
    const lsp_attention_desc *a = &layer->desc.attention;
    bool query = role == LSP_LAYER_Q;
    lsp_exchange *exchange = NULL;
    lsp_status status =
        make_exchange(layer, query ? &layer->x : keys_of(layer), query ? a->heads : a->kv_heads, to->runs,
                      to->run_count, false, &exchange);
    if (status == LSP_OK)
        status = lsp_exchange_rows(exchange, a->d_k * (int64_t)lsp_dtype_size(layer->type),
                                   layer->at_home[role], to->rows);
    lsp_exchange_destroy(&exchange);
    return status;
}

lsp_status lsp_layer_project(lsp_layer *layer, const void *x, const void *context, const lsp_layer_target *q,
                             const lsp_layer_target *k, lsp_layer_stats *stats)
{
    double begin = lsp_clock();
    lsp_layer_stats own = {0};
    project_in(layer, x, context, &own);
    lsp_status status = bring(layer, LSP_LAYER_Q, q);
    if (status == LSP_OK) status = bring(layer, LSP_LAYER_K, k);
    own.seconds_total = lsp_clock() - begin;
    own.seconds_exchange = own.seconds_total - own.seconds_project;
    if (stats) *stats = own;
    return status;
}
