/* Attention of single rows, written for clarity alone: the oracle of lsp_verify_attention. It shares no
 * code with the kernels, nor the mask rules. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_STUDY_REFERENCE_H
#define LSP_STUDY_REFERENCE_H

#include <longspan/attention.h>
#include <stdint.h>

/* The keys that this rank holds. desc has its ends and its scale filled in (no zeros for defaults). */
typedef struct lsp_reference_keys {
    const lsp_attention_desc *desc;
    const lsp_run *runs;
    int64_t run_count;
    const void *k, *v; /* the runs one after the other, in desc's types */
    /* [run_count] method lowrank, whose values differ between the query heads of a K/V head: the row of v at which the
     * run's block of its first query head begins; other blocks follow by ascending head. NULL: v is as k. */
    const int64_t *value_first;
} lsp_reference_keys;

/* Where the keys that a row keeps end (method topk): those of larger scores, and of equal ones up to `key`. */
typedef struct lsp_reference_cut {
    double score;
    int64_t key;
    double near;   /* scores as near as this may change places by the rounding of the computing type */
    int64_t swaps; /* pairs of a kept and a dropped key, at most, that may have changed places */
    double length; /* longest row of V among keys that may have */
} lsp_reference_cut;

/* A query row, and what it sees, by absolute key index. */
typedef struct lsp_reference_row {
    int64_t batch, head, row;
    int64_t kv_head;
    int64_t place;       /* of the head among the query heads of its K/V head */
    int64_t first, stop; /* keys of its document and block, within the key length and the selection */
    int64_t kept_first, kept_stop; /* the same, unless a caller wants the weight outside of other limits */
    int64_t position;              /* of the row among the keys */
    const double *q;               /* [d_k] */
    double values_square;          /* for the spread: in place of ||v||^2 of each key; 0: that */
    const lsp_reference_cut *cut;  /* NULL: the row keeps all that it sees */
} lsp_reference_row;

/* What the first pass over the keys finds. */
typedef struct lsp_reference_peak {
    double score;     /* largest visible score, -inf when none */
    double magnitude; /* largest finite |score| */
    double size;      /* largest size of what a score was added up from */
    bool broken;      /* some visible score is NaN or +Inf, so that the whole row is NaN */
    int64_t keys;     /* visible keys met */
} lsp_reference_peak;

/* Sums of the second pass over w = exp(score - top), followed by the weighted V row [d_v] (of what the cut keeps). */
enum {
    LSP_SUM_WEIGHT = 0, /* w */
    LSP_SUM_SPREAD = 1, /* w^2 ||v||^2, or w^2 values_square */
    LSP_SUM_SIZE = 2,   /* w times the size of what the score was added up from */
    LSP_SUM_DROPPED =
        3, /* w of keys outside of kept_first to kept_stop, and of those that the cut leaves out */
    LSP_SUM_VALUES = 4
};

/* Local. The K/V head of a query head. */
int64_t lsp_reference_kv_head(const lsp_attention_desc *desc, int64_t head);

/* Local. Fills all but q from batch, head and row. */
void lsp_reference_place(const lsp_attention_desc *desc, lsp_reference_row *row);

/* Local. Whether the row sees key `key`. */
bool lsp_reference_sees(const lsp_attention_desc *desc, const lsp_reference_row *row, int64_t key);

/* Local. Doubles of scratch that each thread needs. */
int64_t lsp_reference_scratch(const lsp_attention_desc *desc);

/* Local. First pass: over the row's visible keys among those held. */
lsp_reference_peak lsp_reference_scan(const lsp_reference_keys *keys, const lsp_reference_row *row,
                                      double *scratch);

/* Local. Scores and keys of the row's visible keys among those held, in the order of the runs, to scores and keys (as
 * many as lsp_reference_scan counted). */
void lsp_reference_list(const lsp_reference_keys *keys, const lsp_reference_row *row, double *scores,
                        int64_t *key_of, double *scratch);

/* Local. Length of the longest row of V among visible keys held whose scores are as near to the cut's as cut->near. */
double lsp_reference_longest(const lsp_reference_keys *keys, const lsp_reference_row *row, double *scratch);

/* Local. Second pass: adds to sums[LSP_SUM_VALUES + d_v]; top is the largest score over all ranks. */
void lsp_reference_sum(const lsp_reference_keys *keys, const lsp_reference_row *row, double top, double *sums,
                       double *scratch);

#endif
