/* W^T Y: own keys stay, the rows of Q and Y come by in stages, in the order of rows.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "base/checked.h"
#include "base/memory.h"
#include "method/operator.h"
#include "method/sights.h"

#include <omp.h>
#include <string.h>

enum { STAGE_BYTES = 2 << 20 }; /* at most, packed: beside one that comes and one that is computed */

static const lsp_attention_desc *desc_of(const lsp_mirror *m)
{
    return &m->op->plan->problem.desc;
}

static size_t element_size(const lsp_mirror *m)
{
    return lsp_dtype_size(desc_of(m)->compute);
}

/* ---- stages and panels ------------------------------------------------------------------------- */

/* Stage s has the part's rows among [s * stage_rows, (s + 1) * stage_rows). */
static lsp_range stage_rows_of(const lsp_mirror *m, int64_t stage)
{
    const lsp_attention_desc *d = desc_of(m);
    return (lsp_range){lsp_max(d->row_begin, stage * m->stage_rows),
                       lsp_min(d->row_end, (stage + 1) * m->stage_rows)};
}

static lsp_status list_panels(lsp_mirror *m)
{
    const lsp_attention *plan = m->op->plan;
    const lsp_partition *p = &plan->partition;
    const lsp_attention_desc *d = desc_of(m);
    int64_t most = (d->row_end - d->row_begin) / m->stage_rows + 2 + 2 * (int64_t)p->group_ranks;
    m->panels = lsp_memory_alloc(most, sizeof *m->panels);
    m->panel_stage = lsp_memory_alloc(most, sizeof *m->panel_stage);
    m->owned_first = lsp_memory_alloc((int64_t)p->group_ranks + 1, sizeof *m->owned_first);
    if (!m->panels || !m->panel_stage || !m->owned_first)
        return lsp_context_fail(m->op->ctx, LSP_ERR_LIMIT, "not enough memory for a list of panels of rows");
    int64_t row = d->row_begin;
    for (int r = 0; r < p->group_ranks; r++) {
        int64_t end = row + p->rows[r];
        m->owned_first[r] = row - d->row_begin;
        while (row < end) {
            int64_t stage = row / m->stage_rows, next = lsp_min(end, (stage + 1) * m->stage_rows);
            m->panel_stage[m->panel_count] = stage;
            m->panels[m->panel_count++] = (lsp_panel_spec){row - d->row_begin, next - row, r};
            row = next;
        }
    }
    m->owned_first[p->group_ranks] = row - d->row_begin;
    return LSP_OK;
}

/* Whether a rank has a key that a row of the panel's stage may see: a stage comes whole or not at all. */
static bool panel_needed(const void *user, int64_t panel, int rank)
{
    const lsp_mirror *m = user;
    const lsp_attention *plan = m->op->plan;
    const lsp_partition *p = &plan->partition;
    int64_t begin = lsp_partition_owned_tile(p, plan->group, rank);
    int64_t end = lsp_partition_owned_tile(p, plan->group, rank + 1);
    if (begin == end) return false;
    lsp_range rows = stage_rows_of(m, m->panel_stage[panel]);
    return lsp_mask_sight(&plan->problem.mask, 0, rows.begin).begin < lsp_partition_tile(p, end - 1).end &&
           lsp_mask_sight(&plan->problem.mask, 0, rows.end - 1).end > lsp_partition_tile(p, begin).begin;
}

/* ---- life -------------------------------------------------------------------------------------- */

