/* A layer's sampled rows from x and the weights: every rank projects the keys of its own rows in double, block by block,
 * and keeps each row's running softmax over them. Values are never formed: the weights add up rows of x, which go through
 * the values' weight at the end. SPDX-License-Identifier: BSD-3-Clause */
#include "study/layer_sample.h"

#include "base/checked.h"
#include "base/convert.h"
#include "base/memory.h"
#include "linalg/blas.h"
#include "linalg/gemm.h"

#include <inttypes.h>
#include <math.h>
#include <omp.h>
#include <string.h>

enum { KEYS = 250 }; /* of a block */

/* One query row of one head: rows of one K/V head stand together, [kv_heads][count][group]. */
typedef struct row_state {
    lsp_reference_row row;
    double top, sum, size, norm; /* norm: of q */
    bool broken;
} row_state;

/* What a thread works in. */
typedef struct room {
    double *k;      /* [KEYS][head_dim] */
    double *scores; /* [count group][KEYS] */
} room;

typedef struct work {
    lsp_layer_sample *s;
    const lsp_attention_desc *a;
    int64_t group, rows; /* query heads of a K/V head; count * group */
    int depth, head_dim;
    row_state *states; /* [kv_heads][rows] */
    double *q;         /* [kv_heads][rows][head_dim] */
    double *sums;      /* [kv_heads][rows][d_model] weighted rows of x */
    double *out;       /* [kv_heads][rows][head_dim] */
    double *weight;    /* [2][kv_heads head_dim][d_model] of k and v in double */
    double *bias;      /* [2][kv_heads head_dim] */
    double *angles;    /* [KEYS][head_dim]: cosines, then sines */
    double *block;     /* [KEYS][d_model] of x */
    bool bad[KEYS];    /* rows of the block that are not finite; they are set to 0 */
    room *rooms;       /* [threads] */
} work;

/* ---- memory -------------------------------------------------------------------------------------- */

static lsp_status prepare(work *w)
{
    lsp_layer_sample *s = w->s;
    const lsp_attention_desc *a = w->a;
    int threads = s->ctx->layout.threads;
    int64_t all = a->kv_heads * w->rows, columns = a->kv_heads * a->d_k, depth = s->desc.d_model;
    w->states = lsp_memory_zalloc(all, sizeof *w->states);
    w->q = lsp_memory_zalloc(all, (size_t)a->d_k * sizeof *w->q);
    w->sums = lsp_memory_zalloc(all, (size_t)depth * sizeof *w->sums);
    w->out = lsp_memory_zalloc(all, (size_t)a->d_k * sizeof *w->out);
    w->weight = lsp_memory_alloc(2 * columns, (size_t)depth * sizeof *w->weight);
    w->bias = lsp_memory_zalloc(2 * columns, sizeof *w->bias);
    w->angles = lsp_memory_alloc(KEYS * (a->d_k + 1), sizeof *w->angles);
    w->block = lsp_memory_alloc(KEYS * depth, sizeof *w->block);
    w->rooms = lsp_memory_zalloc(threads, sizeof *w->rooms);
    bool ok =
        w->states && w->q && w->sums && w->out && w->weight && w->bias && w->angles && w->block && w->rooms;
    for (int t = 0; ok && t < threads; t++) {
        w->rooms[t].k = lsp_memory_alloc(KEYS * a->d_k, sizeof(double));
        w->rooms[t].scores = lsp_memory_alloc(w->rows * KEYS, sizeof(double));
        ok = w->rooms[t].k && w->rooms[t].scores;
    }
    int width = 0;
    ok = ok && lsp_checked_int(w->rows, &width) && lsp_checked_int(depth, &w->depth) &&
         lsp_checked_int(a->d_k, &w->head_dim);
    if (!ok)
        return lsp_context_fail(s->ctx, LSP_ERR_LIMIT,
                                "verify: no memory for %" PRId64 " sampled rows of a layer; sample fewer",
                                s->count);
    lsp_convert_load(s->weights->type, s->weights->qkv, a->heads * a->d_k * depth, 2 * columns * depth,
                     w->weight);
    if (s->weights->qkv_bias)
        lsp_convert_load(s->weights->type, s->weights->qkv_bias, a->heads * a->d_k, 2 * columns, w->bias);
    return LSP_OK;
}

