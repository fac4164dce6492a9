/* Long executions: stopping between tiles, saving the state by global row, going on from it.
 *
 * A saved state goes on under any number of ranks and threads, gather mode, head groups and partition, and gives
 * the bits of an execution that was never stopped; the instruction set must be the same.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LONGSPAN_CHECKPOINT_H
#define LONGSPAN_CHECKPOINT_H

#include <longspan/attention.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a rank wants; of different wants the largest counts. */
typedef enum lsp_want {
    LSP_WANT_NOTHING = 0,
    LSP_WANT_SAVE = 1,
    LSP_WANT_STOP = 2, /* save and stop; go on where it cannot be saved */
    LSP_WANT_END = 3   /* save and stop, also where it cannot be saved */
} lsp_want;

typedef struct lsp_pause {
    /* Local. Called often by each rank's main thread while it computes or waits: quick, and without MPI. What any rank
     * wants is known to all after some milliseconds; they come to rest after the tiles at hand. */
    lsp_want (*want)(void *user);
    /* Collective. Called on every rank when all rest, with what they want: here lsp_checkpoint_save may be called. Any
     * communication is allowed. LSP_OK goes on; anything else ends the execution with that status. */
    lsp_status (*rest)(void *user, lsp_want want);
    void *user;
} lsp_pause;

/* Local. Whether executions of a method can rest and be saved. */
bool lsp_method_can_rest(lsp_method method);

/* Collective. From now on executions of the plan can rest (NULL: no longer). Errors: LSP_ERR_LIMIT, LSP_ERR_RANK. */
lsp_status lsp_attention_set_pause(lsp_attention *plan, const lsp_pause *pause);

/* What a checkpoint tells. */
typedef struct lsp_checkpoint_info {
    bool found;
    bool previous; /* the one before the last: the last is missing or damaged, as `notice` says */
    char notice[512];
    char file[4096]; /* the one that is used */
    lsp_isa isa;     /* that it goes on with */
    double done;     /* share of the work */
    int64_t bytes;
} lsp_checkpoint_info;

/* Collective, inside of lsp_pause.rest only. Writes the state to `file`: under a temporary name in the same folder first,
 * synced, then renamed; what stood there before becomes `file`.prev. marks: lines "name = value" of the caller's,
 * without which the state does not fit (the same on every rank; "" for none). *bytes: size of the file.
 * Errors: LSP_ERR_FILE, LSP_ERR_LIMIT, LSP_ERR_RANK; what stood there before is untouched then. */
lsp_status lsp_checkpoint_save(lsp_attention *plan, const char *file, const char *marks, int64_t *bytes);

/* Collective. Looks for `file`, or `file`.prev where that is missing or damaged. Nothing there: info->found is false.
 * Errors: LSP_ERR_CONTENT (both are damaged), LSP_ERR_FILE. */
lsp_status lsp_checkpoint_look(lsp_context *ctx, const char *file, lsp_checkpoint_info *info);

/* Collective. Reads the state that lsp_checkpoint_look found into the plan, which has its instruction set, and
 * into `out`, this rank's rows of the output: the next execution, with this `out`, goes on from it. The checksums of all
 * rows are checked; where the file is damaged, `file`.prev is taken, and *info changed.
 * Errors: LSP_ERR_CONTENT (damaged; made by another version, from another description or with other marks: names the
 * first difference), LSP_ERR_FILE, LSP_ERR_LIMIT, LSP_ERR_RANK. */
lsp_status lsp_checkpoint_load(lsp_attention *plan, const char *file, const char *marks, void *out,
                               lsp_checkpoint_info *info);

/* Local. 16 hexadecimal digits that stand for all that a state of the plan with these marks belongs to: the same for
 * runs that go on from each other's states. LSP_ERR_LIMIT. */
enum { LSP_STATE_ID = 17 };
lsp_status lsp_checkpoint_id(const lsp_attention *plan, const char *marks, char id[LSP_STATE_ID]);

/* Collective. Removes `file` and `file`.prev, as far as they are there. Errors: LSP_ERR_FILE. */
lsp_status lsp_checkpoint_remove(lsp_context *ctx, const char *file);

/* Collective. Whether files can be made in the folder of `file`, or LSP_ERR_FILE. */
lsp_status lsp_checkpoint_probe(lsp_context *ctx, const char *file);

#ifdef __cplusplus
}
#endif
#endif
