/* Maps: a plan for this rank's part, and the sum over ranks. SPDX-License-Identifier: BSD-3-Clause */
#include "study/map.h"

#include "base/checked.h"
#include "base/memory.h"

#include <math.h>
#include <string.h>

enum { PIXELS_MOST = 8192, LINKS_MOST = 1000000, FIGURE_BITS = 61 };

const char *lsp_map_figure_name(lsp_map_figure figure)
{
    static const char *const names[LSP_MAP_FIGURES] = {"entropy", "distance", "self", "first", "near"};
    return (int)figure >= 0 && figure < LSP_MAP_FIGURES ? names[figure] : "unknown";
}

lsp_map_options lsp_map_defaults(void)
{
    return (lsp_map_options){.pixels = 512, .links = 100};
}

static const lsp_attention_desc *desc_of(const lsp_map *map)
{
    return &map->plan->problem.desc;
}

/* ---- life ---------------------------------------------------------------------------------------- */

static lsp_status check(lsp_context *ctx, const lsp_attention_desc *d, const lsp_map_options *o)
{
    if (o->pixels < 1 || o->pixels > PIXELS_MOST)
        return lsp_context_fail(ctx, LSP_ERR_USAGE, "map.pixels is %lld: a picture has 1 to %d",
                                (long long)o->pixels, PIXELS_MOST);
    if (o->links < 0 || o->links > LINKS_MOST)
        return lsp_context_fail(ctx, LSP_ERR_USAGE, "map.links is %lld: it must be between 0 and %d",
                                (long long)o->links, LINKS_MOST);
    if (d->method != LSP_METHOD_EXACT)
        return lsp_context_fail(ctx, LSP_ERR_USAGE,
                                "a map shows the weights of exact attention, not of method %s: set "
                                "attention.method = exact",
                                lsp_method_name(d->method));
    if (d->compute != LSP_F32 && d->compute != LSP_F64)
        return lsp_context_fail(ctx, LSP_ERR_USAGE,
                                "a map is computed in f32 or f64, not in %s: set compute.dtype",
                                lsp_dtype_name(d->compute));
    int64_t end = d->row_end > 0 ? d->row_end : d->n, key_end = d->key_end > 0 ? d->key_end : d->m;
    if (d->n < 1 || d->m < 1 || d->row_begin < 0 || d->row_begin >= end || d->key_begin < 0 ||
        d->key_begin >= key_end)
        return lsp_context_fail(ctx, LSP_ERR_USAGE,
                                "there are no rows or no keys to look at: check shape and part");
    return LSP_OK;
}

static lsp_status check_same(lsp_context *ctx, const lsp_map_options *o)
{
    int64_t pairs[4] = {o->pixels, -o->pixels, o->links, -o->links};
    lsp_status status = lsp_context_max_i64(ctx, pairs, 4);
    if (status != LSP_OK || (pairs[0] == -pairs[1] && pairs[2] == -pairs[3])) return status;
    return lsp_context_fail(ctx, LSP_ERR_USAGE, "the ranks were given different options of the map");
}

/* Which matrix of this rank's plan head i of all batches is; -1: none. */
static int64_t matrix_of(const lsp_map *map, int64_t i)
{
    const lsp_attention *plan = map->plan;
    for (int64_t m = 0; plan->rows > 0 && m < plan->matrix_count; m++)
        if (plan->matrices[m].batch * desc_of(map)->heads + plan->matrices[m].head == i) return m;
    return -1;
}

/* Sums in fixed point give way to the same in double, for which they have the room. */
static double *as_doubles(int64_t *fixed)
{
    _Static_assert(sizeof(int64_t) == sizeof(double), "fixed-point numbers give way to doubles");
    return (double *)(void *)fixed;
}

static bool make_whole(const lsp_map *map, lsp_map_whole *w)
{
    const lsp_map_shape *s = &map->layout.shape;
    const lsp_map_state *state = map->plan->own;
    int64_t pixels = s->pixel_rows * s->pixel_keys;
    bool has = w->matrix >= 0;
    w->sum = has ? as_doubles(state->pixels + w->matrix * pixels) : lsp_memory_alloc(pixels, sizeof *w->sum);
    w->max = has ? state->peaks + w->matrix * pixels : lsp_memory_alloc(pixels, sizeof *w->max);
    w->mass =
        has ? as_doubles(state->mass + w->matrix * s->keys) : lsp_memory_alloc(s->keys, sizeof *w->mass);
    w->pooled = lsp_memory_alloc(LSP_MAP_FIGURES * s->pixel_rows, sizeof *w->pooled);
    w->links = lsp_memory_alloc(map->layout.options.links, sizeof *w->links);
    return w->sum && w->max && w->mass && w->pooled && w->links;
}