static void release(work *w)
{
    for (int t = 0; w->rooms && t < w->s->ctx->layout.threads; t++) {
        lsp_memory_free(w->rooms[t].k);
        lsp_memory_free(w->rooms[t].scores);
    }
    void *const owned[] = {w->states, w->q,      w->sums,  w->out,  w->weight,
                           w->bias,   w->angles, w->block, w->rooms};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) lsp_memory_free(owned[i]);
}

static void place_queries(work *w, double *q)
{
    const lsp_attention_desc *a = w->a;
    for (int64_t i = 0; i < w->s->count; i++) {
        lsp_layer_sample_query(w->s, i, q);
        for (int64_t h = 0; h < a->heads; h++) {
            int64_t at = h / w->group * w->rows + i * w->group + h % w->group;
            row_state *state = &w->states[at];
            *state = (row_state){.top = -INFINITY};
            state->row.batch = w->s->rows[i].batch;
            state->row.head = h;
            state->row.row = w->s->rows[i].row;
            lsp_reference_place(a, &state->row);
            double square = 0;
            for (int64_t c = 0; c < a->d_k; c++) square += q[h * a->d_k + c] * q[h * a->d_k + c];
            state->norm = sqrt(square);
            state->broken = !isfinite(square);
            /* Such a row is told by its mark alone. */
            if (state->broken) memset(q + h * a->d_k, 0, (size_t)a->d_k * sizeof *q);
            memcpy(w->q + at * a->d_k, q + h * a->d_k, (size_t)a->d_k * sizeof *q);
        }
    }
}

/* ---- one block of keys --------------------------------------------------------------------------- */

/* Rows of x in double, and the angles of their positions; shared out among threads. */
static void load_block(work *w, int64_t first, int64_t key, int64_t count)
{
    const lsp_held_rows *held = &w->s->keys;
    const lsp_layer_desc *desc = &w->s->desc;
    int64_t d = w->a->d_k;
#pragma omp parallel for num_threads(w->s->ctx->layout.threads)
    for (int64_t i = 0; i < count; i++) {
        double *row = w->block + i * held->columns;
        lsp_convert_load(held->type, held->array, (first + i) * held->columns, held->columns, row);
        w->bad[i] = false;
        for (int64_t c = 0; c < held->columns; c++) w->bad[i] = w->bad[i] || !isfinite(row[c]);
        if (w->bad[i]) memset(row, 0, (size_t)held->columns * sizeof *row);
        for (int64_t c = 0; desc->rope_base > 0 && c < d / 2; c++) {
            long double speed = powl((long double)desc->rope_base, -2 * (long double)c / (long double)d);
            w->angles[i * d + c] = (double)cosl((long double)(key + i) * speed);
            w->angles[i * d + d / 2 + c] = (double)sinl((long double)(key + i) * speed);
        }
    }
}

/* As lsp_layer_shape, with the block's angles. */
static void shape_key(const work *w, int64_t i, double *k)
{
    const lsp_layer_desc *desc = &w->s->desc;
    lsp_layer_sample plain = {.desc = *desc, .weights = w->s->weights};
    plain.desc.rope_base = 0;
    lsp_layer_shape(&plain, true, 0, k);
    int64_t d = w->a->d_k;
    bool half = desc->rope_pairing == LSP_ROPE_HALF;
    for (int64_t c = 0; desc->rope_base > 0 && c < d / 2; c++) {
        double cosine = w->angles[i * d + c], sine = w->angles[i * d + d / 2 + c];
        double *a = &k[half ? c : 2 * c], *b = &k[half ? c + d / 2 : 2 * c + 1], x = *a, y = *b;
        *a = cosine * x - sine * y;
        *b = sine * x + cosine * y;
    }
}

