/* W as an operator: life, W X, the norm. SPDX-License-Identifier: BSD-3-Clause */
#include "method/operator.h"
#include "method/sights.h"

#include "base/checked.h"
#include "base/clock.h"
#include "base/memory.h"

#include <math.h>
#include <string.h>

enum { TURN_COLUMNS = 256, TURN_GRAIN = 16, REDUCED_AT_ONCE = 512 };

static const lsp_attention_desc *desc_of(const lsp_operator *op)
{
    return &op->plan->problem.desc;
}

static size_t element_size(const lsp_operator *op)
{
    return lsp_dtype_size(desc_of(op)->compute);
}

/* ---- life -------------------------------------------------------------------------------------- */

static lsp_status check_desc(lsp_context *ctx, const lsp_attention_desc *desc)
{
    if (desc->batch != 1 || desc->heads != 1 || desc->kv_heads != 1)
        return lsp_context_fail(
            ctx, LSP_ERR_USAGE,
            "an operator is one head's matrix: batch (%lld), heads (%lld) and kv_heads (%lld) "
            "must be 1; make one for each head",
            (long long)desc->batch, (long long)desc->heads, (long long)desc->kv_heads);
    if (desc->method != LSP_METHOD_EXACT && desc->method != LSP_METHOD_BLOCK)
        return lsp_context_fail(ctx, LSP_ERR_USAGE,
                                "W as an operator is that of method exact or block, not of %s: set "
                                "attention.method",
                                lsp_method_name(desc->method));
    if (desc->compute != LSP_F32 && desc->compute != LSP_F64)
        return lsp_context_fail(ctx, LSP_ERR_USAGE,
                                "W as an operator computes in f32 or f64, not in %s: set compute.dtype",
                                lsp_dtype_name(desc->compute));
    if (desc->d_v < 0)
        return lsp_context_fail(ctx, LSP_ERR_USAGE,
                                "d_v, the columns of a turn, is %lld: it must be 0 or more",
                                (long long)desc->d_v);
    return LSP_OK;
}

/* The rows that see each own key: neither end goes back from one key to the next, as sights do not. */
static void look_from_keys(lsp_operator *op)
{
    const lsp_attention *plan = op->plan;
    const lsp_attention_desc *d = desc_of(op);
    const lsp_mask *mask = &plan->problem.mask;
    int64_t first = plan->key_rows > 0 ? plan->key_runs[0].begin : 0, begin = d->row_begin,
            end = d->row_begin;
    for (int64_t i = 0; i < plan->key_rows; i++) {
        int64_t key = first + i;
        while (begin < d->row_end && lsp_mask_sight(mask, 0, begin).end <= key) begin++;
        while (end < d->row_end && lsp_mask_sight(mask, 0, end).begin <= key) end++;
        /* The distance |p - key| of a row is |row - position|: rows that see a key have one shift. */
        int64_t shift = begin < end ? lsp_mask_sight(mask, 0, begin).position - begin : 0;
        op->sight[i] = (lsp_sight){begin, lsp_max(begin, end), key - shift};
    }
}

/* As many columns as the kernels run at full speed, unless fewer allow higher key tiles: narrower turns must have
 * the same ones. */
int64_t lsp_operator_columns(const lsp_attention_desc *d)
{
    const lsp_kernel *kernel = lsp_kernel_get(LSP_ISA_PORTABLE, d->compute);
    int64_t tile_keys = kernel->shape(d->d_k, 1).tile_keys;
    for (int64_t width = TURN_COLUMNS; width >= TURN_COLUMNS / 4; width -= TURN_GRAIN)
        if (kernel->shape(d->d_k, width).tile_keys == tile_keys) return width;
    return TURN_COLUMNS;
}

