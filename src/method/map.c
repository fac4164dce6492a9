/* What a rank's rows attend to: a pass over the keys for maxima and sums, one for the weights.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "method/map.h"

#include "base/checked.h"
#include "base/clock.h"
#include "method/sights.h"
#include "method/walk.h"

#include <math.h>
#include <omp.h>
#include <string.h>

/* One execution. */
typedef struct pass {
    lsp_attention *plan;
    lsp_map_state *map;
    const lsp_method_arrays *arrays;
} pass;

static lsp_dtype result_type(const lsp_attention *plan)
{
    return lsp_dtype_result(plan->problem.desc.compute);
}

static void *at(const lsp_attention *plan, void *values, int64_t index)
{
    return (char *)values + (size_t)index * lsp_dtype_size(result_type(plan));
}

/* ---- first pass: the rows' maxima and sums ------------------------------------------------------- */

static void fill(lsp_dtype type, void *values, int64_t begin, int64_t end, double value)
{
    if (type == LSP_F64)
        for (int64_t i = begin; i < end; i++) ((double *)values)[i] = value;
    else
        for (int64_t i = begin; i < end; i++) ((float *)values)[i] = (float)value;
}

static void reset(const pass *p)
{
    const lsp_attention *plan = p->plan;
    lsp_map_state *map = p->map;
    const lsp_map_shape *s = &map->layout.shape;
    lsp_dtype type = result_type(plan);
    int64_t rows = plan->query_rows, pixels = s->pixel_rows * s->pixel_keys;
    fill(type, plan->max, 0, rows, -INFINITY);
    fill(type, plan->sum, 0, rows, 0);
    fill(type, map->recent.max, 0, rows, -INFINITY);
    fill(type, map->recent.sum, 0, rows, 0);
    memset(map->sums, 0, (size_t)(rows * LSP_MAP_FIGURES) * sizeof *map->sums);
    memset(map->mass, 0, (size_t)(plan->matrix_count * s->keys) * sizeof *map->mass);
    memset(map->pixels, 0, (size_t)(plan->matrix_count * pixels) * sizeof *map->pixels);
    memset(map->peaks, 0, (size_t)(plan->matrix_count * pixels) * sizeof *map->peaks);
    for (int t = 0; t < plan->ctx->layout.threads; t++)
        for (int64_t m = 0; m < plan->matrix_count; m++) map->rooms[t].links[m].count = 0;
}

static void pack(void *user, const lsp_walk_panel *panel, int64_t tile)
{
    lsp_walk_pack_k(((const pass *)user)->plan, panel, tile);
}

/* As the exact method does it, so that lse has the same bits where tiles have the same height; values have no width. */
static void find_sums(void *user, const lsp_walk_chunk *chunk)
{
    const pass *p = user;
    const lsp_attention *plan = p->plan;
    bool folds = lsp_attention_folds(&plan->problem, plan->shape.tile_keys);
    lsp_tile_shape narrow = plan->shape;
    lsp_row_state total = {NULL, at(plan, plan->max, chunk->row), at(plan, plan->sum, chunk->row)};
    lsp_row_state recent = {NULL, at(plan, p->map->recent.max, chunk->row),
                            at(plan, p->map->recent.sum, chunk->row)};
    lsp_row_state now = folds ? recent : total;
    lsp_score_rule rule = lsp_attention_rule(&plan->problem.desc, chunk->matrix->head);
    narrow.d_v = narrow.v_stride = 0;
    lsp_walk_pack_queries(chunk, plan, p->arrays->q);
    lsp_query_rows rows = {chunk->rows, chunk->room->q, chunk->room->norm, chunk->room->sight, now.max,
                           now.max,     now.sum};
    for (int64_t t = chunk->tile_begin; t < chunk->tile_end; t++) {
        lsp_tile_place place;
        if (!lsp_walk_sees(chunk, plan, t, &place)) continue;
        if (folds && place.first % (LSP_FOLD_TILES * plan->shape.tile_keys) == 0)
            plan->kernel->fold(0, chunk->rows, &recent, &total);
        lsp_key_tile tile = lsp_walk_tile(chunk, plan, t, place.first, false);
        tile.next_v = tile.next_k; /* of no width: or the tile after would not be asked for */
        plan->kernel->attend(&narrow, &rule, &tile, &rows, chunk->room->scratch);
        if (chunk->main_thread) lsp_gather_progress(plan->gather);
    }
}