/* A row's scores become weights exp(score - top), those it does not see 0; what it had is scaled to the new top. */
static void weigh(const work *w, row_state *state, double *scores, double *sums, const double *key_norms,
                  int64_t key, int64_t count)
{
    const lsp_attention_desc *a = w->a;
    double before = state->top;
    bool seen[KEYS];
    for (int64_t j = 0; j < count; j++) {
        seen[j] = lsp_reference_sees(a, &state->row, key + j);
        if (!seen[j]) continue;
        state->broken = state->broken || w->bad[j];
        scores[j] *= a->scale;
        if (a->softcap != 0) scores[j] = a->softcap * tanh(scores[j] / a->softcap);
        if (a->alibi_slopes)
            scores[j] -= a->alibi_slopes[state->row.head] * fabs((double)(state->row.position - key - j));
        if (scores[j] > state->top) state->top = scores[j];
    }
    double factor = before > -INFINITY ? exp(before - state->top) : 0;
    if (factor != 1) {
        state->sum *= factor;
        state->size *= factor;
        for (int64_t c = 0; c < w->depth; c++) sums[c] *= factor;
    }
    for (int64_t j = 0; j < count; j++) {
        scores[j] = seen[j] ? exp(scores[j] - state->top) : 0;
        state->sum += scores[j];
        state->size += scores[j] * fabs(a->scale) * state->norm * key_norms[j];
    }
}

/* Sampled rows [first, last) (of this batch) of one K/V head against the block. */
static void meet_block(work *w, int64_t kv, int64_t first, int64_t last, int64_t key, int64_t count,
                       const room *r)
{
    int64_t d = w->a->d_k, begin = kv * w->rows + first * w->group, rows = (last - first) * w->group;
    const double *bias = w->bias + kv * d;
    double norms[KEYS];
    int keys = (int)count, height = (int)rows; /* checked in prepare */
    lsp_gemm_matrix x = {w->block, w->depth}, weight = {w->weight + kv * d * w->depth, w->depth};
    lsp_gemm(LSP_F64, keys, w->head_dim, w->depth, x, weight, true, 0, r->k, w->head_dim);
    for (int64_t j = 0; j < count; j++) {
        double square = 0, *k = r->k + j * d;
        for (int64_t c = 0; c < d; c++) k[c] += bias[c];
        shape_key(w, j, k);
        for (int64_t c = 0; c < d; c++) square += k[c] * k[c];
        norms[j] = sqrt(square);
    }
    lsp_gemm_matrix q = {w->q + begin * d, w->head_dim}, k = {r->k, w->head_dim};
    lsp_gemm(LSP_F64, height, keys, w->head_dim, q, k, true, 0, r->scores, KEYS);
    for (int64_t i = 0; i < rows; i++)
        weigh(w, &w->states[begin + i], r->scores + i * KEYS, w->sums + (begin + i) * w->depth, norms, key,
              count);
    lsp_gemm_matrix p = {r->scores, KEYS};
    lsp_gemm(LSP_F64, height, w->depth, keys, p, x, false, 1, w->sums + begin * w->depth, w->depth);
}

static void meet_run(work *w, const lsp_run *run, int64_t first_slot)
{
    const lsp_layer_sample *s = w->s;
    int64_t first = 0, last = 0, heads = w->a->kv_heads;
    while (first < s->count && s->rows[first].batch < run->batch) first++;
    for (last = first; last < s->count && s->rows[last].batch == run->batch;) last++;
    for (int64_t at = 0; first < last && at < run->count; at += KEYS) {
        int64_t count = lsp_min(KEYS, run->count - at), key = run->begin + at;
        load_block(w, first_slot + at, key, count);
#pragma omp parallel for schedule(dynamic) num_threads(s->ctx->layout.threads)
        for (int64_t kv = 0; kv < heads; kv++)
            meet_block(w, kv, first, last, key, count, &w->rooms[omp_get_thread_num()]);
    }
}

/* ---- all of them --------------------------------------------------------------------------------- */

