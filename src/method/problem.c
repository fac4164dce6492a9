/* Checking and copying a description. SPDX-License-Identifier: BSD-3-Clause */
#include "method/problem.h"

#include "base/checked.h"
#include "base/memory.h"
#include "method/method.h"

#include <math.h>
#include <string.h>

/* ---- checks ------------------------------------------------------------------------------------ */

static lsp_status check_shape(const lsp_attention_desc *d, lsp_error *error)
{
    const int64_t dims[] = {d->batch, d->heads, d->kv_heads, d->n, d->m, d->d_k, d->d_v};
    const char *names[] = {"batch", "heads", "kv_heads", "n", "m", "d_k", "d_v"};
    for (int i = 0; i < 7; i++)
        if (dims[i] < 1 || dims[i] > (int64_t)1 << 40)
            return lsp_error_set(error, LSP_ERR_USAGE, "%s is %lld: it must be between 1 and 2^40", names[i],
                                 (long long)dims[i]);
    int64_t rows, elements, widest = lsp_max(d->d_k, d->d_v);
    if (!lsp_checked_mul(d->batch, lsp_max(d->heads, d->kv_heads), &rows) ||
        !lsp_checked_mul(rows, lsp_max(d->n, d->m), &rows) || !lsp_checked_mul(rows, widest, &elements) ||
        !lsp_checked_mul(elements, 8, &elements))
        return lsp_error_set(error, LSP_ERR_LIMIT, "the tensors have more bytes than 63 bits can count");
    if (!d->kv_head_of && d->heads % d->kv_heads != 0)
        return lsp_error_set(error, LSP_ERR_USAGE, "%lld query heads are not a multiple of %lld K/V heads",
                             (long long)d->heads, (long long)d->kv_heads);
    for (int64_t h = 0; d->kv_head_of && h < d->heads; h++)
        if (d->kv_head_of[h] < 0 || d->kv_head_of[h] >= d->kv_heads)
            return lsp_error_set(error, LSP_ERR_USAGE, "query head %lld names K/V head %lld of %lld",
                                 (long long)h, (long long)d->kv_head_of[h], (long long)d->kv_heads);
    return LSP_OK;
}

static lsp_status check_part(const lsp_attention_desc *d, lsp_error *error)
{
    if (d->row_begin < 0 || d->row_begin >= d->row_end || d->row_end > d->n)
        return lsp_error_set(error, LSP_ERR_USAGE, "rows %lld:%lld are not a part of 0:%lld",
                             (long long)d->row_begin, (long long)d->row_end, (long long)d->n);
    if (d->key_begin < 0 || d->key_begin >= d->key_end || d->key_end > d->m)
        return lsp_error_set(error, LSP_ERR_USAGE, "keys %lld:%lld are not a part of 0:%lld",
                             (long long)d->key_begin, (long long)d->key_end, (long long)d->m);
    return LSP_OK;
}

static bool within(int value, int last)
{
    return value >= 0 && value <= last;
}

static lsp_status check_choices(const lsp_attention_desc *d, lsp_error *error)
{
    if (!within((int)d->mask, LSP_MASK_WINDOW) || !within((int)d->align, LSP_ALIGN_TOP_LEFT))
        return lsp_error_set(error, LSP_ERR_USAGE, "mask %d with alignment %d does not exist", (int)d->mask,
                             (int)d->align);
    if (!within((int)d->isa, LSP_ISA_AVX512) || !within((int)d->gather, LSP_GATHER_CHAIN) ||
        !within((int)d->partition, LSP_PARTITION_CYCLIC))
        return lsp_error_set(error, LSP_ERR_USAGE,
                             "instruction set %d, gather mode %d or partition %d does not exist", (int)d->isa,
                             (int)d->gather, (int)d->partition);
    return LSP_OK;
}

static lsp_status check_method(const lsp_attention_desc *d, lsp_error *error)
{
    const lsp_method_ops *method = lsp_method_get(d->method);
    if (!method) return lsp_error_set(error, LSP_ERR_USAGE, "method %d does not exist", (int)d->method);
    return method->check ? method->check(d, error) : LSP_OK;
}

