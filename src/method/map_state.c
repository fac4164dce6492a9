/* What a map keeps: pixels and grains, its memory, the strongest links of all threads.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "base/checked.h"
#include "base/memory.h"
#include "method/map.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { GRAIN_MOST = 64, UNIT_BITS = 40, SUM_BITS = 61 };

/* ---- pixels -------------------------------------------------------------------------------------- */

lsp_map_layout lsp_map_layout_make(const lsp_attention_desc *d, const lsp_map_options *options)
{
    lsp_map_layout layout = {.options = *options, .unit = 1};
    lsp_map_shape *s = &layout.shape;
    s->rows = (d->row_end > 0 ? d->row_end : d->n) - d->row_begin;
    s->keys = (d->key_end > 0 ? d->key_end : d->m) - d->key_begin;
    int64_t height = lsp_ceil_div(s->rows, options->pixels);
    int64_t grains = lsp_ceil_div(height, GRAIN_MOST); /* of a line of pixels */
    layout.grain = lsp_ceil_div(height, grains);
    s->rows_per_pixel = layout.grain * grains;
    s->keys_per_pixel = lsp_ceil_div(s->keys, options->pixels);
    s->pixel_rows = lsp_ceil_div(s->rows, s->rows_per_pixel);
    s->pixel_keys = lsp_ceil_div(s->keys, s->keys_per_pixel);
    /* All weights of a head add up to its rows. */
    int bits = 0;
    while (bits < UNIT_BITS && (double)s->rows * exp2(bits + 1) < exp2(SUM_BITS)) bits++;
    layout.unit = exp2(bits);
    return layout;
}

int64_t lsp_map_grains(const lsp_kernel *kernel, const lsp_map_layout *layout)
{
    int64_t grains = 1;
    while (grains < kernel->row_tile && grains * layout->grain % kernel->row_tile != 0) grains++;
    return grains;
}

/* ---- memory -------------------------------------------------------------------------------------- */

static int64_t pixel_count(const lsp_map_layout *layout)
{
    return layout->shape.pixel_rows * layout->shape.pixel_keys;
}

int64_t lsp_map_row_bytes(const lsp_problem *problem, const lsp_kernel *kernel)
{
    (void)kernel;
    int64_t element = (int64_t)lsp_dtype_size(lsp_dtype_result(problem->desc.compute));
    return (5 + LSP_MAP_FIGURES) * element + LSP_MAP_FIGURES * (int64_t)sizeof(double);
}

int64_t lsp_map_matrix_bytes(const lsp_problem *problem, int threads)
{
    const lsp_map_layout *layout = problem->options;
    int64_t links = layout->options.links * (int64_t)sizeof(lsp_link);
    return layout->shape.keys * (int64_t)sizeof(int64_t) +
           pixel_count(layout) * (int64_t)(sizeof(int64_t) + sizeof(double)) + 2 * links +
           threads * (links + (int64_t)sizeof(lsp_links)) + (int64_t)sizeof(omp_lock_t);
}

static bool make_room(const lsp_attention *plan, const lsp_map_state *map, int thread, lsp_map_room *room)
{
    int64_t keys = plan->shape.tile_keys, links = map->layout.options.links;
    size_t element = lsp_dtype_size(lsp_dtype_result(plan->problem.desc.compute));
    int64_t columns = keys * lsp_map_grains(plan->kernel, &map->layout);
    room->columns =
        (lsp_look_columns){lsp_memory_alloc(columns, element), lsp_memory_alloc(columns, element)};
    room->mass = lsp_memory_zalloc(keys, sizeof *room->mass);
    room->sums = lsp_memory_zalloc(keys + 1, sizeof *room->sums);
    room->peaks = lsp_memory_zalloc(keys + 1, sizeof *room->peaks);
    room->first_key = lsp_memory_alloc(plan->chunk_rows, sizeof *room->first_key);
    room->links = lsp_memory_zalloc(plan->matrix_count, sizeof *room->links);
    room->line = -1;
    for (int64_t m = 0; room->links && map->links && m < plan->matrix_count; m++)
        room->links[m] = (lsp_links){links, 0, map->links + (thread * plan->matrix_count + m) * links};
    return room->columns.sum && room->columns.most && room->mass && room->sums && room->peaks &&
           room->first_key && room->links;
}

