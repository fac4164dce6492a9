/* Head groups, query rows, key tiles and panels. SPDX-License-Identifier: BSD-3-Clause */
#include "method/partition.h"

#include "base/checked.h"
#include "base/memory.h"
#include "method/choose.h"

#include <string.h>

enum {
    ROW_QUANTUM = 48,      /* rows of a dealt block at least, when there are enough */
    CYCLIC_TURNS = 16,     /* times, at most, that a rank is dealt two blocks of rows */
    OWN_PANELS = 4,        /* panels a rank sends at least, so that gathering overlaps computing */
    PANEL_BYTES = 4 << 20, /* at most, packed: two in flight and one packed stay near the caches */
    ROW_OVERHEAD = 128     /* what a row costs besides its pairs, in pairs, when work is balanced */
};

/* ---- head groups ------------------------------------------------------------------------------- */

static lsp_status choose_groups(lsp_partition *d, lsp_error *error)
{
    const lsp_attention_desc *desc = &d->problem->desc;
    int asked = desc->head_groups;
    if (asked > 0 && d->ranks % asked != 0)
        return lsp_error_set(error, LSP_ERR_USAGE, "head_groups = %d does not divide the %d ranks", asked,
                             d->ranks);
    d->groups = asked > 0 ? asked : lsp_choose_groups(d->problem, d->ranks);
    d->group_ranks = d->ranks / d->groups;
    return LSP_OK;
}

void lsp_partition_units(const lsp_partition *d, int group, int64_t *begin, int64_t *end)
{
    *begin = d->problem->units * group / d->groups;
    *end = d->problem->units * (group + 1) / d->groups;
}

int64_t lsp_partition_matrices(const lsp_partition *d, int group)
{
    const lsp_problem *p = d->problem;
    int64_t begin, end, matrices = 0;
    lsp_partition_units(d, group, &begin, &end);
    for (int64_t u = begin; u < end; u++) {
        int64_t kv = u % p->desc.kv_heads;
        matrices += p->query_first[kv + 1] - p->query_first[kv];
    }
    return matrices;
}

/* ---- rows -------------------------------------------------------------------------------------- */

/* As an operator settles it, and so that each head's operator cuts its rows alike: where batches differ in their pairs,
 * work is not balanced. */
static lsp_partition_kind settle_whole_heads(const lsp_problem *p)
{
    bool masked = p->desc.mask != LSP_MASK_NONE || p->documents;
    bool balanced =
        p->desc.partition == LSP_PARTITION_AUTO ? masked : p->desc.partition != LSP_PARTITION_CONTIGUOUS;
    bool alike = !p->key_lengths || p->desc.batch == 1;
    return balanced && alike ? LSP_PARTITION_BALANCED : LSP_PARTITION_CONTIGUOUS;
}

static lsp_partition_kind settle_partition(const lsp_problem *p, int group_ranks)
{
    if (p->whole_heads) return settle_whole_heads(p);
    if (p->desc.partition != LSP_PARTITION_AUTO) return p->desc.partition;
    if (group_ranks == 1 || p->mask.block_size > 0) return LSP_PARTITION_CONTIGUOUS;
    if (p->documents || p->desc.mask == LSP_MASK_WINDOW) return LSP_PARTITION_BALANCED;
    return p->desc.mask == LSP_MASK_CAUSAL ? LSP_PARTITION_CYCLIC : LSP_PARTITION_CONTIGUOUS;
}

static double row_work(const lsp_problem *p, int64_t begin, int64_t end)
{
    double pairs =
        p->whole_heads ? lsp_mask_pairs(&p->mask, 0, begin, end) : lsp_problem_pairs(p, begin, end);
    return pairs + (double)ROW_OVERHEAD * (double)(end - begin);
}

