/* Truncated singular value decomposition of one head's attention matrix, with a certificate of its error.
 *
 *   W ~ U diag(sigma) V^T,   U [n, r] and V [m, r] with orthonormal columns, sigma descending.
 *
 * Computed in double but for the products with W, whose type is the operator's. The bits repeat on the same
 * ranks; on other numbers of ranks results agree to rounding (QR runs on the ranks as they are). The small SVD, of
 * a matrix no larger than the basis, is LAPACK's dgesdd on the first rank, on purpose.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LONGSPAN_SVD_H
#define LONGSPAN_SVD_H

#include <longspan/checkpoint.h>
#include <longspan/operator.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Called by each rank between the steps, with the share (0..1) of the work that is done. */
typedef void (*lsp_svd_progress_fn)(void *user, double done);

/* A decomposition by the Krylov method between two products with W. */
typedef struct lsp_krylov lsp_svd_state;

/* As lsp_pause, between two products with W. */
typedef struct lsp_svd_pause {
    lsp_want (*want)(void *user);
    /* Collective. Here lsp_svd_save may be called. Anything but LSP_OK ends the decomposition with it. `finished`: the
     * decomposition is there, and goes on from such a state give it. */
    lsp_status (*rest)(void *user, lsp_want want, bool finished, lsp_svd_state *state);
    void *user;
    /* The file to go on from, as lsp_checkpoint_look found it; NULL: none. info is changed as by lsp_checkpoint_load. */
    const char *resume;
    const char *marks;
    lsp_checkpoint_info *info;
} lsp_svd_pause;

typedef struct lsp_svd_options {
    int64_t
        rank; /* singular values, more than min(n, m) are cut; 0 (only with a tolerance): all, or as many as a
                     Krylov basis gives */
    double
        tolerance; /* above 0: the least rank at which ||W - W_r||_F <= tolerance ||W||_F, by the certificate,
                         but rank at most; 0: rank is fixed */
    int64_t oversample;           /* columns of a block besides rank */
    int64_t steps;                /* of the Krylov iteration: products with W W^T after the first */
    uint64_t seed;                /* of the start block */
    lsp_svd_progress_fn progress; /* NULL: none */
    void *user;
    const lsp_svd_pause *pause; /* svd = krylov; NULL: it never rests */
} lsp_svd_options;

/* Local. rank 0, tolerance 0, oversample 16, steps 2, seed 0. */
lsp_svd_options lsp_svd_defaults(void);

/* What is known about the error: ||W - W_r||_F^2 = ||W||_F^2 - sum of the r sigma^2, exact for V from an
 * orthonormal basis P and U, sigma from W P. */
typedef struct lsp_svd_certificate {
    double norm;               /* ||W||_F, streamed */
    double frobenius_error;    /* ||W - W_r||_F */
    double frobenius_relative; /* the same over ||W||_F; 0 when W is 0 */
    double floor; /* 10 sqrt(eps): rounding may be more than 1 % of a frobenius_relative below it */
    bool
        meaningful; /* frobenius_relative is above floor, and right to a per cent; else all that is known is that the
                        error is not above floor */
} lsp_svd_certificate;

typedef struct lsp_svd {
    int64_t rank;       /* singular values and vectors that are there */
    double *sigma;      /* [rank] descending, on every rank */
    double *u;          /* [rows of this rank][rank] */
    double *v;          /* [keys of this rank][rank] */
    int64_t rows, keys; /* of this rank */
    lsp_svd_certificate certificate;
    bool tolerance_met;      /* false: the most ranks were reached before; true also without a tolerance */
    int64_t basis;           /* columns of the Krylov basis; min(n, m) for the full decomposition */
    int64_t attempts;        /* ranks tried, each from the beginning */
    double seconds;          /* of this rank */
    double seconds_products; /* of them: W X and W^T Y */
} lsp_svd;

/* Collective. By a randomised block Krylov method that never forms W (Halko, Martinsson, Tropp 2011; Musco and
 * Musco 2015). op has its operands bound. Memory of a rank: about 8 (steps + 2) (rank + oversample) bytes for
 * each of its rows and keys. The basis, min((steps + 1) (rank + oversample), n, m), has 8192 columns at most. The
 * result is owned by the caller: lsp_svd_destroy.
 * Errors: LSP_ERR_USAGE (options), LSP_ERR_CONTENT (W is not finite), LSP_ERR_LIMIT (memory; a larger basis, before
 * anything is computed), LSP_ERR_RANK. */
lsp_status lsp_svd_krylov(lsp_operator *op, const lsp_svd_options *options, lsp_svd **out);

/* Collective, inside of lsp_svd_pause.rest only; otherwise as lsp_checkpoint_save. On the same number of ranks a
 * decomposition that goes on has the bits of one never stopped; on another one it agrees to rounding. */
lsp_status lsp_svd_save(lsp_svd_state *state, const char *file, const char *marks, int64_t *bytes);

/* Local. As lsp_checkpoint_id, of a decomposition with these options. */
lsp_status lsp_svd_id(lsp_operator *op, const lsp_svd_options *options, const char *marks,
                      char id[LSP_STATE_ID]);

/* Collective. By ScaLAPACK's pdgesvd on W itself, formed in double from q and k (whatever the operator computes
 * in) and dealt to a nearly square process grid: the reference, whose time grows with the cube of the size
 * (n = m = 1024 takes seconds, 2048 a minute). Of the options rank, tolerance and progress count. The
 * certificate is the sum of the squares of the singular values left out, which are all known, so that nothing
 * cancels. Memory of a rank: about 8 n m (4 / ranks) bytes, counted before it is taken. The bits repeat on the
 * same ranks.
 * Errors: LSP_ERR_USAGE (options, nothing bound), LSP_ERR_CONTENT (W is not finite, with the count and the first
 * place), LSP_ERR_LIMIT (the description's memory_limit, or more than ScaLAPACK's 32-bit integers count, with the
 * numbers), LSP_ERR_VERIFY (pdgesvd did not converge), LSP_ERR_RANK. */
lsp_status lsp_svd_full(lsp_operator *op, const lsp_svd_options *options, lsp_svd **out);

/* The true error in sampled rows of W, one from each of as many equal parts. */
typedef struct lsp_svd_sampled {
    int64_t rows;
    double frobenius_error;    /* of the sampled rows together */
    double frobenius_relative; /* over the same rows of W */
} lsp_svd_sampled;

/* Collective. Compares up to 256 rows of W, computed by the operator, with those of U diag(sigma) V^T. op is the one
 * that svd was made from. Errors: LSP_ERR_LIMIT, LSP_ERR_RANK. */
lsp_status lsp_svd_sample(lsp_operator *op, const lsp_svd *svd, int64_t rows, uint64_t seed,
                          lsp_svd_sampled *out);

/* Local. Frees and sets *svd to NULL. NULL is allowed. */
void lsp_svd_destroy(lsp_svd **svd);

/* What a spectrum tells. */
typedef struct lsp_spectrum {
    double effective_rank;              /* exp of the entropy of sigma / sum sigma (Roy and Vetterli 2007) */
    int64_t rank_90, rank_99, rank_999; /* least rank with that share of ||W||_F^2; -1: more than there are */
} lsp_spectrum;

/* Local. Of the singular values that were computed: the effective rank is that of the truncated matrix. */
lsp_spectrum lsp_svd_spectrum(const lsp_svd *svd);

#ifdef __cplusplus
}
#endif
#endif
