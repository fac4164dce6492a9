/* The rules of attention spelled out for one row, in double precision.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "study/reference.h"

#include "base/checked.h"
#include "base/convert.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 1024 }; /* keys summed on their own first, so that the error does not grow with m */

/* floor(row * m / n) without the product, which may have 80 bits: long division by its binary digits. */
static int64_t share_of(const lsp_attention_desc *desc, int64_t row)
{
    int64_t quotient = 0, rest = 0;
    for (int bit = 62; bit >= 0; bit--) {
        quotient *= 2;
        rest *= 2;
        if (desc->m >> bit & 1) rest += row;
        quotient += rest / desc->n;
        rest %= desc->n;
    }
    return quotient;
}

/* Blocks are counted from row 0 in steps of block_size. */
static void cut_to_block(const lsp_attention_desc *desc, lsp_reference_row *row)
{
    int64_t begin = row->row / desc->block_size * desc->block_size;
    int64_t end = desc->n - begin < desc->block_size ? desc->n : begin + desc->block_size;
    row->first = lsp_max(row->first, share_of(desc, begin));
    row->stop = lsp_min(row->stop, share_of(desc, end));
}

void lsp_reference_place(const lsp_attention_desc *desc, lsp_reference_row *row)
{
    /* A document is a piece of its own, with its own first row and key. Keys beyond the key length do not
     * exist, so that they are not counted in a document either. */
    int64_t length = desc->key_lengths ? desc->key_lengths[row->batch] : desc->m;
    int64_t row_begin = 0, row_end = desc->n, key_begin = 0, key_end = length;
    const int64_t *key_offsets = desc->documents_k ? desc->documents_k : desc->documents;
    for (int64_t t = 0; desc->documents && t < desc->document_count; t++) {
        if (row->row < desc->documents[t] || row->row >= desc->documents[t + 1]) continue;
        row_begin = desc->documents[t];
        row_end = desc->documents[t + 1];
        key_begin = lsp_min(key_offsets[t], length);
        key_end = lsp_min(key_offsets[t + 1], length);
    }
    int64_t inside = row->row - row_begin;
    if (desc->align == LSP_ALIGN_BOTTOM_RIGHT) inside += (key_end - key_begin) - (row_end - row_begin);
    row->position = key_begin + inside;
    row->first = lsp_max(key_begin, desc->key_begin);
    row->stop = lsp_min(key_end, desc->key_end);
    if (desc->method == LSP_METHOD_BLOCK) cut_to_block(desc, row);
    row->kept_first = row->first;
    row->kept_stop = row->stop;
    row->kv_head = lsp_reference_kv_head(desc, row->head);
    row->place = 0;
    for (int64_t h = 0; h < row->head; h++) row->place += lsp_reference_kv_head(desc, h) == row->kv_head;
}

int64_t lsp_reference_kv_head(const lsp_attention_desc *desc, int64_t head)
{
    return desc->kv_head_of ? desc->kv_head_of[head] : head / (desc->heads / desc->kv_heads);
}

bool lsp_reference_sees(const lsp_attention_desc *desc, const lsp_reference_row *row, int64_t key)
{
    if (key < row->first || key >= row->stop) return false;
    if (desc->mask == LSP_MASK_CAUSAL) return key <= row->position;
    if (desc->mask == LSP_MASK_WINDOW)
        return row->position - key <= desc->window_left && key - row->position <= desc->window_right;
    return true;
}

/* Walks over the visible keys that this rank holds. */
typedef struct cursor {
    int64_t run, offset; /* where to look next */
    int64_t run_slot;    /* rows of the array before this run */
    int64_t key, slot;   /* found: the key, and its row in the array */
    int64_t value;       /* its row in the array of values */
} cursor;

static bool next_key(const lsp_reference_keys *keys, const lsp_reference_row *row, cursor *at)
{
    for (; at->run < keys->run_count; at->run++) {
        const lsp_run *run = &keys->runs[at->run];
        bool here = run->batch == row->batch && run->head == row->kv_head;
        while (here && at->offset < run->count) {
            at->key = run->begin + at->offset;
            at->slot = at->value = at->run_slot + at->offset;
            if (keys->value_first)
                at->value = keys->value_first[at->run] + row->place * run->count + at->offset;
            at->offset++;
            if (lsp_reference_sees(keys->desc, row, at->key)) return true;
        }
        at->run_slot += run->count;
        at->offset = 0;
    }
    return false;
}

int64_t lsp_reference_scratch(const lsp_attention_desc *desc)
{
    return desc->d_k + desc->d_v + LSP_SUM_VALUES + desc->d_v;
}

