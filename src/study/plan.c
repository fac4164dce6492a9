/* The time of a run, part by part. The constants were measured on one core of a Xeon with AVX-512 at 3 GHz (README, "What a
 * run will take"); what a machine does faster or slower comes in by its rates. SPDX-License-Identifier: BSD-3-Clause */
#include "base/checked.h"

#include <longspan/plan.h>
#include <math.h>

/* Seconds of scalar work. */
#define OPEN_SECONDS      0.008   /* a file with three datasets, by all ranks */
#define CREATE_SECONDS    0.006   /* an output, and syncing it */
#define OTHER_SECONDS     0.018   /* options, planning, two looks at the FMA peak */
#define ADD_SECONDS       1.25e-9 /* an addition that waits for the one before */
#define TERM_SECONDS      0.5e-9  /* a number times a weight added to a row of sums, in double */
#define PAIR_SECONDS      8e-9    /* what else a verified pair takes */
#define CANDIDATE_SECONDS 1e-8    /* of topk: stored, and its share of clearing */
#define KEPT_SECONDS      0.15e-9 /* of topk: a number of a row of V, added in double */
#define HEAD_SECONDS      0.008   /* of a decomposition: reductions, small matrices passed about */
#define NUMBER_SECONDS    1e-9    /* of a block of vectors, converted between types */
#define READ_RATE         1.7e9   /* bytes into memory that was not touched before, checked: of a rank */
#define PACK_RATE         3e9     /* numbers packed by a thread */

/* Shares. */
#define NOT_HIDDEN    0.67 /* of a gather by panels (README, the network on one machine) */
#define MAP_SHARE     1.22 /* two passes over the scores of a map, by their flops */
#define CHOICE_SHARE  1.05 /* topk's first pass, by exact attention without its products with V */
#define COPY_SHARE    0.25 /* of the bandwidth of reading: passing rows on within a node */
#define MIRROR_SHARE  0.97 /* W X and W^T Y by exact attention */
#define SAMPLED_SHARE 1.25 /* W^T Y of few columns, likewise */
#define ALONE_SHARE   0.3  /* of the peak of f64: the small decomposition on one rank */
#define CHECK_SHARE   0.6  /* of the peak of f64: a layer's rows recomputed */
#define DENSE_MOST    0.66 /* of the peak of f64: QR of blocks of very many columns; half of it with so many: */
#define DENSE_NEAR    106 /* where a rank's part of a block stays in its second cache ... */
#define DENSE_FAR     216 /* ... and where it does not */
#define NEAR_BYTES    2.4e6
#define FAR_BYTES     4.7e6

enum { SAMPLED_ROWS = 16, LAYER_BLOCK = 512 };

const char *lsp_plan_limit_name(lsp_plan_limit limit)
{
    static const char *const names[] = {"compute", "memory", "link", "file"};
    return names[limit];
}

/* ---- computing ----------------------------------------------------------------------------------- */

typedef struct model {
    const lsp_plan_run *run;
    const lsp_attention_desc *d;
    const lsp_estimate *e;
    const lsp_plan_rates *r;
    double rows, keys; /* of all query heads together; that there are for one of them */
    double busiest;    /* share of the work that the rank with most of it has */
    bool by_memory;    /* computing waits for memory */
} model;

static model make_model(const lsp_plan_run *run, const lsp_estimate *e, const lsp_plan_rates *r)
{
    const lsp_attention_desc *d = run->desc;
    int64_t row_end = d->row_end > 0 ? d->row_end : d->n, key_end = d->key_end > 0 ? d->key_end : d->m;
    return (model){.run = run,
                   .d = d,
                   .e = e,
                   .r = r,
                   .rows = (double)(d->batch * d->heads) * (double)(row_end - d->row_begin),
                   .keys = (double)(key_end - d->key_begin),
                   .busiest = e->pairs > 0 ? e->pairs_max / e->pairs : 0};
}

