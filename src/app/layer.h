/* The input and the report of `longspan layer`. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_LAYER_H
#define LSP_APP_LAYER_H

#include "app/checkpoint.h"
#include "app/report.h"

/* Datasets of the weights; the biases and norms may be missing. */
enum {
    LSP_WEIGHT_QKV,
    LSP_WEIGHT_QKV_BIAS,
    LSP_WEIGHT_OUT,
    LSP_WEIGHT_OUT_BIAS,
    LSP_WEIGHT_Q_NORM,
    LSP_WEIGHT_K_NORM,
    LSP_WEIGHT_COUNT
};

typedef struct lsp_layer_input {
    lsp_source x, context;
    lsp_source parts[LSP_WEIGHT_COUNT]; /* tensor NULL: not there, or not wanted */
    void *arrays[LSP_WEIGHT_COUNT];     /* read, on every rank */
    char *weights_file, *weights_group; /* group: "" for the root */
    lsp_input rule;                     /* what scores, documents and key lengths need; no tensors */
    lsp_layer_desc desc;                /* its attention points into rule */
    lsp_layer_weights weights;          /* points to arrays */
    int64_t nonfinite;                  /* in weights, x and context */
} lsp_layer_input;

/* Collective. Opens x, the context and the weights, checks that they fit together and with [layer], reads the weights
 * and fills desc by the options. On failure too, lsp_layer_input_close is to be called. */
lsp_status lsp_layer_input_open(lsp_app *app, lsp_layer_input *input);

/* Collective. The same, but for the weights' values: input->weights stays empty. */
lsp_status lsp_layer_input_look(lsp_app *app, lsp_layer_input *input);

/* Local. Heads and kv_heads of the description from [layer]; LSP_ERR_USAGE. */
lsp_status lsp_layer_input_take_heads(lsp_app *app, lsp_attention_desc *desc);

/* Collective. Opens the weights (the file named first) and checks their shapes; x is open. Then reads them. */
lsp_status lsp_layer_weights_open(lsp_app *app, lsp_layer_input *input);
lsp_status lsp_layer_weights_read(lsp_app *app, lsp_layer_input *input);

/* Collective. */
void lsp_layer_input_close(lsp_layer_input *input);

typedef enum lsp_layer_phase {
    LSP_LAYER_READ,
    LSP_LAYER_PROJECT,
    LSP_LAYER_EXCHANGE,
    LSP_LAYER_COMPUTE,
    LSP_LAYER_GATHER,
    LSP_LAYER_EXECUTE, /* all of them but read: from x to y in memory */
    LSP_LAYER_VERIFY,
    LSP_LAYER_WRITE,
    LSP_LAYER_TOTAL,
    LSP_LAYER_PHASES
} lsp_layer_phase;

typedef struct lsp_layer_report {
    const lsp_layer_input *input;
    const lsp_keeper *keeper;
    const char *output; /* file, or NULL */
    lsp_estimate estimate;
    lsp_isa isa;
    const char *memory_source;
    double seconds[LSP_LAYER_PHASES]; /* of this rank */
    double flops, project_flops, peak_gflops, received;
    int64_t empty_rows;
    bool verified, end_to_end;
    lsp_verify_result verify;
    lsp_certificate certificate;
    uint64_t checksum;

    /* By lsp_layer_report_collect. */
    lsp_statistic phases[LSP_LAYER_PHASES];
    double received_all, gflops, efficiency, project_gflops;
    int64_t rss_max;
} lsp_layer_report;

/* Collective. Fills what is over all ranks. */
void lsp_layer_report_collect(lsp_app *app, lsp_layer_report *report);

/* Local (rank 0). The closing summary, with the last line. */
void lsp_layer_report_print(lsp_app *app, const lsp_layer_report *report);

/* Local. */
cJSON *lsp_layer_report_json(const lsp_app *app, const lsp_layer_report *report);

#endif