/* Maximum and sum become what the second pass subtracts and multiplies with; a row whose scores are not finite, or that
 * has no keys, weighs nothing. */
static void settle_row(lsp_dtype type, void *max, void *sum, int64_t row)
{
    if (type == LSP_F64) {
        double *base = (double *)max + row, *weight = (double *)sum + row;
        bool fine = isfinite(*base) && isfinite(*weight) && *weight > 0;
        *base = fine ? *base : 0;
        *weight = fine ? 1 / *weight : 0;
    } else {
        float *base = (float *)max + row, *weight = (float *)sum + row;
        bool fine = isfinite(*base) && isfinite(*weight) && *weight > 0;
        *base = fine ? *base : 0;
        *weight = fine ? 1 / *weight : 0;
    }
}

static int64_t settle(const pass *p)
{
    const lsp_attention *plan = p->plan;
    lsp_dtype type = result_type(plan);
    int64_t rows = plan->query_rows, empty = 0, step = plan->chunk_rows;
    bool folds = lsp_attention_folds(&plan->problem, plan->shape.tile_keys);
#pragma omp parallel for schedule(static) num_threads(plan->ctx->layout.threads) reduction(+ : empty)
    for (int64_t row = 0; row < rows; row += step) {
        int64_t count = lsp_min(step, rows - row);
        uint64_t mode = lsp_fpmode_enter();
        lsp_row_state total = {NULL, at(plan, plan->max, row), at(plan, plan->sum, row)};
        lsp_row_state recent = {NULL, at(plan, p->map->recent.max, row), at(plan, p->map->recent.sum, row)};
        if (folds) plan->kernel->fold(0, count, &recent, &total);
        empty += plan->kernel->finish(0, count, total.max, total.max, total.sum, at(plan, p->map->lse, row));
        for (int64_t r = row; r < row + count; r++) settle_row(type, plan->max, plan->sum, r);
        lsp_fpmode_leave(mode);
    }
    return empty;
}

/* ---- second pass: the weights -------------------------------------------------------------------- */

/* Adds the line at hand to the picture, and empties it. */
static void put_line(const lsp_attention *plan, lsp_map_room *room, int64_t matrix)
{
    lsp_map_state *map = plan->own;
    const lsp_map_shape *s = &map->layout.shape;
    if (room->line < 0) return;
    int64_t first = (matrix * s->pixel_rows + room->line) * s->pixel_keys + room->first;
    omp_lock_t *lock = (omp_lock_t *)map->locks + matrix;
    omp_set_lock(lock);
    for (int64_t i = 0; i < room->count; i++) map->pixels[first + i] += room->sums[i];
    for (int64_t i = 0; i < room->count; i++)
        map->peaks[first + i] =
            room->peaks[i] > map->peaks[first + i] ? room->peaks[i] : map->peaks[first + i];
    omp_unset_lock(lock);
    memset(room->sums, 0, (size_t)room->count * sizeof *room->sums);
    memset(room->peaks, 0, (size_t)room->count * sizeof *room->peaks);
    room->line = -1;
}

static void put_mass(const lsp_attention *plan, lsp_map_room *room, int64_t matrix,
                     const lsp_tile_place *place)
{
    lsp_map_state *map = plan->own;
    int64_t *to = map->mass + matrix * map->layout.shape.keys - plan->problem.desc.key_begin;
    omp_lock_t *lock = (omp_lock_t *)map->locks + matrix;
    omp_set_lock(lock);
    for (int64_t j = place->begin; j < place->end; j++) to[j] += room->mass[j - place->first];
    omp_unset_lock(lock);
    memset(room->mass, 0, (size_t)plan->shape.tile_keys * sizeof *room->mass);
}