static double keys_per_row(const model *m)
{
    return m->rows > 0 ? m->e->pairs / m->rows : 0;
}

/* Numbers of K and V that a rank packs, or reads where it has few rows. */
static double operand_numbers(const model *m)
{
    const lsp_attention_desc *d = m->d;
    int64_t units = lsp_ceil_div(d->batch * d->kv_heads, lsp_max(1, m->e->head_groups));
    double own = m->rows * m->busiest / (double)(d->batch * d->heads);
    double seen = fmin(m->keys, keys_per_row(m) + own);
    return (double)units * seen * (double)(d->d_k + d->d_v);
}

static double attention_seconds(model *m)
{
    double threads = m->run->threads, numbers = operand_numbers(m);
    double kernels = m->e->flops * m->busiest / (threads * m->r->kernel);
    double packing = numbers / (threads * PACK_RATE) * m->r->slowness;
    double bytes = numbers * (double)lsp_dtype_size(m->d->k_type) * m->run->ranks_per_node;
    double memory = m->r->memory > 0 ? bytes / m->r->memory : 0;
    m->by_memory = memory > kernels + packing;
    return m->by_memory ? memory : kernels + packing;
}

double lsp_plan_topk_candidates(double topk, double keys)
{
    const double room = 1.5, growth = 0.5;
    if (keys <= room * topk) return keys;
    return room * topk + growth * topk * log(keys / (room * topk)) / log(1 + growth);
}

/* Exact attention without products with V; then candidates, and rows of V for what is kept. */
static double topk_seconds(const model *m)
{
    const lsp_attention_desc *d = m->d;
    double keys = keys_per_row(m), kept = fmin((double)d->topk, keys);
    double exact = 2 * (double)(d->d_k + d->d_v) / m->r->kernel;
    double pair = CHOICE_SHARE * fmax(exact - 2 * (double)d->d_v / m->r->peak, exact / 4);
    double row =
        lsp_plan_topk_candidates(kept, keys) * CANDIDATE_SECONDS + kept * (double)d->d_v * KEPT_SECONDS;
    return m->busiest * (m->e->pairs * pair + m->rows * row * m->r->slowness) / m->run->threads;
}

/* Share of the peak of f64 at which blocks are made orthonormal. */
static double dense_share(const model *m)
{
    double columns = (double)m->e->columns, rows = (double)lsp_max(m->d->n, m->d->m) / m->run->ranks;
    double far = (8 * rows * columns - NEAR_BYTES) / (FAR_BYTES - NEAR_BYTES);
    double half = DENSE_NEAR + (DENSE_FAR - DENSE_NEAR) * fmin(1, fmax(0, far));
    return DENSE_MOST * columns / (columns + half);
}

/* Products at the kernels' speed; QR and projections in double, the faster the wider the blocks; one small decomposition. */
static double krylov_seconds(const model *m)
{
    double threads = m->run->threads, heads = (double)(m->d->batch * m->d->heads);
    double products = m->e->products * m->busiest / (threads * m->r->kernel * MIRROR_SHARE);
    double dense = m->e->dense / (m->run->ranks * threads * m->r->dense * dense_share(m));
    double converted = m->e->converted / m->run->ranks * NUMBER_SECONDS;
    return products + dense + m->e->alone / (m->r->dense * ALONE_SHARE) +
           (converted + heads * HEAD_SECONDS) * m->r->slowness;
}

static double lowrank_seconds(const model *m)
{
    if (m->d->svd == LSP_SVD_FULL) return m->e->work / (m->run->ranks * m->run->threads * m->r->kernel);
    return krylov_seconds(m);
}

static double compute_seconds(model *m)
{
    if (m->run->kind == LSP_PLAN_MAP)
        return MAP_SHARE * 4 * (double)m->d->d_k * m->e->pairs * m->busiest /
               (m->run->threads * m->r->kernel);
    if (m->d->method == LSP_METHOD_TOPK) return topk_seconds(m);
    if (m->run->kind == LSP_PLAN_SVD || m->d->method == LSP_METHOD_LOWRANK) return lowrank_seconds(m);
    return attention_seconds(m);
}