static lsp_status make_wholes(lsp_map *map)
{
    const lsp_attention_desc *d = desc_of(map);
    int64_t heads = d->batch * d->heads;
    map->wholes = lsp_memory_zalloc(heads, sizeof *map->wholes);
    bool ok = map->wholes != NULL;
    for (int64_t i = 0; ok && i < heads; i++) {
        map->wholes[i].matrix = matrix_of(map, i);
        ok = make_whole(map, &map->wholes[i]);
    }
    return ok ? LSP_OK
              : lsp_context_fail(
                    map->ctx, LSP_ERR_LIMIT,
                    "not enough memory for the pictures of %lld heads: use fewer heads at a time "
                    "(input.heads), or fewer pixels (map.pixels)",
                    (long long)heads);
}

lsp_status lsp_map_create(lsp_context *ctx, const lsp_attention_desc *desc, const lsp_map_options *options,
                          lsp_map **out)
{
    *out = NULL;
    lsp_status status = lsp_context_agree(ctx, check(ctx, desc, options));
    if (status == LSP_OK) status = lsp_context_agree(ctx, check_same(ctx, options));
    lsp_map *map = status == LSP_OK ? lsp_memory_zalloc(1, sizeof *map) : NULL;
    if (status == LSP_OK && !map)
        status = lsp_context_fail(ctx, LSP_ERR_LIMIT, "not enough memory for a map");
    status = lsp_context_agree(ctx, status);
    if (status == LSP_OK) {
        lsp_attention_desc d = *desc;
        if (d.d_v == 0) d.d_v = d.d_k;
        d.v_type = d.k_type;
        map->ctx = ctx;
        map->layout = lsp_map_layout_make(&d, options);
        lsp_plan_kind kind = {&lsp_map_ops, &map->layout, map->layout.grain};
        status = lsp_attention_create_kind(ctx, &d, &kind, &map->plan);
    }
    if (status == LSP_OK) status = lsp_context_agree(ctx, make_wholes(map));
    *out = map;
    if (status != LSP_OK) lsp_map_destroy(out);
    return status;
}

lsp_status lsp_map_destroy(lsp_map **out)
{
    lsp_map *map = out ? *out : NULL;
    if (!map) return LSP_OK;
    int64_t heads = map->wholes ? desc_of(map)->batch * desc_of(map)->heads : 0;
    for (int64_t i = 0; i < heads; i++) {
        lsp_map_whole *w = &map->wholes[i];
        void *const owned[] = {w->pooled, w->links, w->sum, w->max, w->mass};
        for (size_t a = 0; a < (w->matrix < 0 ? sizeof owned / sizeof *owned : 2); a++)
            lsp_memory_free(owned[a]);
    }
    lsp_memory_free(map->wholes);
    (void)lsp_attention_destroy(&map->plan);
    lsp_memory_free(map);
    *out = NULL;
    return LSP_OK;
}

/* ---- figures of lines of pixels ------------------------------------------------------------------ */

/* What a line's figures are summed up in: multiples of 1 / unit, so that all rows of a head fit in 63 bits. */
static double figure_unit(const lsp_map *map, int figure)
{
    const lsp_map_shape *s = &map->layout.shape;
    const lsp_attention_desc *d = desc_of(map);
    double most = figure == LSP_MAP_DISTANCE  ? (double)d->n + (double)d->m
                  : figure == LSP_MAP_ENTROPY ? 64
                                              : 2;
    int bits = 0;
    frexp(most * (double)s->rows, &bits);
    return exp2(FIGURE_BITS - bits);
}

/* Sums of this rank's rows of a local matrix: [LSP_MAP_FIGURES][pixel_rows], then the rows weighed [pixel_rows] and those
 * that are broken. */