/* Collective. Joins what the ranks have: sums over all keys, each head's output. numbers: [all][4]. */
static lsp_status join(work *w, double *numbers)
{
    lsp_context *ctx = w->s->ctx;
    int64_t all = w->a->kv_heads * w->rows, d = w->a->d_k, columns = w->a->kv_heads * d;
    int height = (int)w->rows;
    for (int64_t kv = 0; kv < w->a->kv_heads; kv++) {
        lsp_gemm_matrix sums = {w->sums + kv * w->rows * w->depth, w->depth};
        lsp_gemm_matrix weight = {w->weight + (columns + kv * d) * w->depth, w->depth};
        lsp_gemm(LSP_F64, height, w->head_dim, w->depth, sums, weight, true, 0, w->out + kv * w->rows * d,
                 w->head_dim);
    }
    double *tops = numbers, *broken = numbers + all, *sums = numbers + 2 * all, *sizes = numbers + 3 * all;
    for (int64_t i = 0; i < all; i++) {
        tops[i] = w->states[i].top;
        broken[i] = w->states[i].broken;
    }
    lsp_status status = lsp_fetch_max(ctx, tops, 2 * all);
    for (int64_t i = 0; i < all; i++) {
        double factor = w->states[i].top > -INFINITY ? exp(w->states[i].top - tops[i]) : 0;
        sums[i] = w->states[i].sum * factor;
        sizes[i] = w->states[i].size * factor;
        for (int64_t c = 0; c < d; c++) w->out[i * d + c] *= factor;
    }
    if (status == LSP_OK) status = lsp_fetch_sum(ctx, sums, 2 * all);
    return status == LSP_OK ? lsp_fetch_sum(ctx, w->out, all * d) : status;
}

/* Local; the same on every rank. */
static void finish(work *w, const double *numbers, double *heads)
{
    lsp_layer_sample *s = w->s;
    const lsp_attention_desc *a = w->a;
    int64_t all = a->kv_heads * w->rows, d = a->d_k;
    for (int64_t i = 0; i < s->count; i++) {
        for (int64_t h = 0; h < a->heads; h++) {
            int64_t kv = h / w->group, at = kv * w->rows + i * w->group + h % w->group;
            double top = numbers[at], sum = numbers[2 * all + at];
            if (numbers[all + at] != 0) s->broken[i] = true;
            if (isfinite(top)) s->largest = fmax(s->largest, fabs(top));
            if (sum > 0) s->size[i] = fmax(s->size[i], numbers[3 * all + at] / sum);
            for (int64_t c = 0; c < d; c++)
                heads[h * d + c] =
                    sum > 0 ? w->out[at * d + c] / sum + w->bias[(a->kv_heads + kv) * d + c] : 0;
        }
        lsp_layer_sample_out(s, i, heads);
    }
}

lsp_status lsp_layer_sample_compute(lsp_layer_sample *s)
{
    const lsp_attention_desc *a = &s->desc.attention;
    work w = {.s = s, .a = a, .group = a->heads / a->kv_heads};
    w.rows = s->count * w.group;
    lsp_status status = prepare(&w);
    double *heads = lsp_memory_alloc(a->heads, (size_t)a->d_k * sizeof *heads);
    double *numbers = lsp_memory_alloc(4 * a->kv_heads, (size_t)w.rows * sizeof *numbers);
    if (status == LSP_OK && (!heads || !numbers))
        status = lsp_context_fail(s->ctx, LSP_ERR_LIMIT, "verify: no memory for the sampled rows of a layer");
    status = lsp_context_agree(s->ctx, status);
    if (status == LSP_OK) {
        int threads = lsp_blas_single();
        int64_t slot = 0;
        place_queries(&w, heads);
        for (int64_t r = 0; r < s->keys.run_count; slot += s->keys.runs[r++].count)
            meet_run(&w, &s->keys.runs[r], slot);
        status = join(&w, numbers);
        if (status == LSP_OK) finish(&w, numbers, heads);
        lsp_blas_restore(threads);
    }
    lsp_memory_free(heads);
    lsp_memory_free(numbers);
    release(&w);
    return status;
}