static lsp_status allocate(lsp_mirror *m)
{
    const lsp_attention *plan = m->op->plan;
    const lsp_tile_shape *shape = &m->shape;
    size_t element = element_size(m);
    int threads = plan->ctx->layout.threads;
    bool folds = desc_of(m)->compute == LSP_F32 && desc_of(m)->n > LSP_FOLD_TILES * shape->tile_keys;
    m->queries = lsp_memory_alloc(m->stage_rows * shape->d_k, element);
    m->base = lsp_memory_alloc(m->stage_rows, element);
    m->weight = lsp_memory_alloc(m->stage_rows, element);
    m->y = lsp_memory_alloc(m->stage_rows * shape->d_v, element);
    m->packed_q = lsp_memory_alloc(m->stage_rows * shape->k_depth, element);
    m->packed_y = lsp_memory_alloc(m->stage_rows * shape->v_stride, element);
    m->y_max = lsp_memory_alloc(m->stage_tiles, sizeof *m->y_max);
    m->recent = folds ? lsp_memory_alloc(plan->key_rows * shape->d_v, element) : NULL;
    m->scratch = lsp_memory_zalloc(threads, sizeof *m->scratch);
    m->chunk_rows = lsp_attention_share_rows(plan->key_rows, plan->key_rows, threads);
    bool ok = m->queries && m->base && m->weight && m->y && m->packed_q && m->packed_y && m->y_max &&
              (m->recent || !folds) && m->scratch;
    for (int t = 0; ok && t < threads; t++) {
        m->scratch[t] = lsp_memory_alloc((int64_t)plan->kernel->scratch_bytes(shape), 1);
        ok = m->scratch[t] != NULL;
    }
    return ok ? LSP_OK
              : lsp_context_fail(m->op->ctx, LSP_ERR_LIMIT, "not enough memory for the work space of W^T Y");
}

lsp_status lsp_mirror_create(lsp_operator *op, int64_t columns, lsp_mirror **out)
{
    *out = NULL;
    const lsp_attention *plan = op->plan;
    lsp_mirror *m = lsp_memory_zalloc(1, sizeof *m);
    lsp_status status = LSP_OK;
    if (m) {
        m->op = op;
        m->columns = columns;
        m->shape = plan->kernel->shape(desc_of(m)->d_k, columns);
        int64_t tile_bytes =
            m->shape.tile_keys * (m->shape.k_depth + m->shape.v_stride) * (int64_t)element_size(m);
        m->stage_tiles = lsp_max(1, STAGE_BYTES / tile_bytes);
        m->stage_rows = m->stage_tiles * m->shape.tile_keys;
        status = list_panels(m);
        if (status == LSP_OK) status = allocate(m);
    } else {
        status = lsp_context_fail(op->ctx, LSP_ERR_LIMIT, "not enough memory for W^T Y");
    }
    status = lsp_context_agree(op->ctx, status);
    if (status == LSP_OK) {
        lsp_gather_desc desc = {.mode = plan->partition.gather,
                                .panels = m->panels,
                                .panel_count = m->panel_count,
                                .owned_first = m->owned_first,
                                .k_row_bytes = (m->shape.d_k + 2) * (int64_t)element_size(m),
                                .v_row_bytes = columns * (int64_t)element_size(m),
                                .needed = panel_needed,
                                .needed_user = m};
        status = lsp_gather_create(op->ctx, plan->group, &desc, &m->gather);
    }
    if (status == LSP_OK)
        *out = m;
    else
        lsp_mirror_destroy(&m);
    return status;
}

void lsp_mirror_destroy(lsp_mirror **mirror)
{
    lsp_mirror *m = mirror ? *mirror : NULL;
    if (!m) return;
    lsp_gather_destroy(&m->gather);
    for (int t = 0; m->scratch && t < m->op->ctx->layout.threads; t++) lsp_memory_free(m->scratch[t]);
    void *const owned[] = {m->panels, m->panel_stage, m->owned_first, m->queries, m->base,   m->weight,
                           m->y,      m->packed_q,    m->packed_y,    m->y_max,   m->recent, m->scratch};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) lsp_memory_free(owned[i]);
    lsp_memory_free(m);
    *mirror = NULL;
}

/* ---- one stage --------------------------------------------------------------------------------- */