static void add_figures(const lsp_map *map, int64_t matrix, int64_t *sums)
{
    const lsp_attention *plan = map->plan;
    const lsp_map_state *state = plan->own;
    const lsp_map_shape *s = &map->layout.shape;
    double unit[LSP_MAP_FIGURES];
    for (int f = 0; f < LSP_MAP_FIGURES; f++) unit[f] = figure_unit(map, f);
    int64_t range = 0, start = 0, first = plan->matrices[matrix].first;
    bool wide = plan->problem.desc.compute == LSP_F64;
    for (int64_t r = 0; r < plan->rows; r++) {
        int64_t row = lsp_attention_global_row(plan, r, &range, &start);
        int64_t line = (row - plan->problem.desc.row_begin) / s->rows_per_pixel;
        const double *of = state->sums + (first + r) * LSP_MAP_FIGURES;
        double lse = wide ? ((double *)state->lse)[first + r] : (double)((float *)state->lse)[first + r];
        if (isnan(of[0])) {
            sums[(LSP_MAP_FIGURES + 1) * s->pixel_rows] += lse != -INFINITY;
            continue;
        }
        sums[LSP_MAP_FIGURES * s->pixel_rows + line]++;
        for (int f = 0; f < LSP_MAP_FIGURES; f++)
            sums[f * s->pixel_rows + line] += (int64_t)llrint(of[f] * unit[f]);
    }
}

static void take_figures(const lsp_map *map, const int64_t *sums, lsp_map_whole *w)
{
    const lsp_map_shape *s = &map->layout.shape;
    const int64_t *rows = sums + LSP_MAP_FIGURES * s->pixel_rows;
    lsp_map_head *head = &w->head;
    for (int64_t line = 0; line < s->pixel_rows; line++) head->weighed += rows[line];
    head->broken = sums[(LSP_MAP_FIGURES + 1) * s->pixel_rows];
    head->empty = s->rows - head->weighed - head->broken;
    for (int f = 0; f < LSP_MAP_FIGURES; f++) {
        double unit = figure_unit(map, f);
        int64_t total = 0;
        for (int64_t line = 0; line < s->pixel_rows; line++) {
            int64_t sum = sums[f * s->pixel_rows + line];
            total += sum;
            w->pooled[f * s->pixel_rows + line] =
                rows[line] > 0 ? (double)sum / unit / (double)rows[line] : NAN;
        }
        head->pooled[f] = w->pooled + f * s->pixel_rows;
        head->mean[f] = head->weighed > 0 ? (double)total / unit / (double)head->weighed : NAN;
    }
}

static lsp_status sum_figures(lsp_map *map, int64_t matrix, lsp_map_whole *w)
{
    int64_t count = (LSP_MAP_FIGURES + 1) * map->layout.shape.pixel_rows + 1;
    int64_t *sums = lsp_memory_zalloc(count, sizeof *sums);
    lsp_status status =
        sums ? LSP_OK
             : lsp_context_fail(map->ctx, LSP_ERR_LIMIT, "not enough memory for the figures of a head");
    status = lsp_context_agree(map->ctx, status);
    if (status == LSP_OK && matrix >= 0) add_figures(map, matrix, sums);
    if (status == LSP_OK) status = lsp_context_sum_many_i64(map->ctx, sums, count);
    if (status == LSP_OK) take_figures(map, sums, w);
    lsp_memory_free(sums);
    return status;
}

/* ---- links ---------------------------------------------------------------------------------------- */

/* What is sent: how many there are, and the links, sorted. */
typedef struct link_block {
    int64_t count;
    lsp_link items[];
} link_block;

typedef struct link_join {
    int64_t most;
    lsp_link *room; /* [most] */
} link_join;

static void join_links(void *user, void *into, const void *from)
{
    link_join *join = user;
    link_block *a = into;
    const link_block *b = from;
    a->count = lsp_map_links_merge(a->items, a->count, b->items, b->count, join->most, join->room);
    memcpy(a->items, join->room, (size_t)a->count * sizeof *a->items);
}

static lsp_status find_links(lsp_map *map, int64_t matrix, lsp_map_whole *w)
{
    int64_t most = map->layout.options.links;
    int64_t bytes = (int64_t)sizeof(link_block) + most * (int64_t)sizeof(lsp_link);
    link_block *mine = lsp_memory_zalloc(bytes, 1), *other = lsp_memory_zalloc(bytes, 1);
    link_join join = {most, w->links};
    lsp_status status =
        mine && other
            ? LSP_OK
            : lsp_context_fail(map->ctx, LSP_ERR_LIMIT,
                               "not enough memory for %lld links: use fewer (map.links)", (long long)most);
    status = lsp_context_agree(map->ctx, status);
    if (status == LSP_OK && matrix >= 0) mine->count = lsp_map_links_of(map->plan, matrix, mine->items);
    if (status == LSP_OK) status = lsp_context_join(map->ctx, mine, other, bytes, join_links, &join);
    if (status == LSP_OK) {
        memcpy(w->links, mine->items, (size_t)mine->count * sizeof *w->links);
        w->head.links = w->links;
        w->head.link_count = mine->count;
    }
    lsp_memory_free(mine);
    lsp_memory_free(other);
    return status;
}