static lsp_status make_plan(lsp_operator *op, const lsp_attention_desc *desc)
{
    lsp_attention_desc d = *desc;
    d.d_v = desc->d_v > 0 ? desc->d_v : lsp_operator_columns(desc);
    d.v_type = desc->compute;
    d.head_groups = 1;
    bool masked = d.mask != LSP_MASK_NONE || d.documents;
    if (d.partition == LSP_PARTITION_CYCLIC || (d.partition == LSP_PARTITION_AUTO && masked))
        d.partition = LSP_PARTITION_BALANCED;
    lsp_status status = lsp_attention_create(op->ctx, &d, &op->plan);
    if (status != LSP_OK) return status;
    const lsp_attention *plan = op->plan;
    size_t element = element_size(op);
    op->rows = lsp_memory_alloc(plan->query_rows * (d.d_k + 2), element);
    op->keys = lsp_memory_alloc(plan->key_rows * d.d_k, element);
    op->lse = lsp_memory_alloc(plan->query_rows, element);
    op->sight = lsp_memory_alloc(plan->key_rows, sizeof *op->sight);
    op->squares = lsp_memory_zalloc(plan->key_rows, element);
    op->square_sums = lsp_memory_zalloc(plan->key_rows, sizeof *op->square_sums);
    bool ok = op->rows && op->keys && op->lse && op->sight && op->squares && op->square_sums;
    if (ok) look_from_keys(op);
    status = ok ? LSP_OK
                : lsp_context_fail(op->ctx, LSP_ERR_LIMIT, "not enough memory for the rows of an operator");
    return lsp_context_agree(op->ctx, status);
}

lsp_status lsp_operator_create(lsp_context *ctx, const lsp_attention_desc *desc, lsp_operator **out)
{
    *out = NULL;
    lsp_operator *op = lsp_memory_zalloc(1, sizeof *op);
    lsp_status status = op ? check_desc(ctx, desc)
                           : lsp_context_fail(ctx, LSP_ERR_LIMIT, "not enough memory for an operator");
    status = lsp_context_agree(ctx, status);
    if (op) op->ctx = ctx;
    if (status == LSP_OK) status = make_plan(op, desc);
    if (status == LSP_OK)
        *out = op;
    else
        lsp_operator_destroy(&op);
    return status;
}

lsp_status lsp_operator_destroy(lsp_operator **out)
{
    lsp_operator *op = out ? *out : NULL;
    if (!op) return LSP_OK;
    lsp_mirror_destroy(&op->mirror);
    lsp_attention_destroy(&op->narrow);
    lsp_attention_destroy(&op->plan);
    lsp_memory_free(op->rows);
    lsp_memory_free(op->keys);
    lsp_memory_free(op->lse);
    lsp_memory_free(op->sight);
    lsp_memory_free(op->squares);
    lsp_memory_free(op->square_sums);
    lsp_memory_free(op);
    *out = NULL;
    return LSP_OK;
}

lsp_status lsp_operator_bind(lsp_operator *op, const void *q, const void *k)
{
    const lsp_attention *plan = op->plan;
    const lsp_attention_desc *d = desc_of(op);
    size_t row = (size_t)(d->d_k + 2) * element_size(op), q_row = (size_t)d->d_k * lsp_dtype_size(d->q_type);
    uint64_t mode = lsp_fpmode_enter();
    for (int64_t i = 0; i < plan->query_rows; i++)
        plan->kernel->pack_queries(d->d_k, (const char *)q + (size_t)i * q_row, d->q_type, 1,
                                   d->scale * LSP_LOG2_E, (char *)op->rows + (size_t)i * row);
    plan->kernel->pack_queries(d->d_k, k, d->k_type, plan->key_rows, 1, op->keys);
    lsp_fpmode_leave(mode);
    op->q = q;
    op->k = k;
    op->bound = true;
    op->rows_known = op->norm_known = false;
    return lsp_context_agree(op->ctx, LSP_OK);
}

/* ---- columns ----------------------------------------------------------------------------------- */

typedef struct columns {
    void *values;
    int64_t first, stride; /* column at which to start, elements of a row */
} columns;

static void copy_columns(columns to, columns from, int64_t rows, int64_t count, size_t element)
{
    for (int64_t i = 0; i < rows; i++)
        memcpy((char *)to.values + (size_t)(i * to.stride + to.first) * element,
               (const char *)from.values + (size_t)(i * from.stride + from.first) * element,
               (size_t)count * element);
}

