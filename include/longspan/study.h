/* Checking, joining and making tensors; what the machine gives, and what of it attention takes.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LONGSPAN_STUDY_H
#define LONGSPAN_STUDY_H

#include <longspan/attention.h>
#include <longspan/layer.h>

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
    int64_t
        near_ties; /* method topk: rows where scores about the k-th are too near to tell in the computing type
                             which belong to it; those rows may differ by as much as that changes them */
    int64_t worst[3]; /* batch, head, row of max_rel_err */
    bool passed;
} lsp_verify_result;

/* Collective. Recomputes `rows` sampled rows (chosen by `seed` from all rows of the part, every rank
 * alike) in double precision by a plain loop that shares no code with the kernels, each rank over the
 * keys it owns, and compares. Operands and results as lsp_attention_execute had them (lse may be
 * NULL; it is checked to the same tolerance, absolute). rows: at least 1; no more than there are.
 * tolerance 0: from the computing type and the size of the scores that count in the row. A rank may
 * pass runs of its own choosing (a file read in another distribution): query_runs and key_runs describe
 * q/out/lse and k/v; together they must cover what the sampled rows need exactly once. Method lowrank: v are the
 * values with which the matrices themselves give out, as lsp_lowrank_get_values has them, and desc's v_type is the
 * computing type: the truncation is taken for granted, and all else is checked. Returns LSP_OK
 * also when the check does not pass; see result->passed. */
lsp_status lsp_verify_attention(lsp_context *ctx, const lsp_attention_desc *desc, const lsp_run *query_runs,
                                int64_t query_run_count, const lsp_run *key_runs, int64_t key_run_count,
                                const void *q, const void *k, const void *v, const void *out, const void *lse,
                                int64_t rows, uint64_t seed, double tolerance, lsp_verify_result *result);

/* Collective. The same of a layer that was just executed with x, context (or NULL) and y, which are its runs. With the
 * methods exact and block (*end_to_end is set) the sampled rows of Y are computed again from X and the weights, each
 * rank projecting the keys and values of its own rows in double. With others, whose rows depend on more than the scores
 * of a row, the three steps are checked apart on what was inside of the layer: rows of Q, K and V against X and the
 * weights, rows of the attention as lsp_verify_attention does, rows of Y against the heads' outputs and the weights.
 * max_lse_err is 0. Memory: the weights of keys and values in double, 3 MiB and more a thread. */
lsp_status lsp_verify_layer(lsp_context *ctx, const lsp_layer *layer, const lsp_layer_weights *weights,
                            const void *x, const void *context, const void *y, int64_t rows, uint64_t seed,
                            double tolerance, bool *end_to_end, lsp_verify_result *result);

/* ---- the error of approximations ----------------------------------------------------------------- */

/* Of the rows sampled, against exact attention. Rows whose exact answer is not finite are left out. */
typedef struct lsp_error_sample {
    int64_t rows; /* compared */
    double dropped_mass_mean,
        dropped_mass_max;                 /* share of a row's softmax weights on keys that its block hides;
                                                    0 with methods that have no blocks */
    double out_error_mean, out_error_max; /* ||row - exact row|| / ||exact row|| */
    double out_distance_mean, out_distance_max; /* ||row - exact row|| */
} lsp_error_sample;

/* Collective. Compares rows sampled as lsp_verify_attention samples them (the same rows for the same seed) with what
 * exact attention over all keys that the mask shows would have given, in double precision. Arguments as there. It is
 * a sample: it says nothing certain about other rows. */
lsp_status lsp_sample_error(lsp_context *ctx, const lsp_attention_desc *desc, const lsp_run *query_runs,
                            int64_t query_run_count, const lsp_run *key_runs, int64_t key_run_count,
                            const void *q, const void *k, const void *v, const void *out, int64_t rows,
                            uint64_t seed, lsp_error_sample *result);

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