double lsp_plan_project_flops(const lsp_plan_run *run)
{
    const lsp_attention_desc *a = run->desc;
    double weights = (double)(a->d_k * run->d_model), rows = (double)(a->batch * a->n);
    double keys = run->cross ? (double)(a->batch * a->m) : rows;
    return 2 * weights * (2 * rows * (double)a->heads + 2 * keys * (double)a->kv_heads);
}

/* Ranks have whole blocks of rows. */
static double project_seconds(const model *m)
{
    if (m->run->kind != LSP_PLAN_LAYER) return 0;
    int64_t blocks = lsp_ceil_div(m->d->batch * m->d->n, LAYER_BLOCK);
    double share = (double)lsp_ceil_div(blocks, m->run->ranks) / (double)blocks;
    return lsp_plan_project_flops(m->run) * share / (m->run->threads * m->r->project);
}

/* ---- gathering ----------------------------------------------------------------------------------- */

/* Within a node rows are copied; between nodes what the ranks of a node get comes over its link, in mode node once. */
static double gather_rate(const model *m)
{
    int per_node = m->run->ranks_per_node;
    if (m->run->ranks <= per_node) return m->r->memory * COPY_SHARE / per_node;
    return m->r->link / (m->e->gather == LSP_GATHER_NODE ? 1 : per_node);
}

/* Panels come in global order, so that no more than all bytes at the rate of one rank hides behind computing; the first
 * one and a part of all others are waited for in any case. */
static double exposed_seconds(const model *m, double computing, double *all)
{
    double rate = gather_rate(m), bytes = m->e->bytes_received_max;
    *all = 0;
    if (bytes <= 0 || rate <= 0) return 0;
    bool crosses = m->run->ranks > m->run->ranks_per_node;
    double panels = (double)lsp_max(1, m->e->panels), latency = crosses ? m->r->latency : 0;
    *all = bytes / rate + panels * latency;
    if (m->e->gather == LSP_GATHER_ALL) return *all;
    if (!crosses) return bytes / rate / panels;
    double line = m->e->bytes_received / (m->run->ranks - 1) / rate;
    return bytes / rate / panels + panels * latency + NOT_HIDDEN * bytes / rate + fmax(0, line - computing);
}

/* ---- around it ----------------------------------------------------------------------------------- */

static double reference_seconds(const model *m, double columns)
{
    return 2 * (double)m->d->d_k * ADD_SECONDS + columns * TERM_SECONDS + PAIR_SECONDS;
}

/* Keys of a row by the mask, as if the method left none out. */
static double masked_keys(const model *m)
{
    if (m->d->mask == LSP_MASK_WINDOW)
        return fmin(m->keys, (double)(m->d->window_left + m->d->window_right + 1));
    return m->d->mask == LSP_MASK_CAUSAL ? m->keys / 2 : m->keys;
}

/* Sampled rows recomputed; methods that leave something out are compared with exact attention too, and of topk the k-th
 * score is found. */
static double sample_seconds(const model *m)
{
    double pair = reference_seconds(m, (double)m->d->d_v), own = keys_per_row(m), all = masked_keys(m);
    switch (m->d->method) {
    case LSP_METHOD_EXACT: return own * pair;
    case LSP_METHOD_BLOCK: return (own + all) * pair;
    case LSP_METHOD_TOPK: return 2.5 * all * pair;
    case LSP_METHOD_LOWRANK: return 2 * all * pair;
    }
    return 0;
}

/* Rows of W V, and rows of W by a product with columns of the identity. */
static double svd_check_seconds(const model *m, double rows)
{
    double rank = (double)m->d->rank, heads = (double)(m->d->batch * m->d->heads), ranks = m->run->ranks;
    double product = 2 * (double)(m->d->d_k + SAMPLED_ROWS) * m->e->pairs * m->busiest /
                     (m->run->threads * m->r->kernel) * SAMPLED_SHARE * ceil(rows / SAMPLED_ROWS);
    double difference = rows * m->keys * rank * ADD_SECONDS / ranks;
    double reference = rows * keys_per_row(m) * reference_seconds(m, rank) / (ranks * m->run->threads);
    return product + heads * (difference + reference) * m->r->slowness;
}