static lsp_status no_room_for_turn(lsp_operator *op, int64_t width)
{
    return lsp_context_fail(op->ctx, LSP_ERR_LIMIT, "not enough memory for a turn of %lld columns",
                            (long long)width);
}

static lsp_status check_call(lsp_operator *op, int64_t count)
{
    if (!op->bound)
        return lsp_context_fail(op->ctx, LSP_ERR_USAGE,
                                "the operator has no operands: call lsp_operator_bind first");
    int64_t pair[2] = {count, -count};
    lsp_status status = lsp_context_max_i64(op->ctx, pair, 2);
    if (status != LSP_OK) return status;
    if (pair[0] != -pair[1])
        return lsp_context_fail(op->ctx, LSP_ERR_USAGE, "the ranks were given different numbers of columns");
    return count >= 1
               ? LSP_OK
               : lsp_context_fail(op->ctx, LSP_ERR_USAGE,
                                  "the number of columns is %lld: it must be 1 or more", (long long)count);
}

/* ---- W X --------------------------------------------------------------------------------------- */

/* What the plan found out about its rows, as the mirror wants it. */
static void keep_rows(lsp_operator *op, const lsp_attention *plan)
{
    int64_t d_k = desc_of(op)->d_k, stride = d_k + 2;
    for (int64_t i = 0; i < plan->query_rows; i++) {
        if (desc_of(op)->compute == LSP_F64) {
            double max = ((const double *)plan->max)[i], sum = ((const double *)plan->sum)[i];
            double *row = (double *)op->rows + i * stride + d_k;
            row[0] = max == -INFINITY ? 0 : max;
            row[1] = sum == 0 ? 0 : 1 / sum;
        } else {
            float max = ((const float *)plan->max)[i], sum = ((const float *)plan->sum)[i];
            float *row = (float *)op->rows + i * stride + d_k;
            row[0] = max == -INFINITY ? 0 : max;
            row[1] = sum == 0 ? 0 : 1 / sum;
        }
    }
    op->rows_known = true;
}

/* Collective. A plan for turns of `width` columns or, where its key tiles would be others, more. */
static lsp_status plan_for(lsp_operator *op, int64_t width, lsp_attention **plan)
{
    *plan = op->plan;
    const lsp_attention_desc *d = desc_of(op);
    if (width >= d->d_v || op->plan->kernel->shape(d->d_k, width).tile_keys != op->plan->shape.tile_keys)
        return LSP_OK;
    lsp_status status = LSP_OK;
    if (!op->narrow || op->narrow->problem.desc.d_v != width) {
        lsp_attention_desc desc = *d;
        desc.d_v = width;
        desc.isa = op->plan->kernel->isa;
        lsp_attention_destroy(&op->narrow);
        status = lsp_attention_create(op->ctx, &desc, &op->narrow);
    }
    if (status == LSP_OK) *plan = op->narrow;
    return status;
}

static lsp_status apply_turn(lsp_operator *op, lsp_attention *plan, const void *x, void *y)
{
    lsp_attention_stats stats;
    lsp_status status =
        lsp_attention_execute(plan, op->q, op->k, x, y, op->rows_known ? NULL : op->lse, &stats);
    if (status != LSP_OK) return status;
    if (!op->rows_known) keep_rows(op, plan);
    op->stats.empty_rows = stats.empty_rows;
    op->stats.seconds_gather_exposed += stats.seconds_gather_exposed;
    op->stats.bytes_received += stats.bytes_received;
    op->stats.flops_apply += plan->estimate.flops;
    return LSP_OK;
}

/* Turns whose columns are not the caller's rows: copied in and out; columns that are missing are zero. x and y may
 * be NULL. */
