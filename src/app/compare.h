/* Inside of `longspan compare`: what its parts share. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_COMPARE_H
#define LSP_APP_COMPARE_H

#include "app/checkpoint.h"
#include "app/report.h"

#include <stdio.h>

/* One row of the table. */
typedef struct lsp_compare_item {
    lsp_attention_desc desc;
    const char *parameter; /* its key's name, "" for exact */
    double value;
    double work; /* of one execution: operations */
    lsp_compare_result *result;
    lsp_compare_head *heads; /* [batch * heads] */
} lsp_compare_item;

typedef struct lsp_compare_job {
    lsp_app *app;
    lsp_input input;
    lsp_operands operands; /* without an output */
    lsp_compare *compare;
    lsp_compare_options options;
    lsp_compare_item *items;     /* exact first */
    int64_t count, done;         /* items, and those computed */
    lsp_compare_result *results; /* [count] */
    bool *front;                 /* [count] no other is better in both error and time */
    lsp_compare_head *heads;     /* of all items */
    unsigned scaled;             /* bit (1 << method): its values were chosen here, by the length */
    const char
        *left_out; /* why lowrank was not run, though it might have been; NULL: it was, or not asked for */
    double work;   /* of everything */
    double peak_gflops;
    double read, compared; /* seconds of this rank */
    const char *memory_source;
    int64_t rss_max; /* over ranks */
    bool passed;     /* nothing verified was wrong */
    lsp_keeper keeper;
    char *marks;          /* the keeper's, and the methods */
    int64_t begun, saved; /* items that were done at the start; that the state has, -1: there is none */
} lsp_compare_job;

/* Local; the same on every rank. Fills items by the options: exact, and a method for each value of the lists. The
 * text of a failure is in the context. */
lsp_status lsp_compare_items(lsp_compare_job *job);

/* Local. "block 256"; lowrank with a tolerance alone "lowrank to 0.1". */
enum { LSP_COMPARE_NAME = 64 };
const char *lsp_compare_name(const lsp_compare_item *item, char *text);

/* Local. Heads of the file. */
int64_t lsp_compare_file_head(const lsp_compare_job *job, int64_t head);

/* Collective. The keeper is open, and items are known: makes what a state belongs to, and lets executions rest. */
lsp_status lsp_compare_state_open(lsp_compare_job *job);

/* Collective, operands are read. Takes the methods that a state has. */
lsp_status lsp_compare_state_load(lsp_compare_job *job);

/* Collective. A method is finished: saves where that is asked for, or the next cannot be stopped; and stops. */
lsp_status lsp_compare_state_rest(lsp_compare_job *job);

/* Local (rank 0). The summary without the last line; the report; the picture's commands (lsp_plot_fn). */
void lsp_compare_print(const lsp_compare_job *job);
cJSON *lsp_compare_json(const lsp_compare_job *job);
void lsp_compare_plot(FILE *stream, const void *job);

#endif