static bool allocate(lsp_attention *plan, lsp_map_state *map)
{
    size_t element = lsp_dtype_size(lsp_dtype_result(plan->problem.desc.compute));
    int64_t rows = plan->query_rows, matrices = plan->matrix_count, pixels = pixel_count(&map->layout), links;
    int threads = plan->ctx->layout.threads;
    if (!lsp_checked_mul(matrices * threads, map->layout.options.links, &links)) return false;
    plan->max = lsp_memory_alloc(rows, element);
    plan->sum = lsp_memory_alloc(rows, element);
    map->recent =
        (lsp_row_state){.max = lsp_memory_alloc(rows, element), .sum = lsp_memory_alloc(rows, element)};
    map->lse = lsp_memory_alloc(rows, element);
    map->figures = lsp_memory_alloc(rows * LSP_MAP_FIGURES, element);
    map->sums = lsp_memory_alloc(rows * LSP_MAP_FIGURES, sizeof *map->sums);
    map->mass = lsp_memory_alloc(matrices * map->layout.shape.keys, sizeof *map->mass);
    map->pixels = lsp_memory_alloc(matrices * pixels, sizeof *map->pixels);
    map->peaks = lsp_memory_alloc(matrices * pixels, sizeof *map->peaks);
    map->begun = lsp_memory_alloc(matrices * map->layout.shape.pixel_rows, sizeof *map->begun);
    map->links = lsp_memory_alloc(links, sizeof *map->links);
    map->rooms = lsp_memory_zalloc(threads, sizeof *map->rooms);
    omp_lock_t *locks = lsp_memory_alloc(matrices, sizeof *locks);
    for (int64_t m = 0; locks && m < matrices; m++) omp_init_lock(&locks[m]);
    map->locks = locks;
    bool ok = plan->max && plan->sum && map->recent.max && map->recent.sum && map->lse && map->figures &&
              map->sums && map->mass && map->pixels && map->peaks && map->begun && map->links && map->rooms &&
              locks;
    for (int t = 0; ok && t < threads; t++) ok = make_room(plan, map, t, &map->rooms[t]);
    return ok;
}

lsp_status lsp_map_prepare(lsp_attention *plan)
{
    const lsp_map_layout *layout = plan->problem.options;
    lsp_map_state *map = plan->own = lsp_memory_zalloc(1, sizeof *map);
    lsp_status status = LSP_OK;
    if (map) map->layout = *layout;
    if (!map || !allocate(plan, map))
        status = lsp_context_fail(
            plan->ctx, LSP_ERR_LIMIT,
            "not enough memory for the map of %lld heads, %lld x %lld pixels each: use more ranks, "
            "fewer heads at a time (input.heads), or fewer pixels (map.pixels)",
            (long long)plan->matrix_count, (long long)layout->shape.pixel_rows,
            (long long)layout->shape.pixel_keys);
    return lsp_context_agree(plan->ctx, status);
}

void lsp_map_release(lsp_attention *plan)
{
    lsp_map_state *map = plan->own;
    if (!map) return;
    for (int t = 0; map->rooms && t < plan->ctx->layout.threads; t++) {
        lsp_map_room *room = &map->rooms[t];
        void *const owned[] = {room->columns.sum, room->columns.most, room->mass, room->sums,
                               room->peaks,       room->first_key,    room->links};
        for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) lsp_memory_free(owned[i]);
    }
    omp_lock_t *locks = map->locks;
    for (int64_t m = 0; locks && m < plan->matrix_count; m++) omp_destroy_lock(&locks[m]);
    void *const owned[] = {map->begun, map->recent.max, map->recent.sum, map->lse,   map->figures, map->sums,
                           map->mass,  map->pixels,     map->peaks,      map->links, map->rooms,   locks};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) lsp_memory_free(owned[i]);
    lsp_memory_free(map);
    plan->own = NULL;
}

/* ---- links --------------------------------------------------------------------------------------- */

static int by_strength(const void *a, const void *b)
{
    return links_after(a, b) ? 1 : links_after(b, a) ? -1 : 0;
}

int64_t lsp_map_links_merge(const lsp_link *a, int64_t a_count, const lsp_link *b, int64_t b_count,
                            int64_t most, lsp_link *to)
{
    int64_t i = 0, j = 0, count = 0;
    while (count < most && (i < a_count || j < b_count)) {
        bool first = j == b_count || (i < a_count && links_after(&b[j], &a[i]));
        to[count++] = first ? a[i++] : b[j++];
    }
    return count;
}

int64_t lsp_map_links_of(const lsp_attention *plan, int64_t matrix, lsp_link *links)
{
    const lsp_map_state *map = plan->own;
    lsp_links all = {map->layout.options.links, 0, links};
    for (int t = 0; all.most > 0 && t < plan->ctx->layout.threads; t++) {
        const lsp_links *of = &map->rooms[t].links[matrix];
        for (int64_t i = 0; i < of->count; i++) links_offer(&all, of->items[i]);
    }
    qsort(links, (size_t)all.count, sizeof *links, by_strength);
    return all.count;
}
