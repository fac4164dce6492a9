/* The registry of methods: one table of functions each.
 *
 * Every method works on a plan (method/attention.h): rows of Q dealt to the ranks, keys in absolute tiles,
 * panels gathered in global order. A new method adds its constant to lsp_method, a table, and a line in
 * method.c; the command learns its name there.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_METHOD_METHOD_H
#define LSP_METHOD_METHOD_H

#include "base/error.h"
#include "kernel/kernel.h"
#include "method/partition.h"

#include <longspan/attention.h>

/* Of one execution: this rank's runs, as lsp_attention_execute has them. */
typedef struct lsp_method_arrays {
    const void *q, *k, *v;
    void *out, *lse; /* lse may be NULL */
} lsp_method_arrays;

/* One array of a state, all query rows of this rank. */
typedef struct lsp_state_rows {
    const char *name; /* "/max" */
    lsp_dtype type;   /* f32, f64, or i64 with one column */
    int64_t columns;
    void *rows;
} lsp_state_rows;

enum { LSP_STATE_MOST = 16 };

typedef struct lsp_method_ops {
    const char *name;
    /* Local. Whether what the description says for this method can be done; NULL: always. */
    lsp_status (*check)(const lsp_attention_desc *desc, lsp_error *error);
    /* Rows and keys of every head are split over all ranks, for all heads alike, as an operator splits one. The plan
     * has neither a gather nor work space: the method makes what it needs. `columns`: width of values for which it
     * takes key tiles. */
    bool whole_heads;
    int64_t (*columns)(const lsp_attention_desc *desc);
    /* The plan's gather brings K alone, and `prepare` makes one for V: for methods that look at keys first. */
    bool keys_alone;
    bool no_values; /* nor does it look at values at all, or make an output */
    /* Collective. Allocates the method's own state of rows, after the plan's gather was made. NULL: that of the exact
     * method is what it needs. `release` frees it; also after a failure. */
    lsp_status (*prepare)(lsp_attention *plan);
    void (*release)(lsp_attention *plan);
    /* Local. Bytes of that state for one query row; NULL: as the exact method. */
    int64_t (*row_bytes)(const lsp_problem *problem, const lsp_kernel *kernel);
    /* Local. Bytes of a thread's scratch; NULL: those of the kernel's attend. */
    size_t (*scratch_bytes)(const lsp_kernel *kernel, const lsp_tile_shape *shape);
    /* Local. Corrects what an execution costs, which was filled in as for the exact method; NULL: it costs that. */
    lsp_status (*estimate)(const lsp_partition *partition, int ranks_per_node, int threads,
                           lsp_estimate *estimate, lsp_error *error);
    /* Local. Bytes besides for each query head of each batch, whatever its rows; NULL: none. */
    int64_t (*matrix_bytes)(const lsp_problem *problem, int threads);
    /* Share of the work that phase 0 is, and phase 1 the rest; 0: there is but one. */
    double first_phase;
    /* Local. The arrays [query rows][columns] that are the state of an execution at rest in plan->phase, and whose rows
     * are all set then; out is plan->out. Returns how many. NULL: executions of this method do not rest. */
    int (*state)(lsp_attention *plan, lsp_state_rows *arrays);
    /* Collective. Computes; fills every field of *stats. Every rank returns the same. */
    lsp_status (*execute)(lsp_attention *plan, const lsp_method_arrays *arrays, lsp_attention_stats *stats);
} lsp_method_ops;

/* Local. NULL for a method that does not exist. */
const lsp_method_ops *lsp_method_get(lsp_method method);

/* The tables. */
extern const lsp_method_ops lsp_method_exact, lsp_method_block, lsp_method_topk, lsp_method_lowrank;

/* Collective. Exact attention over what the plan's mask shows; also what block is made of. */
lsp_status lsp_exact_execute(lsp_attention *plan, const lsp_method_arrays *arrays,
                             lsp_attention_stats *stats);

/* Local. Its state. */
int lsp_exact_state(lsp_attention *plan, lsp_state_rows *arrays);

#endif
