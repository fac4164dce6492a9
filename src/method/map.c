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
    int64_t rows = plan->query_rows;
    fill(type, plan->max, 0, rows, -INFINITY);
    fill(type, plan->sum, 0, rows, 0);
    fill(type, map->recent.max, 0, rows, -INFINITY);
    fill(type, map->recent.sum, 0, rows, 0);
    memset(map->sums, 0, (size_t)(rows * LSP_MAP_FIGURES) * sizeof *map->sums);
    memset(map->mass, 0, (size_t)(plan->matrix_count * s->keys) * sizeof *map->mass);
    memset(map->begun, 0, (size_t)(plan->matrix_count * s->pixel_rows) * sizeof *map->begun);
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
        lsp_key_tile tile = lsp_walk_tile(chunk, plan, t, place.first);
        tile.next_v = tile.next_k; /* of no width: or the tile after would not be asked for */
        plan->kernel->attend(&narrow, &rule, &tile, &rows, chunk->room->scratch);
        if (chunk->main_thread) lsp_gather_progress(plan->gather);
    }
}

/* Maximum and sum become what the second pass subtracts and multiplies with, the weight at most 1 and above 1 / 4; a row
 * whose scores are not finite, or that has no keys, weighs nothing. */
static void settle_row(double *base, double *weight)
{
    int bits = 0;
    if (!(isfinite(*base) && isfinite(*weight) && *weight > 0)) {
        *base = *weight = 0;
        return;
    }
    (void)frexp(*weight, &bits);
    bits = (bits - 1) & ~1;             /* even, so that base stays an even integer */
    if (fabs(*base) > 0x1p20) bits = 0; /* f32 has none left there */
    *base += bits;
    *weight = 1 / ldexp(*weight, -bits);
}

static void settle_rows(lsp_dtype type, void *max, void *sum, int64_t row, int64_t end)
{
    for (; row < end; row++) {
        if (type == LSP_F64) {
            settle_row((double *)max + row, (double *)sum + row);
        } else {
            float *base = (float *)max + row, *weight = (float *)sum + row;
            double wide_base = (double)*base, wide_weight = (double)*weight;
            settle_row(&wide_base, &wide_weight);
            *base = (float)wide_base;
            *weight = (float)wide_weight;
        }
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
        settle_rows(type, plan->max, plan->sum, row, row + count);
        lsp_fpmode_leave(mode);
    }
    return empty;
}

/* ---- second pass: the weights -------------------------------------------------------------------- */

/* A line of the picture is emptied when it is first wanted, as it then is at hand. */
static void begin_line(lsp_map_state *map, int64_t line)
{
    int64_t pixels = map->layout.shape.pixel_keys;
    if (map->begun[line]) return;
    map->begun[line] = true;
    memset(map->pixels + line * pixels, 0, (size_t)pixels * sizeof *map->pixels);
    memset(map->peaks + line * pixels, 0, (size_t)pixels * sizeof *map->peaks);
}

/* Adds the line at hand to the picture, and empties it. */
static void put_line(const lsp_attention *plan, lsp_map_room *room, int64_t matrix)
{
    lsp_map_state *map = plan->own;
    const lsp_map_shape *s = &map->layout.shape;
    if (room->line < 0) return;
    int64_t line = matrix * s->pixel_rows + room->line, count = room->count;
    const int64_t *sums = room->sums;
    const double *own = room->peaks;
    int64_t *pixels = map->pixels + line * s->pixel_keys + room->first;
    double *peaks = map->peaks + line * s->pixel_keys + room->first;
    omp_lock_t *lock = (omp_lock_t *)map->locks + matrix;
    omp_set_lock(lock);
    begin_line(map, line);
    for (int64_t i = 0; i < count; i++) pixels[i] += sums[i];
    for (int64_t i = 0; i < count; i++) peaks[i] = own[i] > peaks[i] ? own[i] : peaks[i];
    omp_unset_lock(lock);
    memset(room->sums, 0, (size_t)count * sizeof *sums);
    memset(room->peaks, 0, (size_t)count * sizeof *own);
    room->line = -1;
}

