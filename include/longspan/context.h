/* The context: one communicator, its threads, and the text of the last failure.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LONGSPAN_CONTEXT_H
#define LONGSPAN_CONTEXT_H

#include <longspan/status.h>
#include <mpi.h>
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lsp_context lsp_context;

typedef struct lsp_context_options {
    int threads; /* OpenMP threads of this rank; 0: as many as its cores allow, shared with the ranks
                    that may run on the same cores */
} lsp_context_options;

/* Where this rank stands. `threads_node` and `cores_node` are sums over the ranks of its node: more
 * threads than cores means oversubscription. */
typedef struct lsp_context_layout {
    int rank, ranks;           /* in the context's communicator */
    int node, nodes;           /* nodes are numbered by their lowest rank */
    int node_rank, node_ranks; /* this rank among the ranks of its node */
    int threads;               /* of this rank */
    int threads_node, cores_node;
} lsp_context_layout;

/* Collective over comm. Duplicates comm (the caller keeps his), sets MPI_ERRORS_RETURN on the copy.
 * options may be NULL. MPI must be initialised with MPI_THREAD_FUNNELED or more when threads > 1.
 * Errors: LSP_ERR_USAGE (threads < 0, MPI not initialised, thread support too low), LSP_ERR_RANK. On
 * failure *out is NULL; when message is not NULL it receives the text (message_size bytes). */
lsp_status lsp_context_create(MPI_Comm comm, const lsp_context_options *options, lsp_context **out,
                              char *message, size_t message_size);

/* Collective. Frees everything the context owns and sets *ctx to NULL. Plans and tensors made from it
 * must be destroyed before. NULL is allowed. */
lsp_status lsp_context_destroy(lsp_context **ctx);

/* Local. The text of the last failure: what, where, the remedy; "" when none. Owned by the context.
 * After a collective call failed, the text is the same on every rank. */
const char *lsp_context_message(const lsp_context *ctx);

/* Local. The rank whose failure lsp_context_message tells, or -1. */
int lsp_context_failed_rank(const lsp_context *ctx);

/* Local. */
lsp_context_layout lsp_context_get_layout(const lsp_context *ctx);

/* Collective. Gives every rank the same verdict: the worst code of all ranks, with the text of the
 * lowest rank that failed with it (LSP_OK: none here). For programs with work of their own between calls. Once this
 * rank alone has failed with LSP_ERR_RANK, it and all collective calls return that at once: call MPI_Abort. */
lsp_status lsp_context_agree(lsp_context *ctx, lsp_status mine);

/* Local. Records a failure in the context (printf-style) and returns `code`. */
lsp_status lsp_context_fail(lsp_context *ctx, lsp_status code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Local. Version of the library, "major.minor.patch". */
const char *lsp_version(void);

#ifdef __cplusplus
}
#endif
#endif