/* First keys of the chunk's rows, from local row `begin` of the matrix on. */
static void find_first_keys(const lsp_attention *plan, int64_t batch, int64_t begin, int64_t rows,
                            int64_t *keys)
{
    const lsp_range *ranges = plan->partition.ranges + plan->partition.range_first[plan->group_rank];
    int64_t range = 0, before = 0;
    for (int64_t r = 0; r < rows;) {
        int64_t row = lsp_attention_global_row(plan, begin + r, &range, &before);
        int64_t run = lsp_min(rows - r, ranges[range].end - row);
        lsp_mask_first_keys(&plan->problem.mask, batch, row, run, keys + r);
        r += run;
    }
}

/* One grain of rows, from row r of the chunk on, over one tile. */
static void look_grain(const pass *p, const lsp_walk_chunk *chunk, const lsp_key_tile *tile,
                       const lsp_tile_place *place, const lsp_score_rule *rule, int64_t r, int64_t row,
                       int64_t rows)
{
    const lsp_attention *plan = p->plan;
    const lsp_map_layout *layout = &p->map->layout;
    lsp_map_room *room = &p->map->rooms[omp_get_thread_num()];
    const lsp_attention_desc *d = &plan->problem.desc;
    int64_t matrix = chunk->matrix - plan->matrices, local = chunk->row + r;
    const char *q =
        (const char *)chunk->room->q + (size_t)(r * plan->shape.k_depth) * (size_t)plan->kernel->packed_bytes;
    lsp_look_rows look = {.rows = rows,
                          .q = q,
                          .sight = chunk->room->sight + r,
                          .base = at(plan, plan->max, local),
                          .weight = at(plan, plan->sum, local),
                          .first_key = room->first_key + r,
                          .number = row,
                          .sums = p->map->sums + local * LSP_MAP_FIGURES};
    plan->kernel->look(&plan->shape, rule, tile, &look, &room->columns, &room->links[matrix],
                       chunk->room->scratch);
    int64_t line = (row - d->row_begin) / layout->shape.rows_per_pixel;
    if (room->line != line) put_line(plan, room, matrix);
    int64_t width = layout->shape.keys_per_pixel, from = place->begin - d->key_begin;
    room->line = line;
    room->first = from / width;
    room->count = (place->end - 1 - d->key_begin) / width + 1 - room->first;
    lsp_look_pixels pixels = {room->sums, room->peaks, room->mass, width, width - from % width};
    plan->kernel->pool(&room->columns, place->begin - place->first, place->end - place->first, layout->unit,
                       &pixels);
}

static void look_chunk(void *user, const lsp_walk_chunk *chunk)
{
    const pass *p = user;
    const lsp_attention *plan = p->plan;
    lsp_map_room *room = &p->map->rooms[omp_get_thread_num()];
    int64_t grain = p->map->layout.grain, matrix = chunk->matrix - plan->matrices,
            begin = chunk->row - chunk->matrix->first;
    const lsp_sight *sight = chunk->room->sight;
    lsp_score_rule rule = lsp_attention_rule(&plan->problem.desc, chunk->matrix->head);
    lsp_walk_pack_queries(chunk, plan, p->arrays->q);
    find_first_keys(plan, chunk->matrix->batch, begin, chunk->rows, room->first_key);
    for (int64_t t = chunk->tile_begin; t < chunk->tile_end; t++) {
        lsp_tile_place place;
        if (!lsp_walk_sees(chunk, plan, t, &place)) continue;
        lsp_key_tile tile = lsp_walk_tile(chunk, plan, t, place.first, false);
        int64_t range = 0, start = 0;
        for (int64_t r = 0; r < chunk->rows; r += grain) {
            int64_t rows = lsp_min(grain, chunk->rows - r);
            if (sight[r].begin >= place.end || sight[r + rows - 1].end <= place.begin) continue;
            int64_t row = lsp_attention_global_row(plan, begin + r, &range, &start);
            look_grain(p, chunk, &tile, &place, &rule, r, row, rows);
        }
        put_line(plan, room, matrix);
        put_mass(plan, room, matrix, &place);
        if (chunk->main_thread) lsp_gather_progress(plan->gather);
    }
}

