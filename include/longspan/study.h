/* Checking, joining and making tensors; what the machine gives.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LONGSPAN_STUDY_H
#define LONGSPAN_STUDY_H

#include <longspan/attention.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- verification ------------------------------------------------------------------------------ */

typedef struct lsp_verify_result {
    int64_t rows;         /* rows sampled */
    double max_rel_err;   /* over sampled rows, ||row - reference|| / ||reference||; infinite where one is
                             finite and the other not, or a row without keys is not zeros and -inf */
    double max_lse_err;   /* |lse - reference|, absolute, over sampled rows */
    double tolerance;     /* that was applied (the largest, when each row has its own) */
    double max_abs_score; /* largest |score| met (natural units) */
    int64_t worst[3];     /* batch, head, row of max_rel_err */
    bool passed;
} lsp_verify_result;

/* Collective. Recomputes `rows` sampled rows (chosen by `seed` from all rows of the part, every rank
 * alike) in double precision by a plain loop that shares no code with the kernels, each rank over the
 * keys it owns, and compares. Operands and results as lsp_attention_execute had them (lse may be
 * NULL; it is checked to the same tolerance, absolute). rows: at least 1; no more than there are.
 * tolerance 0: from the computing type and the size of the scores that count in the row. A rank may
 * pass runs of its own choosing (a file read in another distribution): query_runs and key_runs describe
 * q/out/lse and k/v; together they must cover what the sampled rows need exactly once. Returns LSP_OK
 * also when the check does not pass; see result->passed. */
lsp_status lsp_verify_attention(lsp_context *ctx, const lsp_attention_desc *desc, const lsp_run *query_runs,
                                int64_t query_run_count, const lsp_run *key_runs, int64_t key_run_count,
                                const void *q, const void *k, const void *v, const void *out, const void *lse,
                                int64_t rows, uint64_t seed, double tolerance, lsp_verify_result *result);

/* ---- joining ------------------------------------------------------------------------------------ */

/* Local, in OpenMP's number of threads (omp_set_num_threads). Joins partial results over disjoint key sets into out/lse (parts[0..count) each [rows, d_v]
 * and [rows], type f32 or f64): lse = log sum exp(lse_i), out = sum exp(lse_i - lse) out_i, in double.
 * Rows without keys anywhere give 0 and -inf. out may be one of the parts. */
void lsp_merge_rows(lsp_dtype type, int64_t rows, int64_t d_v, int count, const void *const *parts,
                    const void *const *parts_lse, void *out, void *lse);

/* ---- synthetic tensors --------------------------------------------------------------------------- */

typedef enum lsp_distribution { LSP_NORMAL = 0, LSP_PEAKED = 1, LSP_WALK = 2 } lsp_distribution;
typedef enum lsp_tensor_role {
    LSP_ROLE_Q = 0,
    LSP_ROLE_K = 1,
    LSP_ROLE_V = 2,
    LSP_ROLE_X = 3
} lsp_tensor_role;

/* Local, in OpenMP's number of threads (omp_set_num_threads). Fills the given runs of a synthetic tensor [*, heads, n, d] of type f16, bf16, f32 or f64.
 * Every element depends on (distribution, role, seed, its own index) alone, so any rank may fill any
 * part. normal: N(0, 1). peaked: normal, with K a noisy copy of Q's directions so that scores reach
 * about +-15 at scale 1/sqrt(d). walk: a smooth random walk along the rows. V is always N(0, 1).
 * Errors: LSP_ERR_USAGE (shape, type, a run outside), LSP_ERR_LIMIT (memory). */
lsp_status lsp_generate_rows(lsp_distribution distribution, lsp_tensor_role role, uint64_t seed,
                             lsp_dtype type, int64_t heads, int64_t n, int64_t d, const lsp_run *runs,
                             int64_t run_count, void *buffer);

/* ---- the machine --------------------------------------------------------------------------------- */

/* Collective. FMA peak of the computing type (f32, f64) and instruction set, summed over all threads
 * of all ranks, measured in about `seconds` (best of several short bursts), in GFLOP/s. */
lsp_status lsp_measure_fma_peak(lsp_context *ctx, lsp_isa isa, lsp_dtype compute, double seconds,
                                double *gflops);

/* Local. Bytes that this node's processes may still take: the least of MemAvailable and the free part
 * of the enclosing cgroups (v1 or v2). *source (may be NULL) names which ("machine", "cgroup"). At least 1
 * when known; 0, with source "unknown", when the system tells nothing. */
int64_t lsp_memory_available(const char **source);

/* Local. Peak resident bytes of this process so far. */
int64_t lsp_memory_peak(void);

#ifdef __cplusplus
}
#endif
#endif
