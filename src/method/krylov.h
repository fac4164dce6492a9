/* Inside of the block Krylov method: the basis that grows, and what it is grown for.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_METHOD_KRYLOV_H
#define LSP_METHOD_KRYLOV_H

#include "linalg/grid.h"
#include "method/operator.h"

#include <longspan/svd.h>

/* Orthonormal columns p [keys][width], and t = W p [rows][width]. */
typedef struct lsp_krylov_block {
    int64_t width;
    double *p, *t;
} lsp_krylov_block;

/* What stands of an attempt; between these states there is one product. */
typedef enum lsp_krylov_stage {
    LSP_KRYLOV_NOTHING = 0,
    LSP_KRYLOV_START = 1,    /* q, which the next block starts from */
    LSP_KRYLOV_RAW = 2,      /* p of the last block is W^T q, and not orthonormal yet */
    LSP_KRYLOV_BLOCK = 3,    /* the last block is complete */
    LSP_KRYLOV_FINISHED = 4, /* the decomposition */
} lsp_krylov_stage;

/* One attempt with a rank. */
typedef struct lsp_krylov {
    lsp_context *ctx;
    lsp_operator *op;
    lsp_grid grid;
    const lsp_svd_options *options;
    int64_t n, m, rows, keys; /* of W; of this rank */
    int64_t first_key;        /* of this rank */
    int64_t rank, columns;    /* of a block at most */
    bool last;                /* no other attempt will follow */
    int64_t block_count, basis;
    lsp_krylov_block *blocks; /* [steps + 1] */
    double *q;                /* [rows][columns] orthonormal: what the next block starts from */
    void *x, *y;              /* [keys][columns], [rows][columns] in the operator's type */
    double eps;               /* of the operator's type */
    double square;            /* ||W||_F^2 */
    double done, all;         /* products */
    lsp_krylov_stage stage;
    int64_t attempts; /* before this one */
    lsp_svd *svd;     /* LSP_KRYLOV_FINISHED */
} lsp_krylov;

/* Local. Bytes that a rank with so many of the n rows and m keys takes at the fullest moment, besides the operator. */
double lsp_krylov_bytes(int64_t n, int64_t m, int64_t rows, int64_t keys, int64_t rank,
                        const lsp_svd_options *options, lsp_dtype compute, int threads);

/* Local. The rank to try first of `most`: with a tolerance the rank is found from below. */
int64_t lsp_krylov_first_rank(const lsp_svd_options *options, int64_t most);

/* Local. Whether the basis for *rank (as lsp_svd_check settled it) has no more columns than QR takes. Where a tolerance
 * alone chooses the rank, *rank is cut to what fits; else LSP_ERR_LIMIT with the numbers in *error. */
lsp_status lsp_krylov_limit(int64_t n, int64_t m, const lsp_svd_options *options, int64_t *rank,
                            lsp_error *error);

/* Local. Columns of a block. */
int64_t lsp_krylov_columns(int64_t n, int64_t m, int64_t rank, const lsp_svd_options *options);

/* Local. Records what there was no memory for. */
lsp_status lsp_krylov_no_memory(lsp_krylov *j, const char *what);

/* Collective. Memory for an attempt with j->rank, after it was counted; and its end. */
lsp_status lsp_krylov_prepare(lsp_krylov *j);
void lsp_krylov_release(lsp_krylov *j);

/* Collective. Rests where a rank wants to, or where it has finished. */
lsp_status lsp_krylov_rest(lsp_krylov *j);

/* Collective. Goes on from options->pause->resume: prepares and fills j; or, when that has finished, j->svd. */
lsp_status lsp_krylov_resume(lsp_krylov *j);

/* Collective. Fills j->blocks by options->steps steps, and j->square. x, y, q and blocks are allocated. Errors:
 * LSP_ERR_CONTENT (W is not finite), LSP_ERR_LIMIT, LSP_ERR_RANK. */
lsp_status lsp_krylov_grow(lsp_krylov *j);

#endif
