/* What lowrank costs: the operator of one head, and the decomposition beside it. SPDX-License-Identifier: BSD-3-Clause */
#include "base/checked.h"
#include "base/memory.h"
#include "linalg/full_svd.h"
#include "method/krylov.h"
#include "method/lowrank.h"
#include "method/operator.h"
#include "method/svd.h"

/* pdgesvd's time by flops of the kernels: 31 s at n = m = 2048 on two cores of 75 GFLOP/s each (f64). */
#define FULL_FLOPS 540.0

enum { STAGES = 4, STAGE_BYTES = 2 << 20 }; /* of W^T Y */
enum { TURN_GRAIN = 16 };                   /* columns that turns are filled up to, as in operator.c */

/* What one head's decomposition takes. */
typedef struct cost {
    int64_t n, m, rows, keys; /* of W; the most of any rank */
    int64_t most, rank, turns, width;
    lsp_svd_options options;
} cost;

static lsp_status describe(const lsp_partition *p, cost *out, lsp_error *error)
{
    const lsp_attention_desc *d = &p->problem->desc;
    cost c = {.n = d->row_end - d->row_begin, .m = d->key_end - d->key_begin};
    for (int r = 0; r < p->group_ranks; r++) {
        c.rows = lsp_max(c.rows, p->rows[r]);
        c.keys = lsp_max(c.keys, p->key_cuts[r + 1] - p->key_cuts[r]);
    }
    c.options = lsp_lowrank_options(d);
    c.most = lsp_min(c.n, c.m);
    if (c.options.rank > 0) c.most = lsp_min(c.options.rank, c.most);
    lsp_status status =
        d->svd == LSP_SVD_FULL ? LSP_OK : lsp_krylov_limit(c.n, c.m, &c.options, &c.most, error);
    c.rank = d->svd == LSP_SVD_FULL ? c.most : lsp_krylov_first_rank(&c.options, c.most);
    c.width = lsp_krylov_columns(c.n, c.m, c.rank, &c.options);
    c.turns = lsp_ceil_div(c.width, lsp_min(c.width, 256));
    *out = c;
    return status;
}

/* Forming W takes the keys and stripes of rows besides. */
static lsp_status full_bytes(const cost *c, const lsp_attention_desc *d, int ranks, double *bytes,
                             lsp_error *error)
{
    lsp_full_svd_size size;
    lsp_status status = lsp_full_svd_measure(c->n, c->m, ranks, true, &size, error);
    if (status != LSP_OK) return status;
    int64_t stripe = lsp_svd_full_stripe(c->rows, c->m);
    *bytes = (double)size.bytes +
             8 * ((double)c->m * (double)d->d_k + (double)stripe * (3 * (double)c->m + (double)d->d_k) +
                  (double)c->rank * (double)(c->rows + 2 * c->keys));
    return LSP_OK;
}

/* Besides its plan an operator has its rows and keys packed, columns of a turn, and the stages of W^T Y. */
static double operator_bytes(const cost *c, const lsp_attention_desc *d, const lsp_estimate *op)
{
    double element = (double)lsp_dtype_size(d->compute), rows = (double)c->rows, keys = (double)c->keys;
    double own = rows * (double)(d->d_k + 3) + keys * (double)(d->d_k + 1);
    return own * element + keys * (double)(sizeof(lsp_sight) + sizeof(double)) + (double)op->footprint.out +
           (double)op->footprint.v + keys * (double)c->width * element / (double)c->turns +
           (double)STAGES * STAGE_BYTES;
}

/* Values, what is projected, the output of a head in double; V_r^T V and a Gram matrix; U and V. */
static double output_bytes(const cost *c, const lsp_attention_desc *d)
{
    double d_v = (double)d->d_v, rank = (double)c->rank, both = (double)(c->rows + c->keys);
    return 8 * (d_v * (both + (double)c->keys) + d_v * (rank + 2 * d_v) + rank * both);
}

static void add_bytes(lsp_footprint *f, const lsp_estimate *op, double work)
{
    f->panels = op->footprint.panels;
    f->packed = op->footprint.packed;
    f->work = op->footprint.work + (int64_t)work;
    f->total = f->q + f->k + f->v + f->out + f->lse + f->panels + f->packed + f->work;
}

/* Columns that a product with `width` columns has: in several turns they are filled up (see lsp_operator_apply). */
static int64_t turn_columns(const lsp_attention_desc *d, int64_t width, int64_t *turns)
{
    int64_t most = lsp_operator_columns(d), turn = width;
    if (width > most)
        turn = lsp_min(most, lsp_round_up(lsp_ceil_div(width, lsp_ceil_div(width, most)), TURN_GRAIN));
    *turns = lsp_ceil_div(width, turn);
    return turn;
}

/* What all products of a head take: flops for each pair of a row and a key, bytes of a key in W X and of a row in W^T Y,
 * columns of all of them; and the columns of the basis. */
typedef struct products {
    double pair, key, row, columns;
    int64_t basis;
} products;