/* ---- one head over all ranks ---------------------------------------------------------------------- */

/* Fixed-point numbers of this rank to the sum over ranks in double, in their place. */
static lsp_status sum_fixed(lsp_map *map, double *numbers, int64_t count)
{
    lsp_status status = lsp_context_sum_many_i64(map->ctx, (int64_t *)(void *)numbers, count);
    double scale = 1 / map->layout.unit; /* a power of two */
    for (int64_t i = 0; i < count; i++) {
        int64_t sum;
        memcpy(&sum, &numbers[i], sizeof sum);
        numbers[i] = (double)sum * scale;
    }
    return status;
}

static lsp_status sum_head(lsp_map *map, lsp_map_whole *w)
{
    const lsp_map_shape *s = &map->layout.shape;
    int64_t pixels = s->pixel_rows * s->pixel_keys;
    w->head = (lsp_map_head){.sum = w->sum, .max = w->max, .column_mass = w->mass};
    if (w->matrix < 0) {
        memset(w->sum, 0, (size_t)pixels * sizeof *w->sum);
        memset(w->max, 0, (size_t)pixels * sizeof *w->max);
        memset(w->mass, 0, (size_t)s->keys * sizeof *w->mass);
    }
    lsp_status status = sum_fixed(map, w->sum, pixels);
    if (status == LSP_OK) status = sum_fixed(map, w->mass, s->keys);
    if (status == LSP_OK) status = lsp_context_max_many_f64(map->ctx, w->max, pixels);
    status = lsp_context_agree(map->ctx, status);
    if (status == LSP_OK) status = sum_figures(map, w->matrix, w);
    return status == LSP_OK ? find_links(map, w->matrix, w) : status;
}

lsp_status lsp_map_execute(lsp_map *map, const void *q, const void *k, lsp_attention_stats *stats)
{
    const lsp_attention_desc *d = desc_of(map);
    lsp_attention_stats own;
    map->done = false;
    lsp_status status = lsp_attention_execute(map->plan, q, k, NULL, NULL, NULL, stats ? stats : &own);
    for (int64_t i = 0; status == LSP_OK && i < d->batch * d->heads; i++)
        status = sum_head(map, &map->wholes[i]);
    map->done = status == LSP_OK;
    return status;
}

/* ---- questions ------------------------------------------------------------------------------------ */

lsp_status lsp_map_runs(const lsp_map *map, lsp_operand operand, const lsp_run **runs, int64_t *run_count,
                        int64_t *rows)
{
    return lsp_attention_runs(map->plan, operand, runs, run_count, rows);
}

lsp_map_shape lsp_map_get_shape(const lsp_map *map)
{
    return map->layout.shape;
}

lsp_estimate lsp_map_get_estimate(const lsp_map *map)
{
    lsp_estimate estimate = map->plan->estimate;
    estimate.flops = 4 * (double)desc_of(map)->d_k * estimate.pairs;
    estimate.bytes_received *= 2; /* keys come twice */
    estimate.bytes_received_max *= 2;
    return estimate;
}

lsp_isa lsp_map_get_isa(const lsp_map *map)
{
    return map->plan->kernel->isa;
}

void lsp_map_set_progress(lsp_map *map, lsp_progress_fn progress, void *user)
{
    lsp_attention_set_progress(map->plan, progress, user);
}

lsp_status lsp_map_set_pause(lsp_map *map, const lsp_pause *pause)
{
    return lsp_attention_set_pause(map->plan, pause);
}

lsp_status lsp_map_get_head(const lsp_map *map, int64_t batch, int64_t head, lsp_map_head *out)
{
    const lsp_attention_desc *d = desc_of(map);
    if (!map->done || batch < 0 || batch >= d->batch || head < 0 || head >= d->heads) return LSP_ERR_USAGE;
    *out = map->wholes[batch * d->heads + head].head;
    return LSP_OK;
}

lsp_status lsp_map_get_rows(const lsp_map *map, const void **figures, const void **lse)
{
    if (!map->done) return LSP_ERR_USAGE;
    const lsp_map_state *state = map->plan->own;
    *figures = state->figures;
    *lse = state->lse;
    return LSP_OK;
}