/* The row in [begin, end] where the work since begin comes closest to `work` from below. */
static int64_t cut_by_work(const lsp_problem *p, int64_t begin, int64_t end, double work)
{
    /* Steps that double find an upper end first: the cost is that of the rows taken, not of all that are left. */
    int64_t low = begin, high = begin, step = 1;
    while (high < end && row_work(p, begin, high) <= work) {
        low = high;
        high = lsp_min(end, high + step);
        step *= 2;
    }
    if (high == end && row_work(p, begin, end) <= work) return end;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (row_work(p, begin, middle) <= work)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Where rank r of a contiguous partition begins: between blocks when there is one for each rank. */
static int64_t contiguous_cut(const lsp_partition *d, int r)
{
    const lsp_attention_desc *desc = &d->problem->desc;
    int64_t rows = desc->row_end - desc->row_begin, ranks = d->group_ranks,
            block = d->problem->mask.block_size;
    if (block > 0) {
        int64_t first = desc->row_begin / block, blocks = lsp_ceil_div(desc->row_end, block) - first;
        if (blocks >= ranks) {
            int64_t cut = first + blocks / ranks * r + blocks % ranks * r / ranks;
            if (cut > desc->row_end / block) return desc->row_end; /* cut * block may be more than 63 bits */
            return lsp_min(desc->row_end, lsp_max(desc->row_begin, cut * block));
        }
    }
    int64_t grain = d->problem->row_grain, grains = lsp_ceil_div(rows, grain);
    return desc->row_begin + lsp_min(rows, (grains / ranks * r + grains % ranks * r / ranks) * grain);
}

/* The row from which work is cut, moved to the nearest place where rows may be cut. */
static int64_t grain_cut(const lsp_partition *d, int64_t row)
{
    const lsp_attention_desc *desc = &d->problem->desc;
    int64_t grain = d->problem->row_grain, inside = row - desc->row_begin;
    if (row == desc->row_end) return row;
    return lsp_min(desc->row_end, desc->row_begin + (inside + grain / 2) / grain * grain);
}

static void cut_contiguous(lsp_partition *d, bool by_work)
{
    const lsp_attention_desc *desc = &d->problem->desc;
    int64_t at = desc->row_begin;
    double left = by_work ? row_work(d->problem, desc->row_begin, desc->row_end) : 0;
    for (int r = 0; r < d->group_ranks; r++) {
        int64_t end = contiguous_cut(d, r + 1);
        if (by_work && r + 1 < d->group_ranks) {
            end = cut_by_work(d->problem, at, desc->row_end, left / (d->group_ranks - r));
            end = lsp_max(at, grain_cut(d, end));
            left -= row_work(d->problem, at, end);
        }
        d->ranges[r] = (lsp_range){at, end};
        d->range_first[r + 1] = r + 1;
        d->rows[r] = end - at;
        at = end;
    }
}

/* Deals blocks of rows 0, 1, ..., r - 1, r - 1, ..., 1, 0, 0, 1, ...: equal work when it grows with the row,
 * blocks are equal and all turns are whole. */
static void cut_cyclic(lsp_partition *d)
{
    const lsp_attention_desc *desc = &d->problem->desc;
    int64_t rows = desc->row_end - desc->row_begin, period = 2 * (int64_t)d->group_ranks, filled = 0;
    int64_t turns = lsp_max(1, lsp_min(CYCLIC_TURNS, rows / (period * ROW_QUANTUM)));
    int64_t grain = d->problem->row_grain, grains = lsp_ceil_div(rows, grain);
    int64_t blocks = lsp_min(grains, period * turns);
    for (int r = 0; r < d->group_ranks; r++) {
        d->range_first[r] = filled;
        d->rows[r] = 0;
        for (int64_t b = r; b < blocks; b += b % period == r ? period - 1 - 2 * r : 2 * r + 1) {
            int64_t begin = desc->row_begin + lsp_min(rows, grains * b / blocks * grain);
            int64_t end = desc->row_begin + lsp_min(rows, grains * (b + 1) / blocks * grain);
            bool joins = filled > d->range_first[r] && d->ranges[filled - 1].end == begin;
            if (joins)
                d->ranges[filled - 1].end = end;
            else
                d->ranges[filled++] = (lsp_range){begin, end};
            d->rows[r] += end - begin;
        }
    }
    d->range_first[d->group_ranks] = filled;
}

static lsp_status cut_rows(lsp_partition *d, lsp_error *error)
{
    d->kind = settle_partition(d->problem, d->group_ranks);
    int64_t most = d->group_ranks * (int64_t)(2 * CYCLIC_TURNS + 2);
    d->ranges = lsp_memory_zalloc(most, sizeof *d->ranges);
    d->range_first = lsp_memory_zalloc((int64_t)d->group_ranks + 1, sizeof *d->range_first);
    d->rows = lsp_memory_zalloc(d->group_ranks, sizeof *d->rows);
    if (!d->ranges || !d->range_first || !d->rows)
        return lsp_error_set(error, LSP_ERR_LIMIT, "not enough memory for the partition of rows");
    if (d->kind == LSP_PARTITION_CYCLIC)
        cut_cyclic(d);
    else
        cut_contiguous(d, d->kind == LSP_PARTITION_BALANCED);
    return LSP_OK;
}

/* ---- keys -------------------------------------------------------------------------------------- */

static void cut_keys(lsp_partition *d, const lsp_tile_shape *shape)
{
    const lsp_attention_desc *desc = &d->problem->desc;
    d->tile_keys = shape->tile_keys;
    d->first_tile = desc->key_begin / d->tile_keys;
    d->unit_tiles = lsp_ceil_div(desc->key_end, d->tile_keys) - d->first_tile;
    d->unit_keys = desc->key_end - desc->key_begin;
    /* In bf16 the kernels pack into 2 or 4 bytes; panels are the same for all. */
    int64_t tile_bytes = shape->tile_keys * (shape->k_depth + shape->v_stride) *
                         (int64_t)lsp_dtype_size(lsp_dtype_result(desc->compute));
    int64_t tiles = lsp_max(1, PANEL_BYTES / tile_bytes);
    int64_t group_tiles = lsp_ceil_div(d->problem->units, d->groups) * d->unit_tiles;
    if (d->group_ranks > 1)
        tiles = lsp_min(tiles, lsp_max(1, group_tiles / ((int64_t)d->group_ranks * OWN_PANELS)));
    /* Threads share out the units of a panel then, and nothing of it is packed or gathered. */
    if (d->group_ranks == 1 && lsp_partition_few_rows(d, 0)) tiles = group_tiles;
    if (desc->panel_rows > 0) tiles = lsp_ceil_div(desc->panel_rows, d->tile_keys);
    d->panel_tiles = lsp_min(tiles, lsp_max(1, group_tiles));
    d->gather = desc->gather;
    int64_t row_bytes =
        desc->d_k * (int64_t)lsp_dtype_size(desc->k_type) + desc->d_v * (int64_t)lsp_dtype_size(desc->v_type);
    if (d->gather == LSP_GATHER_AUTO) {
        int64_t bytes = 0; /* more than 63 bits are many */
        if (!lsp_checked_mul(group_tiles * d->tile_keys, row_bytes, &bytes)) bytes = INT64_MAX;
        d->gather = lsp_choose_gather(d->problem, d->group_ranks, bytes);
    }
}

static int64_t units_of(const lsp_partition *d, int group)
{
    int64_t begin, end;
    lsp_partition_units(d, group, &begin, &end);
    return end - begin;
}

/* The rank that owns tile `index` where keys lie with the rows; all groups have equally many units then. */
static int owner_of(const lsp_partition *d, int64_t index)
{
    int64_t before = index / units_of(d, 0);
    int low = 0, high = d->group_ranks; /* tiles_before[low] <= before < tiles_before[high] */
    while (high - low > 1) {
        int middle = low + (high - low) / 2;
        if (d->tiles_before[middle] <= before)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static lsp_tile_place tile_with_rows(const lsp_partition *d, int64_t index)
{
    int r = owner_of(d, index);
    int64_t tiles = d->tiles_before[r + 1] - d->tiles_before[r];
    int64_t inside = index - units_of(d, 0) * d->tiles_before[r];
    int64_t first = (d->key_cuts[r] / d->tile_keys + inside % tiles) * d->tile_keys;
    return (lsp_tile_place){inside / tiles, first, lsp_max(first, d->key_cuts[r]),
                            lsp_min(first + d->tile_keys, d->key_cuts[r + 1])};
}

lsp_tile_place lsp_partition_tile(const lsp_partition *d, int64_t index)
{
    const lsp_attention_desc *desc = &d->problem->desc;
    if (d->key_cuts) return tile_with_rows(d, index);
    int64_t first = (d->first_tile + index % d->unit_tiles) * d->tile_keys;
    return (lsp_tile_place){index / d->unit_tiles, first, lsp_max(first, desc->key_begin),
                            lsp_min(first + d->tile_keys, desc->key_end)};
}

int64_t lsp_partition_tile_row(const lsp_partition *d, int64_t index)
{
    if (d->key_cuts && index == units_of(d, 0) * d->tiles_before[d->group_ranks])
        return units_of(d, 0) * d->unit_keys;
    lsp_tile_place place = lsp_partition_tile(d, index);
    if (!d->key_cuts) return place.unit * d->unit_keys + place.begin - d->problem->desc.key_begin;
    int r = owner_of(d, index);
    return units_of(d, 0) * (d->key_cuts[r] - d->key_cuts[0]) +
           place.unit * (d->key_cuts[r + 1] - d->key_cuts[r]) + place.begin - d->key_cuts[r];
}

/* The end of the tiles that follow `index` in the sequence with the same unit and owner's place in it. */
static int64_t same_unit_end(const lsp_partition *d, int64_t index)
{
    if (!d->key_cuts) return (index / d->unit_tiles + 1) * d->unit_tiles;
    int r = owner_of(d, index);
    int64_t tiles = d->tiles_before[r + 1] - d->tiles_before[r], base = units_of(d, 0) * d->tiles_before[r];
    return base + ((index - base) / tiles + 1) * tiles;
}

void lsp_partition_clip(const lsp_partition *d, int64_t unit, int64_t *begin, int64_t *end)
{
    int64_t tiles = d->unit_tiles, base = 0;
    if (d->key_cuts) {
        int r = owner_of(d, *begin);
        tiles = d->tiles_before[r + 1] - d->tiles_before[r];
        base = units_of(d, 0) * d->tiles_before[r];
    }
    *begin = lsp_max(*begin, base + unit * tiles);
    *end = lsp_min(*end, base + (unit + 1) * tiles);
}

int64_t lsp_partition_owned_tile(const lsp_partition *d, int group, int r)
{
    if (d->key_cuts) return units_of(d, group) * d->tiles_before[r];
    int64_t tiles = units_of(d, group) * d->unit_tiles;
    return tiles / d->group_ranks * r + tiles % d->group_ranks * r / d->group_ranks;
}

void lsp_partition_owned_keys(const lsp_partition *d, int group, int r, int64_t unit, int64_t *begin,
                              int64_t *end)
{
    int64_t key_begin = d->problem->desc.key_begin, base = unit * d->unit_keys;
    if (d->key_cuts) {
        *begin = d->key_cuts[r];
        *end = d->key_cuts[r + 1];
        return;
    }
    int64_t first = lsp_partition_tile_row(d, lsp_partition_owned_tile(d, group, r)) - base;
    int64_t last = lsp_partition_tile_row(d, lsp_partition_owned_tile(d, group, r + 1)) - base;
    *begin = key_begin + lsp_max(0, lsp_min(first, d->unit_keys));
    *end = key_begin + lsp_max(0, lsp_min(last, d->unit_keys));
}

lsp_status lsp_partition_panels(const lsp_partition *d, int group, lsp_panel_spec **panels,
                                int64_t **first_tiles, int64_t *count, lsp_error *error)
{
    int64_t tiles = lsp_partition_owned_tile(d, group, d->group_ranks);
    int64_t most = tiles / d->panel_tiles + d->group_ranks;
    *panels = lsp_memory_alloc(most, sizeof **panels);
    *first_tiles = lsp_memory_alloc(most + 1, sizeof **first_tiles);
    *count = 0;
    if (!*panels || !*first_tiles)
        return lsp_error_set(error, LSP_ERR_LIMIT, "not enough memory for a list of %lld panels",
                             (long long)most);
    for (int r = 0; r < d->group_ranks; r++) {
        int64_t end = lsp_partition_owned_tile(d, group, r + 1);
        for (int64_t t = lsp_partition_owned_tile(d, group, r); t < end; t += d->panel_tiles) {
            int64_t row = lsp_partition_tile_row(d, t);
            int64_t next = lsp_partition_tile_row(d, lsp_min(t + d->panel_tiles, end));
            (*first_tiles)[*count] = t;
            (*panels)[(*count)++] = (lsp_panel_spec){row, next - row, r};
        }
    }
    (*first_tiles)[*count] = tiles;
    return LSP_OK;
}

static bool range_sees(const lsp_mask *mask, int64_t batch, lsp_range range, int64_t begin, int64_t end)
{
    if (range.begin >= range.end) return false;
    return lsp_mask_sight(mask, batch, range.begin).begin < end &&
           lsp_mask_sight(mask, batch, range.end - 1).end > begin;
}

bool lsp_partition_sees(const lsp_partition *d, int group, int r, int64_t tile_begin, int64_t tile_end)
{
    const lsp_problem *p = d->problem;
    if (d->rows[r] == 0) return false;
    if (p->desc.mask == LSP_MASK_NONE && !p->documents && !p->key_lengths && p->mask.block_size <= 0)
        return true;
    int64_t unit_begin, unit_end;
    lsp_partition_units(d, group, &unit_begin, &unit_end);
    for (int64_t t = tile_begin; t < tile_end;) {
        lsp_tile_place place = lsp_partition_tile(d, t);
        int64_t same_unit = lsp_min(tile_end, same_unit_end(d, t));
        int64_t last = lsp_partition_tile(d, same_unit - 1).end,
                batch = (unit_begin + place.unit) / p->desc.kv_heads;
        /* The last rows of a causal mask see most: a yes is found soon. */
        for (int64_t i = d->range_first[r + 1] - 1; i >= d->range_first[r]; i--)
            if (range_sees(&p->mask, batch, d->ranges[i], place.begin, last)) return true;
        t = same_unit;
    }
    return false;
}

/* ---- life -------------------------------------------------------------------------------------- */

lsp_status lsp_partition_make(const lsp_problem *problem, const lsp_tile_shape *shape, int ranks,
                              lsp_partition *d, lsp_error *error)
{
    memset(d, 0, sizeof *d);
    d->problem = problem;
    d->ranks = ranks;
    lsp_status status = choose_groups(d, error);
    if (status == LSP_OK) status = cut_rows(d, error);
    if (status == LSP_OK) cut_keys(d, shape);
    if (status == LSP_OK) status = lsp_partition_cut_keys(d, error);
    if (status != LSP_OK) lsp_partition_free(d);
    return status;
}

void lsp_partition_free(lsp_partition *d)
{
    lsp_memory_free(d->ranges);
    lsp_memory_free(d->range_first);
    lsp_memory_free(d->rows);
    lsp_memory_free(d->key_cuts);
    lsp_memory_free(d->tiles_before);
    memset(d, 0, sizeof *d);
}