static lsp_status check_numbers(const lsp_attention_desc *d, lsp_error *error)
{
    const lsp_dtype types[] = {d->q_type, d->k_type, d->v_type};
    for (int i = 0; i < 3; i++)
        if ((int)types[i] < LSP_F16 || types[i] > LSP_F64)
            return lsp_error_set(error, LSP_ERR_USAGE, "the operands must be f16, bf16, f32 or f64");
    if (d->compute != LSP_BF16 && d->compute != LSP_F32 && d->compute != LSP_F64)
        return lsp_error_set(error, LSP_ERR_USAGE, "computing in %s is not available: use bf16, f32 or f64",
                             lsp_dtype_name(d->compute));
    if (!isfinite(d->scale) || !isfinite(d->softcap) || d->softcap < 0)
        return lsp_error_set(error, LSP_ERR_USAGE, "scale (%g) must be finite, softcap (%g) 0 or more",
                             d->scale, d->softcap);
    for (int64_t h = 0; d->alibi_slopes && h < d->heads; h++)
        if (!isfinite(d->alibi_slopes[h]))
            return lsp_error_set(error, LSP_ERR_USAGE, "the ALiBi slope of head %lld is not finite",
                                 (long long)h);
    if (d->mask == LSP_MASK_WINDOW && (d->window_left < 0 || d->window_right < 0))
        return lsp_error_set(error, LSP_ERR_USAGE,
                             "window_left (%lld) and window_right (%lld) must be 0 or more",
                             (long long)d->window_left, (long long)d->window_right);
    if (d->panel_rows < 0 || d->head_groups < 0)
        return lsp_error_set(error, LSP_ERR_USAGE, "panel_rows and head_groups must be 0 (chosen) or more");
    return LSP_OK;
}

static lsp_status check_offsets(const int64_t *offsets, int64_t count, int64_t end, const char *name,
                                lsp_error *error)
{
    if (offsets[0] != 0 || offsets[count] != end)
        return lsp_error_set(error, LSP_ERR_CONTENT, "%s must go from 0 to %lld, not from %lld to %lld", name,
                             (long long)end, (long long)offsets[0], (long long)offsets[count]);
    for (int64_t d = 0; d < count; d++)
        if (offsets[d] > offsets[d + 1])
            return lsp_error_set(error, LSP_ERR_CONTENT,
                                 "%s must not decrease: entry %lld is %lld, the next %lld", name,
                                 (long long)d, (long long)offsets[d], (long long)offsets[d + 1]);
    return LSP_OK;
}

static lsp_status check_arrays(const lsp_attention_desc *d, lsp_error *error)
{
    lsp_status status = LSP_OK;
    if (d->documents) {
        if (d->document_count < 1)
            return lsp_error_set(error, LSP_ERR_CONTENT, "documents needs at least two offsets: 0 and %lld",
                                 (long long)d->n);
        status = check_offsets(d->documents, d->document_count, d->n, "documents", error);
        if (status == LSP_OK && !d->documents_k && d->n != d->m)
            return lsp_error_set(
                error, LSP_ERR_USAGE,
                "documents with n = %lld and m = %lld need documents_k, offsets over the keys",
                (long long)d->n, (long long)d->m);
        if (status == LSP_OK && d->documents_k)
            status = check_offsets(d->documents_k, d->document_count, d->m, "documents_k", error);
    } else if (d->documents_k) {
        return lsp_error_set(error, LSP_ERR_USAGE, "documents_k is given without documents");
    }
    for (int64_t b = 0; status == LSP_OK && d->key_lengths && b < d->batch; b++)
        if (d->key_lengths[b] < 0 || d->key_lengths[b] > d->m)
            status =
                lsp_error_set(error, LSP_ERR_CONTENT, "key length %lld of batch %lld is not within 0 to %lld",
                              (long long)d->key_lengths[b], (long long)b, (long long)d->m);
    return status;
}

/* ---- copies ------------------------------------------------------------------------------------ */