static lsp_status apply_turns(lsp_operator *op, lsp_attention *plan, const void *x, int64_t count, void *y)
{
    int64_t turn = plan->problem.desc.d_v;
    size_t element = element_size(op);
    void *x_turn = lsp_memory_zalloc(plan->key_rows * turn, element);
    void *y_turn = lsp_memory_alloc(plan->query_rows * turn, element);
    lsp_status status = x_turn && y_turn ? LSP_OK : no_room_for_turn(op, turn);
    status = lsp_context_agree(op->ctx, status);
    for (int64_t c = 0; status == LSP_OK && c < count; c += turn) {
        int64_t width = lsp_min(turn, count - c);
        if (width < turn) memset(x_turn, 0, (size_t)(plan->key_rows * turn) * element);
        if (x)
            copy_columns((columns){x_turn, 0, turn}, (columns){(void *)x, c, count}, plan->key_rows, width,
                         element);
        status = apply_turn(op, plan, x_turn, y_turn);
        if (status == LSP_OK && y)
            copy_columns((columns){y, c, count}, (columns){y_turn, 0, turn}, plan->query_rows, width,
                         element);
    }
    lsp_memory_free(x_turn);
    lsp_memory_free(y_turn);
    return status;
}

/* Columns of a turn when `count` are asked for: turns of nearly the same width. */
static int64_t turn_width(const lsp_operator *op, int64_t count)
{
    int64_t turns = lsp_ceil_div(count, desc_of(op)->d_v);
    if (turns == 1) return count;
    return lsp_min(desc_of(op)->d_v, lsp_round_up(lsp_ceil_div(count, turns), TURN_GRAIN));
}

lsp_status lsp_operator_apply(lsp_operator *op, const void *x, int64_t count, void *y)
{
    double begin = lsp_clock();
    lsp_attention *plan = NULL;
    lsp_status status = lsp_context_agree(op->ctx, check_call(op, count));
    if (status == LSP_OK) status = plan_for(op, turn_width(op, count), &plan);
    if (status == LSP_OK)
        status =
            count == plan->problem.desc.d_v ? apply_turn(op, plan, x, y) : apply_turns(op, plan, x, count, y);
    op->stats.applied++;
    op->stats.seconds_apply += lsp_clock() - begin;
    return status;
}

/* ---- W^T Y ------------------------------------------------------------------------------------- */

/* Sums over keys in the order of absolute key tiles, each by the rank that owns it: the same for any number of ranks. */
static lsp_status sum_squares(lsp_operator *op)
{
    const lsp_attention *plan = op->plan;
    const lsp_partition *p = &plan->partition;
    int64_t own = lsp_partition_owned_tile(p, 0, plan->group_rank);
    int64_t own_end = lsp_partition_owned_tile(p, 0, plan->group_rank + 1), key = 0;
    lsp_status status = LSP_OK;
    op->norm_square = 0;
    for (int64_t first = 0; status == LSP_OK && first < p->unit_tiles; first += REDUCED_AT_ONCE) {
        double sums[REDUCED_AT_ONCE] = {0};
        int64_t end = lsp_min(first + REDUCED_AT_ONCE, p->unit_tiles);
        for (int64_t t = lsp_max(first, own); t < lsp_min(end, own_end); t++) {
            int64_t next = key + lsp_partition_tile(p, t).end - lsp_partition_tile(p, t).begin;
            for (; key < next; key++) sums[t - first] += op->square_sums[key];
        }
        status = lsp_context_sum_f64(op->ctx, sums, (int)(end - first));
        for (int64_t t = first; t < end; t++) op->norm_square += sums[t - first];
    }
    op->norm_known = status == LSP_OK;
    return status;
}

static lsp_status transposed_turn(lsp_operator *op, const void *y, int64_t width, void *x)
{
    lsp_status status = LSP_OK;
    if (!op->norm_known) memset(op->square_sums, 0, (size_t)op->plan->key_rows * sizeof *op->square_sums);
    if (!op->mirror || op->mirror->columns != width) {
        lsp_mirror_destroy(&op->mirror);
        status = lsp_mirror_create(op, width, &op->mirror);
    }
    if (status == LSP_OK) status = lsp_mirror_run(op->mirror, y, x);
    if (status == LSP_OK && !op->norm_known) status = sum_squares(op);
    if (status != LSP_OK) return status;
    double pairs = op->plan->estimate.pairs;
    op->stats.flops_transposed += 2 * (double)(desc_of(op)->d_k + width) * pairs;
    op->stats.seconds_gather_exposed += lsp_gather_seconds_waited(op->mirror->gather);
    op->stats.bytes_received += lsp_gather_bytes_received(op->mirror->gather);
    return LSP_OK;
}

