/* What a run takes: a model of its time, from what lsp_attention_estimate counts and from what a machine does in a second.
 * Nothing here measures, communicates or allocates.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LONGSPAN_PLAN_H
#define LONGSPAN_PLAN_H

#include <longspan/attention.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What is run, by the command that runs it. */
typedef enum lsp_plan_kind {
    LSP_PLAN_ATTEND = 0, /* any method */
    LSP_PLAN_SVD = 1, /* rank, svd, steps of the description count; the estimate is that of method lowrank */
    LSP_PLAN_LAYER = 2,
    LSP_PLAN_MAP = 3
} lsp_plan_kind;

/* What a machine does in a second. */
typedef struct lsp_plan_rates {
    double
        kernel; /* flops of a thread in attention's kernels, of the run's type and columns; svd and lowrank: of W X */
    double peak;    /* flops of a thread: the FMA peak of the run's type, as far as the kernels come by it */
    double dense;   /* flops of a thread: the FMA peak of f64 */
    double project; /* flops of a thread: a layer's projections */
    double memory;  /* bytes that a node reads from memory */
    double link;    /* bytes that come into a node from others */
    double latency; /* seconds, of a message */
    double read;    /* bytes that the file system gives all ranks together; 0: as many as memory takes */
    double write;   /* bytes that it takes from them */
    double
        slowness; /* scalar work takes so many times as long as where the model's constants come from; 1 when unknown */
} lsp_plan_rates;

/* Zero-initialise, then set. */
typedef struct lsp_plan_run {
    lsp_plan_kind kind;
    const lsp_attention_desc *desc;
    int ranks, ranks_per_node, threads; /* threads of a rank */
    int64_t verify_rows;
    double input_bytes, output_bytes; /* of all ranks together */
    int64_t d_model;                  /* layer */
    bool cross;                       /* layer: keys and values from a context */
} lsp_plan_run;

typedef enum lsp_plan_part {
    LSP_PLAN_READ = 0,
    LSP_PLAN_PROJECT = 1, /* layer */
    LSP_PLAN_COMPUTE = 2,
    LSP_PLAN_GATHER = 3, /* what of it is not hidden behind computing */
    LSP_PLAN_VERIFY = 4,
    LSP_PLAN_WRITE = 5,
    LSP_PLAN_OTHER = 6, /* options, planning, measuring the peak */
    LSP_PLAN_PARTS = 7
} lsp_plan_part;

/* The resource that most of the time goes to. */
typedef enum lsp_plan_limit {
    LSP_LIMIT_COMPUTE = 0,
    LSP_LIMIT_MEMORY = 1, /* its bandwidth */
    LSP_LIMIT_LINK = 2,
    LSP_LIMIT_FILE = 3
} lsp_plan_limit;

typedef struct lsp_plan_time {
    double seconds[LSP_PLAN_PARTS];
    double total;  /* their sum; the start of processes is not in it */
    double gather; /* seconds that all of the gather takes, hidden or not */
    lsp_plan_limit limit;
} lsp_plan_time;

/* Local. "compute", "memory", "link", "file". */
const char *lsp_plan_limit_name(lsp_plan_limit limit);

/* Local. Predicts a run by its estimate (of lsp_attention_estimate for as many ranks and threads; kind svd: all heads
 * together). */
lsp_plan_time lsp_plan_predict(const lsp_plan_run *run, const lsp_estimate *estimate,
                               const lsp_plan_rates *rates);

/* Local. Flops of a layer's projections, all ranks: 2 per weight and row. */
double lsp_plan_project_flops(const lsp_plan_run *run);

/* Local. Candidates that topk takes up in a row that sees `keys` keys: the k-th largest score is known as of the last time
 * that the room for 1.5 k was cleared, which happens whenever the keys met have grown by half. */
double lsp_plan_topk_candidates(double topk, double keys);

#ifdef __cplusplus
}
#endif
#endif
