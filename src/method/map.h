/* Inside of a map: the part of it that a rank computes. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_METHOD_MAP_H
#define LSP_METHOD_MAP_H

#include "method/attention.h"
#include "method/method.h"

#include <longspan/map.h>

/* Where pixels are, and the grain: rows whose columns are added up in floating point, one after the other. Beyond it sums
 * run in multiples of 1 / unit. Options of the plan's kind. */
typedef struct lsp_map_layout {
    lsp_map_options options;
    lsp_map_shape shape;
    int64_t grain;
    double unit;
} lsp_map_layout;

/* Local. For a description whose part and options are valid. */
lsp_map_layout lsp_map_layout_make(const lsp_attention_desc *desc, const lsp_map_options *options);

/* Local. Grains that are looked at together. */
int64_t lsp_map_grains(const lsp_kernel *kernel, const lsp_map_layout *layout);

/* What a thread works in: columns of a tile for each of these, and the pixels of one line of the picture that the tile meets. */
typedef struct lsp_map_room {
    lsp_look_columns columns;
    int64_t *mass, *sums, *first_key;
    double *peaks;
    lsp_links *links;           /* [matrices] */
    int64_t line, first, count; /* the line at hand (-1: none), and its pixels */
} lsp_map_room;

/* The plan's own state. After an execution: sums, maxima and links of this rank's rows alone; whoever adds them up over
 * ranks may do it here. */
typedef struct lsp_map_state {
    lsp_map_layout layout;
    /* Of rows: */
    lsp_row_state recent;
    void *lse, *figures; /* [query_rows], [query_rows][LSP_MAP_FIGURES] in the result type */
    double *sums;        /* [query_rows][LSP_MAP_FIGURES] */
    /* Of matrices: */
    int64_t *mass, *pixels; /* [matrices][keys], [matrices][pixels] in fixed point */
    double *peaks;          /* [matrices][pixels] */
    bool *begun;            /* [matrices][pixel_rows] whether the line's pixels hold something */
    lsp_link *links;        /* [threads][matrices][options.links] */
    void *locks;            /* [matrices] */
    lsp_map_room *rooms;    /* [threads] */
} lsp_map_state;

/* The functions of a map's plan. Execution takes no values and makes no output: v and out are not used; lse is in the
 * state. */
extern const lsp_method_ops lsp_map_ops;

/* Their parts in map_state.c. */
lsp_status lsp_map_prepare(lsp_attention *plan);
void lsp_map_release(lsp_attention *plan);
int64_t lsp_map_row_bytes(const lsp_problem *problem, const lsp_kernel *kernel);
int64_t lsp_map_matrix_bytes(const lsp_problem *problem, int threads);

/* Local. Gives the strongest links of a local matrix over all threads, sorted; returns how many (at most
 * options.links). links: room for so many. */
int64_t lsp_map_links_of(const lsp_attention *plan, int64_t matrix, lsp_link *links);

/* Local. Merges two sorted lists into the strongest `most`, in `to`; returns how many. */
int64_t lsp_map_links_merge(const lsp_link *a, int64_t a_count, const lsp_link *b, int64_t b_count,
                            int64_t most, lsp_link *to);

#endif
