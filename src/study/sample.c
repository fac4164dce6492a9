/* Rows drawn, gathered and computed again. SPDX-License-Identifier: BSD-3-Clause */
#include "study/sample.h"

#include "base/checked.h"
#include "base/convert.h"
#include "base/memory.h"
#include "base/random.h"

#include <inttypes.h>
#include <math.h>
#include <omp.h>
#include <string.h>

static lsp_status check_runs(lsp_context *ctx, const char *what, const lsp_run *runs, int64_t count,
                             int64_t batch, int64_t heads, int64_t rows)
{
    for (int64_t r = 0; r < count; r++) {
        const lsp_run *run = &runs[r];
        if (run->batch < 0 || run->batch >= batch || run->head < 0 || run->head >= heads || run->begin < 0 ||
            run->count < 0 || run->begin > rows - run->count)
            return lsp_context_fail(ctx, LSP_ERR_USAGE,
                                    "verify: %s run %" PRId64 " of rank %d (batch %" PRId64 ", head %" PRId64
                                    ", rows from %" PRId64 ", count %" PRId64 ") lies outside of [%" PRId64
                                    ", %" PRId64 ", %" PRId64 "]; pass runs inside of the shape",
                                    what, r, ctx->layout.rank, run->batch, run->head, run->begin, run->count,
                                    batch, heads, rows);
    }
    return LSP_OK;
}

static bool is_float(lsp_dtype type)
{
    return type == LSP_F16 || type == LSP_BF16 || type == LSP_F32 || type == LSP_F64;
}

/* Checks what the loops below rely on, and fills in the defaults. */
static lsp_status check_desc(lsp_context *ctx, lsp_attention_desc *desc)
{
    const lsp_attention_desc *d = desc;
    bool shape = d->batch > 0 && d->heads > 0 && d->kv_heads > 0 && d->n > 0 && d->m > 0 && d->d_k > 0 &&
                 d->d_v > 0 && (d->kv_head_of || d->heads % d->kv_heads == 0);
    for (int64_t h = 0; shape && d->kv_head_of && h < d->heads; h++)
        shape = d->kv_head_of[h] >= 0 && d->kv_head_of[h] < d->kv_heads;
    bool types = is_float(d->q_type) && is_float(d->k_type) && is_float(d->v_type) &&
                 (d->compute == LSP_BF16 || d->compute == LSP_F32 || d->compute == LSP_F64);
    if (desc->row_end == 0) desc->row_end = desc->n;
    if (desc->key_end == 0) desc->key_end = desc->m;
    if (desc->scale == 0) desc->scale = 1 / sqrt((double)desc->d_k);
    bool part = d->row_begin >= 0 && d->row_begin < d->row_end && d->row_end <= d->n && d->key_begin >= 0 &&
                d->key_begin <= d->key_end && d->key_end <= d->m;
    int64_t all = 0;
    bool fits =
        shape && part && lsp_checked_mul(d->batch, d->heads, &all) && lsp_checked_mul(all, d->n, &all);
    if (shape && types && part && fits) return LSP_OK;
    return lsp_context_fail(ctx, LSP_ERR_USAGE, "verify: %s; describe the attention as it was computed",
                            !shape   ? "the shape is not valid"
                            : !types ? "a type is not f16, bf16, f32 or f64 (computing: bf16, f32 or f64)"
                            : !part  ? "the part (rows, keys) does not lie inside of the shape"
                                     : "the number of rows overflows");
}

/* The part's rows (batch, head, row) in one line are cut into `count` nearly equal stretches and one row
 * is drawn from each: no row comes twice, and every stretch of a sequence is met. */
static void choose_rows(lsp_sample *s, int64_t all, uint64_t seed)
{
    const uint64_t stream = UINT64_C(0x766572696679); /* apart from those of synthetic tensors */
    const lsp_attention_desc *desc = &s->desc;
    int64_t height = desc->row_end - desc->row_begin, share = all / s->count, rest = all % s->count;
    for (int64_t i = 0; i < s->count; i++) {
        int64_t begin = i * share + lsp_min(i, rest), length = share + (i < rest);
        int64_t step = (int64_t)(lsp_random_uniform(seed, stream, (uint64_t)i) * (double)length);
        int64_t at = begin + lsp_min(step, length - 1);
        if (s->count >= 3 && i == 0) at = 0;
        if (s->count >= 3 && i == s->count - 1) at = all - 1;
        s->rows[i].batch = at / height / desc->heads;
        s->rows[i].head = at / height % desc->heads;
        s->rows[i].row = desc->row_begin + at % height;
        s->rows[i].q = s->q + i * desc->d_k;
        lsp_reference_place(desc, &s->rows[i]);
    }
}

