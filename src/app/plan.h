/* Inside of `longspan plan`: what its parts share. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_PLAN_H
#define LSP_APP_PLAN_H

#include "app/layer.h"

#include <longspan/plan.h>

/* One method that the planned command runs: `compare` has several, others one. */
typedef struct lsp_plan_item {
    lsp_attention_desc desc;
    double repeats; /* executions */
} lsp_plan_item;

/* How a run is started. */
typedef struct lsp_plan_setting {
    int ranks, ranks_per_node, threads;
    int64_t panel_rows; /* 0: chosen by the library */
} lsp_plan_setting;

/* What a run with one setting takes. */
typedef struct lsp_plan_outcome {
    lsp_plan_setting setting;
    lsp_estimate estimate; /* of the first item; footprint: of the one that needs most */
    lsp_plan_time time;    /* of all items */
    double node_bytes;     /* of the ranks of a node */
} lsp_plan_outcome;

typedef struct lsp_plan_job {
    lsp_app *app;
    lsp_app as;      /* as the planned command sees itself */
    const char *why; /* it is that one: a key */
    lsp_plan_kind kind;
    bool compares;   /* the planned command is `compare` */
    bool from_shape; /* no input is looked at */
    lsp_input input;
    lsp_layer_input layer; /* kind layer; input is unused then */
    lsp_plan_item *items;
    int64_t count;
    double input_bytes, output_bytes;
    int64_t d_model, verify_rows;

    lsp_plan_rates rates;
    char source[160]; /* where the rates are from */
    double memory_limit;
    const char *limit_source;
    int cores, sockets; /* of a node */

    lsp_plan_outcome asked, advised;
} lsp_plan_job;

/* Collective. Decides which command is planned (plan.command, or by the deck's keys), and opens what it reads. On failure
 * too, lsp_plan_input_close is to be called. */
lsp_status lsp_plan_input_open(lsp_plan_job *job);
void lsp_plan_input_close(lsp_plan_job *job);

/* Collective. What the machine does in a second: plan.flops_per_rank, plan.bench, or measured here. */
lsp_status lsp_plan_rates_take(lsp_plan_job *job);

/* Local; the text of a failure is in the context. Counts and times a run with a setting. */
lsp_status lsp_plan_try(const lsp_plan_job *job, const lsp_plan_setting *setting, lsp_plan_outcome *outcome);

/* Local. The setting of as many nodes that takes least: fills job->advised. */
lsp_status lsp_plan_advise(lsp_plan_job *job);

/* Local. The command that submits a run with the advised setting, with time and memory to spare (lsp_memory_free); NULL
 * when there is no memory. */
char *lsp_plan_submit(const lsp_plan_job *job);

/* Local. */
int lsp_plan_nodes(const lsp_plan_setting *setting);

/* Local (rank 0). The plan in words, without the last line; the report. submit: see above. */
void lsp_plan_print(const lsp_plan_job *job, const char *submit);
cJSON *lsp_plan_json(const lsp_plan_job *job, const char *submit);

#endif