static void *copy_of(const void *source, int64_t count, size_t size, bool *ok)
{
    if (!source) return NULL;
    void *copy = lsp_memory_alloc(count, size);
    if (copy)
        memcpy(copy, source, (size_t)count * size);
    else
        *ok = false;
    return copy;
}

static bool copy_arrays(lsp_problem *p, const lsp_attention_desc *d)
{
    bool ok = true;
    p->kv_head_of = lsp_memory_alloc(d->heads, sizeof *p->kv_head_of);
    p->query_heads = lsp_memory_alloc(d->heads, sizeof *p->query_heads);
    p->query_first = lsp_memory_zalloc(d->kv_heads + 1, sizeof *p->query_first);
    if (!p->kv_head_of || !p->query_heads || !p->query_first) return false;
    for (int64_t h = 0; h < d->heads; h++)
        p->kv_head_of[h] = d->kv_head_of ? d->kv_head_of[h] : h / (d->heads / d->kv_heads);
    int64_t filled = 0;
    for (int64_t kv = 0; kv < d->kv_heads; kv++) {
        p->query_first[kv] = filled;
        for (int64_t h = 0; h < d->heads; h++)
            if (p->kv_head_of[h] == kv) p->query_heads[filled++] = h;
    }
    p->query_first[d->kv_heads] = filled;
    p->documents = copy_of(d->documents, d->document_count + 1, sizeof(int64_t), &ok);
    p->documents_k =
        copy_of(d->documents_k ? d->documents_k : d->documents, d->document_count + 1, sizeof(int64_t), &ok);
    p->key_lengths = copy_of(d->key_lengths, d->batch, sizeof(int64_t), &ok);
    p->slopes = copy_of(d->alibi_slopes, d->heads, sizeof(double), &ok);
    return ok;
}

lsp_status lsp_problem_make(const lsp_attention_desc *desc, lsp_problem *problem, lsp_error *error)
{
    lsp_problem p = {.desc = *desc};
    lsp_attention_desc *d = &p.desc;
    lsp_status status = check_shape(d, error);
    if (status != LSP_OK) return status;
    if (d->row_end == 0) d->row_end = d->n;
    if (d->key_end == 0) d->key_end = d->m;
    if (d->scale == 0) d->scale = 1 / sqrt((double)d->d_k);
    if (status == LSP_OK) status = check_part(d, error);
    if (status == LSP_OK) status = check_choices(d, error);
    if (status == LSP_OK) status = check_method(d, error);
    if (status == LSP_OK) status = check_numbers(d, error);
    if (status == LSP_OK) status = check_arrays(d, error);
    if (status != LSP_OK) return status;
    if (!copy_arrays(&p, desc)) {
        lsp_problem_free(&p);
        return lsp_error_set(error, LSP_ERR_LIMIT, "not enough memory for the description of the attention");
    }
    d->kv_head_of = p.kv_head_of;
    d->documents = p.documents;
    d->documents_k = p.documents_k;
    d->key_lengths = p.key_lengths;
    d->alibi_slopes = p.slopes;
    p.units = d->batch * d->kv_heads;
    p.whole_heads = lsp_method_get(d->method)->whole_heads;
    p.ops = lsp_method_get(d->method);
    p.row_grain = 1;
    p.mask = (lsp_mask){.kind = d->mask,
                        .align = d->align,
                        .window_left = d->window_left,
                        .window_right = d->window_right,
                        .n = d->n,
                        .m = d->m,
                        .key_begin = d->key_begin,
                        .key_end = d->key_end,
                        .documents = p.documents,
                        .documents_k = p.documents_k,
                        .document_count = d->document_count,
                        .key_lengths = p.key_lengths,
                        .block_size = d->method == LSP_METHOD_BLOCK ? d->block_size : 0};
    *problem = p;
    return LSP_OK;
}

void lsp_problem_free(lsp_problem *p)
{
    lsp_memory_free(p->kv_head_of);
    lsp_memory_free(p->query_heads);
    lsp_memory_free(p->query_first);
    lsp_memory_free(p->documents);
    lsp_memory_free(p->documents_k);
    lsp_memory_free(p->key_lengths);
    lsp_memory_free(p->slopes);
    memset(p, 0, sizeof *p);
}

