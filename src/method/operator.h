/* Inside of the operator: W X by a plan, W^T Y by the mirror. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_METHOD_OPERATOR_H
#define LSP_METHOD_OPERATOR_H

#include "method/attention.h"

#include <longspan/operator.h>

/* W^T Y for one number of columns: own keys stay, query rows come by, in stages of whole tiles at absolute places.
 * A panel is what one rank has of a stage: ranks may be cut anywhere, so a stage waits for all its panels. */
typedef struct lsp_mirror {
    lsp_operator *op;
    int64_t columns;
    lsp_tile_shape shape;
    int64_t stage_tiles, stage_rows;
    lsp_panel_spec *panels; /* rows count from the part's first */
    int64_t *panel_stage;   /* [panel_count] */
    int64_t *owned_first;   /* [ranks + 1] */
    int64_t panel_count;
    lsp_gather *gather;
    /* One stage: as it came, in order of rows from the stage's first; packed in tiles. */
    void *queries, *base, *weight, *y; /* [stage_rows] rows of d_k, 1, 1, columns */
    void *packed_q, *packed_y;         /* [stage_tiles] packed tiles */
    double *y_max;                     /* [stage_tiles] as pack_v returned it */
    void *recent;                      /* [keys][columns] since the last fold; NULL: nothing is folded */
    void **scratch;                    /* [threads] of the kernel */
    int64_t chunk_rows;
} lsp_mirror;

struct lsp_operator {
    lsp_context *ctx;
    lsp_attention *plan; /* W X, at most plan->problem.desc.d_v columns a turn */
    lsp_attention
        *narrow; /* the same rows and keys, the number of columns that was asked for last; may be NULL */
    lsp_mirror *mirror;  /* of the last W^T Y; NULL: none yet */
    const void *q, *k;   /* the caller's */
    void *rows;          /* [query rows][d_k + 2] scaled query, base, weight (lsp_row_tile) */
    void *keys;          /* [key rows][d_k] */
    void *lse;           /* [query rows] once rows_known */
    lsp_sight *sight;    /* [key rows] the rows that see it */
    void *squares;       /* [key rows] since the last stage */
    double *square_sums; /* [key rows] */
    bool bound, rows_known, norm_known;
    double norm_square;
    lsp_operator_stats stats;
};

/* Local. Columns of a turn that an operator chooses (d_v = 0). */
int64_t lsp_operator_columns(const lsp_attention_desc *desc);

/* Collective. Buffers and gather for a number of columns. */
lsp_status lsp_mirror_create(lsp_operator *op, int64_t columns, lsp_mirror **out);

/* Collective. x [keys][columns] = W^T y; the squares are added to op->square_sums. */
lsp_status lsp_mirror_run(lsp_mirror *mirror, const void *y, void *x);

/* Collective. */
void lsp_mirror_destroy(lsp_mirror **mirror);

#endif
