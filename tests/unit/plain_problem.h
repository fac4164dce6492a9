/* An attention problem, whole on every rank, solved by a plain loop in double precision, right or with a
 * deliberate fault, and dealt out over ranks. For tests: it shares no code with what it checks.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_TEST_PLAIN_PROBLEM_H
#define LSP_TEST_PLAIN_PROBLEM_H

#include "base/convert.h"
#include "base/random.h"
#include "mpi_case.h"

/* ---- a problem, whole on every rank -------------------------------------------------------------- */

/* How the results are wrong, if they are. */
typedef struct fault {
    int64_t drop_begin, drop_end; /* these keys are left out */
    int64_t shift;                /* rows take the position that many keys further */
    int64_t head_shift;           /* heads read the K/V head of the head that many further */
    double scale;                 /* scores are multiplied by 1 + scale */
} fault;

typedef struct problem {
    lsp_attention_desc desc;
    double *q, *k, *v;    /* as the rounded elements are */
    double *out, *lse;    /* results, rounded to desc.compute when passed on */
    bool without_lse;     /* pass none */
    int64_t hide_key;     /* the rank that holds this key claims not to (-1: none) */
    int64_t double_row;   /* the last rank claims to hold this row too (-1: none) */
    bool outside_on_last; /* the last rank has a run outside of the shape */
} problem;

static double *fill(lsp_dtype type, uint64_t stream, int64_t count, double factor)
{
    double *values = calloc((size_t)count, sizeof *values), *bits = calloc((size_t)count, sizeof *bits);
    assert_true(values && bits);
    lsp_random_normals(11, stream, 0, count, values);
    for (int64_t i = 0; i < count; i++) values[i] *= factor;
    lsp_convert_store(type, values, count, bits, 0);
    lsp_convert_load(type, bits, 0, count, values);
    free(bits);
    return values;
}

static bool visible(const lsp_attention_desc *d, int64_t b, int64_t i, int64_t j, int64_t shift,
                    int64_t *distance)
{
    int64_t m = d->key_lengths ? d->key_lengths[b] : d->m, n = d->n;
    if (j >= m || j < d->key_begin || (d->key_end > 0 && j >= d->key_end)) return false;
    if (d->documents) { /* count rows and keys from the document's start */
        const int64_t *dk = d->documents_k ? d->documents_k : d->documents;
        int64_t qi = 0, kj = 0;
        while (i >= d->documents[qi + 1]) qi++;
        while (j >= dk[kj + 1]) kj++;
        if (qi != kj) return false;
        n = d->documents[qi + 1] - d->documents[qi];
        m = (dk[qi + 1] < m ? dk[qi + 1] : m) - dk[qi]; /* m was the length of the batch */
        i -= d->documents[qi];
        j -= dk[qi];
    }
    int64_t p = (d->align == LSP_ALIGN_TOP_LEFT ? i : i + m - n) + shift;
    *distance = p > j ? p - j : j - p;
    if (d->mask == LSP_MASK_CAUSAL && j > p) return false;
    return d->mask != LSP_MASK_WINDOW || (j >= p - d->window_left && j <= p + d->window_right);
}

static double score(const problem *p, const fault *f, int64_t b, int64_t h, int64_t i, int64_t j,
                    int64_t distance)
{
    const lsp_attention_desc *d = &p->desc;
    int64_t head = (h + f->head_shift) % d->heads;
    int64_t kv = d->kv_head_of ? d->kv_head_of[head] : head * d->kv_heads / d->heads;
    const double *q = p->q + ((b * d->heads + h) * d->n + i) * d->d_k;
    const double *k = p->k + ((b * d->kv_heads + kv) * d->m + j) * d->d_k;
    double s = 0;
    for (int64_t c = 0; c < d->d_k; c++) s += q[c] * k[c];
    s *= (d->scale != 0 ? d->scale : 1 / sqrt((double)d->d_k)) * (1 + f->scale);
    if (d->softcap != 0) s = d->softcap * tanh(s / d->softcap);
    if (d->alibi_slopes) s -= d->alibi_slopes[h] * (double)distance;
    return s;
}

