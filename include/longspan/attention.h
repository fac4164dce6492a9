/* Attention over rows split across ranks: plan and execute.
 *
 *   O = softmax(scale * Q K^T + mask) V  per head; LSE = the log of each row's sum of exponentials.
 *
 * Besides the exact method there are approximations; each says what it leaves out.
 *
 * The bits of O and LSE depend on the operands, the description and the instruction set alone: not on
 * the number of ranks or threads, the gather mode, the head groups or the partition.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LONGSPAN_ATTENTION_H
#define LONGSPAN_ATTENTION_H

#include <longspan/tensor.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum lsp_isa { LSP_ISA_AUTO = 0, LSP_ISA_PORTABLE = 1, LSP_ISA_AVX2 = 2, LSP_ISA_AVX512 = 3 } lsp_isa;
typedef enum lsp_mask_kind { LSP_MASK_NONE = 0, LSP_MASK_CAUSAL = 1, LSP_MASK_WINDOW = 2 } lsp_mask_kind;
typedef enum lsp_causal_align { LSP_ALIGN_BOTTOM_RIGHT = 0, LSP_ALIGN_TOP_LEFT = 1 } lsp_causal_align;
typedef enum lsp_gather_mode {
    LSP_GATHER_AUTO = 0,
    LSP_GATHER_PANELS = 1, /* K/V panels in global order, broadcast from their owners, double-buffered */
    LSP_GATHER_ALL = 2,    /* one allgather of K and V before computing */
    LSP_GATHER_NODE = 3,   /* panels, one copy a node in shared memory */
    LSP_GATHER_CHAIN = 4   /* panels, passed on from rank to rank in segments */
} lsp_gather_mode;
typedef enum lsp_partition_kind {
    LSP_PARTITION_AUTO = 0,       /* as the mask asks */
    LSP_PARTITION_CONTIGUOUS = 1, /* equal numbers of rows (method block: of blocks, when there are enough) */
    LSP_PARTITION_BALANCED = 2,   /* contiguous, equal numbers of visible (query, key) pairs */
    LSP_PARTITION_CYCLIC = 3      /* small blocks of rows dealt forth and back (zigzag) */
} lsp_partition_kind;

typedef enum lsp_method {
    LSP_METHOD_EXACT = 0,
    LSP_METHOD_BLOCK = 1,  /* rows see the keys of their own block of the sequence only */
    LSP_METHOD_TOPK = 2,   /* rows keep their k largest weights (see topk.h) */
    LSP_METHOD_LOWRANK = 3 /* the matrix keeps its largest singular values (see lowrank.h) */
} lsp_method;

/* How the singular values of LSP_METHOD_LOWRANK come about (see svd.h). */
typedef enum lsp_svd_kind {
    LSP_SVD_KRYLOV = 0, /* lsp_svd_krylov: never forms the matrix */
    LSP_SVD_FULL = 1    /* lsp_svd_full: the reference, for small sizes */
} lsp_svd_kind;

/* Local. Names as in decks and reports ("avx512", "panels", ...); parse functions return false for an
 * unknown name. */
const char *lsp_method_name(lsp_method method);
const char *lsp_isa_name(lsp_isa isa);
const char *lsp_gather_mode_name(lsp_gather_mode mode);
const char *lsp_partition_kind_name(lsp_partition_kind kind);

/* Local. The best instruction set that this processor and operating system can run. */
lsp_isa lsp_isa_best(void);