void lsp_sample_free(lsp_sample *s)
{
    lsp_memory_free(s->rows);
    lsp_memory_free(s->owned);
    lsp_memory_free(s->q);
    lsp_memory_free(s->met);
    lsp_memory_free(s->held);
    lsp_memory_free(s->cuts);
    lsp_memory_free(s->value_first);
    lsp_memory_free(s->peaks);
    lsp_memory_free(s->sums);
    lsp_memory_free(s->scratch);
}

/* Each run of keys has a block of values for each query head of its K/V head. */
static bool place_values(lsp_sample *s)
{
    const lsp_attention_desc *desc = &s->desc;
    int64_t before = 0;
    if (desc->method != LSP_METHOD_LOWRANK) return true;
    s->keys.value_first = s->value_first = lsp_memory_alloc(s->keys.run_count, sizeof *s->value_first);
    if (!s->value_first) return false;
    for (int64_t r = 0; r < s->keys.run_count; r++) {
        s->value_first[r] = before;
        for (int64_t h = 0; h < desc->heads; h++)
            if (lsp_reference_kv_head(desc, h) == s->keys.runs[r].head) before += s->keys.runs[r].count;
    }
    return true;
}

static lsp_status sample_alloc(lsp_sample *s)
{
    const lsp_attention_desc *desc = &s->desc;
    s->owned_count = LSP_OWNED_VALUES + desc->d_k + desc->d_v;
    s->sums_count = LSP_SUM_VALUES + desc->d_v;
    s->scratch_count = lsp_round_up(lsp_reference_scratch(desc), 8); /* no cache line shared by threads */
    s->rows = lsp_memory_zalloc(s->count, sizeof *s->rows);
    s->owned = lsp_memory_zalloc(s->count, (size_t)s->owned_count * sizeof *s->owned);
    s->q = lsp_memory_zalloc(s->count, (size_t)desc->d_k * sizeof *s->q);
    s->met = lsp_memory_zalloc(s->count, 2 * sizeof *s->met);
    s->held = lsp_memory_zalloc(s->count, sizeof *s->held);
    s->cuts = lsp_memory_zalloc(s->count, sizeof *s->cuts);
    s->peaks = lsp_memory_zalloc(s->count, LSP_PEAK_VALUES * sizeof *s->peaks);
    s->sums = lsp_memory_zalloc(s->count, (size_t)s->sums_count * sizeof *s->sums);
    s->scratch = lsp_memory_alloc(s->ctx->layout.threads, (size_t)s->scratch_count * sizeof *s->scratch);
    bool placed = place_values(s);
    if (s->rows && s->owned && s->q && s->met && s->held && s->cuts && s->peaks && s->sums && s->scratch &&
        placed)
        return LSP_OK;
    return lsp_context_fail(s->ctx, LSP_ERR_LIMIT,
                            "verify: rank %d has no memory for %" PRId64 " sampled rows; sample fewer",
                            s->ctx->layout.rank, s->count);
}

/* Sums over ranks, in pieces that the reductions take. */
static lsp_status sum_u64(lsp_context *ctx, uint64_t *values, int64_t count)
{
    const int64_t piece = 512;
    lsp_status status = LSP_OK;
    for (int64_t i = 0; i < count && status == LSP_OK; i += piece)
        status = lsp_context_sum_u64(ctx, values + i, (int)lsp_min(piece, count - i));
    return status;
}

static lsp_status reduce_f64(lsp_context *ctx, lsp_status (*reduce)(lsp_context *, double *, int),
                             double *values, int64_t count)
{
    const int64_t piece = 512;
    lsp_status status = LSP_OK;
    for (int64_t i = 0; i < count && status == LSP_OK; i += piece)
        status = reduce(ctx, values + i, (int)lsp_min(piece, count - i));
    return status;
}

/* Collective. A truncated matrix comes out of products with its whole basis, whose rounding is that of the row of W:
 * against all values, not only those of the keys which the row looks at. */