/* ---- questions --------------------------------------------------------------------------------- */

/* FNV-1a over words: enough to see that ranks were given different values. */
static uint64_t mix(uint64_t hash, const void *data, size_t bytes)
{
    const unsigned char *byte = data;
    for (size_t i = 0; i < bytes; i++) hash = (hash ^ byte[i]) * 0x100000001b3u;
    return hash;
}

uint64_t lsp_problem_hash(const lsp_problem *p)
{
    const lsp_attention_desc *d = &p->desc;
    const int64_t whole[] = {d->batch,       d->heads,         d->kv_heads,     d->n,
                             d->m,           d->d_k,           d->d_v,          d->row_begin,
                             d->row_end,     d->key_begin,     d->key_end,      d->q_type,
                             d->k_type,      d->v_type,        d->compute,      d->mask,
                             d->align,       d->window_left,   d->window_right, d->document_count,
                             d->isa,         d->gather,        d->partition,    d->panel_rows,
                             d->head_groups, d->method,        d->block_size,   d->topk,
                             d->renormalize, d->rank,          d->svd,          d->oversample,
                             d->steps,       (int64_t)d->seed, d->allow_leak,   d->keep_values};
    const double real[] = {d->scale, d->softcap, d->tolerance};
    uint64_t hash = mix(0xcbf29ce484222325u, whole, sizeof whole);
    hash = mix(hash, real, sizeof real);
    hash = mix(hash, p->kv_head_of, (size_t)d->heads * sizeof(int64_t));
    if (p->documents) hash = mix(hash, p->documents, (size_t)(d->document_count + 1) * sizeof(int64_t));
    if (p->documents) hash = mix(hash, p->documents_k, (size_t)(d->document_count + 1) * sizeof(int64_t));
    if (p->key_lengths) hash = mix(hash, p->key_lengths, (size_t)d->batch * sizeof(int64_t));
    if (p->slopes) hash = mix(hash, p->slopes, (size_t)d->heads * sizeof(double));
    return hash;
}

double lsp_problem_pairs(const lsp_problem *p, int64_t begin, int64_t end)
{
    if (!p->key_lengths) return (double)p->desc.batch * lsp_mask_pairs(&p->mask, 0, begin, end);
    double pairs = 0;
    for (int64_t b = 0; b < p->desc.batch; b++) pairs += lsp_mask_pairs(&p->mask, b, begin, end);
    return pairs;
}

double lsp_alibi_slope(int64_t head, int64_t heads)
{
    /* Heads up to the largest power of two take 2^(-8 (h + 1) / power); the rest every second slope of
     * twice that power. */
    int64_t power = 1;
    while (power * 2 <= heads) power *= 2;
    if (head < power) return exp2(-8.0 * (double)(head + 1) / (double)power);
    return exp2(-8.0 * (double)(2 * (head - power) + 1) / (double)(2 * power));
}

bool lsp_attention_hides_later(const lsp_attention_desc *d)
{
    return d->mask == LSP_MASK_CAUSAL || (d->mask == LSP_MASK_WINDOW && d->window_right == 0);
}

int64_t lsp_problem_reach(const lsp_problem *problem)
{
    const lsp_attention_desc *d = &problem->desc;
    int64_t most = d->m, longest = 0;
    for (int64_t i = 0; problem->documents_k && i < d->document_count; i++)
        longest = lsp_max(longest, problem->documents_k[i + 1] - problem->documents_k[i]);
    if (problem->documents_k) most = lsp_min(most, longest);
    if (d->mask == LSP_MASK_WINDOW && d->window_left < most && d->window_right < most)
        most = lsp_min(most, d->window_left + 1 + d->window_right);
    int64_t block = problem->mask.block_size;
    if (block > 0 && block < d->n) {
        __extension__ typedef __int128 wide; /* block b begins with key floor(b block m / n) */
        most = lsp_min(most, (int64_t)(((wide)block * d->m + d->n - 1) / d->n));
    }
    return most;
}