static void put_mass(const lsp_attention *plan, lsp_map_room *room, int64_t matrix,
                     const lsp_tile_place *place)
{
    lsp_map_state *map = plan->own;
    int64_t *to = map->mass + matrix * map->layout.shape.keys - plan->problem.desc.key_begin + place->begin;
    const int64_t *mass = room->mass + (place->begin - place->first);
    int64_t count = place->end - place->begin;
    omp_lock_t *lock = (omp_lock_t *)map->locks + matrix;
    omp_set_lock(lock);
    for (int64_t j = 0; j < count; j++) to[j] += mass[j];
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

/* A tile of a chunk's matrix. */
typedef struct tile_visit {
    const pass *pass;
    const lsp_walk_chunk *chunk;
    lsp_map_room *room;
    lsp_key_tile tile;
    lsp_tile_place place;
    lsp_score_rule rule;
    int64_t first, count; /* the pixels of a line that it meets */
} tile_visit;

/* Where a grain's pixels are summed up. A line of one grain is nobody else's: in the picture itself. Others first get all
 * their grains here, and go to the picture as a whole. */
static lsp_look_pixels open_line(const tile_visit *visit, int64_t line)
{
    const lsp_attention *plan = visit->pass->plan;
    lsp_map_state *map = visit->pass->map;
    const lsp_map_layout *layout = &map->layout;
    lsp_map_room *room = visit->room;
    int64_t matrix = visit->chunk->matrix - plan->matrices, width = layout->shape.keys_per_pixel;
    lsp_look_pixels to = {.mass = room->mass,
                          .width = width,
                          .first_left = width - (visit->place.begin - plan->problem.desc.key_begin) % width};
    if (layout->shape.rows_per_pixel == layout->grain) {
        int64_t in_all = matrix * layout->shape.pixel_rows + line;
        begin_line(map, in_all);
        to.sums = map->pixels + in_all * layout->shape.pixel_keys + visit->first;
        to.peaks = map->peaks + in_all * layout->shape.pixel_keys + visit->first;
        return to;
    }
    if (room->line != line) put_line(plan, room, matrix);
    room->line = line, room->first = visit->first, room->count = visit->count;
    to.sums = room->sums;
    to.peaks = room->peaks;
    return to;
}

/* Sums of a grain to its pixels; row counts in the part. */
static void pool_grain(const tile_visit *visit, int64_t grain, int64_t row)
{
    const lsp_attention *plan = visit->pass->plan;
    const lsp_map_layout *layout = &visit->pass->map->layout;
    const lsp_tile_place *place = &visit->place;
    size_t columns = (size_t)(grain * plan->shape.tile_keys) * lsp_dtype_size(result_type(plan));
    lsp_look_columns of = {(char *)visit->room->columns.sum + columns,
                           (char *)visit->room->columns.most + columns};
    lsp_look_pixels to = open_line(visit, row / layout->shape.rows_per_pixel);
    plan->kernel->pool(&of, place->begin - place->first, place->end - place->first, layout->unit, &to);
}

/* Some grains, from row r of the chunk on, which is row `row` of the whole. */
static void look_grains(const tile_visit *visit, int64_t r, int64_t row, int64_t rows)
{
    const pass *p = visit->pass;
    const lsp_walk_chunk *chunk = visit->chunk;
    const lsp_attention *plan = p->plan;
    const lsp_sight *sight = chunk->room->sight + r;
    int64_t matrix = chunk->matrix - plan->matrices, local = chunk->row + r, grain = p->map->layout.grain,
            in_part = row - plan->problem.desc.row_begin;
    const char *q =
        (const char *)chunk->room->q + (size_t)(r * plan->shape.k_depth) * (size_t)plan->kernel->packed_bytes;
    lsp_look_rows look = {.rows = rows,
                          .grain = grain,
                          .q = q,
                          .norm = chunk->room->norm + r,
                          .sight = sight,
                          .base = at(plan, plan->max, local),
                          .weight = at(plan, plan->sum, local),
                          .first_key = visit->room->first_key + r,
                          .number = row,
                          .sums = p->map->sums + local * LSP_MAP_FIGURES};
    plan->kernel->look(&plan->shape, &visit->rule, &visit->tile, &look, &visit->room->columns,
                       &visit->room->links[matrix], chunk->room->scratch);
    for (int64_t g = 0; g < rows; g += grain) {
        int64_t last = lsp_min(rows, g + grain) - 1;
        if (sight[g].begin < visit->place.end && sight[last].end > visit->place.begin)
            pool_grain(visit, g / grain, in_part + g);
    }
}

/* Rows [begin, end) of the chunk over a tile, `together` at a time. */
static void look_tile(const tile_visit *visit, int64_t begin, int64_t end, int64_t together)
{
    const lsp_attention *plan = visit->pass->plan;
    const lsp_walk_chunk *chunk = visit->chunk;
    const lsp_range *ranges = plan->partition.ranges + plan->partition.range_first[plan->group_rank];
    const lsp_sight *sight = chunk->room->sight;
    const char *next = visit->tile.next_k;
    int64_t first = chunk->row - chunk->matrix->first, range = 0, start = 0, asked = 0;
    int64_t bytes = next ? plan->shape.tile_keys * plan->shape.k_depth * plan->kernel->packed_bytes : 0;
    for (int64_t r = begin, rows; r < end; r += rows) {
        int64_t row = lsp_attention_global_row(plan, first + r, &range, &start);
        rows = lsp_min(lsp_min(together, end - r), ranges[range].end - row);
        /* A share of the next tile, while this one is looked at. */
        for (; asked * (end - begin) < bytes * (r + rows - begin); asked += 64)
            __builtin_prefetch(next + asked, 0, 2);
        if (sight[r].begin < visit->place.end && sight[r + rows - 1].end > visit->place.begin)
            look_grains(visit, r, row, rows);
    }
}

/* Rows of a chunk over all of its tiles. */
static void look_rows(tile_visit *visit, int64_t begin, int64_t end, int64_t together)
{
    const lsp_walk_chunk *chunk = visit->chunk;
    const lsp_attention *plan = visit->pass->plan;
    int64_t width = visit->pass->map->layout.shape.keys_per_pixel, low = plan->problem.desc.key_begin,
            matrix = chunk->matrix - plan->matrices;
    const lsp_sight *sight = chunk->room->sight;
    for (int64_t t = chunk->tile_begin; t < chunk->tile_end; t++) {
        lsp_tile_place place = lsp_partition_tile(&plan->partition, t);
        if (sight[begin].begin >= place.end || sight[end - 1].end <= place.begin) continue;
        visit->place = place;
        visit->tile = lsp_walk_tile(chunk, plan, t, place.first);
        visit->first = (place.begin - low) / width;
        visit->count = (place.end - low - 1) / width + 1 - visit->first;
        look_tile(visit, begin, end, together);
        put_line(plan, visit->room, matrix);
        put_mass(plan, visit->room, matrix, &place);
        if (chunk->main_thread) lsp_gather_progress(plan->gather);
    }
}

/* As many grains together as make whole groups of rows for the kernel; as many rows go through all tiles as have lines of
 * pixels that stay in the second cache. */
static void look_chunk(void *user, const lsp_walk_chunk *chunk)
{
    enum { STRETCH_ROWS = 256 };
    const pass *p = user;
    const lsp_attention *plan = p->plan;
    const lsp_map_layout *layout = &p->map->layout;
    lsp_map_room *room = &p->map->rooms[omp_get_thread_num()];
    int64_t begin = chunk->row - chunk->matrix->first,
            together = lsp_map_grains(plan->kernel, layout) * layout->grain,
            stretch = lsp_round_up(STRETCH_ROWS, together);
    tile_visit visit = {.pass = p,
                        .chunk = chunk,
                        .room = room,
                        .rule = lsp_attention_rule(&plan->problem.desc, chunk->matrix->head)};
    lsp_walk_pack_queries(chunk, plan, p->arrays->q);
    find_first_keys(plan, chunk->matrix->batch, begin, chunk->rows, room->first_key);
    for (int64_t r = 0; r < chunk->rows; r += stretch)
        look_rows(&visit, r, lsp_min(chunk->rows, r + stretch), together);
}

/* ---- figures ------------------------------------------------------------------------------------- */

/* A weight is 2^(s - base) unit weight: its logarithm is known without taking one. */
static void finish_rows(const pass *p)
{
    const double ln2 = 0.69314718055994530942;
    const lsp_attention *plan = p->plan;
    bool wide = result_type(plan) == LSP_F64;
    const double unit = plan->kernel->sum_unit;
#pragma omp parallel for schedule(static) num_threads(plan->ctx->layout.threads)
    for (int64_t row = 0; row < plan->query_rows; row++) {
        double *sums = p->map->sums + row * LSP_MAP_FIGURES;
        double weight = wide ? ((double *)plan->sum)[row] : (double)((float *)plan->sum)[row];
        sums[LSP_MAP_ENTROPY] = fmax(0, -ln2 * (sums[LSP_MAP_ENTROPY] + log2(weight * unit)));
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
    for (int64_t line = 0; line < plan->matrix_count * p.map->layout.shape.pixel_rows; line++)
        begin_line(p.map, line);
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