static lsp_status measure_values(lsp_sample *s)
{
    const lsp_attention_desc *desc = &s->desc;
    int64_t matrices = desc->batch * desc->heads;
    double *squares = lsp_memory_zalloc(matrices, sizeof *squares), *v = s->scratch;
    lsp_status status = LSP_OK;
    if (!squares) status = lsp_context_fail(s->ctx, LSP_ERR_LIMIT, "verify: no memory for the norms of v");
    status = lsp_context_agree(s->ctx, status);
    for (int64_t r = 0; status == LSP_OK && r < s->keys.run_count; r++) {
        const lsp_run *run = &s->keys.runs[r];
        int64_t at = s->value_first[r];
        for (int64_t h = 0; h < desc->heads; h++) {
            if (lsp_reference_kv_head(desc, h) != run->head) continue;
            for (int64_t end = at + run->count; at < end; at++) {
                lsp_convert_load(desc->v_type, s->keys.v, at * desc->d_v, desc->d_v, v);
                for (int64_t c = 0; c < desc->d_v; c++) squares[run->batch * desc->heads + h] += v[c] * v[c];
            }
        }
    }
    if (status == LSP_OK) status = reduce_f64(s->ctx, lsp_context_sum_f64, squares, matrices);
    for (int64_t i = 0; status == LSP_OK && i < s->count; i++)
        s->rows[i].values_square = squares[s->rows[i].batch * desc->heads + s->rows[i].head];
    lsp_memory_free(squares);
    return status;
}

static void own_row(lsp_sample *s, int64_t i, int64_t slot, const void *q, const void *out, const void *lse)
{
    const lsp_attention_desc *desc = &s->desc;
    uint64_t *owned = s->owned + i * s->owned_count;
    double *values = (double *)s->scratch, lse_value = 0;
    owned[LSP_OWNERS]++;
    owned[LSP_OWNED_HAS_LSE] = lse != NULL;
    if (lse) lsp_convert_load(lsp_dtype_result(desc->compute), lse, slot, 1, &lse_value);
    memcpy(&owned[LSP_OWNED_LSE], &lse_value, sizeof lse_value);
    lsp_convert_load(desc->q_type, q, slot * desc->d_k, desc->d_k, values);
    memcpy(owned + LSP_OWNED_VALUES, values, (size_t)desc->d_k * sizeof *values);
    lsp_convert_load(lsp_dtype_result(desc->compute), out, slot * desc->d_v, desc->d_v, values);
    memcpy(owned + LSP_OWNED_VALUES + desc->d_k, values, (size_t)desc->d_v * sizeof *values);
}

/* Collective. Every rank gets q, out and lse of every sampled row from the rank that holds it. */
static lsp_status gather_rows(lsp_sample *s, const lsp_run *runs, int64_t run_count, const void *q,
                              const void *out, const void *lse)
{
    for (int64_t r = 0, before = 0; r < run_count; before += runs[r++].count)
        for (int64_t i = 0; i < s->count; i++) {
            const lsp_reference_row *row = &s->rows[i];
            int64_t inside = row->row - runs[r].begin;
            if (runs[r].batch == row->batch && runs[r].head == row->head && inside >= 0 &&
                inside < runs[r].count)
                own_row(s, i, before + inside, q, out, lse);
        }
    lsp_status status = sum_u64(s->ctx, s->owned, s->count * s->owned_count);
    for (int64_t i = 0; i < s->count && status == LSP_OK; i++) {
        const uint64_t *owned = s->owned + i * s->owned_count;
        if (owned[LSP_OWNERS] != 1)
            return lsp_context_fail(s->ctx, LSP_ERR_USAGE,
                                    "verify: query row %" PRId64 " of batch %" PRId64 ", head %" PRId64
                                    " is held %" PRIu64 " times by the query runs of all ranks; it must be "
                                    "held once",
                                    s->rows[i].row, s->rows[i].batch, s->rows[i].head, owned[LSP_OWNERS]);
        memcpy(s->q + i * s->desc.d_k, owned + LSP_OWNED_VALUES, (size_t)s->desc.d_k * sizeof *s->q);
    }
    return status;
}