/* Puts a panel's rows at their places in the stage. */
static void take_panel(lsp_mirror *m, const lsp_panel *panel)
{
    const lsp_panel_spec *spec = &m->panels[panel->index];
    size_t element = element_size(m), d_k = (size_t)m->shape.d_k * element,
           y_row = (size_t)m->shape.d_v * element;
    int64_t stage_first = m->panel_stage[panel->index] * m->stage_rows;
    size_t at = (size_t)(desc_of(m)->row_begin + spec->first - stage_first);
    const char *row = panel->k;
    for (size_t i = at; i < at + (size_t)spec->count; i++, row += d_k + 2 * element) {
        memcpy((char *)m->queries + i * d_k, row, d_k);
        memcpy((char *)m->base + i * element, row + d_k, element);
        memcpy((char *)m->weight + i * element, row + d_k + element, element);
    }
    memcpy((char *)m->y + at * y_row, panel->v, (size_t)spec->count * y_row);
}

/* Absent rows of the stage's first and last tile: no weight, nothing to subtract. */
static void clear_absent(lsp_mirror *m, int64_t stage)
{
    lsp_range rows = stage_rows_of(m, stage);
    size_t element = element_size(m), begin = (size_t)(rows.begin - stage * m->stage_rows);
    size_t end = (size_t)(rows.end - stage * m->stage_rows), all = (size_t)m->stage_rows;
    char *const arrays[] = {m->base, m->weight};
    for (int i = 0; i < 2; i++) {
        memset(arrays[i], 0, begin * element);
        memset(arrays[i] + end * element, 0, (all - end) * element);
    }
}

static void pack_tile(lsp_mirror *m, int64_t stage, int64_t t)
{
    const lsp_tile_shape *shape = &m->shape;
    const lsp_kernel *kernel = m->op->plan->kernel;
    lsp_dtype type = desc_of(m)->compute;
    lsp_range rows = stage_rows_of(m, stage);
    int64_t first = t * shape->tile_keys, stage_first = stage * m->stage_rows;
    int64_t begin = lsp_max(first, rows.begin - stage_first);
    int64_t count = lsp_min(first + shape->tile_keys, rows.end - stage_first) - begin;
    if (count <= 0) return;
    size_t element = element_size(m), row = (size_t)begin, packed_row = (size_t)first;
    (void)kernel->pack_k(shape, (char *)m->queries + row * (size_t)shape->d_k * element, type, begin - first,
                         count, (char *)m->packed_q + packed_row * (size_t)shape->k_depth * element);
    m->y_max[t] =
        kernel->pack_v(shape, (char *)m->y + row * (size_t)shape->d_v * element, type, begin - first, count,
                       (char *)m->packed_y + packed_row * (size_t)shape->v_stride * element);
}

/* total += recent; recent = 0. */
static void fold(lsp_dtype type, int64_t count, void *total, void *recent)
{
    if (type == LSP_F64)
        for (int64_t i = 0; i < count; i++) ((double *)total)[i] += ((double *)recent)[i];
    else
        for (int64_t i = 0; i < count; i++) ((float *)total)[i] += ((float *)recent)[i];
    memset(recent, 0, (size_t)count * lsp_dtype_size(type));
}

static void keep_squares(lsp_operator *op, int64_t begin, int64_t rows)
{
    bool wide = op->plan->problem.desc.compute == LSP_F64;
    for (int64_t i = begin; i < begin + rows; i++) {
        double square = wide ? ((double *)op->squares)[i] : (double)((float *)op->squares)[i];
        if (!op->norm_known) op->square_sums[i] += square;
    }
    size_t element = wide ? sizeof(double) : sizeof(float);
    memset((char *)op->squares + (size_t)begin * element, 0, (size_t)rows * element);
}