/* What to compute. Zero-initialise, then set the shape. All ranks pass the same values. */
typedef struct lsp_attention_desc {
    /* Shape: Q [batch, heads, n, d_k], K [batch, kv_heads, m, d_k], V [batch, kv_heads, m, d_v]. */
    int64_t batch, heads, kv_heads, n, m, d_k, d_v;
    /* The K/V head of each query head, [heads]; NULL: head h uses h / (heads / kv_heads). Borrowed
     * during lsp_attention_create only, as all pointers here. */
    const int64_t *kv_head_of;
    /* The part to compute: query rows [row_begin, row_end), keys [key_begin, key_end). An end of 0
     * means n (m). Positions stay those of the whole; keys outside do not contribute. */
    int64_t row_begin, row_end, key_begin, key_end;

    lsp_dtype q_type, k_type, v_type; /* of the arrays passed to execute: f16, bf16, f32, f64 */
    lsp_dtype compute;                /* LSP_BF16, LSP_F32 or LSP_F64; out and lse: lsp_dtype_result */

    lsp_mask_kind mask;
    lsp_causal_align align;            /* also positions of window and ALiBi */
    int64_t window_left, window_right; /* LSP_MASK_WINDOW: p - left <= key <= p + right */
    const int64_t *documents;          /* offsets [document_count + 1], from 0 to n; NULL: none */
    const int64_t *documents_k; /* the same over keys, from 0 to m; NULL: as documents (needs n == m) */
    int64_t document_count;
    const int64_t *key_lengths; /* [batch], each in 0..m: keys beyond do not exist; NULL: all m */

    double scale;               /* 0: 1 / sqrt(d_k) */
    double softcap;             /* 0: none; else s -> softcap * tanh(s / softcap) */
    const double *alibi_slopes; /* [heads]; NULL: none (see lsp_alibi_slope) */

    lsp_method method;
    /* LSP_METHOD_BLOCK: rows of a block, 1 to n; the last block may be short. Rows [b s, e) with
     * e = min((b + 1) s, n) see keys [floor(b s m / n), floor(e m / n)), as far as the mask shows them. */
    int64_t block_size;
    /* LSP_METHOD_TOPK: weights that a row keeps, 1 or more, those of the largest scores; of equal ones the lower
     * keys. Rows that see fewer keys keep all. They stay as the softmax over all keys gave them, unless renormalize
     * makes them add up to 1. lse is that of all keys. Memory: for each row 8 bytes (f64: 12) times topk and
     * half of it (128, in f64 64, at least; 1024 at most), and 8 (d_v + 1) bytes: lsp_attention_estimate counts it. */
    int64_t topk;
    bool renormalize;
    /* LSP_METHOD_LOWRANK: O = U_r S_r (V_r^T V) of each query head's W. lse is that of W itself. Computes in f32 or
     * f64; splits the rows and keys of every head over all ranks (head_groups 0 or 1; partition cyclic is taken as
     * balanced). The bits repeat on the same ranks and threads; on other numbers of ranks they agree to what rounding
     * does to the singular vectors. */
    int64_t rank;     /* as lsp_svd_options; 0 only with a tolerance */
    double tolerance; /* as lsp_svd_options; 0: rank is fixed */
    lsp_svd_kind svd;
    int64_t oversample; /* krylov: columns of a block besides rank; 0: 16; -1: none */
    int64_t steps;      /* krylov: steps after the first block; 0: 2; -1: none */
    uint64_t seed;      /* krylov: of the start block */
    bool allow_leak;    /* needed where lsp_attention_hides_later: truncated, rows see later keys a little */
    bool keep_values;   /* for lsp_lowrank_get_values, which verification takes; costs as many bytes */

    lsp_isa isa; /* LSP_ISA_AUTO: the best that every rank has */
    lsp_gather_mode gather;
    lsp_partition_kind partition;
    int64_t panel_rows;   /* keys a panel, rounded up to whole key tiles; 0: chosen */
    int head_groups;      /* rank groups over which heads are split, must divide the ranks; 0: chosen */
    int64_t memory_limit; /* bytes this node's ranks may use together; 0: do not check */
} lsp_attention_desc;

/* Local. Slope of head `head` of `heads` (Press et al. 2022: powers of two, and their rule for other
 * head counts). */
double lsp_alibi_slope(int64_t head, int64_t heads);

/* Local. Whether the mask hides every later key from every row: causal, or a window without keys after the row. */
bool lsp_attention_hides_later(const lsp_attention_desc *desc);

/* Bytes of one rank, by item (the largest over all ranks where it comes from lsp_attention_footprint). */
typedef struct lsp_footprint {
    int64_t q, k, v, out, lse; /* the caller's arrays */
    int64_t panels;            /* buffers for gathered K and V */
    int64_t packed;            /* one panel packed for the kernel */
    int64_t work;              /* running maxima and sums, thread scratch */
    int64_t total;
} lsp_footprint;