/* Each rank projects keys and values of its own rows, in double. */
static double layer_check_seconds(const model *m, double rows)
{
    const lsp_attention_desc *a = m->d;
    double keys = (double)(a->batch * a->m), d_model = (double)m->run->d_model, d = (double)a->d_k;
    double flops = keys * (2 * (double)a->kv_heads * d * d_model +
                           2 * rows / (double)a->batch * (double)a->heads * (d + d_model));
    return flops / (m->run->ranks * m->run->threads * m->r->dense * CHECK_SHARE);
}

static double verify_seconds(const model *m)
{
    double rows = fmin((double)m->run->verify_rows, m->rows), threads = m->run->threads;
    bool whole = m->d->method == LSP_METHOD_EXACT || m->d->method == LSP_METHOD_BLOCK;
    if (rows <= 0) return 0;
    if (m->run->kind == LSP_PLAN_SVD) return svd_check_seconds(m, rows);
    if (m->run->kind == LSP_PLAN_LAYER && whole) return layer_check_seconds(m, rows);
    return ceil(rows / threads) * sample_seconds(m) / m->run->ranks * m->r->slowness;
}

static double file_seconds(double bytes, double rate, int ranks, double slowness)
{
    double memory = bytes / ranks / READ_RATE * slowness;
    return rate > 0 ? fmax(memory, bytes / rate) : memory;
}

/* ---- the whole ----------------------------------------------------------------------------------- */

static lsp_plan_limit find_limit(const lsp_plan_time *t, bool by_memory)
{
    const double *s = t->seconds;
    double of[] = {[LSP_LIMIT_COMPUTE] = s[LSP_PLAN_PROJECT] + s[LSP_PLAN_VERIFY],
                   [LSP_LIMIT_MEMORY] = 0,
                   [LSP_LIMIT_LINK] = s[LSP_PLAN_GATHER],
                   [LSP_LIMIT_FILE] = s[LSP_PLAN_READ] + s[LSP_PLAN_WRITE]};
    of[by_memory ? LSP_LIMIT_MEMORY : LSP_LIMIT_COMPUTE] += s[LSP_PLAN_COMPUTE];
    lsp_plan_limit most = LSP_LIMIT_COMPUTE;
    for (int i = 1; i <= LSP_LIMIT_FILE; i++)
        if (of[i] > of[most]) most = (lsp_plan_limit)i;
    return most;
}

lsp_plan_time lsp_plan_predict(const lsp_plan_run *run, const lsp_estimate *estimate,
                               const lsp_plan_rates *rates)
{
    model m = make_model(run, estimate, rates);
    lsp_plan_time t = {.total = 0};
    double *s = t.seconds, slow = rates->slowness;
    s[LSP_PLAN_READ] = OPEN_SECONDS * slow + file_seconds(run->input_bytes, rates->read, run->ranks, slow);
    s[LSP_PLAN_PROJECT] = project_seconds(&m);
    s[LSP_PLAN_COMPUTE] = compute_seconds(&m);
    s[LSP_PLAN_GATHER] = exposed_seconds(&m, s[LSP_PLAN_COMPUTE], &t.gather);
    s[LSP_PLAN_VERIFY] = verify_seconds(&m);
    if (run->output_bytes > 0) s[LSP_PLAN_WRITE] = CREATE_SECONDS * slow + run->output_bytes / rates->write;
    s[LSP_PLAN_OTHER] = OTHER_SECONDS;
    for (int i = 0; i < LSP_PLAN_PARTS; i++) t.total += s[i];
    t.limit = find_limit(&t, m.by_memory);
    return t;
}