/* Collective. The same for a while: *gflops of FMAs one after the other for `seconds`, with every change of the clock and
 * every interrupt in it, as a computation of that length has them; and *peak_gflops, of the best bursts in it. */
lsp_status lsp_measure_fma_rate(lsp_context *ctx, lsp_isa isa, lsp_dtype compute, double seconds,
                                double *gflops, double *peak_gflops);

/* Collective. Bandwidth of reading memory, in bytes per second, summed over all ranks: every thread of every rank
 * adds up an array of its own of `bytes` bytes (0: twice the last cache, at least 64 MiB) again and again for about
 * `seconds`; the best pass counts, the slowest thread in it. *array_bytes (may be NULL): what 0 stood for.
 * Errors: LSP_ERR_USAGE (bytes < 0), LSP_ERR_LIMIT (memory). */
lsp_status lsp_measure_read_bandwidth(lsp_context *ctx, int64_t bytes, double seconds,
                                      double *bytes_per_second, int64_t *array_bytes);

/* Local. Bytes that this node's processes may still take: the least of MemAvailable and the free part
 * of the enclosing cgroups (v1 or v2). *source (may be NULL) names which ("machine", "cgroup"). At least 1
 * when known; 0, with source "unknown", when the system tells nothing. */
int64_t lsp_memory_available(const char **source);

/* Local. Peak resident bytes of this process so far. */
int64_t lsp_memory_peak(void);

/* ---- speed --------------------------------------------------------------------------------------- */

/* What a speed is measured against. */
typedef enum lsp_bench_limit {
    LSP_BENCH_FMA = 0, /* work: flops, 2 (d_k + d_v) for every visible pair; limit: FMAs alone */
    LSP_BENCH_READ = 1 /* work: bytes of K and V, each counted once; limit: the read bandwidth */
} lsp_bench_limit;

typedef struct lsp_bench_options {
    double seconds; /* to spend on repetitions; there are at least 5, whatever they take */
    lsp_bench_limit limit;
    int64_t read_bytes;  /* LSP_BENCH_READ: as `bytes` of lsp_measure_read_bandwidth */
    int64_t verify_rows; /* of the last result, as lsp_verify_attention; 0: none */
} lsp_bench_options;

/* A repetition is one execution, or as many as last 10 ms; its time that of the slowest rank, by the wall. The
 * limit is measured before and after each: a machine that changes its clock or has other work changes both. FMAs
 * alone run for as long as a repetition (at most 0.5 s), as the clock may be higher for a moment than it stays:
 * `burst_best` is their rate in the best millisecond. */
typedef struct lsp_bench_result {
    lsp_isa isa;
    int64_t repetitions;
    double work;                         /* flops or bytes of one execution, all ranks */
    double seconds_best, seconds_median; /* of one execution */
    double seconds_gather;               /* exposed gather in the best one, the largest of all ranks */
    double limit_best;                   /* flops or bytes per second: the best seen */
    double limit_scatter;                /* limit_best / median of the limits - 1 */
    double burst_best;                   /* LSP_BENCH_FMA: flops per second of the best bursts; else 0 */
    double share_best;                   /* work / seconds_best / limit_best */
    double share_median;                 /* median of work / seconds / (limit beside that repetition) */
    double scatter;                      /* seconds_median / seconds_best - 1 */
    lsp_verify_result verify;            /* zeros when verify_rows is 0 */
} lsp_bench_result;

/* Collective. Measures lsp_attention_execute with everything in it (packing, gathering, kernels) on normal random
 * operands in memory, described by desc. LSP_OK also when the verification does not pass; see result->verify.
 * Errors: those of lsp_attention_create and lsp_attention_execute, LSP_ERR_LIMIT (memory of the operands). */
lsp_status lsp_bench_attention(lsp_context *ctx, const lsp_attention_desc *desc,
                               const lsp_bench_options *options, lsp_bench_result *result);

#ifdef __cplusplus
}
#endif
#endif
