/* Some rows of an attention and what they should be, on every rank: drawn, gathered from their owners, and computed
 * again in double precision, each rank over the keys it holds. What lsp_verify_attention and the certificates of
 * approximations stand on. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_STUDY_SAMPLE_H
#define LSP_STUDY_SAMPLE_H

#include "comm/context.h"
#include "study/check.h"
#include "study/reference.h"

/* What owners contribute of a row, as bit patterns: a sum of integers over ranks passes a NaN on to
 * nobody and loses no bit. Then follow q [d_k] and out [d_v], as doubles. */
enum { LSP_OWNERS = 0, LSP_OWNED_HAS_LSE = 1, LSP_OWNED_LSE = 2, LSP_OWNED_VALUES = 3 };

/* Maxima over ranks of the first pass. */
enum {
    LSP_PEAK_TOP = 0,
    LSP_PEAK_MAGNITUDE = 1,
    LSP_PEAK_BROKEN = 2,
    LSP_PEAK_SIZE = 3,
    LSP_PEAK_VALUES = 4
};

typedef struct lsp_sample {
    lsp_context *ctx;
    lsp_attention_desc desc; /* ends and scale filled in */
    lsp_reference_keys keys;
    int64_t count;
    lsp_reference_row *rows; /* [count] */
    uint64_t *owned;         /* [count][LSP_OWNED_VALUES + d_k + d_v] */
    double *q;               /* [count][d_k] */
    uint64_t *met;           /* [count][2] visible keys held by ranks, and how many there are */
    int64_t *held;           /* [count] visible keys that this rank holds */
    int64_t *value_first;    /* [key runs] with method lowrank: see lsp_reference_keys */
    lsp_reference_cut *cuts; /* [count] with method topk: where the kept keys end */
    double *peaks;           /* [count][LSP_PEAK_VALUES] */
    double *sums;            /* [count][LSP_SUM_VALUES + d_v] */
    double *scratch;         /* [threads][scratch_count] */
    int64_t owned_count, sums_count, scratch_count;
} lsp_sample;

/* What a caller has: runs and arrays as lsp_verify_attention takes them (lse may be NULL). */
typedef struct lsp_sample_source {
    const lsp_run *query_runs, *key_runs;
    int64_t query_run_count, key_run_count;
    const void *q, *k, *v, *out, *lse;
} lsp_sample_source;

/* Collective. Draws `rows` rows (no more than there are) by `seed` from all rows of the part, every rank alike and
 * for every method the same, and gives every rank their q, out and lse. On failure too, lsp_sample_free is to be
 * called. Errors: LSP_ERR_USAGE (description, runs), LSP_ERR_LIMIT. */
lsp_status lsp_sample_make(lsp_context *ctx, const lsp_attention_desc *desc, const lsp_sample_source *source,
                           int64_t rows, uint64_t seed, lsp_sample *sample);

/* Collective. Fills peaks: largest scores, and whether the runs hold each visible key once. */
lsp_status lsp_sample_scan(lsp_sample *sample);

/* Collective. Fills peaks and sums over all keys that the rows see. */
lsp_status lsp_sample_compute(lsp_sample *sample);

/* Collective. With method topk, between the two passes of lsp_sample_compute: the rows' cuts (study/cut.c). */
lsp_status lsp_sample_cut(lsp_sample *sample);

/* Local. What row i is. */
lsp_reference_kind lsp_sample_kind(const lsp_sample *sample, int64_t i);

/* Local. The row's out as it was given, into out [d_v]. */
void lsp_sample_out(const lsp_sample *sample, int64_t i, double *out);

void lsp_sample_free(lsp_sample *sample);

#endif
