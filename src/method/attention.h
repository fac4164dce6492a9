/* Inside of a plan: for the methods. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_METHOD_ATTENTION_H
#define LSP_METHOD_ATTENTION_H

#include "comm/context.h"
#include "method/partition.h"
#include "method/pause.h"

/* One query matrix of this rank: its rows of one head of one batch, from local row `first` on. */
typedef struct lsp_query_matrix {
    int64_t batch, head, unit, first;
} lsp_query_matrix;

/* What packing tells of a tile. */
typedef struct lsp_tile_bounds {
    double k_norm, v_max;
    const void *v; /* where V stands: packed, or in the panel */
    bool v_brain; /* lsp_key_tile.v_brain */
} lsp_tile_bounds;

/* What a thread works in. */
typedef struct lsp_thread_room {
    void *q;          /* [room rows][d_k] packed queries */
    double *norm;     /* [room rows] of the queries */
    lsp_sight *sight; /* [room rows] */
    void *scratch;    /* of the kernel */
} lsp_thread_room;

/* In lsp_attention.met; else a row has met all keys of its unit below the number. */
enum { LSP_ROW_FRESH = -1 };    /* none, and its state is not set */
#define LSP_ROW_FINAL INT64_MAX /* all that it sees, and its output is complete */

struct lsp_attention {
    lsp_context *ctx;
    lsp_problem problem;
    lsp_partition partition;
    lsp_estimate estimate;
    const lsp_kernel *kernel;
    lsp_tile_shape shape;
    int group, group_rank;
    int64_t unit_begin, unit_end; /* of the group */
    /* Queries of this rank: matrices in order, each with `rows` rows. */
    lsp_query_matrix *matrices;
    int64_t *unit_matrix; /* [units of the group + 1] first matrix of each unit */
    int64_t matrix_count, rows;
    lsp_run *query_runs, *key_runs;
    int64_t query_run_count, key_run_count;
    int64_t query_rows, key_rows; /* sums over runs */
    /* Panels of the group. */
    lsp_panel_spec *panels;
    int64_t *panel_tiles; /* [panel_count + 1] first tile of each */
    int64_t panel_count;
    int64_t *owned_first; /* [group ranks + 1] */
    lsp_gather *gather;
    /* Work space. */
    int64_t chunk_rows;
    bool unit_tasks;    /* a task is a chunk of all heads of a unit, and packs key tiles one at a time */
    int64_t *met;       /* [query_rows] keys of an execution that each row has met */
    int64_t room_tiles; /* packed tiles of a thread in unit tasks */
    void *packed_k, *packed_v; /* [panel tiles] packed tiles; [threads][room_tiles] in unit tasks */
    lsp_tile_bounds *bounds;   /* of each */
    int64_t *held;             /* which each is, in unit tasks; -1: none */
    void *max, *sum;           /* [query_rows] */
    lsp_row_state recent;      /* [query_rows] since the last fold; out is NULL where nothing is folded */
    lsp_thread_room *rooms;    /* [threads] */
    double pairs;              /* visible pairs of this rank */
    void *own;                 /* state of the method, by its prepare */
    lsp_progress_fn progress;
    void *progress_user;
    lsp_pausing pausing;
    void *out;        /* of the execution that runs, or that was loaded */
    int64_t phase;    /* of the method: what the state means */
    bool loaded;      /* the next execution goes on from the state */
    double met_pairs; /* visible pairs that the loaded state has met already, of this rank */
};

/* Local. Global row of local row `row` of any matrix; *range is where to start looking (0 at first) and
 * is moved, so that a walk over ascending rows is cheap. */
int64_t lsp_attention_global_row(const lsp_attention *plan, int64_t row, int64_t *range,
                                 int64_t *range_start);

/* Local. Rows of a matrix of `rows` rows that a thread takes at a time, when `together` rows are shared out at once. */
int64_t lsp_attention_share_rows(int64_t rows, int64_t together, int threads);

/* Local. The same on group rank r of a partition. */
int64_t lsp_attention_chunk_rows(const lsp_partition *partition, int r, int threads);

/* Local. Rows of a thread's room: of all query heads of a unit where it takes them together. */
int64_t lsp_attention_room_rows(const lsp_partition *partition, int r, int threads);

/* Local. Whether sums over LSP_FOLD_TILES key tiles are kept apart: in f32, where a row may see more keys than that. */
bool lsp_attention_folds(const lsp_problem *problem, int64_t tile_keys);

/* Local. Bytes of a thread's scratch. */
int64_t lsp_attention_scratch_bytes(const lsp_problem *problem, const lsp_kernel *kernel,
                                    const lsp_tile_shape *shape);

/* Collective. lsp_attention_create, but with functions of another kind in the place of the method's (kind NULL: of the
 * method). */
lsp_status lsp_attention_create_kind(lsp_context *ctx, const lsp_attention_desc *desc,
                                     const lsp_plan_kind *kind, lsp_attention **out);

/* Local. Pages of a work space that the system has to clear when they are touched first: now, by the plan's threads. */
void lsp_attention_touch(const lsp_attention *plan, void *values, int64_t count, size_t size);

/* Collective. A gather of K or V or both for the plan's panels. */
lsp_status lsp_attention_create_gather(lsp_attention *plan, bool keys, bool values, lsp_gather **gather);

/* Local. The tiles of a problem. */
lsp_tile_shape lsp_attention_shape(const lsp_problem *problem, const lsp_kernel *kernel);

/* Local. Footprint and traffic (method/estimate.c) for a given partition. Fails where the method has limits. */
lsp_status lsp_estimate_fill(const lsp_partition *partition, const lsp_kernel *kernel, int ranks_per_node,
                             int threads, lsp_estimate *estimate, lsp_error *error);

#endif