static void add_apply(const lsp_attention_desc *d, int64_t width, products *p)
{
    int64_t turns, turn = turn_columns(d, width, &turns);
    double k_row = (double)(d->d_k * (int64_t)lsp_dtype_size(d->k_type));
    p->pair += 2 * (double)(turns * (d->d_k + turn));
    p->key += (double)turns * (k_row + (double)(turn * (int64_t)lsp_dtype_size(d->compute)));
    p->columns += (double)width;
}

static void add_transposed(const lsp_attention_desc *d, int64_t width, products *p)
{
    int64_t turns;
    (void)turn_columns(d, width, &turns);
    p->pair += 2 * (double)(turns * d->d_k + width);
    p->row += (double)((turns * (d->d_k + 2) + width) * (int64_t)lsp_dtype_size(d->compute));
    p->columns += (double)width;
}

/* As lsp_krylov_grow does them, when no direction is lost on the way. */
static products count_products(const cost *c, const lsp_attention_desc *d)
{
    products p = {.basis = 0};
    int64_t width = c->width, most = lsp_min(c->n, c->m);
    add_apply(d, width, &p);
    for (int64_t block = 0; block <= c->options.steps; block++) {
        if (block > 0) width = lsp_min(width, most - p.basis);
        if (width <= 0) break;
        add_transposed(d, width, &p);
        add_apply(d, width, &p);
        p.basis += width;
    }
    return p;
}

/* As if nothing were masked: W X brings K and columns of X, W^T Y rows of Q with two numbers each and columns of Y. */
static void add_traffic(const cost *c, const lsp_partition *p, lsp_estimate *e)
{
    const lsp_attention_desc *d = &p->problem->desc;
    double heads = (double)(d->batch * d->heads);
    products all = count_products(c, d);
    e->bytes_received = e->bytes_received_max = 0;
    if (d->svd == LSP_SVD_FULL) { /* W is dealt, in double, and every rank has all keys */
        all.key = 8 * (double)d->d_k;
        all.row = 8 * (double)c->m / p->group_ranks;
    }
    for (int r = 0; r < p->group_ranks; r++) {
        double bytes = heads * (all.key * (double)(c->m - (p->key_cuts[r + 1] - p->key_cuts[r])) +
                                all.row * (double)(c->n - p->rows[r]));
        e->bytes_received += bytes;
        if (bytes > e->bytes_received_max) e->bytes_received_max = bytes;
    }
}

/* Products, and dense algebra with the basis: QR of its blocks and of W times it, projections, vectors; 22 cubes for the
 * decomposition with vectors of what is left (dgesdd). */
static void add_work(const cost *c, const lsp_attention_desc *d, lsp_estimate *e)
{
    double heads = (double)(d->batch * d->heads), n = (double)c->n, m = (double)c->m;
    if (d->svd == LSP_SVD_FULL) {
        e->work = heads * FULL_FLOPS * n * m * (double)lsp_min(c->n, c->m);
        return;
    }
    products all = count_products(c, d);
    double basis = (double)all.basis;
    e->columns = c->width;
    e->products = all.pair * e->pairs;
    e->dense = heads * 8 * (n + m) * basis * basis;
    e->alone = heads * 22 * basis * basis * basis;
    e->converted = heads * (n + m) * all.columns / 2;
    e->work = e->products + e->dense;
}

lsp_status lsp_lowrank_estimate(const lsp_partition *p, int ranks_per_node, int threads, lsp_estimate *e,
                                lsp_error *error)
{
    const lsp_attention_desc *d = &p->problem->desc;
    char text[LSP_ERROR_TEXT] = "";
    lsp_attention_desc head = lsp_lowrank_operator(d, 0, 0, p->kind);
    lsp_estimate op;
    cost c;
    lsp_status status = describe(p, &c, error);
    if (status != LSP_OK) return status;
    head.d_v = lsp_operator_columns(d);
    status = lsp_attention_estimate(&head, p->ranks, ranks_per_node, threads, &op, text, sizeof text);
    if (status != LSP_OK) return lsp_error_set(error, status, "%s", text);
    double decomposing = 0;
    if (d->svd == LSP_SVD_FULL)
        status = full_bytes(&c, d, p->ranks, &decomposing, error);
    else
        decomposing = lsp_krylov_bytes(c.n, c.m, c.rows, c.keys, c.rank, &c.options, d->compute, threads);
    if (status != LSP_OK) return status;
    double after = output_bytes(&c, d), work = operator_bytes(&c, d, &op);
    work += decomposing > after ? decomposing : after;
    if (d->keep_values)
        work +=
            (double)(d->batch * d->heads) * (double)(c.keys * d->d_v) * (double)lsp_dtype_size(d->compute);
    add_bytes(&e->footprint, &op, work);
    add_traffic(&c, p, e);
    add_work(&c, d, e);
    e->gather = op.gather;
    e->panels = op.panels;
    e->panel_keys = op.panel_keys;
    return LSP_OK;
}