/* ---- figures ------------------------------------------------------------------------------------- */

/* A weight is 2^(s - base) weight: its logarithm is known without taking one. */
static void finish_rows(const pass *p)
{
    const double ln2 = 0.69314718055994530942;
    const lsp_attention *plan = p->plan;
    bool wide = result_type(plan) == LSP_F64;
#pragma omp parallel for schedule(static) num_threads(plan->ctx->layout.threads)
    for (int64_t row = 0; row < plan->query_rows; row++) {
        double *sums = p->map->sums + row * LSP_MAP_FIGURES;
        double weight = wide ? ((double *)plan->sum)[row] : (double)((float *)plan->sum)[row];
        sums[LSP_MAP_ENTROPY] = fmax(0, -ln2 * (sums[LSP_MAP_ENTROPY] + log2(weight)));
        for (int f = 0; f < LSP_MAP_FIGURES; f++) {
            if (!(weight > 0)) sums[f] = NAN;
            if (wide)
                ((double *)p->map->figures)[row * LSP_MAP_FIGURES + f] = sums[f];
            else
                ((float *)p->map->figures)[row * LSP_MAP_FIGURES + f] = (float)sums[f];
        }
    }
}

static lsp_status execute(lsp_attention *plan, const lsp_method_arrays *arrays, lsp_attention_stats *stats)
{
    const double first_share = 0.45;
    double begin = lsp_clock();
    pass p = {plan, plan->own, arrays};
    lsp_walk sums = {.plan = plan,
                     .gather = plan->gather,
                     .user = &p,
                     .pack = pack,
                     .compute = find_sums,
                     .progress_end = first_share};
    lsp_walk weights = {.plan = plan,
                        .gather = plan->gather,
                        .user = &p,
                        .pack = pack,
                        .compute = look_chunk,
                        .progress_begin = first_share,
                        .progress_end = 1};
    int64_t empty_rows = 0;
    size_t met_bytes = (size_t)plan->query_rows * sizeof *plan->met; /* each pass meets all keys */
    reset(&p);
    memset(plan->met, 0, met_bytes);
    /* A gather of keys alone takes no values, but wants an address. */
    lsp_status status = lsp_context_agree(plan->ctx, lsp_walk_run(&sums, arrays->k, arrays->k));
    double waited = lsp_gather_seconds_waited(plan->gather),
           received = lsp_gather_bytes_received(plan->gather);
    if (status == LSP_OK) {
        empty_rows = settle(&p);
        memset(plan->met, 0, met_bytes);
        status = lsp_context_agree(plan->ctx, lsp_walk_run(&weights, arrays->k, arrays->k));
        waited += lsp_gather_seconds_waited(plan->gather);
        received += lsp_gather_bytes_received(plan->gather);
    }
    if (status == LSP_OK) finish_rows(&p);
    double total = lsp_clock() - begin;
    *stats = (lsp_attention_stats){.seconds_total = total,
                                   .seconds_compute = total - waited,
                                   .seconds_gather_exposed = waited,
                                   .bytes_received = received,
                                   .pairs = sums.pairs,
                                   .empty_rows = empty_rows};
    return status;
}

const lsp_method_ops lsp_map_ops = {.name = "map",
                                    .keys_alone = true,
                                    .no_values = true,
                                    .prepare = lsp_map_prepare,
                                    .release = lsp_map_release,
                                    .row_bytes = lsp_map_row_bytes,
                                    .matrix_bytes = lsp_map_matrix_bytes,
                                    .execute = execute};