static void solve_row(problem *p, const fault *f, int64_t b, int64_t h, int64_t i, double *s)
{
    const lsp_attention_desc *d = &p->desc;
    int64_t head = (h + f->head_shift) % d->heads, index = (b * d->heads + h) * d->n + i;
    int64_t kv = d->kv_head_of ? d->kv_head_of[head] : head * d->kv_heads / d->heads;
    double top = -INFINITY, sum = 0, *out = p->out + index * d->d_v;
    bool *seen = calloc((size_t)d->m, sizeof *seen), any = false;
    memset(out, 0, (size_t)d->d_v * sizeof *out);
    for (int64_t j = 0; j < d->m; j++) {
        int64_t distance = 0;
        seen[j] = visible(d, b, i, j, f->shift, &distance) && (j < f->drop_begin || j >= f->drop_end);
        if (!seen[j]) continue;
        any = true;
        s[j] = score(p, f, b, h, i, j, distance);
        if (s[j] > top) top = s[j];
    }
    for (int64_t j = 0; j < d->m; j++) {
        if (!seen[j]) continue;
        double w = exp(s[j] - top);
        sum += w;
        for (int64_t c = 0; c < d->d_v; c++)
            out[c] += w * p->v[((b * d->kv_heads + kv) * d->m + j) * d->d_v + c];
    }
    for (int64_t c = 0; any && c < d->d_v; c++) out[c] /= sum;
    p->lse[index] = any ? top + log(sum) : -INFINITY;
    free(seen);
}

static void solve(problem *p, fault f)
{
    const lsp_attention_desc *d = &p->desc;
    double *s = calloc((size_t)d->m, sizeof *s);
    for (int64_t b = 0; b < d->batch; b++)
        for (int64_t h = 0; h < d->heads; h++)
            for (int64_t i = 0; i < d->n; i++) solve_row(p, &f, b, h, i, s);
    free(s);
}

static problem make_problem(lsp_attention_desc desc, double factor)
{
    problem p = {.desc = desc, .hide_key = -1, .double_row = -1};
    p.q = fill(desc.q_type, 1, desc.batch * desc.heads * desc.n * desc.d_k, factor);
    p.k = fill(desc.k_type, 2, desc.batch * desc.kv_heads * desc.m * desc.d_k, factor);
    p.v = fill(desc.v_type, 3, desc.batch * desc.kv_heads * desc.m * desc.d_v, 1);
    p.out = calloc((size_t)(desc.batch * desc.heads * desc.n * desc.d_v), sizeof *p.out);
    p.lse = calloc((size_t)(desc.batch * desc.heads * desc.n), sizeof *p.lse);
    assert_true(p.out && p.lse);
    solve(&p, (fault){0});
    return p;
}

static void free_problem(problem *p)
{
    free(p->q);
    free(p->k);
    free(p->v);
    free(p->out);
    free(p->lse);
}

/* ---- handing a problem out over the ranks ---------------------------------------------------------- */

typedef struct share {
    lsp_run runs[512];
    int64_t count;
} share;

static void add_run(share *s, lsp_run run)
{
    assert_true(s->count < 512);
    if (run.count > 0) s->runs[s->count++] = run;
}

/* The runs' rows of a whole tensor, as elements of a type. */
static void *pack(const share *s, const double *whole, lsp_dtype type, int64_t heads, int64_t n, int64_t d)
{
    char *array = calloc((size_t)(heads * n * 4 * d), sizeof(double));
    int64_t slot = 0;
    assert_non_null(array);
    for (int64_t r = 0; r < s->count; slot += s->runs[r++].count) {
        int64_t first = (s->runs[r].batch * heads + s->runs[r].head) * n + s->runs[r].begin;
        lsp_convert_store(type, whole + first * d, s->runs[r].count * d, array, slot * d);
    }
    return array;
}

/* Query rows of the part in blocks of 5 dealt round, keys contiguous. */
static void deal(const problem *p, share *queries, share *keys)
{
    const lsp_attention_desc *d = &p->desc;
    int64_t end = d->row_end > 0 ? d->row_end : d->n, step = d->n > 200 ? 50 : 5, turn = 0;
    queries->count = keys->count = 0;
    for (int64_t b = 0; b < d->batch; b++) {
        for (int64_t h = 0; h < d->heads; h++)
            for (int64_t i = d->row_begin; i < end; i += step)
                if (turn++ % ranks == rank)
                    add_run(queries, (lsp_run){b, h, i, i + step < end ? step : end - i});
        for (int64_t h = 0; h < d->kv_heads; h++) {
            int64_t first = d->m * rank / ranks, stop = d->m * (rank + 1) / ranks;
            if (p->hide_key >= first && p->hide_key < stop) {
                add_run(keys, (lsp_run){b, h, first, p->hide_key - first});
                first = p->hide_key + 1;
            }
            add_run(keys, (lsp_run){b, h, first, stop - first});
        }
    }
    if (p->double_row >= 0 && rank == ranks - 1) add_run(queries, (lsp_run){0, 0, p->double_row, 1});
    if (p->outside_on_last && rank == ranks - 1) add_run(keys, (lsp_run){0, 0, d->m - 1, 2});
}

#endif
