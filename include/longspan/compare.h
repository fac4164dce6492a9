/* Approximations beside the exact answer, on the same operands: time, memory, true error, certificate.
 *
 *   lsp_compare_create(ctx, &desc, NULL, &compare);
 *   lsp_compare_runs(compare, LSP_QUERIES, &runs, &count, &rows);     the rows that this rank holds
 *   lsp_compare_exact(compare, q, k, v, &results[0], NULL);
 *   lsp_compare_method(compare, &approximation, &results[1], NULL);   again and again
 *   lsp_compare_front(results, 2, front);
 *
 * Errors and retained masses do not depend on the number of ranks: sums over rows are made in fixed blocks. (Where
 * outputs themselves do, as with lowrank, and what a method's own certificate tells, they agree to rounding.)
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LONGSPAN_COMPARE_H
#define LONGSPAN_COMPARE_H

#include <longspan/attention.h>
#include <longspan/checkpoint.h>
#include <longspan/lowrank.h>
#include <longspan/study.h>
#include <longspan/topk.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lsp_compare lsp_compare;

typedef struct lsp_compare_options {
    int64_t repeats;     /* executions of every method alike, 1 to LSP_COMPARE_REPEATS; the fastest counts */
    int64_t verify_rows; /* of every result, as lsp_verify_attention; 0: none */
    double verify_tolerance; /* as there; 0: chosen */
} lsp_compare_options;

enum { LSP_COMPARE_REPEATS = 1000 };

/* Local. repeats 3 (the first execution meets fresh memory), verify_rows 16, verify_tolerance 0. */
lsp_compare_options lsp_compare_defaults(void);

/* How it is known what a method keeps of a row's softmax. */
typedef enum lsp_retained_kind {
    LSP_RETAINED_ALL = 0,         /* exact: everything */
    LSP_RETAINED_LSE = 1,         /* exp(lse - exact lse), of every row: block */
    LSP_RETAINED_CERTIFICATE = 2, /* 1 - the dropped mass of the method's certificate, of every row: topk */
    LSP_RETAINED_ENERGY = 3       /* not a mass: the share of ||W||_F^2, by lowrank's certificate */
} lsp_retained_kind;

/* One head. */
typedef struct lsp_compare_head {
    double out_error, row_error; /* as in lsp_compare_result */
    double retained;             /* of the head's rows; NaN where it is known of all heads together only */
    lsp_lowrank_head lowrank;    /* of method lowrank */
} lsp_compare_head;

typedef struct lsp_compare_result {
    lsp_method method;
    lsp_isa isa;
    lsp_estimate estimate; /* its footprint: what a rank needs for this method alone */
    int64_t repeats;
    /* By the wall, of the slowest rank, without planning: gathering, packing, kernels. Compute and gather are of the
     * fastest execution, each the largest over ranks. */
    double seconds, seconds_median, seconds_compute, seconds_gather;
    double bytes_received; /* K/V bytes from other ranks in one execution, all ranks */
    int64_t empty_rows;    /* rows that see no key, all ranks */

    /* Against the exact output, over all rows; 0 for exact itself. */
    int64_t rows, left_out; /* compared; left out as their exact output is not finite */
    double out_error;       /* ||O - O^||_F / ||O||_F, all heads together */
    double row_error;       /* largest ||o - o^|| / ||o|| of a row whose exact output is not zero */
    int64_t worst[3];       /* batch, head, row of row_error */

    lsp_retained_kind retained;
    double retained_mean,
        retained_least; /* over rows with keys; energy: of all heads together, and of a head */
    /* No row's error ||o - o^||_2 is above it (block: 2 x dropped mass x the longest row of V, topk: its certificate's),
     * with an allowance for rounding. lowrank: it is on ||O - O^||_F, of all heads. 0 for exact. */
    double out_error_bound;
    lsp_topk_certificate topk;       /* of method topk */
    lsp_lowrank_certificate lowrank; /* of method lowrank */

    bool verified; /* verify holds a result: sampled rows are what the method should give */
    lsp_verify_result verify;
} lsp_compare_result;