/* What an execution costs, for any number of ranks, without running it. */
typedef struct lsp_estimate {
    lsp_footprint footprint; /* of the rank that needs most */
    double pairs;            /* visible (query, key) pairs, all heads and batches */
    double flops;            /* 2 (d_k + d_v) per pair */
    double work;             /* flops whose time it takes at the kernels' speed: flops, but for lowrank */
    /* Of lowrank, by Krylov (0 otherwise): with a tolerance those of the first attempt. */
    double products;           /* flops of W X and W^T Y: of work */
    double dense;              /* flops of the rest that ranks share out, in double: of work */
    double alone;              /* flops of the small decompositions, on one rank */
    double converted;          /* numbers of blocks that change their type between products */
    int64_t columns;           /* of a block */
    double pairs_max;          /* pairs of the rank that has most */
    double bytes_received;     /* K/V bytes gathered by all ranks together: whole panels, own ones not */
    double bytes_received_max; /* by the rank that receives most */
    int64_t idle_ranks;        /* ranks without a query row */
    int64_t tile_keys, panel_keys, panels;
    lsp_gather_mode gather;
    lsp_partition_kind partition;
    int head_groups;
} lsp_estimate;

/* Local. Estimate for `ranks` ranks, `ranks_per_node` on a node, `threads` each. Errors: LSP_ERR_USAGE
 * with text in message (may be NULL). */
lsp_status lsp_attention_estimate(const lsp_attention_desc *desc, int ranks, int ranks_per_node, int threads,
                                  lsp_estimate *estimate, char *message, size_t message_size);

typedef struct lsp_attention lsp_attention;

/* Collective. Decides distribution, panels and kernels; checks the description (LSP_ERR_USAGE), that
 * all ranks passed the same, the instruction set (LSP_ERR_USAGE when some rank lacks it) and memory
 * against memory_limit (LSP_ERR_LIMIT, with the numbers) before anything large is allocated. */
lsp_status lsp_attention_create(lsp_context *ctx, const lsp_attention_desc *desc, lsp_attention **out);

typedef enum lsp_operand { LSP_QUERIES = 0, LSP_KEYS = 1 } lsp_operand;

/* Local. The runs of rows that this rank holds of an operand; an array is these runs one after the
 * other. LSP_QUERIES: of Q, O and LSE (batch, query head, row of the whole). LSP_KEYS: of K and V
 * (batch, K/V head, key of the whole). Owned by the plan. *rows is the sum of the counts (may be 0). */
lsp_status lsp_attention_runs(const lsp_attention *plan, lsp_operand operand, const lsp_run **runs,
                              int64_t *run_count, int64_t *rows);

/* Local. What was decided (as lsp_attention_estimate for this run). */
lsp_estimate lsp_attention_get_estimate(const lsp_attention *plan);
lsp_isa lsp_attention_get_isa(const lsp_attention *plan);

/* Statistics of one execution on this rank. */
typedef struct lsp_attention_stats {
    double seconds_total;          /* wall time of the call */
    double seconds_compute;        /* packing and kernels (total minus exposed gather) */
    double seconds_gather_exposed; /* waiting for panels that had not arrived */
    double bytes_received;         /* K/V bytes from other ranks */
    double pairs;                  /* visible pairs that this rank computed */
    int64_t empty_rows;            /* rows that see no key: O = 0, LSE = -inf */
} lsp_attention_stats;

/* Called now and then by each rank's main thread during execute, with the share (0..1) of this rank's
 * work that is done. Must not call MPI on the context's communicator. */
typedef void (*lsp_progress_fn)(void *user, double done);

/* Local. Sets the progress function (NULL: none). */
void lsp_attention_set_progress(lsp_attention *plan, lsp_progress_fn progress, void *user);

/* Collective. q, k, v: this rank's runs (types as described), out [rows, d_v] and lse [rows] in the
 * computing type (lse may be NULL). Arrays stay the caller's. stats may be NULL. May be called again
 * with other arrays. A row that sees no key gives zeros and -inf. Non-finite operands give what IEEE
 * arithmetic gives for the rows that see them, and do not touch others.
 * Errors: LSP_ERR_LIMIT (allocation), LSP_ERR_RANK (MPI). */
lsp_status lsp_attention_execute(lsp_attention *plan, const void *q, const void *k, const void *v, void *out,
                                 void *lse, lsp_attention_stats *stats);

/* Collective. Frees and sets *plan to NULL. NULL is allowed. */
lsp_status lsp_attention_destroy(lsp_attention **plan);

#ifdef __cplusplus
}
#endif
#endif