/* *size: what the terms of the score add up to without their signs, which is what rounding errors are
 * proportional to. */
static double score_of(const lsp_reference_keys *keys, const lsp_reference_row *row, const cursor *at,
                       double *k, double *size)
{
    const lsp_attention_desc *desc = keys->desc;
    lsp_convert_load(desc->k_type, keys->k, at->slot * desc->d_k, desc->d_k, k);
    double dot = 0, terms = 0;
#pragma omp simd reduction(+ : dot, terms)
    for (int64_t c = 0; c < desc->d_k; c++) {
        dot += row->q[c] * k[c];
        terms += fabs(row->q[c] * k[c]);
    }
    double score = desc->scale * dot;
    *size = fabs(desc->scale) * terms;
    if (desc->softcap != 0) score = desc->softcap * tanh(score / desc->softcap);
    if (desc->alibi_slopes) {
        double bias = desc->alibi_slopes[row->head] * fabs((double)(row->position - at->key));
        score -= bias;
        *size += fabs(bias);
    }
    return score;
}

lsp_reference_peak lsp_reference_scan(const lsp_reference_keys *keys, const lsp_reference_row *row,
                                      double *scratch)
{
    lsp_reference_peak peak = {.score = -INFINITY};
    double size = 0;
    for (cursor at = {0}; next_key(keys, row, &at);) {
        double score = score_of(keys, row, &at, scratch, &size);
        peak.keys++;
        if (isfinite(size) && size > peak.size) peak.size = size;
        if (isnan(score) || score == INFINITY) {
            peak.broken = true;
            continue;
        }
        if (score > peak.score) peak.score = score;
        if (isfinite(score) && fabs(score) > peak.magnitude) peak.magnitude = fabs(score);
    }
    return peak;
}

void lsp_reference_list(const lsp_reference_keys *keys, const lsp_reference_row *row, double *scores,
                        int64_t *key_of, double *scratch)
{
    double size = 0;
    for (cursor at = {0}; next_key(keys, row, &at);) {
        *scores++ = score_of(keys, row, &at, scratch, &size);
        *key_of++ = at.key;
    }
}

double lsp_reference_longest(const lsp_reference_keys *keys, const lsp_reference_row *row, double *scratch)
{
    const lsp_attention_desc *desc = keys->desc;
    double longest = 0, size = 0, *v = scratch + desc->d_k;
    for (cursor at = {0}; next_key(keys, row, &at);) {
        double square = 0;
        if (!(fabs(score_of(keys, row, &at, scratch, &size) - row->cut->score) <= row->cut->near)) continue;
        lsp_convert_load(desc->v_type, keys->v, at.value * desc->d_v, desc->d_v, v);
        for (int64_t c = 0; c < desc->d_v; c++) square += v[c] * v[c];
        longest = fmax(longest, sqrt(square));
    }
    return longest;
}

static void flush_block(double *block, int64_t count, double *sums)
{
    for (int64_t i = 0; i < count; i++) sums[i] += block[i];
    memset(block, 0, (size_t)count * sizeof *block);
}

void lsp_reference_sum(const lsp_reference_keys *keys, const lsp_reference_row *row, double top, double *sums,
                       double *scratch)
{
    const lsp_attention_desc *desc = keys->desc;
    double *k = scratch, *v = k + desc->d_k, *block = v + desc->d_v;
    int64_t count = LSP_SUM_VALUES + desc->d_v, in_block = 0;
    memset(block, 0, (size_t)count * sizeof *block);
    for (cursor at = {0}; next_key(keys, row, &at);) {
        double size = 0, norm = 0;
        double score = score_of(keys, row, &at, k, &size), weight = exp(score - top);
        const lsp_reference_cut *cut = row->cut;
        bool cut_off = cut && (score < cut->score || (score == cut->score && at.key > cut->key));
        lsp_convert_load(desc->v_type, keys->v, at.value * desc->d_v, desc->d_v, v);
        for (int64_t c = 0; c < desc->d_v && !cut_off; c++) {
            double term = weight * v[c];
            block[LSP_SUM_VALUES + c] += term;
            norm += term * term;
        }
        block[LSP_SUM_WEIGHT] += weight;
        if (cut_off || at.key < row->kept_first || at.key >= row->kept_stop) block[LSP_SUM_DROPPED] += weight;
        if (row->values_square > 0) norm = weight * weight * row->values_square;
        if (isfinite(norm)) block[LSP_SUM_SPREAD] += norm;
        if (weight > 0) block[LSP_SUM_SIZE] += weight * size;
        if (++in_block == BLOCK) {
            flush_block(block, count, sums);
            in_block = 0;
        }
    }
    flush_block(block, count, sums);
}