static lsp_status transposed_turns(lsp_operator *op, const void *y, int64_t count, void *x)
{
    const lsp_attention *plan = op->plan;
    int64_t turn = turn_width(op, count);
    size_t element = element_size(op);
    void *y_turn = lsp_memory_alloc(plan->query_rows * turn, element);
    void *x_turn = lsp_memory_alloc(plan->key_rows * turn, element);
    lsp_status status = x_turn && y_turn ? LSP_OK : no_room_for_turn(op, turn);
    status = lsp_context_agree(op->ctx, status);
    for (int64_t c = 0; status == LSP_OK && c < count; c += turn) {
        int64_t width = lsp_min(turn, count - c);
        copy_columns((columns){y_turn, 0, width}, (columns){(void *)y, c, count}, plan->query_rows, width,
                     element);
        status = transposed_turn(op, y_turn, width, x_turn);
        if (status == LSP_OK)
            copy_columns((columns){x, c, count}, (columns){x_turn, 0, width}, plan->key_rows, width, element);
    }
    lsp_memory_free(y_turn);
    lsp_memory_free(x_turn);
    return status;
}

/* Collective. The rows' maxima and sums, which come out of any W X. */
static lsp_status find_rows(lsp_operator *op)
{
    lsp_attention *plan;
    lsp_status status = plan_for(op, 1, &plan);
    return status == LSP_OK ? apply_turns(op, plan, NULL, 1, NULL) : status;
}

lsp_status lsp_operator_apply_transposed(lsp_operator *op, const void *y, int64_t count, void *x)
{
    double begin = lsp_clock();
    lsp_status status = lsp_context_agree(op->ctx, check_call(op, count));
    if (status != LSP_OK) return status;
    if (!op->rows_known) status = find_rows(op);
    if (status == LSP_OK)
        status =
            count <= desc_of(op)->d_v ? transposed_turn(op, y, count, x) : transposed_turns(op, y, count, x);
    op->stats.applied_transposed++;
    op->stats.seconds_transposed += lsp_clock() - begin;
    return status;
}

lsp_status lsp_operator_norm(lsp_operator *op, double *square)
{
    lsp_status status = LSP_OK;
    if (!op->norm_known) {
        void *y = lsp_memory_zalloc(op->plan->query_rows, element_size(op));
        void *x = lsp_memory_alloc(op->plan->key_rows, element_size(op));
        status =
            x && y ? LSP_OK : lsp_context_fail(op->ctx, LSP_ERR_LIMIT, "not enough memory for one column");
        status = lsp_context_agree(op->ctx, status);
        if (status == LSP_OK) status = lsp_operator_apply_transposed(op, y, 1, x);
        lsp_memory_free(x);
        lsp_memory_free(y);
    }
    if (status == LSP_OK) *square = op->norm_square;
    return status;
}

lsp_status lsp_operator_lse(lsp_operator *op, void *lse)
{
    lsp_status status = lsp_context_agree(op->ctx, check_call(op, 1));
    if (status == LSP_OK && !op->rows_known) status = find_rows(op);
    if (status == LSP_OK) memcpy(lse, op->lse, (size_t)op->plan->query_rows * element_size(op));
    return status;
}

/* ---- questions --------------------------------------------------------------------------------- */

lsp_status lsp_operator_runs(const lsp_operator *op, lsp_operand operand, const lsp_run **runs,
                             int64_t *run_count, int64_t *rows)
{
    return lsp_attention_runs(op->plan, operand, runs, run_count, rows);
}

lsp_operator_stats lsp_operator_get_stats(const lsp_operator *op)
{
    return op->stats;
}

lsp_estimate lsp_operator_get_estimate(const lsp_operator *op)
{
    return op->plan->estimate;
}

lsp_isa lsp_operator_get_isa(const lsp_operator *op)
{
    return op->plan->kernel->isa;
}
