/* When a long run saves its state, when it stops, and from what it goes on.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_CHECKPOINT_H
#define LSP_APP_CHECKPOINT_H

#include "app/input.h"
#include "app/marks.h"

#include <cjson/cJSON.h>

typedef struct lsp_keeper {
    lsp_app *app;
    lsp_attention *plan;
    bool beats; /* whether computing tells its progress all the time */
    char *base; /* of the files' names; NULL: no checkpoints */
    char *file; /* of the part at hand */
    int64_t parts, part;
    lsp_isa *isa;                /* of the description */
    char *marks;                 /* what a state belongs to, besides the description */
    double every, next;          /* seconds between two; lsp_clock() of the next one (rank 0) */
    double end;                  /* lsp_clock() at which to stop; infinity: never */
    double not_before;           /* no attempt to stop before that: the last one failed */
    lsp_checkpoint_info resumed; /* of the part at hand */
    lsp_checkpoint_info first;   /* of the first part that was gone on from */
    bool told;                   /* that the part at hand was gone on with */
    int64_t written, failed;     /* checkpoints */
    int64_t bytes;               /* of the last */
    double seconds;              /* for all, of this rank */
    double longest;              /* for one */
    lsp_svd_pause svd;
} lsp_keeper;

/* Local, before MPI_Init. From now on USR1 and TERM ask to stop. */
void lsp_keeper_listen(void);

/* Collective. By section [checkpoint]: probes the file, looks what is there to go on from and takes its instruction set
 * into input->desc. parts: what is computed one after the other, each with a file of its own; 0: what is computed
 * cannot be saved. Without checkpoints TERM ends the program again, and USR1 is ignored. On failure too, lsp_keeper_close is to be
 * called. */
lsp_status lsp_keeper_open(lsp_app *app, lsp_input *input, int64_t parts, lsp_keeper *keeper);

/* Collective. The same for a run that has other files than Q, K and V. */
lsp_status lsp_keeper_open_kept(lsp_app *app, const lsp_kept *kept, int64_t parts, lsp_keeper *keeper);

/* Collective. Turns to a part: looks what is there of it. */
lsp_status lsp_keeper_turn(lsp_keeper *keeper, int64_t part);

/* Collective. Loads the state where there is one, and makes executions of the plan rest when they should. */
lsp_status lsp_keeper_attach(lsp_keeper *keeper, lsp_attention *plan, void *out);

/* Local. The same for a decomposition of the part at hand; NULL where it never rests. */
const lsp_svd_pause *lsp_keeper_svd(lsp_keeper *keeper);

/* For a run that saves and loads by itself. Local: what this rank wants. */
lsp_want lsp_keeper_want(const lsp_keeper *keeper);

/* Local; the same on every rank. What follows from a state that was saved since `begin`, or was not (status). */
lsp_status lsp_keeper_conclude(lsp_keeper *keeper, lsp_want why, lsp_status status, int64_t bytes,
                               double begin);

/* Local. The run ends, and its state is there: LSP_INTERRUPTED. */
lsp_status lsp_keeper_stop(lsp_keeper *keeper);

/* Local. The state that was found has been loaded: tells so. */
void lsp_keeper_resumed(lsp_keeper *keeper);

/* Local. For a run that keeps no state: a pause that ends an execution on TERM, with LSP_TERMINATED; `user` is the app. */
lsp_pause lsp_keeper_ending(lsp_app *app);

/* Collective. The run has its result: removes the checkpoints. */
lsp_status lsp_keeper_finish(lsp_keeper *keeper);

/* Local. */
void lsp_keeper_close(lsp_keeper *keeper);

/* Local. Adds `checkpoint` to a report; a line for people. */
void lsp_keeper_add_json(cJSON *object, const lsp_keeper *keeper);
void lsp_keeper_print(const lsp_keeper *keeper);

#endif