/* Own keys [begin, begin + rows) against the tiles of a stage. */
static void run_chunk(lsp_mirror *m, int64_t stage, int64_t begin, void *x, void *scratch, bool main_thread)
{
    lsp_operator *op = m->op;
    const lsp_attention_desc *d = desc_of(m);
    const lsp_tile_shape *shape = &m->shape;
    size_t element = element_size(m), at = (size_t)begin;
    int64_t rows = lsp_min(m->chunk_rows, op->plan->key_rows - begin);
    const lsp_sight *sight = op->sight + begin;
    lsp_range present = stage_rows_of(m, stage);
    if (sight[0].begin >= present.end || sight[rows - 1].end <= present.begin) return;
    char *total = (char *)x + at * (size_t)shape->d_v * element;
    char *recent = m->recent ? (char *)m->recent + at * (size_t)shape->d_v * element : total;
    lsp_key_rows keys = {rows, (char *)op->keys + at * (size_t)d->d_k * element, sight, recent,
                         (char *)op->squares + at * element};
    lsp_score_rule rule = lsp_attention_rule(d, 0);
    for (int64_t t = 0; t < m->stage_tiles; t++) {
        size_t row = (size_t)(t * shape->tile_keys);
        int64_t first = stage * m->stage_rows + t * shape->tile_keys;
        /* Neither end of a sight goes back: the chunk's ends tell whether any key is seen from the tile. */
        if (sight[0].begin >= first + shape->tile_keys || sight[rows - 1].end <= first) continue;
        if (m->recent && first % (LSP_FOLD_TILES * shape->tile_keys) == 0)
            fold(d->compute, rows * shape->d_v, total, recent);
        const char *q = (const char *)m->packed_q + row * (size_t)shape->k_depth * element;
        const char *y = (const char *)m->packed_y + row * (size_t)shape->v_stride * element;
        bool more = t + 1 < m->stage_tiles && first + shape->tile_keys < present.end;
        lsp_row_tile tile = {
            {.k = q,
             .v = y,
             .first = first,
             .v_max = m->y_max[t],
             .next_k = more ? q + shape->tile_keys * shape->k_depth * (int64_t)element : NULL,
             .next_v = more ? y + shape->tile_keys * shape->v_stride * (int64_t)element : NULL},
            (char *)m->base + row * element,
            (char *)m->weight + row * element};
        op->plan->kernel->attend_transposed(shape, &rule, &tile, &keys, scratch);
        if (main_thread) lsp_gather_progress(m->gather);
    }
    keep_squares(op, begin, rows);
}

static void run_stage(lsp_mirror *m, int64_t stage, void *x)
{
    int64_t chunks = lsp_ceil_div(m->op->plan->key_rows, m->chunk_rows);
    clear_absent(m, stage);
#pragma omp parallel num_threads(m->op->ctx->layout.threads)
    {
        uint64_t mode = lsp_fpmode_enter();
        int thread = omp_get_thread_num();
#pragma omp for schedule(dynamic, 1)
        for (int64_t t = 0; t < m->stage_tiles; t++) pack_tile(m, stage, t);
#pragma omp for schedule(dynamic, 1)
        for (int64_t c = 0; c < chunks; c++)
            run_chunk(m, stage, c * m->chunk_rows, x, m->scratch[thread], thread == 0);
        lsp_fpmode_leave(mode);
    }
}

/* ---- a pass ------------------------------------------------------------------------------------ */

lsp_status lsp_mirror_run(lsp_mirror *m, const void *y, void *x)
{
    lsp_operator *op = m->op;
    int64_t numbers = op->plan->key_rows * m->shape.d_v;
    size_t bytes = (size_t)numbers * element_size(m);
    lsp_panel panel;
    lsp_status status = lsp_gather_start(m->gather, op->rows, y);
    memset(x, 0, bytes);
    memset(op->squares, 0, (size_t)op->plan->key_rows * element_size(m));
    if (m->recent) memset(m->recent, 0, bytes);
    while (status == LSP_OK && lsp_gather_next(m->gather, &panel, &status)) {
        int64_t stage = m->panel_stage[panel.index], next = panel.index + 1;
        bool whole = next == m->panel_count || m->panel_stage[next] != stage;
        take_panel(m, &panel);
        lsp_gather_release(m->gather);
        if (whole) run_stage(m, stage, x);
    }
    if (m->recent) fold(desc_of(m)->compute, numbers, x, m->recent);
    if (status == LSP_OK) status = lsp_gather_finish(m->gather);
    return lsp_context_agree(op->ctx, status);
}