/* Collective. Plans the exact attention that desc describes; its method and the keys of methods do not count. The
 * pointers in desc stay the caller's until the end. options NULL: the defaults. desc->memory_limit is held against
 * everything that the comparison keeps.
 * Errors: as lsp_attention_create. */
lsp_status lsp_compare_create(lsp_context *ctx, const lsp_attention_desc *desc,
                              const lsp_compare_options *options, lsp_compare **out);

/* Local. This rank's runs, as lsp_attention_runs has them, of the arrays that lsp_compare_exact takes. */
lsp_status lsp_compare_runs(const lsp_compare *compare, lsp_operand operand, const lsp_run **runs,
                            int64_t *run_count, int64_t *rows);

/* Local; every rank passes the same. Whether a method can be compared: what lsp_compare_method would refuse, before time
 * is spent. Of desc its method and that method's own keys count, all else is that of the comparison. *estimate (may be
 * NULL) is what it will cost. Errors: LSP_ERR_USAGE, LSP_ERR_LIMIT. */
lsp_status lsp_compare_check(const lsp_compare *compare, const lsp_attention_desc *desc,
                             lsp_estimate *estimate);

/* Local. Called now and then during executions, with the share (0..1) of the running call's work that is done; NULL:
 * none. */
void lsp_compare_set_progress(lsp_compare *compare, lsp_progress_fn progress, void *user);

/* Collective. Executes exact attention and keeps its output. q, k, v: this rank's runs; they stay the caller's and must
 * stay as they are until the end. heads (NULL, or [batch * heads]) is filled too. LSP_OK also when the verification
 * does not pass; see result->verify. Errors: LSP_ERR_LIMIT, LSP_ERR_RANK. */
lsp_status lsp_compare_exact(lsp_compare *compare, const void *q, const void *k, const void *v,
                             lsp_compare_result *result, lsp_compare_head *heads);

/* Collective, after lsp_compare_exact. The same of a method (see lsp_compare_check), which plans its own distribution;
 * rows are brought to where it wants them, untimed. Errors: as above, and LSP_ERR_USAGE. */
lsp_status lsp_compare_method(lsp_compare *compare, const lsp_attention_desc *desc,
                              lsp_compare_result *result, lsp_compare_head *heads);

/* Local. From now on executions of methods that can (lsp_method_can_rest) rest; what is ended there counts for nothing.
 * NULL: no longer. */
void lsp_compare_set_pause(lsp_compare *compare, const lsp_pause *pause);

/* The methods that are finished, exact first. */
typedef struct lsp_compare_finished {
    lsp_compare_result *results; /* [count] */
    lsp_compare_head *heads;     /* [count][batch * heads] */
    int64_t count;
    double share; /* of all work, to tell */
} lsp_compare_finished;

/* Collective, between methods or inside of lsp_pause.rest. Writes results and exact's output to `file`, as
 * lsp_checkpoint_save does; marks as there: also which methods there are, and their values. Errors as there. */
lsp_status lsp_compare_save(const lsp_compare *compare, const char *file, const char *marks,
                            const lsp_compare_finished *finished, int64_t *bytes);

/* Collective, instead of lsp_compare_exact where finished->count > 0 afterwards. Reads the state that lsp_checkpoint_look
 * found, or the one before where it is damaged (*info is changed), into results and heads, which have room for `most`
 * methods. Its description has the instruction set of the state; ranks, threads and all that times depend on must be the same.
 * q, k, v as lsp_compare_exact. Errors as lsp_checkpoint_load. */
lsp_status lsp_compare_load(lsp_compare *compare, const char *file, const char *marks, const void *q,
                            const void *k, const void *v, int64_t most, lsp_compare_finished *finished,
                            lsp_checkpoint_info *info);

/* Local. front[i]: no other result is at least as good as i in both out_error and seconds, and better in one. */
void lsp_compare_front(const lsp_compare_result *results, int64_t count, bool *front);

/* Collective. Frees and sets to NULL. NULL is allowed. */
lsp_status lsp_compare_destroy(lsp_compare **compare);

#ifdef __cplusplus
}
#endif
#endif
