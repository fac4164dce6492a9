/* What each head attends to: the attention matrix pooled to a picture, figures of rows and keys, strongest links.
 *
 *   W [n, m] = softmax(scale * Q K^T + mask), never formed: one pass over the keys for the rows' log-sum-exp, one
 *   for the weights. Memory of a rank: for each head 16 pixels^2 + 8 m bytes, and about 60 bytes for each of its rows.
 *
 * Sums over rows run in fixed-point numbers over rows at absolute places, so that all results have the same bits for
 * every number of ranks and threads, every gather mode and partition, on one instruction set.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LONGSPAN_MAP_H
#define LONGSPAN_MAP_H

#include <longspan/attention.h>
#include <longspan/checkpoint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Weight of one key for one row; row and key count in the whole. */
typedef struct lsp_link {
    double weight;
    int64_t row, key;
} lsp_link;

/* Figures of a row, from its weights w_j; its position p is that of masks. A row without keys has none: NaN. */
typedef enum lsp_map_figure {
    LSP_MAP_ENTROPY = 0,  /* - sum w_j ln w_j, nats */
    LSP_MAP_DISTANCE = 1, /* sum w_j |p - j|, keys */
    LSP_MAP_SELF = 2,     /* w_p */
    LSP_MAP_FIRST = 3,    /* weight of the first key (of the row's document; of the part) */
    LSP_MAP_NEAR = 4,     /* sum of w_j with |p - j| < LSP_MAP_WINDOW */
    LSP_MAP_FIGURES = 5
} lsp_map_figure;

enum { LSP_MAP_WINDOW = 128 };

/* Local. Name of a figure ("entropy", "distance", "self", "first", "near"). */
const char *lsp_map_figure_name(lsp_map_figure figure);

typedef struct lsp_map_options {
    int64_t pixels; /* rows and columns of a picture, at most; 1 to 8192 */
    int64_t links;  /* strongest links of a head; 0 to 1000000 */
} lsp_map_options;

/* Local. 512 pixels, 100 links. */
lsp_map_options lsp_map_defaults(void);

/* Pixel (r, c) stands for rows row_begin + [r, r + 1) * rows_per_pixel and keys key_begin + [c, c + 1) * keys_per_pixel
 * of the part; those at its end may stand for fewer. */
typedef struct lsp_map_shape {
    int64_t pixel_rows, pixel_keys;
    int64_t rows_per_pixel, keys_per_pixel;
    int64_t rows, keys; /* of the part */
} lsp_map_shape;

typedef struct lsp_map lsp_map;

/* Collective. Of the description, method is exact, compute f32 or f64; d_v decides the height of key tiles alone, which
 * are attend's where it is the same (0: d_k); v_type is not used.
 * Errors: LSP_ERR_USAGE (options, description), LSP_ERR_LIMIT as lsp_attention_create. */
lsp_status lsp_map_create(lsp_context *ctx, const lsp_attention_desc *desc, const lsp_map_options *options,
                          lsp_map **out);

/* Local. As lsp_attention_runs. */
lsp_status lsp_map_runs(const lsp_map *map, lsp_operand operand, const lsp_run **runs, int64_t *run_count,
                        int64_t *rows);

/* Local. */
lsp_map_shape lsp_map_get_shape(const lsp_map *map);
lsp_estimate lsp_map_get_estimate(const lsp_map *map); /* flops: 4 d_k a visible pair */
lsp_isa lsp_map_get_isa(const lsp_map *map);
void lsp_map_set_progress(lsp_map *map, lsp_progress_fn progress, void *user);

/* Collective. As lsp_attention_set_pause; the state of a map cannot be saved. */
lsp_status lsp_map_set_pause(lsp_map *map, const lsp_pause *pause);

/* Collective. q, k: this rank's runs. stats may be NULL. Rows whose scores are not finite weigh nothing and have no
 * figures. Errors: LSP_ERR_LIMIT (allocation), LSP_ERR_RANK (MPI). */
lsp_status lsp_map_execute(lsp_map *map, const void *q, const void *k, lsp_attention_stats *stats);

/* One head, the same on every rank; arrays are the map's, until the next execute or the end. */
typedef struct lsp_map_head {
    const double *sum; /* [pixel_rows][pixel_keys] sum of the pixel's weights: all add up to `weighed` */
    const double *max; /* [pixel_rows][pixel_keys] largest of them */
    const double *column_mass; /* [keys] sum over rows of a key's weights */
    const lsp_link
        *links; /* [link_count] the largest weights above 0, of equal ones the lower rows, then keys */
    int64_t link_count;
    const double
        *pooled[LSP_MAP_FIGURES];   /* [pixel_rows] means over the pixel's rows; NaN where none is weighed */
    double mean[LSP_MAP_FIGURES];   /* over all rows weighed; NaN where there is none */
    int64_t weighed, empty, broken; /* rows: with weights; that see no key; whose scores are not finite */
} lsp_map_head;

/* Local. Of the last execution. LSP_ERR_USAGE when there was none, or no such head. */
lsp_status lsp_map_get_head(const lsp_map *map, int64_t batch, int64_t head, lsp_map_head *out);

/* Local. Of the last execution, for this rank's query rows in the order of its runs: figures [rows][LSP_MAP_FIGURES] and
 * lse [rows], both in the result type of the computing type. */
lsp_status lsp_map_get_rows(const lsp_map *map, const void **figures, const void **lse);

typedef struct lsp_map_check {
    int64_t rows;
    double
        max_error; /* largest error: absolute of entropy and shares, of distances relative to 1 + distance */
    double tolerance; /* that was applied (the largest, when each row has its own) */
    double max_abs_score;
    int64_t worst[3]; /* batch, head, row of max_error */
    lsp_map_figure worst_figure;
    double map_sum_error; /* largest of a head, of all: |sum of the picture / weighed rows - 1| */
    bool passed;
} lsp_map_check;

/* Collective. Recomputes the figures of `rows` rows (drawn as lsp_verify_attention draws) in double precision by plain
 * loops, and adds up the pictures. Operands as lsp_map_execute had them. tolerance 0: from the computing type and the
 * scores. LSP_OK also when the check does not pass. */
lsp_status lsp_map_verify(lsp_map *map, const void *q, const void *k, int64_t rows, uint64_t seed,
                          double tolerance, lsp_map_check *result);

/* Collective. Frees and sets *map to NULL. NULL is allowed. */
lsp_status lsp_map_destroy(lsp_map **map);

#ifdef __cplusplus
}
#endif
#endif
