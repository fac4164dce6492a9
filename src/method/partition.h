/* Who computes what: head groups, query rows, key tiles and panels. Pure arithmetic, the same answer
 * on every rank, for any number of ranks.
 *
 * Ranks form `groups` groups of `group_ranks`; a group has the K/V matrices (units) [u0, u1). Inside a
 * group each rank has the same rows of every query head, and a contiguous share of the group's key
 * tiles: the tiles of all its units, one unit after the other. Where rows of different ranks have no key in
 * common (method block, rows cut between blocks), keys lie with the rows instead: each rank owns what its rows
 * see, the sequence goes rank by rank, in each unit by unit, and a tile cut by a rank's end stands in it twice,
 * each time with the keys of one side. Methods of whole heads lay keys so too, in equal shares of every unit's tiles.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_METHOD_PARTITION_H
#define LSP_METHOD_PARTITION_H

#include "comm/gather.h"
#include "kernel/kernel.h"
#include "method/problem.h"

typedef struct lsp_range {
    int64_t begin, end;
} lsp_range;

/* One key tile of a unit: keys [begin, end) are present, the tile starts at `first` (absolute). */
typedef struct lsp_tile_place {
    int64_t unit, first, begin, end;
} lsp_tile_place;

typedef struct lsp_partition {
    const lsp_problem *problem; /* borrowed */
    int ranks, groups, group_ranks;
    lsp_gather_mode gather;  /* settled */
    lsp_partition_kind kind; /* settled */
    /* Rows of group rank r: ranges[range_first[r] .. range_first[r + 1]), ascending, and their number. */
    lsp_range *ranges;
    int64_t *range_first, *rows;
    /* Keys. */
    int64_t tile_keys;
    int64_t first_tile, unit_tiles; /* tiles of every unit: first_tile .. first_tile + unit_tiles */
    int64_t unit_keys;              /* key_end - key_begin */
    int64_t panel_tiles;
    /* Keys that lie with the rows, or of whole heads: rank r owns keys [key_cuts[r], key_cuts[r + 1]) of every unit, and
     * tiles_before[r] tiles of a unit come before its own; both [group_ranks + 1]. NULL: unit by unit. */
    int64_t *key_cuts, *tiles_before;
} lsp_partition;

/* Local. shape: of the kernel that will be used. */
lsp_status lsp_partition_make(const lsp_problem *problem, const lsp_tile_shape *shape, int ranks,
                              lsp_partition *partition, lsp_error *error);
void lsp_partition_free(lsp_partition *partition);

/* Local. Inside of lsp_partition_make: key_cuts and tiles_before, where each rank owns keys of all units. */
lsp_status lsp_partition_cut_keys(lsp_partition *partition, lsp_error *error);

/* Local. Units [*begin, *end) of a group. */
void lsp_partition_units(const lsp_partition *d, int group, int64_t *begin, int64_t *end);

/* Local. Query heads of a group, summed over its units (matrices of Q). */
int64_t lsp_partition_matrices(const lsp_partition *d, int group);

/* A unit task: a chunk of rows of all query heads of a unit, which one thread takes from key tile to key tile, packing
 * these one at a time inside its caches. Packed panels would be written and read once more. */
enum {
    LSP_FEW_ROWS = 8,     /* rows a unit meets on a rank: reading K and V is then the whole cost */
    LSP_UNIT_ROWS = 1024, /* rows of a unit task, at most */
    LSP_UNIT_HEADS = 16   /* query heads of its unit, at most */
};

/* Local. Query heads of a unit, at most. */
int64_t lsp_partition_unit_heads(const lsp_partition *d);

/* Local. Whether no unit meets more than LSP_FEW_ROWS rows on group rank r. */
bool lsp_partition_few_rows(const lsp_partition *d, int r);

/* Local. Whether group rank r works in unit tasks: with few rows; and where panels hold tasks enough for all threads,
 * when a unit is one task, or when rows see no more keys than a task has rows, so that little is packed twice. */
bool lsp_partition_unit_tasks(const lsp_partition *d, int r, int threads);

/* Local. Packed tiles that group rank r holds: a panel's; in unit tasks one a thread, or two, where the next task of a
 * thread meets the last tiles again. */
int64_t lsp_partition_packed_tiles(const lsp_partition *d, int r, int threads);

/* Local. Rows of each query head in a unit task on group rank r. */
int64_t lsp_partition_unit_chunk(const lsp_partition *d, int r);

/* Local. Place of tile `index` of a group's sequence of tiles; units count from the group's first. */
lsp_tile_place lsp_partition_tile(const lsp_partition *d, int64_t index);

/* Local. Cuts tiles [*begin, *end) of one panel to those of a unit of the group. */
void lsp_partition_clip(const lsp_partition *d, int64_t unit, int64_t *begin, int64_t *end);

/* Local. Keys [*begin, *end) of unit `unit` of a group that group rank r owns. */
void lsp_partition_owned_keys(const lsp_partition *d, int group, int r, int64_t unit, int64_t *begin,
                              int64_t *end);

/* Local. Flattened key row (of the group) at which tile `index` starts. */
int64_t lsp_partition_tile_row(const lsp_partition *d, int64_t index);

/* Local. First tile that group rank r of a group owns (r = group_ranks: the number of tiles). */
int64_t lsp_partition_owned_tile(const lsp_partition *d, int group, int r);

/* Local. Panels of a group in order, and the first tile of each ([*count + 1]); both freed by the caller. */
lsp_status lsp_partition_panels(const lsp_partition *d, int group, lsp_panel_spec **panels,
                                int64_t **first_tiles, int64_t *count, lsp_error *error);

/* Local. Whether group rank r has a row that may see a key of tiles [begin, end) of its group (a hull
 * per range of rows: may say yes for none in a gap, never no for one that is seen). */
bool lsp_partition_sees(const lsp_partition *d, int group, int r, int64_t tile_begin, int64_t tile_end);

#endif