/* The ranks count the visible keys among those they hold, and among a share of all keys. */
lsp_status lsp_sample_scan(lsp_sample *s)
{
    int64_t share = lsp_ceil_div(s->desc.m, s->ctx->layout.ranks);
    int64_t begin = share * s->ctx->layout.rank, end = lsp_min(begin + share, s->desc.m);
#pragma omp parallel for schedule(dynamic) num_threads(s->ctx->layout.threads)
    for (int64_t i = 0; i < s->count; i++) {
        double *scratch = s->scratch + omp_get_thread_num() * s->scratch_count;
        lsp_reference_peak peak = lsp_reference_scan(&s->keys, &s->rows[i], scratch);
        double *peaks = s->peaks + i * LSP_PEAK_VALUES;
        peaks[LSP_PEAK_TOP] = peak.score;
        peaks[LSP_PEAK_MAGNITUDE] = peak.magnitude;
        peaks[LSP_PEAK_BROKEN] = peak.broken;
        peaks[LSP_PEAK_SIZE] = peak.size;
        s->held[i] = peak.keys;
        s->met[2 * i] = (uint64_t)peak.keys;
        for (int64_t key = begin; key < end; key++)
            s->met[2 * i + 1] += lsp_reference_sees(&s->desc, &s->rows[i], key);
    }
    lsp_status status = reduce_f64(s->ctx, lsp_context_max_f64, s->peaks, s->count * LSP_PEAK_VALUES);
    if (status == LSP_OK) status = sum_u64(s->ctx, s->met, 2 * s->count);
    for (int64_t i = 0; i < s->count && status == LSP_OK; i++)
        if (s->met[2 * i] != s->met[2 * i + 1])
            return lsp_context_fail(
                s->ctx, LSP_ERR_USAGE,
                "verify: query row %" PRId64 " of batch %" PRId64 ", head %" PRId64 " sees %" PRIu64
                " keys, but the key runs of all ranks hold %" PRIu64 " of them; each must be held once",
                s->rows[i].row, s->rows[i].batch, s->rows[i].head, s->met[2 * i + 1], s->met[2 * i]);
    return status;
}

lsp_reference_kind lsp_sample_kind(const lsp_sample *s, int64_t i)
{
    if (s->met[2 * i] == 0) return LSP_REFERENCE_EMPTY;
    if (s->peaks[i * LSP_PEAK_VALUES + LSP_PEAK_BROKEN] != 0) return LSP_REFERENCE_BROKEN;
    return s->peaks[i * LSP_PEAK_VALUES + LSP_PEAK_TOP] == -INFINITY ? LSP_REFERENCE_UNDEFINED
                                                                     : LSP_REFERENCE_ORDINARY;
}

/* Collective. Sums of weights and weighted V rows. */
static lsp_status second_pass(lsp_sample *s)
{
#pragma omp parallel for schedule(dynamic) num_threads(s->ctx->layout.threads)
    for (int64_t i = 0; i < s->count; i++) {
        double *scratch = s->scratch + omp_get_thread_num() * s->scratch_count;
        if (lsp_sample_kind(s, i) == LSP_REFERENCE_ORDINARY)
            lsp_reference_sum(&s->keys, &s->rows[i], s->peaks[i * LSP_PEAK_VALUES + LSP_PEAK_TOP],
                              s->sums + i * s->sums_count, scratch);
    }
    return reduce_f64(s->ctx, lsp_context_sum_f64, s->sums, s->count * s->sums_count);
}

lsp_status lsp_sample_compute(lsp_sample *s)
{
    lsp_status status = lsp_sample_scan(s);
    if (status == LSP_OK && s->desc.method == LSP_METHOD_TOPK) status = lsp_sample_cut(s);
    if (status == LSP_OK && s->desc.method == LSP_METHOD_LOWRANK) status = measure_values(s);
    return status == LSP_OK ? second_pass(s) : status;
}

void lsp_sample_out(const lsp_sample *s, int64_t i, double *out)
{
    const uint64_t *values = s->owned + i * s->owned_count + LSP_OWNED_VALUES + s->desc.d_k;
    memcpy(out, values, (size_t)s->desc.d_v * sizeof *out);
}

lsp_status lsp_sample_make(lsp_context *ctx, const lsp_attention_desc *desc, const lsp_sample_source *source,
                           int64_t rows, uint64_t seed, lsp_sample *s)
{
    *s = (lsp_sample){.ctx = ctx, .desc = *desc};
    lsp_status status = check_desc(ctx, &s->desc);
    if (status == LSP_OK && rows < 1)
        status = lsp_context_fail(ctx, LSP_ERR_USAGE,
                                  "verify: %" PRId64 " rows asked for; at least 1 is needed", rows);
    if (status == LSP_OK)
        status = check_runs(ctx, "query", source->query_runs, source->query_run_count, desc->batch,
                            desc->heads, desc->n);
    if (status == LSP_OK)
        status = check_runs(ctx, "key", source->key_runs, source->key_run_count, desc->batch, desc->kv_heads,
                            desc->m);
    int64_t all = 0;
    if (status == LSP_OK) {
        all = desc->batch * desc->heads * (s->desc.row_end - s->desc.row_begin);
        s->count = lsp_min(rows, all);
        s->keys = (lsp_reference_keys){&s->desc,  source->key_runs, source->key_run_count,
                                       source->k, source->v,        NULL};
        status = sample_alloc(s);
    }
    status = lsp_context_agree(ctx, status);
    if (status != LSP_OK) return status;
    choose_rows(s, all, seed);
    return gather_rows(s, source->query_runs, source->query_run_count, source->q, source->out, source->lse);
}
